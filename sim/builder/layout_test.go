package builder

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/registry"
	"github.com/layersim/layersim/sim/world"
)

const follower = "create-digest-configmap"

// newer is a build pod of upstream's newer releases: what waits for the build in others follows it.
func newer(name string) *corev1.Pod {
	p := pod(name)
	p.Spec.InitContainers, p.Spec.Containers = p.Spec.Containers[:1], p.Spec.Containers[1:]
	p.Spec.Containers[0].Name = follower
	for i := range p.Spec.InitContainers[0].Env {
		if e := &p.Spec.InitContainers[0].Env[i]; e.Name == "DIGEST_CONFIGMAP_LABELS" {
			e.Value = strings.ReplaceAll(e.Value, ",", " ")
		}
	}
	return p
}

// oneLine is what there is to see of a pod: each container's state, and the conditions that are true.
func oneLine(p *corev1.Pod) string {
	state := func(list []corev1.ContainerStatus) string {
		var words []string
		for _, c := range list {
			switch s := c.State; {
			case s.Running != nil:
				words = append(words, "running")
			case s.Terminated != nil:
				words = append(words, fmt.Sprintf("%s(%d)", s.Terminated.Reason, s.Terminated.ExitCode))
			default:
				words = append(words, s.Waiting.Reason)
			}
		}
		return strings.Join(words, "+")
	}
	var conditions []string
	for _, c := range p.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			conditions = append(conditions, string(c.Type))
		}
	}
	slices.Sort(conditions)
	return strings.Join([]string{string(p.Status.Phase), state(p.Status.InitContainerStatuses), state(p.Status.ContainerStatuses),
		strings.Join(conditions, ",")}, " | ")
}

// lines lets the world run and returns how the pod looked, each time it changed.
func (b *bench) lines(d time.Duration) []string {
	var lines []string
	for range d / time.Second {
		b.run(time.Second)
		if p := b.get(); p != nil {
			if l := oneLine(p); len(lines) == 0 || lines[len(lines)-1] != l {
				lines = append(lines, l)
			}
		}
	}
	return lines
}

func TestInitContainer(t *testing.T) {
	b := newBench(t, nil)
	b.inputs(frame + user)
	b.create(newer("build-layered-1-x"))
	got := b.lines(10 * time.Minute)
	want := []string{
		"Pending | PodInitializing | PodInitializing | ",
		"Pending | running | PodInitializing | PodReadyToStartContainers",
		"Pending | Completed(0) | PodInitializing | Initialized,PodReadyToStartContainers",
		"Running | Completed(0) | running | ContainersReady,Initialized,PodReadyToStartContainers,Ready",
		"Succeeded | Completed(0) | Completed(0) | Initialized",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	p := b.get()
	build, digest := p.Status.InitContainerStatuses[0], p.Status.ContainerStatuses[0]
	if build.State.Terminated.FinishedAt.After(digest.State.Terminated.StartedAt.Time) || !build.Ready {
		t.Errorf("%+v\n%+v", build, digest)
	}
	var cm corev1.ConfigMap
	must(t, b.c.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: "digest-layered-1"}, &cm))
	img, err := b.registry.Image(tagRef)
	must(t, err)
	h, err := img.Digest()
	must(t, err)
	if cm.Data["digest"] != h.String() || cmp.Diff(map[string]string{"a/b": "c", "d": ""}, cm.Labels) != "" {
		t.Errorf("%v %v, want %s", cm.Data, cm.Labels, h)
	}
	if l := b.log(follower); l.ExitCode != 0 || l.Log != "configmap/digest-layered-1 created\n" {
		t.Errorf("%+v", l)
	}
	if l := b.log(ContainerBuild); l.ExitCode != 0 || !strings.HasSuffix(l.Log, h.String()+"\n") {
		t.Errorf("%+v", l)
	}
	if diff := cmp.Diff([]string{"Started container image-build", "Started container " + follower}, b.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// What fails in an init container leaves the one after it unstarted.
func TestInitContainerEndsBadly(t *testing.T) {
	running := []string{
		"Pending | PodInitializing | PodInitializing | ", "Pending | running | PodInitializing | PodReadyToStartContainers",
	}
	for _, tt := range []struct {
		name    string
		change  func(*bench)
		act     func(*bench)
		want    []string
		logs    int
		removed bool
	}{
		{
			name: "build fails", change: func(b *bench) { b.repositories.SetReachable("*", false) },
			want: append(slices.Clip(running), "Failed | Error(1) | PodInitializing | "), logs: 1,
		},
		{
			name: "push fails", change: func(b *bench) {
				b.registry.SetAccount(registry.Account{Name: finalPusher.Name, Password: "another", Push: finalPusher.Push})
			},
			want: append(slices.Clip(running), "Failed | Error(1) | PodInitializing | "), logs: 1,
		},
		{
			name: "digest fails", change: before(PhaseDigest, &ExitError{Code: 3, Message: "no"}),
			want: append(slices.Clip(running), "Pending | Completed(0) | PodInitializing | Initialized,PodReadyToStartContainers",
				"Running | Completed(0) | running | ContainersReady,Initialized,PodReadyToStartContainers,Ready",
				"Failed | Completed(0) | Error(3) | Initialized"), logs: 2,
		},
		{
			name: "deleted", act: func(b *bench) { must(t, b.c.Delete(context.Background(), b.get())) },
			logs: 1, removed: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.change)
			b.inputs(frame + user)
			b.create(newer("build-layered-1-x"))
			if tt.act != nil {
				b.run(time.Minute)
				tt.act(b)
			}
			got := b.lines(10 * time.Minute)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(b.logs) != tt.logs {
				t.Errorf("logs: %+v", b.logs)
			}
			if removed := b.get() == nil; removed != tt.removed {
				t.Errorf("removed: %v", removed)
			}
			if tt.removed && b.logs[0].ExitCode != 143 {
				t.Errorf("%+v", b.logs)
			}
		})
	}
}

// A restart at any second changes nothing; and a process that is lost starts over without the status going back.
func TestInitContainerRestart(t *testing.T) {
	result := func(disturb func(*bench)) string {
		b := newBench(t, nil)
		b.inputs(frame + user)
		b.create(newer("build-layered-1-x"))
		disturb(b)
		b.run(15 * time.Minute)
		p := b.get()
		return fmt.Sprint(oneLine(p), b.log(ContainerBuild).Log, b.log(follower).Log, p.Status.ContainerStatuses[0].State.Terminated.FinishedAt)
	}
	want := result(func(*bench) {})
	for at := time.Second; at < 6*time.Minute; at += 37 * time.Second {
		got := result(func(b *bench) {
			b.run(at)
			must(t, b.process.Restart())
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("restart after %s:\n%s", at, diff)
		}
	}
	for write := 1; write <= 6; write++ {
		for _, after := range []bool{false, true} {
			got := result(func(b *bench) {
				fired := false
				b.process.CrashAt(world.Crash{After: after, Write: write, Fired: func(string) { fired = true }})
				b.run(10 * time.Minute)
				if fired && !b.process.Running() {
					must(t, b.process.StartAgain())
				}
			})
			if !strings.HasPrefix(got, "Succeeded | Completed(0) | Completed(0) | Initialized") {
				t.Errorf("crash after=%v write %d: %s", after, write, got)
			}
		}
	}

	b := newBench(t, nil)
	b.inputs(frame + user)
	b.create(newer("build-layered-1-x"))
	b.run(2 * time.Minute)
	started := b.get().Status.InitContainerStatuses[0].State.Running.StartedAt
	b.process.Stop()
	if _, err := b.w.Start("build-pods-2", 1, New(b.opts)); err != nil {
		t.Fatal(err)
	}
	lines := b.lines(10 * time.Minute)
	if !strings.HasPrefix(lines[0], "Pending | running") || !strings.HasPrefix(lines[len(lines)-1], "Succeeded") {
		t.Errorf("%q", lines)
	}
	if got := b.get().Status.InitContainerStatuses[0].State.Terminated.StartedAt; !got.Equal(&started) {
		t.Errorf("started at %s, before at %s", got, started)
	}
}

// Scripts of older releases create the ConfigMap and fail when there is one; others update it.
func TestDigestIsThere(t *testing.T) {
	for _, tt := range []struct {
		name, command string
		make          func(string) *corev1.Pod
		want          corev1.PodPhase
		digest        bool
	}{
		{"oc create", "oc create configmap \\\n\t\"$DIGEST_CONFIGMAP_NAME\"", pod, corev1.PodFailed, false},
		{"updated", "machine-os-builder create-digest-configmap", pod, corev1.PodSucceeded, true},
		{"init container", "machine-os-builder create-digest-configmap", newer, corev1.PodSucceeded, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, nil)
			b.inputs(frame + user)
			old := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "digest-layered-1"}}
			old.Data = map[string]string{"digest": "old"}
			b.create(old)
			p := tt.make("build-layered-1-x")
			p.Spec.Containers[len(p.Spec.Containers)-1].Command = []string{"/bin/bash", "-c", tt.command}
			b.create(p)
			b.run(10 * time.Minute)
			if got := b.get().Status.Phase; got != tt.want {
				t.Errorf("the pod is %s: %+v", got, b.logs)
			}
			must(t, b.c.Get(context.Background(), client.ObjectKeyFromObject(old), old))
			if updated := old.Data["digest"] != "old"; updated != tt.digest {
				t.Errorf("digest %s", old.Data["digest"])
			}
		})
	}
}

// The lines that upstream puts around the user's, which no other shell script here has.
func TestUpstreamFrame(t *testing.T) {
	b := newBench(t, nil)
	b.inputs("FROM " + baseRef + ` AS configs
RUN container="oci" exec -a apply /usr/lib/ignition --ignore-unsupported <(cat /etc/hostname | jq '.spec.config') && \
	ostree container commit

RUN --mount=type=bind,from=` + baseRef + `,source=/,target=/tmp/content,bind-propagation=rshared,z \
    bash <<'EOF'
set -xeuo pipefail

cat > /etc/yum.repos.d/extra.repo <<REPO
[extra]
baseurl=/tmp/content/
REPO

chmod 644 /etc/yum.repos.d/extra.repo
wanted="usbguard"
echo "Installing: $wanted"
rpm-ostree install $wanted
rm /etc/yum.repos.d/extra.repo
EOF

RUN test ! -f /usr/lib/tmpfiles.d/usbguard.conf || rm /usr/lib/tmpfiles.d/usbguard.conf
RUN echo -e "d /var/log/usbguard 0755 root root -\nd /var/lib/ipsec 0700 root root -" > /usr/lib/tmpfiles.d/ipsec.conf
RUN update-ca-trust
LABEL machineconfig=rendered-layered-1
LABEL baseOSContainerImage=` + baseRef + "\n\n\n" + user)
	b.create(newer("build-layered-1-x"))
	b.run(20 * time.Minute)
	if p := b.get(); p.Status.Phase != corev1.PodSucceeded {
		t.Fatalf("the pod is %s: %+v", p.Status.Phase, b.logs)
	}
	img, err := b.registry.Image(tagRef)
	must(t, err)
	l, err := Inspect(img)
	must(t, err)
	var names []string
	packages, err := Packages(img)
	must(t, err)
	for _, p := range packages {
		names = append(names, p.Name)
	}
	if !slices.Contains(names, "usbguard") || !slices.Contains(names, "tree") || l.Base != baseRef {
		t.Errorf("base %s, packages %v\n%s", l.Base, names, b.log(ContainerBuild).Log)
	}
}
