package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/registry"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

const (
	namespace = "openshift-machine-config-operator"
	baseRef   = "quay.io/openshift/base:4.18"
	tagRef    = "image-registry.openshift-image-registry.svc:5000/ocl/os-images:layered-1"
	user      = "FROM configs AS final\nRUN rpm-ostree install tree && \\\n    ostree container commit\n"
)

var (
	basePuller  = registry.Account{Name: "puller", Password: "pull-password", Pull: []string{"openshift/*"}}
	finalPusher = registry.Account{Name: "pusher", Password: "push-password", Push: []string{"ocl/*"}}
)

// bench is an API server with a pod, a registry with the base image, and the component.
type bench struct {
	t            *testing.T
	w            *world.World
	s            *store.Store
	c            client.Client
	registry     *registry.Registry
	repositories *Repositories
	opts         Options
	process      *world.Process
	logs         []history.Pod
	rows         []string // what oc get pods shows, each time it changes
	events       []string
	authors      map[string]bool
}

func newBench(t *testing.T, change func(*bench)) *bench {
	t.Helper()
	clock := world.NewClock(time.Date(2025, 2, 12, 19, 0, 0, 0, time.UTC))
	b := &bench{t: t, repositories: DefaultRepositories(), authors: map[string]bool{}}
	b.s = store.New(store.Options{Clock: clock, Seed: 1})
	b.w = world.New(world.Options{Store: b.s, Clock: clock, Seed: 1})
	b.c = b.s.Client(store.ClientOptions{Author: "admin"})
	b.registry = registry.New(registry.Options{Hosts: []string{"quay.io", "image-registry.openshift-image-registry.svc:5000"}})
	b.registry.SetAccount(basePuller)
	b.registry.SetAccount(finalPusher)
	if _, err := b.registry.PutImage(baseRef, baseImage(t)); err != nil {
		t.Fatal(err)
	}
	b.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	b.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	b.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker-0"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.7"}}}})
	b.s.OnChange(func(c *store.Change) {
		b.authors[c.Author] = true
		switch {
		case c.GVK.Kind == "Event" && c.New != nil:
			note, _ := c.New.Unstructured().Object["note"].(string)
			if note == "" {
				note, _ = c.New.Unstructured().Object["message"].(string)
			}
			b.events = append(b.events, note)
		case c.GVK.Kind == "Pod" && c.New != nil:
			var pod corev1.Pod
			raw, err := c.New.Unstructured().MarshalJSON()
			if err == nil {
				err = json.Unmarshal(raw, &pod)
			}
			if err != nil {
				t.Error(err)
			}
			if r := row(&pod); len(b.rows) == 0 || b.rows[len(b.rows)-1] != r {
				b.rows = append(b.rows, r)
			}
		}
	})
	b.opts = Options{
		Transport: b.registry.Transport, Repositories: b.repositories,
		Observe: func(p history.Pod) { b.logs = append(b.logs, p) },
		Client:  func(caller string) client.Client { return b.s.Client(store.ClientOptions{Author: caller}) },
	}
	if change != nil {
		change(b)
	}
	var err error
	if b.process, err = b.w.Start("build-pods", 1, New(b.opts)); err != nil {
		t.Fatal(err)
	}
	return b
}

// row is what oc get pods prints of a pod: READY and STATUS.
func row(pod *corev1.Pod) string {
	ready, status := 0, string(pod.Status.Phase)
	for _, cs := range slices.Backward(pod.Status.ContainerStatuses) {
		if cs.Ready {
			ready++
		}
		switch {
		case cs.State.Waiting != nil:
			status = cs.State.Waiting.Reason
		case cs.State.Terminated != nil:
			status = cs.State.Terminated.Reason
		}
	}
	if status == "Completed" && pod.Status.Phase == corev1.PodRunning {
		status = "NotReady"
	}
	if pod.DeletionTimestamp != nil {
		status = "Terminating"
	}
	return fmt.Sprintf("%d/%d %s", ready, len(pod.Spec.Containers), status)
}

func (b *bench) create(o client.Object) {
	b.t.Helper()
	if err := b.c.Create(context.Background(), o); err != nil {
		b.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
}

func secret(name, host string, a registry.Account) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: registry.DockerConfigJSON(host, a)},
	}
}

// inputs creates what the pod mounts.
func (b *bench) inputs(content string) {
	b.create(configMap("containerfile-layered-1", map[string]string{"Containerfile": content}))
	b.create(configMap("mc-layered-1", map[string]string{"machineconfig.json.gz": string(machineConfig(b.t))}))
	b.create(secret("base-layered-1", "quay.io", basePuller))
	b.create(secret("final-layered-1", "image-registry.openshift-image-registry.svc:5000", finalPusher))
}

// pod is a build pod as the build controller's Job makes them.
func pod(name string) *corev1.Pod {
	env := []corev1.EnvVar{
		{Name: "DIGEST_CONFIGMAP_NAME", Value: "digest-layered-1"}, {Name: "DIGEST_CONFIGMAP_LABELS", Value: "a/b=c,d="},
		{Name: "TAG", Value: tagRef}, {Name: "BASE_IMAGE_PULL_CREDS", Value: "/tmp/base-image-pull-creds/config.json"},
		{Name: "FINAL_IMAGE_PUSH_CREDS", Value: "/tmp/final-image-push-creds/config.json"},
	}
	optional := true
	cm := func(volume, object string) corev1.Volume {
		return corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: object}}}}
	}
	creds := func(volume, object string) corev1.Volume {
		return corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: object, Items: []corev1.KeyToPath{{Key: corev1.DockerConfigJsonKey, Path: "config.json"}}}}}
	}
	policy := cm("etc-policy", "etc-policy-layered-1")
	policy.ConfigMap.Optional = &optional
	mounts := []corev1.VolumeMount{
		{Name: "machineconfig", MountPath: "/tmp/machineconfig"}, {Name: "containerfile", MountPath: "/tmp/containerfile"},
		{Name: "etc-policy", MountPath: "/etc/containers/policy.json", SubPath: "policy.json"},
		{Name: "base-image-pull-creds", MountPath: "/tmp/base-image-pull-creds"},
		{Name: "final-image-push-creds", MountPath: "/tmp/final-image-push-creds"}, {Name: "done", MountPath: "/tmp/done"},
	}
	container := func(name string) corev1.Container {
		return corev1.Container{Name: name, Image: "quay.io/mco", Env: env, VolumeMounts: mounts,
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, NodeName: "worker-0",
			Containers: []corev1.Container{container("image-build"), container("wait-for-done")},
			Volumes: []corev1.Volume{cm("machineconfig", "mc-layered-1"), cm("containerfile", "containerfile-layered-1"), policy,
				creds("base-image-pull-creds", "base-layered-1"), creds("final-image-push-creds", "final-layered-1"),
				{Name: "done", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		},
	}
}

func (b *bench) get() *corev1.Pod {
	b.t.Helper()
	var p corev1.Pod
	err := b.c.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: "build-layered-1-x"}, &p)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return &p
}

// run lets the world run for some time.
func (b *bench) run(d time.Duration) {
	b.t.Helper()
	over := false
	b.w.Deadline(d, func() { over = true })
	for range 100_000 {
		outcome, err := b.w.Step()
		if err != nil {
			b.t.Fatal(err)
		}
		if outcome == world.DeadEnd {
			b.w.Jump()
		}
		if over {
			return
		}
	}
	b.t.Fatal("too many steps")
}

func (b *bench) log(container string) history.Pod {
	b.t.Helper()
	var found []history.Pod
	for _, l := range b.logs {
		if l.Container == container {
			found = append(found, l)
		}
	}
	if len(found) != 1 {
		b.t.Fatalf("%d logs of container %s, want 1", len(found), container)
	}
	return found[0]
}

func TestSuccess(t *testing.T) {
	b := newBench(t, nil)
	b.inputs(frame + user)
	b.create(pod("build-layered-1-x"))
	b.run(10 * time.Minute)
	if diff := cmp.Diff([]string{"0/2 Pending", "0/2 ContainerCreating", "2/2 Running", "1/2 NotReady", "0/2 Completed"}, b.rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	p := b.get()
	if p.Status.Phase != corev1.PodSucceeded || p.Status.HostIP != "10.0.0.7" || p.Status.PodIP == "" {
		t.Errorf("%+v", p.Status)
	}
	// 5 s to start, 1 GiB at 50 MiB/s, 4 min and 20 s for a package, 1 GiB and a layer at 25 MiB/s.
	took := p.Status.ContainerStatuses[0].State.Terminated.FinishedAt.Sub(p.Status.StartTime.Time)
	if took < 5*time.Minute+20*time.Second || took > 5*time.Minute+40*time.Second {
		t.Errorf("took %s", took)
	}
	var cm corev1.ConfigMap
	if err := b.c.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: "digest-layered-1"}, &cm); err != nil {
		t.Fatal(err)
	}
	img, err := b.registry.Image(tagRef)
	if err != nil {
		t.Fatal(err)
	}
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if cm.Data["digest"] != h.String() {
		t.Errorf("digest %s, want %s", cm.Data["digest"], h)
	}
	if diff := cmp.Diff(map[string]string{"a/b": "c", "d": ""}, cm.Labels); diff != "" {
		t.Error(diff)
	}
	if !b.authors["build-pod/build-layered-1-x"] {
		t.Errorf("the ConfigMap was not written by the pod: %v", b.authors)
	}
	for _, e := range b.registry.Journal() {
		if e.Caller != "build-pod/build-layered-1-x" {
			t.Errorf("caller %s", e.Caller)
		}
	}
	if l := b.log("image-build"); l.ExitCode != 0 || !strings.Contains(l.Log, "tree-1.8.0-10.el9.x86_64") || !strings.HasSuffix(l.Log, h.String()+"\n") {
		t.Errorf("%+v", l)
	}
	if l := b.log("wait-for-done"); l.ExitCode != 0 || l.Log != "configmap/digest-layered-1 created\n" {
		t.Errorf("%+v", l)
	}
	if l, err := Inspect(img); err != nil || !l.Layered || l.Created.Second() != l.Created.Round(time.Second).Second() {
		t.Errorf("%+v %v", l, err)
	}
}

func TestFailures(t *testing.T) {
	internal := "image-registry.openshift-image-registry.svc:5000"
	for _, tt := range []struct {
		name    string
		content string
		change  func(*bench)
		want    string // in the log of image-build
		code    int32  // of image-build; default 1
		wait    string // in the log of wait-for-done
	}{
		{name: "base pull secret revoked", change: func(b *bench) { b.registry.RemoveAccount("puller") },
			want: "Error: creating build container: initializing source docker://" + baseRef + ": reading manifest 4.18 in quay.io/openshift/base: unauthorized: authentication required\n"},
		{name: "base pull secret has no right", change: func(b *bench) {
			b.registry.SetAccount(registry.Account{Name: "puller", Password: "pull-password"})
		}, want: "reading manifest 4.18 in quay.io/openshift/base: denied: requested access to the resource is denied\n"},
		{name: "base image gone", change: func(b *bench) { must(b.t, b.registry.Delete(baseRef)) },
			want: "reading manifest 4.18 in quay.io/openshift/base: manifest unknown: Unknown manifest\n"},
		{name: "unknown registry", content: "FROM registry.example.com/x/y:1\nRUN true\n",
			want: "pinging container registry registry.example.com: Get \"https://registry.example.com/v2/\": dial tcp: lookup registry.example.com: no such host\n"},
		{name: "registry down", change: func(b *bench) {
			b.registry.SetErrorHook(func(r *http.Request, _ string) error { return registry.TimedOut(r.URL.Host) })
		}, want: "i/o timeout\n"},
		{name: "registry broken", change: func(b *bench) {
			b.registry.SetHook(func(r *http.Request, _ string) *http.Response { return registry.Answer(r, 503, "", "") })
		}, want: "pinging container registry quay.io: "},
		{name: "push secret revoked", change: func(b *bench) { b.registry.RemoveAccount("pusher") },
			want: "Error: pushing image \"" + tagRef + "\" to \"docker://" + tagRef + "\": reading manifest layered-1 in " + internal + "/ocl/os-images: unauthorized: authentication required\n"},
		{name: "push secret may only pull", change: func(b *bench) {
			b.registry.SetAccount(registry.Account{Name: "pusher", Password: "push-password", Pull: []string{"*"}})
		}, want: ": writing blob: initiating layer upload to /v2/ocl/os-images/blobs/uploads/ in " + internal + ": denied: requested access to the resource is denied\n"},
		{name: "quota", change: func(b *bench) { b.registry.SetQuota(internal+"/ocl/os-images", 1<<20) },
			want: ": writing manifest: uploading manifest layered-1 to " + internal + "/ocl/os-images: denied: quota exceeded\n"},
		{name: "unreachable repository", change: func(b *bench) { b.repositories.SetReachable("*", false) },
			want: "error: Updating rpm-md repo 'rhel-9-baseos': "},
		{name: "unknown package", content: frame + "FROM configs AS final\nRUN rpm-ostree install foo\n",
			want: "error: Packages not found: foo\nError: building at STEP \"RUN rpm-ostree install foo\": while running runtime: exit status 1\n"},
		{name: "no Containerfile", content: "\n", want: "Error: parsing Containerfile: no FROM statement found\n"},
		{name: "fault in pull", change: before(PhasePull, errors.New("injected")), want: "Error: injected\n"},
		{name: "fault in build", change: before(PhaseBuild, errors.New("injected")), want: "Error: injected\n"},
		{name: "fault in push", change: before(PhasePush, errors.New("injected")), want: "Error: injected\n"},
		{name: "fault in digest", change: before(PhaseDigest, errors.New("injected")), want: "sha256:", code: -1, wait: "Error from server: injected\n"},
		{name: "out of memory", change: before(PhaseBuild, &ExitError{Code: 137, Reason: "OOMKilled", Message: "Killed"}), want: "Killed\n", code: 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, tt.change)
			if tt.content == "" {
				tt.content = frame + user
			}
			b.inputs(tt.content)
			b.create(pod("build-layered-1-x"))
			b.run(10 * time.Minute)
			p := b.get()
			if p.Status.Phase != corev1.PodFailed {
				t.Fatalf("phase %s, want Failed\n%v", p.Status.Phase, b.logs)
			}
			l := b.log("image-build")
			if !strings.Contains(l.Log, tt.want) {
				t.Errorf("log has no %q:\n%s", tt.want, l.Log)
			}
			code := tt.code
			switch code {
			case 0:
				code = 1
			case -1:
				code = 0
			}
			terminated := p.Status.ContainerStatuses[0].State.Terminated
			if terminated.ExitCode != code || l.ExitCode != int(code) {
				t.Errorf("exit code %d and %d, want %d", terminated.ExitCode, l.ExitCode, code)
			}
			if code != 0 && !strings.HasSuffix(l.Log, terminated.Message) {
				t.Errorf("message %q is not the end of the log", terminated.Message)
			}
			if code != 0 && terminated.Message == "" {
				t.Error("no termination message")
			}
			if wait := b.log("wait-for-done"); wait.ExitCode != 1 || wait.Log != tt.wait {
				t.Errorf("wait-for-done: %+v", wait)
			}
			if last := b.rows[len(b.rows)-1]; !strings.HasPrefix(last, "0/2 ") || code == 1 && last != "0/2 Error" {
				t.Errorf("row %q", last)
			}
			for _, l := range b.logs {
				if strings.Contains(l.Log, "password") {
					t.Errorf("a password in the log:\n%s", l.Log)
				}
			}
			var cm corev1.ConfigMap
			if err := b.c.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: "digest-layered-1"}, &cm); !apierrors.IsNotFound(err) {
				t.Errorf("digest of a failed build: %v", err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func before(phase string, err error) func(*bench) {
	return func(b *bench) {
		b.opts.Before = func(_ *corev1.Pod, p string) error {
			if p == phase {
				return err
			}
			return nil
		}
	}
}

func TestHangAndDeletion(t *testing.T) {
	for _, phase := range []string{PhasePull, PhaseBuild, PhasePush, PhaseDigest} {
		t.Run(phase, func(t *testing.T) {
			b := newBench(t, before(phase, ErrHang))
			b.inputs(frame + user)
			p := pod("build-layered-1-x")
			p.Finalizers = []string{"batch.kubernetes.io/job-tracking"}
			b.create(p)
			b.run(24 * time.Hour)
			if got := b.get().Status.Phase; got != corev1.PodRunning {
				t.Fatalf("phase %s, want Running", got)
			}
			must(t, b.c.Delete(context.Background(), b.get()))
			b.run(time.Minute)
			got := b.get()
			if got.Status.Phase != corev1.PodFailed || *got.DeletionGracePeriodSeconds != 0 {
				t.Errorf("phase %s, grace %d", got.Status.Phase, *got.DeletionGracePeriodSeconds)
			}
			if l := b.log("wait-for-done"); l.ExitCode != 143 {
				t.Errorf("exit code %d, want 143", l.ExitCode)
			}
			got.Finalizers = nil
			must(t, b.c.Update(context.Background(), got))
			if b.get() != nil {
				t.Error("the pod is still there")
			}
		})
	}
}

func TestDeletionBeforeStart(t *testing.T) {
	b := newBench(t, nil)
	b.create(pod("build-layered-1-x"))
	b.run(time.Minute)
	must(t, b.c.Delete(context.Background(), b.get()))
	b.run(time.Minute)
	if b.get() != nil {
		t.Error("the pod is still there")
	}
	if len(b.logs) > 0 {
		t.Errorf("logs of containers that never ran: %v", b.logs)
	}
}

func TestMissingVolumes(t *testing.T) {
	b := newBench(t, nil)
	b.create(pod("build-layered-1-x"))
	b.run(3 * time.Minute)
	if diff := cmp.Diff([]string{"0/2 Pending", "0/2 ContainerCreating"}, b.rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if !slices.Contains(b.events, `MountVolume.SetUp failed for volume "machineconfig" : configmap "mc-layered-1" not found`) {
		t.Errorf("events: %q", b.events)
	}
	b.inputs(frame + user)
	b.run(15 * time.Minute)
	if got := b.get().Status.Phase; got != corev1.PodSucceeded {
		t.Errorf("phase %s", got)
	}
}

// A volume keeps its content when its object is deleted, and follows it when it changes.
func TestVolumesWhileRunning(t *testing.T) {
	b := newBench(t, nil)
	b.inputs(frame + user)
	b.create(pod("build-layered-1-x"))
	b.run(time.Minute)
	must(t, b.c.Delete(context.Background(), configMap("mc-layered-1", nil)))
	must(t, b.c.Delete(context.Background(), configMap("containerfile-layered-1", nil)))
	rotated := finalPusher
	rotated.Password = "rotated"
	b.registry.SetAccount(rotated)
	must(t, b.c.Update(context.Background(), secret("final-layered-1", "image-registry.openshift-image-registry.svc:5000", rotated)))
	b.run(10 * time.Minute)
	if got := b.get().Status.Phase; got != corev1.PodSucceeded {
		t.Errorf("phase %s\n%v", got, b.logs)
	}
}

func TestOtherPods(t *testing.T) {
	b := newBench(t, nil)
	b.inputs(frame + user)
	unscheduled := pod("build-layered-1-x")
	unscheduled.Spec.NodeName = ""
	b.create(unscheduled)
	other := pod("other")
	other.Spec.Containers = other.Spec.Containers[1:]
	b.create(other)
	b.run(10 * time.Minute)
	if diff := cmp.Diff([]string{"0/2 Pending", "0/1 Pending"}, b.rows); diff != "" {
		t.Error(diff)
	}
}

// TestRestart crashes the component before and after each of its writes, and ends it at any second. What it leaves
// behind must be the same.
func TestRestart(t *testing.T) {
	result := func(disturb func(*bench)) string {
		b := newBench(t, nil)
		b.inputs(frame + user)
		b.create(pod("build-layered-1-x"))
		if disturb != nil {
			disturb(b)
		}
		b.run(15 * time.Minute)
		p := b.get()
		var cm corev1.ConfigMap
		if err := b.c.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: "digest-layered-1"}, &cm); err != nil {
			t.Fatal(err)
		}
		finished := p.Status.ContainerStatuses[1].State.Terminated.FinishedAt.Sub(b.w.Clock.Now().Add(-b.w.Clock.Elapsed()))
		return fmt.Sprint(p.Status.Phase, len(b.logs), b.log("image-build").Log, b.log("wait-for-done").ExitCode, finished, b.registry.Tags("image-registry.openshift-image-registry.svc:5000/ocl/os-images"),
			len(b.registry.Journal()), strings.Join(b.rows, ","))
	}
	want := result(nil)
	for _, after := range []bool{false, true} {
		for write := 1; write <= 7; write++ {
			fired := false
			got := result(func(b *bench) {
				b.process.CrashAt(world.Crash{After: after, Write: write, Fired: func(string) { fired = true }})
				b.run(10 * time.Minute)
				if fired && !b.process.Running() {
					must(t, b.process.StartAgain())
				}
			})
			if !fired {
				if write < 5 {
					t.Errorf("the component made fewer than %d writes", write)
				}
				continue
			}
			// A crash delays the status until the restart; what the pod's process does goes on.
			if strings.Count(got, "tree-1.8.0") != strings.Count(want, "tree-1.8.0") || !strings.HasPrefix(got, "Succeeded2") ||
				!strings.Contains(got, "2/2 Running") || !strings.HasSuffix(got, "0/2 Completed") {
				t.Errorf("crash after=%v write %d:\n%s", after, write, cmp.Diff(want, got))
			}
		}
	}
	for at := time.Second; at < 6*time.Minute; at += 37 * time.Second {
		got := result(func(b *bench) {
			b.run(at)
			must(t, b.process.Restart())
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("restart after %s:\n%s", at, diff)
		}
	}
}

// A process that is lost with its table starts over, and the pod's status does not go back.
func TestLostProcess(t *testing.T) {
	b := newBench(t, nil)
	b.inputs(frame + user)
	b.create(pod("build-layered-1-x"))
	b.run(2 * time.Minute)
	started := b.get().Status.ContainerStatuses[0].State.Running.StartedAt
	b.process.Stop()
	if _, err := b.w.Start("build-pods-2", 1, New(b.opts)); err != nil {
		t.Fatal(err)
	}
	b.run(10 * time.Minute)
	if diff := cmp.Diff([]string{"0/2 Pending", "0/2 ContainerCreating", "2/2 Running", "1/2 NotReady", "0/2 Completed"}, b.rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if got := b.get().Status.ContainerStatuses[0].State.Terminated.StartedAt; !got.Equal(&started) {
		t.Errorf("started at %s, before at %s", got, started)
	}
}

// BenchmarkBuild is a whole build: pull, interpret, push, digest.
func BenchmarkBuild(b *testing.B) {
	for b.Loop() {
		if img, log := buildText(b, frame+user, DefaultRepositories()); img == nil {
			b.Fatal(log)
		}
	}
}
