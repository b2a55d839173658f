package drain_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/drain"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/store"
)

const request = "drain-rendered-layered-a"

// cluster is an API server with one node, and a drain controller.
type cluster struct {
	*testing.T
	store      *store.Store
	client     client.Client
	frozen     int64 // the revision at which the controller sees nodes; 0: the newest
	clock      *clocktesting.FakePassiveClock
	events     *events.FakeRecorder
	failing    []bool // what was told to the metrics
	evictions  int    // requests
	before     func(*store.Request) error
	reconciler reconcile.Reconciler
}

func (c *cluster) Revision(schema.GroupVersionKind) int64 {
	if c.frozen > 0 {
		return c.frozen
	}
	return c.store.Revision()
}

func (c *cluster) DrainFailing(_ string, failing bool) { c.failing = append(c.failing, failing) }

func newCluster(t *testing.T) *cluster {
	t.Helper()
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, 8, 20, 10, 0, 0, 0, time.UTC))
	c := &cluster{T: t, clock: clock, store: store.New(store.Options{Clock: clock}), events: events.NewFakeRecorder(100)}
	c.client = c.store.Client(store.ClientOptions{Author: "test"})
	c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "app"}})
	c.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n0"}})
	c.restart()
	return c
}

func (c *cluster) restart() {
	c.Helper()
	before := func(r *store.Request) error {
		if r.Subresource == "eviction" {
			c.evictions++
		}
		if c.before != nil {
			return c.before(r)
		}
		return nil
	}
	r, err := drain.New(drain.Options{Metrics: c}).New(component.Env{
		Client:   c.store.Client(store.ClientOptions{Author: drain.Name, View: c, Before: before}),
		Live:     c.store.Client(store.ClientOptions{Author: drain.Name, Before: before}),
		Clock:    c.clock,
		Recorder: c.events,
	})
	if err != nil {
		c.Fatal(err)
	}
	c.reconciler = r
}

func (c *cluster) create(o client.Object) {
	c.Helper()
	if err := c.client.Create(context.Background(), o); err != nil {
		c.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

// pod runs on node n0, unless on says otherwise, and takes 30 s to go.
func (c *cluster) pod(name string, change func(*corev1.Pod)) *corev1.Pod {
	c.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: name, Labels: map[string]string{"app": name}}}
	p.Spec.NodeName = "n0"
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "registry.example/app:1"}}
	if change != nil {
		change(p)
	}
	c.create(p)
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if err := c.client.Status().Update(context.Background(), p); err != nil {
		c.Fatal(err)
	}
	return p
}

// kubelet removes the pods of node n0 that are shutting down.
func (c *cluster) kubelet() {
	c.Helper()
	for _, p := range c.pods() {
		if p.DeletionTimestamp != nil {
			if err := c.client.Delete(context.Background(), &p, client.GracePeriodSeconds(0)); err != nil {
				c.Fatal(err)
			}
		}
	}
}

func (c *cluster) pods() []corev1.Pod {
	c.Helper()
	list := &corev1.PodList{}
	if err := c.client.List(context.Background(), list); err != nil {
		c.Fatal(err)
	}
	return list.Items
}

// left names the pods that are there, those that are shutting down in brackets.
func (c *cluster) left() string {
	c.Helper()
	var names []string
	for _, p := range c.pods() {
		if p.DeletionTimestamp != nil {
			names = append(names, "("+p.Name+")")
		} else {
			names = append(names, p.Name)
		}
	}
	return strings.Join(names, " ")
}

func (c *cluster) node() *corev1.Node {
	c.Helper()
	n := &corev1.Node{}
	if err := c.client.Get(context.Background(), client.ObjectKey{Name: "n0"}, n); err != nil {
		c.Fatal(err)
	}
	return n
}

func (c *cluster) edit(fn func(*corev1.Node)) {
	c.Helper()
	n := c.node()
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	fn(n)
	if err := c.client.Update(context.Background(), n); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) ask(request string) {
	c.Helper()
	c.edit(func(n *corev1.Node) { n.Annotations[layering.DesiredDrain] = request })
}

// event takes the oldest event, "" if there is none.
func (c *cluster) event() string {
	select {
	case e := <-c.events.Events:
		return e
	default:
		return ""
	}
}

func (c *cluster) acknowledged() string { return c.node().Annotations[layering.LastAppliedDrain] }

func (c *cluster) sync() (time.Duration, error) {
	result, err := c.reconciler.Reconcile(context.Background(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "n0"}})
	return result.RequeueAfter, err
}

func (c *cluster) mustSync() time.Duration {
	c.Helper()
	after, err := c.sync()
	if err != nil {
		c.Fatal(err)
	}
	return after
}

func TestHandshake(t *testing.T) {
	c := newCluster(t)
	c.pod("managed", func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "r", UID: "1", Controller: &yes}}
	})
	c.pod("bare", nil)
	c.pod("daemon", func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "d", UID: "2", Controller: &yes}}
	})
	c.pod("mirror", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} })
	c.pod("other", func(p *corev1.Pod) { p.Spec.NodeName = "n1" })

	revision := c.store.Revision()
	c.mustSync()
	if c.store.Revision() != revision {
		t.Error("a node that nobody asked about was written")
	}
	c.ask(request)
	if after := c.mustSync(); after != 5*time.Second {
		t.Errorf("looks again after %s, want 5s", after)
	}
	if got, want := c.left(), "(bare) daemon (managed) mirror other"; got != want {
		t.Errorf("pods %q, want %q", got, want)
	}
	c.clock.SetTime(c.clock.Now().Add(5 * time.Second))
	c.mustSync()
	if c.evictions != 2 {
		t.Errorf("%d evictions, want one for each of 2 pods", c.evictions)
	}
	if n := c.node(); !n.Spec.Unschedulable || c.acknowledged() != "" {
		t.Errorf("while pods shut down: unschedulable %t, acknowledged %q", n.Spec.Unschedulable, c.acknowledged())
	}
	c.kubelet()
	if after := c.mustSync(); after != 0 || c.acknowledged() != request || !c.node().Spec.Unschedulable {
		t.Errorf("drained: again after %s, acknowledged %q, unschedulable %t", after, c.acknowledged(), c.node().Spec.Unschedulable)
	}

	const uncordon = "uncordon-rendered-layered-a"
	c.ask(uncordon)
	var writes int
	c.store.OnChange(func(*store.Change) { writes++ })
	c.mustSync()
	if n := c.node(); n.Spec.Unschedulable || c.acknowledged() != uncordon || writes != 1 {
		t.Errorf("uncordon: unschedulable %t, acknowledged %q, %d writes", n.Spec.Unschedulable, c.acknowledged(), writes)
	}
	if _, ok := c.node().Annotations[drain.Started]; ok {
		t.Error("the start of the drain is still noted")
	}
	if len(c.events.Events) > 0 {
		t.Errorf("event %q", c.event())
	}
}

// TestBudget: a PodDisruptionBudget holds a pod; the controller keeps asking in its rhythm, complains, and goes on when
// the budget lets it, whether it was restarted or the node uncordoned meanwhile.
func TestBudget(t *testing.T) {
	c := newCluster(t)
	c.pod("guarded", nil)
	pdb := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "pdb"}}
	pdb.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}
	c.create(pdb)
	allow := func(n int32) {
		t.Helper()
		pdb.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: pdb.Generation, DisruptionsAllowed: n,
			CurrentHealthy: 1, ExpectedPods: 1}
		if err := c.client.Status().Update(context.Background(), pdb); err != nil {
			t.Fatal(err)
		}
	}
	allow(0)
	c.ask(request)
	start := c.clock.Now()
	var asked []time.Duration // when evictions were tried
	run := func(until time.Duration) {
		t.Helper()
		for c.clock.Now().Sub(start) < until {
			before := c.evictions
			after := c.mustSync()
			if c.evictions > before {
				asked = append(asked, c.clock.Now().Sub(start))
			}
			if after <= 0 {
				t.Fatalf("nothing will happen any more at %s", c.clock.Now().Sub(start))
			}
			c.clock.SetTime(c.clock.Now().Add(after))
		}
	}
	run(9 * time.Minute)
	if c.acknowledged() != "" || len(c.events.Events) > 0 {
		t.Errorf("before ten minutes: acknowledged %q, %d events", c.acknowledged(), len(c.events.Events))
	}
	c.restart()
	run(45 * time.Minute)
	if got := c.event(); !strings.HasPrefix(got, "Warning DrainThresholdExceeded Drain of node n0 has taken more than 10m0s: 1 pods left, among them app/guarded") {
		t.Errorf("event %q", got)
	}
	run(70 * time.Minute)
	for len(c.events.Events) > 1 {
		c.event()
	}
	if got := c.event(); !strings.HasPrefix(got, "Warning DrainFailed Drain of node n0 has been failing for more than 1h0m0s") {
		t.Errorf("event %q", got)
	}
	if !slices.Contains(c.failing, true) {
		t.Error("the metrics don't know")
	}
	// Attempts of 90 s with one minute between them, five after ten minutes.
	var gaps []string
	for i := 1; i < len(asked); i++ {
		if gap := asked[i] - asked[i-1]; gap > 5*time.Second {
			gaps = append(gaps, gap.String())
		}
	}
	if got, want := strings.Join(gaps[:6], " "), "1m5s 1m5s 1m5s 1m5s 5m5s 5m5s"; got != want {
		t.Errorf("gaps between evictions %q, want %q", got, want)
	}

	c.edit(func(n *corev1.Node) { n.Spec.Unschedulable = false })
	c.mustSync()
	if !c.node().Spec.Unschedulable {
		t.Error("a node that was uncordoned during its drain wasn't cordoned again")
	}
	allow(1)
	for i := 0; c.acknowledged() == ""; i++ {
		if i == 100 {
			t.Fatalf("not drained: pods %q", c.left())
		}
		after := c.mustSync()
		c.kubelet()
		c.clock.SetTime(c.clock.Now().Add(after))
	}
	if got := c.failing[len(c.failing)-1]; got {
		t.Error("the metrics still call it failing")
	}
}

// TestOldCache: a cache that still shows an answered request doesn't cordon the node again.
func TestOldCache(t *testing.T) {
	c := newCluster(t)
	c.ask(request)
	old := c.store.Revision()
	c.mustSync()
	c.ask("uncordon-rendered-layered-a")
	c.mustSync()
	c.frozen = old
	before := c.node().ResourceVersion
	c.mustSync()
	if n := c.node(); n.ResourceVersion != before || n.Spec.Unschedulable {
		t.Errorf("node was written: unschedulable %t, annotations %v", n.Spec.Unschedulable, n.Annotations)
	}
}

// TestUncordonedAtTheLastMoment: a node that somebody uncordons right before it is acknowledged isn't.
func TestUncordonedAtTheLastMoment(t *testing.T) {
	c := newCluster(t)
	c.ask(request)
	c.before = func(r *store.Request) error {
		if r.Verb == "list" {
			c.before = nil
			c.edit(func(n *corev1.Node) { n.Spec.Unschedulable = false })
		}
		return nil
	}
	if _, err := c.sync(); !apierrors.IsConflict(err) || c.acknowledged() != "" {
		t.Errorf("sync: %v, acknowledged %q; want a conflict", err, c.acknowledged())
	}
	c.mustSync()
	if c.acknowledged() != request || !c.node().Spec.Unschedulable {
		t.Errorf("acknowledged %q, unschedulable %t", c.acknowledged(), c.node().Spec.Unschedulable)
	}
}

// TestErrorsAreRetried: a cordon that fails is an error, which leads to a retry; so is an eviction that fails otherwise
// than by a budget, but it doesn't keep other pods from being evicted.
func TestErrorsAreRetried(t *testing.T) {
	c := newCluster(t)
	c.pod("a", nil)
	c.pod("b", nil)
	c.ask(request)
	boom := errors.New("boom")
	c.before = func(r *store.Request) error {
		if r.Verb == "patch" {
			return boom
		}
		return nil
	}
	if _, err := c.sync(); !errors.Is(err, boom) {
		t.Errorf("failed cordon: %v", err)
	}
	c.before = func(r *store.Request) error {
		if r.Subresource == "eviction" && r.Name == "a" {
			return boom
		}
		return nil
	}
	if _, err := c.sync(); !errors.Is(err, boom) || c.left() != "a (b)" {
		t.Errorf("failed eviction: %v, pods %q", err, c.left())
	}
	c.before = nil
	c.mustSync()
	if c.left() != "(a) (b)" {
		t.Errorf("pods %q", c.left())
	}
}

// TestBadRequest: a request that isn't one is reported once, and nothing is written.
func TestBadRequest(t *testing.T) {
	c := newCluster(t)
	c.ask("reboot-x")
	revision := c.store.Revision()
	for range 2 {
		if after := c.mustSync(); after != 0 {
			t.Errorf("will look again after %s", after)
		}
	}
	if c.store.Revision() != revision || len(c.events.Events) != 1 {
		t.Errorf("%d writes, %d events; want 0 and 1", c.store.Revision()-revision, len(c.events.Events))
	}
}

func TestWatch(t *testing.T) {
	when := drain.New(drain.Options{}).Watches[0].When
	n := func(desired, applied string, unschedulable bool) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
			layering.DesiredDrain: desired, layering.LastAppliedDrain: applied}},
			Spec: corev1.NodeSpec{Unschedulable: unschedulable}}
	}
	for _, tt := range []struct {
		before, after *corev1.Node
		want          bool
	}{
		{nil, n("", "", false), false},
		{nil, n("drain-a", "", false), true},
		{n("", "", false), n("drain-a", "", false), true},
		{n("drain-a", "", false), n("drain-a", "", false), false},
		{n("drain-a", "", true), n("drain-a", "", false), true},
		{n("drain-a", "", true), n("drain-a", "drain-a", true), false},
		{n("drain-a", "drain-a", true), n("drain-a", "drain-a", false), false},
		{n("drain-a", "drain-a", true), n("uncordon-a", "drain-a", true), true},
		{n("", "", false), nil, true},
	} {
		var before, after client.Object
		if tt.before != nil {
			before = tt.before
		}
		if tt.after != nil {
			after = tt.after
		}
		if got := when(before, after); got != tt.want {
			t.Errorf("%v -> %v: %t, want %t", fmt.Sprint(before), fmt.Sprint(after), got, tt.want)
		}
	}
}
