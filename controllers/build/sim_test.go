package build_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/build"
	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/controllers/manager"
	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/kube"
	"github.com/layersim/layersim/sim/registry"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

const (
	host     = "registry.example:5000"
	repo     = host + "/ocl/layered"
	builder  = "machine-os-builder"
	finished = 10 * time.Minute
)

// bench is a cluster of an API server, kube's controllers, the build controller and players of the rest.
type bench struct {
	t        *testing.T
	w        *world.World
	c        client.Client
	registry *registry.Registry
	process  *world.Process
	changes  []history.Change
	// outcome says what becomes of a build pod: nil is success after 20 s.
	outcome func(job string, attempt int) outcome
	pods    map[string]int // attempts by job UID
}

type outcome struct {
	after time.Duration
	fail  bool
	hang  bool
}

func newBench(t *testing.T, seed uint64, lag world.Lag) *bench {
	t.Helper()
	scheme, err := manager.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	if err := machinev1beta1.Install(scheme); err != nil { // the garbage collector looks at machines too
		t.Fatal(err)
	}
	clock := world.NewClock(time.Date(2025, 2, 12, 19, 0, 0, 0, time.UTC))
	s := store.New(store.Options{Clock: clock, Scheme: scheme, Seed: seed})
	b := &bench{t: t, registry: registry.New(registry.Options{Hosts: []string{host}}), pods: map[string]int{}}
	s.OnChange(func(c *store.Change) {
		change := history.Change{Author: c.Author, Verb: c.Verb, GVK: c.GVK, Name: c.Name, Namespace: c.Namespace}
		if c.Old != nil {
			change.Old = c.Old.Unstructured()
		}
		if c.New != nil {
			change.New = c.New.Unstructured()
		}
		b.changes = append(b.changes, change)
		b.invariants()
	})
	b.w = world.New(world.Options{Store: s, Clock: clock, Seed: seed, Lag: lag})
	b.c = s.Client(store.ClientOptions{Author: "admin"})
	crds, err := fixtures.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range crds {
		b.create(crd.DeepCopy())
	}
	for _, ns := range []string{"default", layering.Namespace} {
		b.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	b.account("secret")
	b.create(b.secret("push", "secret"))
	b.create(b.secret(layering.GlobalPullSecretCopy, "secret"))
	b.create(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: layering.ImagesConfigMap},
		Data:       map[string]string{"images.json": `{"machineConfigOperator":"quay.io/mco@sha256:1"}`},
	})
	b.create(controllerConfig())
	b.config("rendered-layered-1", nil)
	pool := &mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}
	pool.Spec.Configuration.Name = "rendered-layered-1"
	b.create(pool)
	options := kube.Options{}
	if _, err := b.w.Start("kube", 1, kube.JobController(), kube.GarbageCollector(options)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.w.Start("pods", 1, b.player()); err != nil {
		t.Fatal(err)
	}
	b.process, err = b.w.Start(builder, 1, build.New(build.Options{Transport: b.registry.Transport(builder)}))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) account(password string) {
	b.registry.SetAccount(registry.Account{Name: "pusher", Password: password, Push: []string{"*"}})
}

func (b *bench) secret(name, password string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: name},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{
			corev1.DockerConfigJsonKey: registry.DockerConfigJSON(host, registry.Account{Name: "pusher", Password: password}),
		},
	}
}

func controllerConfig() *mcfgv1.ControllerConfig {
	return &mcfgv1.ControllerConfig{
		ObjectMeta: metav1.ObjectMeta{Name: layering.ControllerConfigName},
		Spec: mcfgv1.ControllerConfigSpec{
			AdditionalTrustBundle: []byte("ca"), KubeAPIServerServingCAData: []byte("ca"), RootCAData: []byte("ca"),
			CloudProviderCAData: []byte("ca"), Images: map[string]string{},
		},
	}
}

// config creates a rendered MachineConfig.
func (b *bench) config(name string, change func(*mcfgv1.MachineConfig)) {
	c := &mcfgv1.MachineConfig{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
		layering.ReleaseImageVersion: "4.18.1", layering.GeneratedByController: "v1",
	}}}
	c.Spec.OSImageURL = "quay.io/os@sha256:1"
	c.Spec.Config = runtime.RawExtension{Raw: []byte(`{"ignition":{"version":"3.4.0"}}`)}
	if change != nil {
		change(c)
	}
	b.create(c)
}

// roll makes a rendered MachineConfig the pool's.
func (b *bench) roll(name string) {
	b.edit(&mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}, func(o client.Object) {
		o.(*mcfgv1.MachineConfigPool).Spec.Configuration.Name = name
	})
}

// apply creates or edits the MachineOSConfig.
func (b *bench) apply(content string) {
	b.t.Helper()
	config := &mcfgv1.MachineOSConfig{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}
	err := b.c.Get(context.Background(), client.ObjectKeyFromObject(config), config)
	files := []mcfgv1.MachineOSContainerfile{{ContainerfileArch: mcfgv1.NoArch, Content: content}}
	if err == nil {
		b.edit(config, func(o client.Object) { o.(*mcfgv1.MachineOSConfig).Spec.Containerfile = files })
		return
	}
	config.Spec = mcfgv1.MachineOSConfigSpec{
		MachineConfigPool:       mcfgv1.MachineConfigPoolReference{Name: "layered"},
		ImageBuilder:            mcfgv1.MachineOSImageBuilder{ImageBuilderType: mcfgv1.JobBuilder},
		RenderedImagePushSecret: mcfgv1.ImageSecretObjectReference{Name: "push"},
		RenderedImagePushSpec:   repo + ":latest",
		Containerfile:           files,
	}
	b.create(config)
}

func (b *bench) create(o client.Object) {
	b.t.Helper()
	if err := b.c.Create(context.Background(), o); err != nil {
		b.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

func (b *bench) edit(o client.Object, change func(client.Object)) {
	b.t.Helper()
	if err := b.c.Get(context.Background(), client.ObjectKeyFromObject(o), o); err != nil {
		b.t.Fatal(err)
	}
	change(o)
	if err := b.c.Update(context.Background(), o); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) delete(o client.Object, options ...client.DeleteOption) {
	b.t.Helper()
	if err := b.c.Delete(context.Background(), o, options...); err != nil {
		b.t.Fatal(err)
	}
}

// player plays the kubelet and the build pods.
func (b *bench) player() component.Component {
	return component.Component{
		Name: "pods", Watches: []component.Watch{{Object: &corev1.Pod{}}},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			return reconcile.Func(func(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
				return b.play(ctx, env, r)
			}), nil
		},
	}
}

func (b *bench) play(ctx context.Context, env component.Env, r reconcile.Request) (reconcile.Result, error) {
	pod := &corev1.Pod{}
	if err := env.Live.Get(ctx, r.NamespacedName, pod); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !pod.DeletionTimestamp.IsZero() {
		err := env.Client.Delete(ctx, pod, client.GracePeriodSeconds(0))
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	job := pod.Labels[batchv1.JobNameLabel]
	switch pod.Status.Phase {
	case corev1.PodPending, "":
		pod.Status.Phase = corev1.PodRunning
		now := metav1.NewTime(env.Clock.Now())
		pod.Status.StartTime = &now
		b.pods[job]++
		return reconcile.Result{}, env.Client.Status().Update(ctx, pod)
	case corev1.PodRunning:
		o := outcome{after: 20 * time.Second}
		if b.outcome != nil {
			o = b.outcome(job, b.pods[job])
		}
		if o.hang {
			return reconcile.Result{}, nil
		}
		if left := pod.Status.StartTime.Add(o.after).Sub(env.Clock.Now()); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
		if o.fail {
			pod.Status.Phase = corev1.PodFailed
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
				Name: "image-build", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
					ExitCode: 1, Message: "line\nerror: repository unreachable", FinishedAt: metav1.NewTime(env.Clock.Now()),
				}},
			}}
			return reconcile.Result{}, env.Client.Status().Update(ctx, pod)
		}
		if err := b.push(ctx, env, pod); err != nil {
			return reconcile.Result{}, err
		}
		pod.Status.Phase = corev1.PodSucceeded
		return reconcile.Result{}, env.Client.Status().Update(ctx, pod)
	}
	return reconcile.Result{}, nil
}

// push pushes an image that differs from pod to pod and writes the digest.
func (b *bench) push(ctx context.Context, env component.Env, pod *corev1.Pod) error {
	vars := map[string]string{}
	for _, v := range pod.Spec.Containers[0].Env {
		vars[v.Name] = v.Value
	}
	image, err := mutate.Config(empty.Image, mustConfig(string(pod.UID)))
	if err != nil {
		return err
	}
	digest, err := b.registry.PutImage(vars["TAG"], image)
	if err != nil {
		return err
	}
	labels := map[string]string{}
	for pair := range strings.SplitSeq(vars["DIGEST_CONFIGMAP_LABELS"], ",") {
		key, value, _ := strings.Cut(pair, "=")
		labels[key] = value
	}
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: vars["DIGEST_CONFIGMAP_NAME"], Labels: labels},
		Data:       map[string]string{"digest": digest},
	}
	if err := env.Client.Create(ctx, object); !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// run lets the world run until a condition holds or until nothing can happen any more.
func (b *bench) run(within time.Duration, done func() bool) {
	b.t.Helper()
	until := b.w.Clock.Elapsed() + within
	for range 1_000_000 {
		if done != nil && done() {
			return
		}
		outcome, err := b.w.Step()
		if err != nil {
			b.t.Fatal(err)
		}
		if outcome == world.DeadEnd || b.w.Clock.Elapsed() > until {
			if done != nil && !done() {
				b.t.Fatalf("not reached within %s (dead end %v)\n%s", within, outcome == world.DeadEnd, b.dump())
			}
			return
		}
	}
	b.t.Fatal("too many steps")
}

// rest lets the world run until nothing happens any more.
func (b *bench) rest() {
	b.t.Helper()
	b.run(time.Hour, nil)
}

func (b *bench) builds() []mcfgv1.MachineOSBuild {
	b.t.Helper()
	list := &mcfgv1.MachineOSBuildList{}
	if err := b.c.List(context.Background(), list); err != nil {
		b.t.Fatal(err)
	}
	return list.Items
}

// only returns the one build that there is.
func (b *bench) only() *mcfgv1.MachineOSBuild {
	b.t.Helper()
	builds := b.builds()
	if len(builds) != 1 {
		b.t.Fatalf("got %d builds, want one\n%s", len(builds), b.dump())
	}
	return &builds[0]
}

func (b *bench) mosc() *mcfgv1.MachineOSConfig {
	b.t.Helper()
	config := &mcfgv1.MachineOSConfig{}
	if err := b.c.Get(context.Background(), types.NamespacedName{Name: "layered"}, config); err != nil {
		b.t.Fatal(err)
	}
	return config
}

func (b *bench) pool() *mcfgv1.MachineConfigPoolCondition {
	b.t.Helper()
	pool := &mcfgv1.MachineConfigPool{}
	if err := b.c.Get(context.Background(), types.NamespacedName{Name: "layered"}, pool); err != nil {
		b.t.Fatal(err)
	}
	for i := range pool.Status.Conditions {
		if pool.Status.Conditions[i].Type == mcfgv1.MachineConfigPoolImageBuildDegraded {
			return &pool.Status.Conditions[i]
		}
	}
	return &mcfgv1.MachineConfigPoolCondition{}
}

// held returns the reason of the condition BuildHeld, "" if nothing is held.
func (b *bench) held() string {
	c := meta.FindStatusCondition(b.mosc().Status.Conditions, build.BuildHeld)
	if c == nil || c.Status != metav1.ConditionTrue {
		return ""
	}
	return c.Reason
}

func state(m *mcfgv1.MachineOSBuild) string {
	for _, c := range m.Status.Conditions {
		if c.Status == metav1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

// succeeded says whether the MachineOSConfig's spec has its image.
func (b *bench) succeeded() bool {
	config := b.mosc()
	for _, m := range b.builds() {
		if m.Name == config.Annotations[layering.CurrentBuild] && state(&m) == "Succeeded" &&
			m.Status.DigestedImagePushSpec == config.Status.CurrentImagePullSpec &&
			config.Status.ObservedGeneration == config.Generation {
			return true
		}
	}
	return false
}

func (b *bench) in(want string) func() bool {
	return func() bool {
		return slices.ContainsFunc(b.builds(), func(m mcfgv1.MachineOSBuild) bool { return state(&m) == want })
	}
}

// jobs counts the Jobs that were ever created.
func (b *bench) jobs() int {
	n := 0
	for _, c := range b.changes {
		if c.GVK.Kind == "Job" && c.Verb == "create" {
			n++
		}
	}
	return n
}

// invariants fails the test if two builds of the MachineOSConfig are neither finished nor being deleted.
func (b *bench) invariants() {
	last := b.changes[len(b.changes)-1]
	if last.GVK.Kind != "MachineOSBuild" || last.New == nil {
		return
	}
	open := 0
	for _, m := range b.builds() {
		if s := state(&m); m.DeletionTimestamp.IsZero() && (s == "" || s == "Prepared" || s == "Building") {
			open++
		}
	}
	if open > 1 {
		b.t.Errorf("%d unfinished builds at once\n%s", open, b.dump())
	}
}

func (b *bench) dump() string {
	var out strings.Builder
	for _, m := range b.builds() {
		fmt.Fprintf(&out, "build %s uid=%s config=%s state=%q deleting=%v digest=%s\n", m.Name, m.UID, m.Spec.MachineConfig.Name, state(&m),
			!m.DeletionTimestamp.IsZero(), m.Status.DigestedImagePushSpec)
	}
	config := &mcfgv1.MachineOSConfig{}
	if b.c.Get(context.Background(), types.NamespacedName{Name: "layered"}, config) == nil {
		fmt.Fprintf(&out, "config annotations=%v status=%+v\n", config.Annotations, config.Status)
	}
	for _, c := range b.w.Recorder.History.Records {
		if c.Component != nil && c.Component.Event != "started" {
			fmt.Fprintf(&out, "%+v\n", *c.Component)
		}
	}
	list := &corev1.EventList{}
	if b.c.List(context.Background(), list) == nil {
		for _, e := range list.Items {
			fmt.Fprintf(&out, "event %s %s %s\n", e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
	return out.String()
}

// left returns the names of what builds have left in the namespace, other than digests and the note of images.
func (b *bench) left() []string {
	b.t.Helper()
	var names []string
	for _, list := range []client.ObjectList{&batchv1.JobList{}, &corev1.ConfigMapList{}, &corev1.SecretList{}} {
		if err := b.c.List(context.Background(), list, client.InNamespace(layering.Namespace), client.HasLabels{layering.OSBuild}); err != nil {
			b.t.Fatal(err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, item := range items {
			if name := item.(client.Object).GetName(); !strings.HasPrefix(name, "digest-") {
				names = append(names, name)
			}
		}
	}
	return names
}

// asked counts the registry's requests of a method by the build controller.
func (b *bench) asked(method string) int {
	n := 0
	for _, r := range b.registry.Journal() {
		if r.Caller == builder && r.Method == method && strings.Contains(r.Path, "/manifests/") {
			n++
		}
	}
	return n
}

func (b *bench) has(image mcfgv1.ImageDigestFormat) bool {
	_, err := b.registry.Image(string(image))
	return err == nil
}

func (b *bench) unreachable(on bool) {
	if !on {
		b.registry.SetErrorHook(nil)
		return
	}
	b.registry.SetErrorHook(func(r *http.Request, _ string) error { return registry.TimedOut(r.URL.Host) })
}
