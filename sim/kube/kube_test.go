package kube_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/kube"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// cluster is a world with models, for one test.
type cluster struct {
	client.Client
	t     *testing.T
	ctx   context.Context
	clock *world.Clock
	store *store.Store
	world *world.World
}

func newCluster(t *testing.T, seed uint64, lag world.Lag, components ...component.Component) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcfgv1.Install, machinev1beta1.Install} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	clock := world.NewClock(epoch)
	s := store.New(store.Options{Clock: clock, Scheme: scheme, Seed: seed})
	c := &cluster{
		Client: s.Client(store.ClientOptions{Author: "test"}), t: t, ctx: context.Background(), clock: clock, store: s,
		world: world.New(world.Options{Store: s, Clock: clock, Seed: seed, Lag: lag}),
	}
	c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	for _, one := range components {
		if _, err := c.world.Start(one.Name, 1, one); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) installCRDs() {
	c.t.Helper()
	crds, err := fixtures.CRDs()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, crd := range crds {
		c.create(crd.DeepCopy())
	}
}

func (c *cluster) create(objects ...client.Object) {
	c.t.Helper()
	for _, o := range objects {
		if err := c.Create(c.ctx, o); err != nil {
			c.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
}

// get returns the newest state; false where there is none.
func get[T any, P interface {
	*T
	client.Object
}](c *cluster, name string) (P, bool) {
	c.t.Helper()
	o := P(new(T))
	key := client.ObjectKey{Name: name}
	if namespaced, err := c.IsObjectNamespaced(o); err != nil {
		c.t.Fatal(err)
	} else if namespaced {
		key.Namespace = "ns"
	}
	err := c.Get(c.ctx, key, o)
	if client.IgnoreNotFound(err) != nil {
		c.t.Fatal(err)
	}
	return o, err == nil
}

// change applies a change to the newest state, and writes object and status.
func change[T any, P interface {
	*T
	client.Object
}](c *cluster, name string, fn func(P)) {
	c.t.Helper()
	o, ok := get[T, P](c, name)
	if !ok {
		c.t.Fatalf("%T %s is gone", o, name)
	}
	status := o.DeepCopyObject().(P)
	fn(o)
	if err := c.Update(c.ctx, o); err != nil {
		c.t.Fatal(err)
	}
	fn(status)
	status.SetResourceVersion("")
	if err := c.Status().Update(c.ctx, status); err != nil && !apierrors.IsNotFound(err) {
		c.t.Fatal(err)
	}
}

// rest runs until nothing can happen any more, or until virtual time t.
func (c *cluster) rest(until time.Duration) {
	c.t.Helper()
	end := c.world.Deadline(until-c.clock.Elapsed(), func() {})
	defer c.world.Stop(end)
	for range 200_000 {
		outcome, err := c.world.Step()
		if err != nil {
			c.t.Fatal(err)
		}
		if c.clock.Elapsed() >= until || outcome == world.DeadEnd && !c.world.Jump() {
			return
		}
	}
	c.t.Fatal("the cluster doesn't come to rest")
}

func (c *cluster) pods() []corev1.Pod {
	c.t.Helper()
	list := &corev1.PodList{}
	if err := c.List(c.ctx, list, client.InNamespace("ns")); err != nil {
		c.t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return list.Items
}

// trace notes each change of pods and jobs as one line.
func (c *cluster) trace() *[]string {
	lines := &[]string{}
	c.store.OnChange(func(ch *store.Change) {
		if ch.GVK.Kind != "Pod" && ch.GVK.Kind != "Job" || ch.Author == "test" {
			return
		}
		*lines = append(*lines, fmt.Sprintf("%v %s %s %s", ch.Time.Sub(epoch), ch.Author, ch.Verb, strings.ToLower(ch.GVK.Kind)))
	})
	return lines
}

// created counts pods that were ever created.
func (c *cluster) created() *int {
	n := new(int)
	c.store.OnChange(func(ch *store.Change) {
		if ch.GVK.Kind == "Pod" && ch.Old == nil {
			*n++
		}
	})
	return n
}

// kubelet runs bound pods: ready at once, ended after run says so ("" runs for ever).
func kubelet(run func(p *corev1.Pod) (time.Duration, corev1.PodPhase)) component.Component {
	return component.Component{
		Name:    "kubelet",
		Watches: []component.Watch{{Object: &corev1.Pod{}}},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			return reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
				p := &corev1.Pod{}
				if err := env.Live.Get(ctx, req.NamespacedName, p); err != nil || p.Spec.NodeName == "" {
					return reconcile.Result{}, client.IgnoreNotFound(err)
				}
				phase, ended := corev1.PodRunning, p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
				var wait time.Duration
				switch d, end := run(p); {
				case ended:
					phase = p.Status.Phase
				case p.DeletionTimestamp != nil:
					phase = corev1.PodFailed
				case end != "":
					if wait = p.CreationTimestamp.Add(d).Sub(env.Clock.Now()); wait <= 0 {
						phase, wait = end, 0
					}
				}
				if p.Status.Phase != phase {
					now := metav1.NewTime(env.Clock.Now())
					p.Status.Phase = phase
					p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}}
					if phase != corev1.PodRunning {
						p.Status.Conditions[0].Status = corev1.ConditionFalse
						p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{
							Terminated: &corev1.ContainerStateTerminated{FinishedAt: now},
						}}}
					}
					if err := env.Client.Status().Update(ctx, p); err != nil {
						return reconcile.Result{}, err
					}
				}
				if p.DeletionTimestamp != nil {
					err := env.Client.Delete(ctx, p, client.GracePeriodSeconds(0), client.Preconditions{UID: &p.UID})
					return reconcile.Result{}, client.IgnoreNotFound(err)
				}
				return reconcile.Result{RequeueAfter: wait}, nil
			}), nil
		},
	}
}

func forever(*corev1.Pod) (time.Duration, corev1.PodPhase) { return 0, "" }

func node(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"},
		}},
	}
	for _, fn := range change {
		fn(n)
	}
	return n
}

func podSpec() corev1.PodSpec {
	return corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever,
		Containers:    []corev1.Container{{Name: "c", Image: "quay.io/a/b:1"}},
	}
}

func job(name string, change ...func(*batchv1.Job)) *batchv1.Job {
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: batchv1.JobSpec{
			BackoffLimit: ptr.To[int32](3), Completions: ptr.To[int32](1), Parallelism: ptr.To[int32](1),
			Template: corev1.PodTemplateSpec{Spec: podSpec()},
		},
	}
	for _, fn := range change {
		fn(j)
	}
	return j
}

func TestComponents(t *testing.T) {
	var names []string
	for _, c := range kube.Components(kube.Options{}) {
		if c.New == nil || len(c.Watches) == 0 {
			t.Errorf("component %s is incomplete", c.Name)
		}
		names = append(names, c.Name)
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 7 {
		t.Errorf("components %v", names)
	}
	c := newCluster(t, 1, world.Lag{}, kube.Components(kube.Options{})...)
	c.rest(time.Minute) // the CRDs of the owners aren't there: that must not matter
	c.installCRDs()
	c.rest(time.Minute)
}
