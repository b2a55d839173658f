package live

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// newDeployed is a second replica's third life, of which nothing has come yet.
func newDeployed(t *testing.T) *deployed {
	t.Helper()
	manifests, err := deployments()
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{ctx: t.Context()}
	e.sequence.init()
	e.gate = &gate{address: "192.0.2.1:3128"}
	e.Server = &Server{manifests: manifests}
	e.Logs = t.TempDir()
	p := &process{engine: e, name: "machine-os-builder", replicas: 2, running: []*incarnation{{replica: "machine-os-builder"}}}
	d := &deployed{process: p, name: p.freeName(), id: "machine-os-builder-3", manifest: &appsv1.Deployment{},
		there: map[string]bool{}, streams: map[string]chan struct{}{}, stop: func() {}}
	d.life = &incarnation{ended: make(chan struct{}), ready: make(chan error, 1), replica: d.name}
	p.running = append(p.running, d.life)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(manifests[p.name].Object, d.manifest); err != nil {
		t.Fatal(err)
	}
	d.fit(Deployment{Image: "example.com/controllers:1", Node: "layersim.io/world"})
	return d
}

// Each replica is a Deployment of its own, whose pods no other selects.
func TestFit(t *testing.T) {
	d := newDeployed(t)
	if d.name != "machine-os-builder-2" || d.manifest.Name != d.name {
		t.Errorf("the second replica is %s, in Deployment %s", d.name, d.manifest.Name)
	}
	selector, err := metav1.LabelSelectorAsSelector(d.manifest.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	template := d.manifest.Spec.Template
	other := map[string]string{"k8s-app": "machine-os-builder", replicaLabel: "machine-os-builder"}
	if !selector.Matches(labels.Set(template.Labels)) || selector.Matches(labels.Set(other)) {
		t.Errorf("selector %s; template has %v, the other replica %v", selector, template.Labels, other)
	}
	if diff := cmp.Diff(map[string]string{"layersim.io/world": "true"}, template.Spec.NodeSelector); diff != "" {
		t.Error(diff)
	}
	env := map[string]string{}
	c := template.Spec.Containers[0]
	for _, e := range c.Env {
		env[e.Name] = e.Value
	}
	if c.Image != "example.com/controllers:1" || env["HTTPS_PROXY"] != "http://machine-os-builder:-@192.0.2.1:3128" || env["KUBECONFIG"] != "/etc/layersim/kubeconfig" {
		t.Errorf("image %s, environment %v", c.Image, env)
	}
	again := newDeployed(t)
	if again.manifest.Spec.Selector.MatchLabels[replicaLabel] == "" || len(d.process.engine.Server.manifests) != 2 {
		t.Error("the manifests were changed")
	}
	// Another run's pod that is still ending has a Secret of another name.
	secret := func(d *deployed) string {
		spec := d.manifest.Spec.Template.Spec
		return spec.Volumes[len(spec.Volumes)-1].Secret.SecretName
	}
	if secret(d) == secret(again) || secret(d) != template.Labels[incarnationLabel] || !strings.HasPrefix(secret(d), d.id+"-") {
		t.Errorf("Secrets %s and %s, of incarnation %s", secret(d), secret(again), template.Labels[incarnationLabel])
	}
}

// What a pod's status says of the replica: it runs, it will never run, it ended by itself, it ended as it was asked to.
func TestPods(t *testing.T) {
	pod := func(change func(*corev1.Pod, *corev1.ContainerStatus)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: corev1.PodStatus{ContainerStatuses: make([]corev1.ContainerStatus, 1)}}
		change(p, &p.Status.ContainerStatuses[0])
		return p
	}
	told := func(d *deployed) string {
		select {
		case err := <-d.life.ready:
			if err != nil {
				return err.Error()
			}
			return "ready"
		default:
			return ""
		}
	}
	ready := pod(func(_ *corev1.Pod, s *corev1.ContainerStatus) { s.Ready = true })
	t.Run("ready", func(t *testing.T) {
		d := newDeployed(t)
		d.saw(t.Context(), pod(func(_ *corev1.Pod, s *corev1.ContainerStatus) {
			s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		}))
		if got := told(d); got != "" {
			t.Errorf("told %q while the container is created", got)
		}
		d.saw(t.Context(), ready)
		d.saw(t.Context(), ready)
		if got := told(d); got != "ready" {
			t.Errorf("told %q", got)
		}
	})
	t.Run("no image", func(t *testing.T) {
		d := newDeployed(t)
		d.saw(t.Context(), pod(func(_ *corev1.Pod, s *corev1.ContainerStatus) {
			s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ErrImageNeverPull", Message: "no image x"}
		}))
		if got := told(d); got != "pod a: ErrImageNeverPull: no image x" {
			t.Errorf("told %q", got)
		}
	})
	t.Run("asked to end", func(t *testing.T) {
		d := newDeployed(t)
		d.saw(t.Context(), ready)
		d.gone(ready) // somebody removed it: the Deployment makes another
		d.saw(t.Context(), ready)
		d.stopping = true
		d.saw(t.Context(), pod(func(_ *corev1.Pod, s *corev1.ContainerStatus) {
			s.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 0}
		}))
		select {
		case <-d.life.ended:
			t.Error("it is over while there is a pod")
		default:
		}
		d.gone(ready)
		select {
		case <-d.life.ended:
		default:
			t.Error("it is not over without a pod")
		}
		if d.life.err != nil {
			t.Error(d.life.err)
		}
	})
}

// A process of the bundled controllers has the rights of its service account, unless the foundation is another release's.
func TestRestricted(t *testing.T) {
	d := newDeployed(t)
	e := d.process.engine
	for process, want := range map[string]bool{"machine-os-builder": true, "machine-config-controller": true, "node-agents": false} {
		if got := e.restricted(process); got != want {
			t.Errorf("%s is restricted: %t, want %t", process, got, want)
		}
	}
	e.Foundation = func(context.Context, client.Client, Facts) error { return nil }
	if e.restricted("machine-os-builder") {
		t.Error("a foreign builder is restricted")
	}
}
