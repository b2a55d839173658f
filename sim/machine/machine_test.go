package machine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/kube"
	"github.com/layersim/layersim/sim/machine"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// joining is how long a host needs from its first boot to its Node.
const joining = 3 * time.Minute

// cloud is a world with the machine API, and the hosts that it made.
type cloud struct {
	client.Client
	t      *testing.T
	ctx    context.Context
	clock  *world.Clock
	store  *store.Store
	world  *world.World
	boots  map[string]time.Duration // host -> when it booted first
	calls  int
	broken error
}

func newCloud(t *testing.T, seed uint64, lag world.Lag) *cloud {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcfgv1.Install, machinev1beta1.Install} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	clock := world.NewClock(epoch)
	s := store.New(store.Options{Clock: clock, Scheme: scheme, Seed: seed})
	c := &cloud{
		Client: s.Client(store.ClientOptions{Author: "test"}), t: t, ctx: context.Background(), clock: clock, store: s,
		world: world.New(world.Options{Store: s, Clock: clock, Seed: seed, Lag: lag}), boots: map[string]time.Duration{},
	}
	crds, err := fixtures.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range crds {
		c.create(crd.DeepCopy())
	}
	c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: machine.Namespace}})
	component := machine.New(machine.Options{Boot: c.boot, Remove: c.remove})
	gc := kube.GarbageCollector(kube.Options{})
	if _, err := c.world.Start(component.Name, 1, component); err != nil {
		t.Fatal(err)
	}
	if _, err := c.world.Start(gc.Name, 1, gc); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cloud) boot(m *machinev1beta1.Machine) error {
	c.calls++
	if c.broken != nil {
		return c.broken
	}
	if _, ok := c.boots[m.Name]; ok {
		return nil
	}
	c.boots[m.Name] = c.clock.Elapsed()
	c.world.After(joining, func() {
		if _, ok := c.boots[m.Name]; ok {
			c.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.Name}, Status: ready})
		}
	})
	return nil
}

var ready = corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}

func (c *cloud) remove(m *machinev1beta1.Machine) error {
	delete(c.boots, m.Name)
	return nil
}

func (c *cloud) create(objects ...client.Object) {
	c.t.Helper()
	for _, o := range objects {
		if err := c.Create(c.ctx, o); err != nil {
			c.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
}

func (c *cloud) rest(until time.Duration) {
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

func (c *cloud) set() *machinev1beta1.MachineSet {
	c.t.Helper()
	ms := &machinev1beta1.MachineSet{}
	if err := c.Get(c.ctx, client.ObjectKey{Namespace: machine.Namespace, Name: "workers"}, ms); err != nil {
		c.t.Fatal(err)
	}
	return ms
}

func (c *cloud) scale(replicas int32) {
	c.t.Helper()
	ms := c.set()
	ms.Spec.Replicas = &replicas
	if err := c.Update(c.ctx, ms); err != nil {
		c.t.Fatal(err)
	}
}

// status is replicas, ready and available.
func (c *cloud) status() [3]int32 {
	st := c.set().Status
	return [3]int32{st.Replicas, st.ReadyReplicas, st.AvailableReplicas}
}

func (c *cloud) machines() []machinev1beta1.Machine {
	c.t.Helper()
	list := &machinev1beta1.MachineList{}
	if err := c.List(c.ctx, list); err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

func machineSet(replicas int32) *machinev1beta1.MachineSet {
	labels := map[string]string{"set": "workers"}
	return &machinev1beta1.MachineSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: machine.Namespace, Name: "workers"},
		Spec: machinev1beta1.MachineSetSpec{
			Replicas: &replicas, Selector: metav1.LabelSelector{MatchLabels: labels},
			Template: machinev1beta1.MachineTemplateSpec{
				ObjectMeta: machinev1beta1.ObjectMeta{Labels: labels},
				Spec: machinev1beta1.MachineSpec{
					ObjectMeta: machinev1beta1.ObjectMeta{Labels: map[string]string{"node-role.kubernetes.io/layered": ""}},
					Taints:     []corev1.Taint{{Key: "fresh", Effect: corev1.TaintEffectPreferNoSchedule}},
				},
			},
		},
	}
}

func TestGrow(t *testing.T) {
	c := newCloud(t, 1, world.Lag{})
	var phases []string
	c.store.OnChange(func(ch *store.Change) {
		if m, ok := typed(ch.New).(*machinev1beta1.Machine); ok && len(phases) < 100 {
			p := fmt.Sprintf("%v %s", ch.Time.Sub(epoch), ptr.Deref(m.Status.Phase, "-"))
			if !slices.Contains(phases, p) {
				phases = append(phases, p)
			}
		}
	})
	c.create(machineSet(1))
	c.rest(time.Hour)
	if diff := cmp.Diff([]string{"0s -", "0s Provisioning", "2m0s Provisioning", "2m0s Provisioned", "5m0s Running"}, phases); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([3]int32{1, 1, 1}, c.status()); diff != "" {
		t.Errorf("replicas, ready, available (-want +got):\n%s", diff)
	}
	m := c.machines()[0]
	n := &corev1.Node{}
	if err := c.Get(c.ctx, client.ObjectKey{Name: m.Name}, n); err != nil {
		t.Fatal(err)
	}
	if m.Status.NodeRef == nil || m.Status.NodeRef.UID != n.UID || m.Spec.ProviderID == nil {
		t.Errorf("machine %+v", m.Status)
	}
	if _, ok := n.Labels["node-role.kubernetes.io/layered"]; !ok || len(n.Spec.Taints) != 1 ||
		n.Annotations[machine.NodeAnnotation] != machine.Namespace+"/"+m.Name {
		t.Errorf("node %+v", n)
	}
	// A taint that somebody removes stays away, a node that becomes unready is told.
	n.Spec.Taints = nil
	if err := c.Update(c.ctx, n); err != nil {
		t.Fatal(err)
	}
	n.Status.Conditions[0].Status = corev1.ConditionFalse
	if err := c.Status().Update(c.ctx, n); err != nil {
		t.Fatal(err)
	}
	c.rest(2 * time.Hour)
	if diff := cmp.Diff([3]int32{1, 0, 0}, c.status()); diff != "" {
		t.Errorf("of the unready node: replicas, ready, available (-want +got):\n%s", diff)
	}
	if err := c.Get(c.ctx, client.ObjectKey{Name: m.Name}, n); err != nil || len(n.Spec.Taints) != 0 {
		t.Errorf("taints %v, %v", n.Spec.Taints, err)
	}
}

func typed(o *store.Object) client.Object {
	if o == nil {
		return nil
	}
	return o.Typed()
}

func TestScaleUpAndDown(t *testing.T) {
	c := newCloud(t, 1, world.Lag{OneIn: 3, Most: 5 * time.Second})
	c.create(machineSet(3))
	c.rest(30 * time.Minute)
	old := map[string]bool{}
	for _, m := range c.machines() {
		old[m.Name] = true
	}
	c.scale(5)
	c.rest(31 * time.Minute)
	if diff := cmp.Diff([3]int32{5, 3, 3}, c.status()); diff != "" {
		t.Errorf("growing: replicas, ready, available (-want +got):\n%s", diff)
	}
	c.rest(time.Hour)
	if diff := cmp.Diff([3]int32{5, 5, 5}, c.status()); diff != "" || len(c.boots) != 5 {
		t.Errorf("grown: %d hosts; replicas, ready, available (-want +got):\n%s", len(c.boots), diff)
	}
	c.scale(3)
	c.rest(2 * time.Hour)
	if diff := cmp.Diff([3]int32{3, 3, 3}, c.status()); diff != "" || len(c.boots) != 3 {
		t.Errorf("shrunk: %d hosts; replicas, ready, available (-want +got):\n%s", len(c.boots), diff)
	}
	for _, m := range c.machines() {
		if !old[m.Name] {
			t.Errorf("%s is left, which is among the newest", m.Name)
		}
	}
	// Marked machines go first, whatever their age.
	marked := c.machines()[1]
	marked.Annotations = map[string]string{machine.DeleteAnnotation: "true"}
	if err := c.Update(c.ctx, &marked); err != nil {
		t.Fatal(err)
	}
	c.rest(121 * time.Minute)
	c.scale(2)
	c.rest(3 * time.Hour)
	for _, m := range c.machines() {
		if m.Name == marked.Name {
			t.Error("the marked machine is left")
		}
	}
	nodes := &corev1.NodeList{}
	if err := c.List(c.ctx, nodes); err != nil || len(nodes.Items) != 2 {
		t.Errorf("%d nodes, %v", len(nodes.Items), err)
	}
	if err := c.Delete(c.ctx, c.set()); err != nil {
		t.Fatal(err)
	}
	c.rest(4 * time.Hour)
	if len(c.machines()) != 0 || len(c.boots) != 0 {
		t.Errorf("%d machines and %d hosts of the deleted set are left", len(c.machines()), len(c.boots))
	}
}

func TestScaleSubresource(t *testing.T) {
	c := newCloud(t, 1, world.Lag{})
	c.create(machineSet(1))
	c.rest(time.Minute)
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":2}}`))
	if err := c.SubResource("scale").Patch(c.ctx, c.set(), patch); err != nil {
		t.Fatal(err)
	}
	c.rest(time.Hour)
	if diff := cmp.Diff([3]int32{2, 2, 2}, c.status()); diff != "" {
		t.Errorf("replicas, ready, available (-want +got):\n%s", diff)
	}
}

// Wherever the component dies: not a machine too many, and each host boots.
func TestSurvivesCrashes(t *testing.T) {
	for _, after := range []bool{false, true} {
		for write := 1; ; write++ {
			c := newCloud(t, uint64(write), world.Lag{OneIn: 3, Most: 5 * time.Second})
			created, fired := 0, false
			c.store.OnChange(func(ch *store.Change) {
				if ch.GVK.Kind == "Machine" && ch.Old == nil {
					created++
				}
			})
			c.world.Process("machine-api").CrashAt(world.Crash{Write: write, After: after, Fired: func(string) { fired = true }})
			c.create(machineSet(2))
			c.rest(time.Hour)
			if created != 2 || len(c.boots) != 2 || c.status() != [3]int32{2, 2, 2} {
				t.Errorf("crash after=%v write %d: %d machines created, %d hosts, status %v", after, write, created, len(c.boots), c.status())
			}
			c.scale(1)
			c.rest(2 * time.Hour)
			if created != 2 || len(c.boots) != 1 || c.status() != [3]int32{1, 1, 1} {
				t.Errorf("crash after=%v write %d: scaled down: %d machines created, %d hosts, status %v",
					after, write, created, len(c.boots), c.status())
			}
			if !fired {
				break
			}
		}
	}
}

func TestBootIsRetried(t *testing.T) {
	c := newCloud(t, 1, world.Lag{})
	c.broken = errors.New("out of capacity")
	c.create(machineSet(1))
	c.rest(10 * time.Minute)
	if c.calls < 3 || *c.machines()[0].Status.Phase != "Provisioning" {
		t.Errorf("%d calls, phase %s", c.calls, *c.machines()[0].Status.Phase)
	}
	c.broken = nil
	c.rest(2 * time.Hour)
	if diff := cmp.Diff([3]int32{1, 1, 1}, c.status()); diff != "" {
		t.Errorf("replicas, ready, available (-want +got):\n%s", diff)
	}
}

// A machine leaves only after its pods did, which a budget and a hook may delay.
func TestDrain(t *testing.T) {
	for _, hook := range []bool{true, false} {
		drain(t, hook)
	}
}

func drain(t *testing.T, hook bool) {
	c := newCloud(t, 1, world.Lag{})
	c.create(machineSet(1), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	c.rest(10 * time.Minute)
	host := c.machines()[0].Name
	labels := map[string]string{"app": "web"}
	pod := func(name string, owner ...metav1.OwnerReference) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: labels, OwnerReferences: owner},
			Spec:       corev1.PodSpec{NodeName: host, Containers: []corev1.Container{{Name: "c", Image: "quay.io/a/b:1"}}},
		}
	}
	c.create(pod("web"))
	c.create(&policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels},
		},
	})
	running := &corev1.Pod{}
	key := client.ObjectKey{Namespace: "ns", Name: "web"}
	if err := c.Get(c.ctx, key, running); err != nil {
		t.Fatal(err)
	}
	running.Status.Phase = corev1.PodRunning
	running.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if err := c.Status().Update(c.ctx, running); err != nil {
		t.Fatal(err)
	}
	m := c.machines()[0]
	if hook {
		m.Spec.LifecycleHooks.PreTerminate = []machinev1beta1.LifecycleHook{{Name: "hook", Owner: "test"}}
	}
	if err := c.Update(c.ctx, &m); err != nil {
		t.Fatal(err)
	}
	c.scale(0)
	c.rest(20 * time.Minute)
	n := &corev1.Node{}
	if err := c.Get(c.ctx, client.ObjectKey{Name: host}, n); err != nil || !n.Spec.Unschedulable {
		t.Errorf("node: unschedulable %v, %v", n.Spec.Unschedulable, err)
	}
	if err := c.Get(c.ctx, key, running); err != nil || running.DeletionTimestamp != nil {
		t.Errorf("the budget didn't hold the pod: %v", err)
	}
	if m = c.machines()[0]; *m.Status.Phase != "Deleting" || len(c.boots) != 1 {
		t.Errorf("phase %s, %d hosts", *m.Status.Phase, len(c.boots))
	}

	if err := c.Delete(c.ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}}); err != nil {
		t.Fatal(err)
	}
	c.rest(21 * time.Minute)
	if err := c.Get(c.ctx, key, running); err != nil || running.DeletionTimestamp == nil {
		t.Errorf("the pod wasn't evicted: %v", err)
	}
	if len(c.boots) != 1 {
		t.Error("the host went before its pod")
	}
	if err := c.Delete(c.ctx, running, client.GracePeriodSeconds(0)); err != nil { // its kubelet has stopped it
		t.Fatal(err)
	}
	c.rest(22 * time.Minute)
	if hook {
		if len(c.boots) != 1 || len(c.machines()) != 1 {
			t.Fatal("the hook preTerminate didn't hold the machine")
		}
		m = c.machines()[0]
		m.Spec.LifecycleHooks.PreTerminate = nil
		if err := c.Update(c.ctx, &m); err != nil {
			t.Fatal(err)
		}
	}
	c.rest(time.Hour)
	if len(c.boots) != 0 || len(c.machines()) != 0 {
		t.Errorf("%d hosts, %d machines are left", len(c.boots), len(c.machines()))
	}
	if err := c.Get(c.ctx, client.ObjectKey{Name: host}, n); !apierrors.IsNotFound(err) {
		t.Errorf("node: %v", err)
	}
}
