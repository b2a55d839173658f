package kube_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/layersim/layersim/sim/kube"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

var web = map[string]string{"app": "web"}

func deployment(replicas int32) *appsv1.Deployment {
	spec := podSpec()
	spec.RestartPolicy = corev1.RestartPolicyAlways
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: web},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: web}, Spec: spec},
		},
	}
}

func workloads(t *testing.T, seed uint64, lag world.Lag, o kube.Options) *cluster {
	c := newCluster(t, seed, lag, append(kube.Components(o), kubelet(forever))...)
	c.create(node("n1"), node("n2"), node("n3"))
	return c
}

func perNode(c *cluster) map[string]int {
	m := map[string]int{}
	for _, p := range c.pods() {
		m[p.Spec.NodeName]++
	}
	return m
}

func evict(c *cluster, p *corev1.Pod) error {
	return c.SubResource("eviction").Create(c.ctx, p, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
	})
}

// The whole circle of a drain: cordon, taint, eviction within the budget, replacement elsewhere.
func TestDrainedWorkloadComesBack(t *testing.T) {
	c := workloads(t, 1, world.Lag{OneIn: 4, Most: 2 * time.Second}, kube.Options{})
	created := c.created()
	c.create(deployment(6), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: web},
		},
	})
	c.rest(time.Minute)
	if diff := cmp.Diff(map[string]int{"n1": 2, "n2": 2, "n3": 2}, perNode(c)); diff != "" {
		t.Errorf("pods per node (-want +got):\n%s", diff)
	}
	if d, _ := get[appsv1.Deployment](c, "web"); d.Status.ReadyReplicas != 6 || d.Status.AvailableReplicas != 6 ||
		d.Status.Replicas != 6 || d.Status.Conditions[0].Status != corev1.ConditionTrue {
		t.Errorf("deployment status %+v", d.Status)
	}
	change(c, "n1", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	refused := 0
	for now := time.Minute; perNode(c)["n1"] > 0 && now < 10*time.Minute; now += 5 * time.Second {
		for _, p := range c.pods() {
			if p.Spec.NodeName == "n1" && p.DeletionTimestamp == nil {
				if err := evict(c, &p); apierrors.IsTooManyRequests(err) {
					refused++
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}
		c.rest(now + 5*time.Second)
	}
	c.rest(20 * time.Minute)
	if diff := cmp.Diff(map[string]int{"n2": 3, "n3": 3}, perNode(c)); diff != "" {
		t.Errorf("pods per node after the drain (-want +got):\n%s", diff)
	}
	if refused == 0 {
		t.Error("the budget refused no eviction")
	}
	if *created != 8 {
		t.Errorf("%d pods were created, want 8", *created)
	}
}

func TestReplicaSetSurvivesCrashes(t *testing.T) {
	for _, after := range []bool{false, true} {
		for write := 1; ; write++ {
			c := workloads(t, uint64(write), world.Lag{OneIn: 3, Most: 5 * time.Second}, kube.Options{})
			created, fired := c.created(), false
			c.world.Process("replicaset-controller").CrashAt(world.Crash{
				Write: write, After: after, Fired: func(string) { fired = true },
			})
			c.create(deployment(3))
			c.rest(time.Hour)
			if rs, _ := get[appsv1.Deployment](c, "web"); *created != 3 || rs.Status.ReadyReplicas != 3 {
				t.Errorf("crash after=%v write %d: %d pods created, status %+v", after, write, *created, rs.Status)
			}
			if !fired {
				break
			}
		}
	}
}

func TestDeploymentScalesAndChanges(t *testing.T) {
	for seed := range uint64(10) {
		scalesAndChanges(t, seed)
	}
}

func scalesAndChanges(t *testing.T, seed uint64) {
	c := workloads(t, seed, world.Lag{OneIn: 3, Most: time.Second}, kube.Options{})
	c.create(deployment(2))
	c.rest(time.Minute)
	for i, replicas := range []int32{5, 1, 4} {
		change(c, "web", func(d *appsv1.Deployment) { d.Spec.Replicas = &replicas })
		c.rest(time.Duration(i+2) * time.Minute)
		if d, _ := get[appsv1.Deployment](c, "web"); len(c.pods()) != int(replicas) || d.Status.ReadyReplicas != replicas {
			t.Errorf("scaled to %d: %d pods, status %+v", replicas, len(c.pods()), d.Status)
		}
	}
	most := 0
	c.store.OnChange(func(ch *store.Change) {
		if ch.GVK.Kind == "Pod" {
			most = max(most, len(slices.DeleteFunc(c.pods(), func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })))
		}
	})
	change(c, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "quay.io/a/b:2" })
	c.rest(10 * time.Minute)
	if most > 4 {
		t.Errorf("old and new pods overlapped: %d at once", most)
	}
	for _, p := range c.pods() {
		if p.Spec.Containers[0].Image != "quay.io/a/b:2" {
			t.Errorf("pod %s has the old image", p.Name)
		}
	}
	if len(c.pods()) != 4 {
		t.Errorf("%d pods, want 4", len(c.pods()))
	}
	d, _ := get[appsv1.Deployment](c, "web")
	if err := c.Delete(c.ctx, d); err != nil {
		t.Fatal(err)
	}
	c.rest(20 * time.Minute)
	if n := len(c.pods()); n != 0 {
		t.Errorf("%d pods are left of the deleted deployment", n)
	}
}

func TestDisruptionBudget(t *testing.T) {
	number, percent := intstr.FromInt32, intstr.FromString
	for _, tc := range []struct {
		name                              string
		pods                              int32
		min, max                          *intstr.IntOrString
		expected, desired, healthy, allow int32
	}{
		{"minAvailable 2 of 3", 3, ptr.To(number(2)), nil, 3, 2, 3, 1},
		{"minAvailable 3 of 3", 3, ptr.To(number(3)), nil, 3, 3, 3, 0},
		{"minAvailable 5 of 3", 3, ptr.To(number(5)), nil, 3, 5, 3, 0},
		{"minAvailable 50% of 3 rounds up", 3, ptr.To(percent("50%")), nil, 3, 2, 3, 1},
		{"minAvailable 0% of 3", 3, ptr.To(percent("0%")), nil, 3, 0, 3, 3},
		{"maxUnavailable 1 of 3", 3, nil, ptr.To(number(1)), 3, 2, 3, 1},
		{"maxUnavailable 0 of 3", 3, nil, ptr.To(number(0)), 3, 3, 3, 0},
		{"maxUnavailable 30% of 4 rounds up", 4, nil, ptr.To(percent("30%")), 4, 2, 4, 2},
		{"maxUnavailable 5 of 3", 3, nil, ptr.To(number(5)), 3, 0, 3, 3},
		{"none of none", 0, ptr.To(number(0)), nil, 0, 0, 0, 0},
	} {
		c := workloads(t, 1, world.Lag{}, kube.Options{})
		c.create(deployment(tc.pods), &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
			Spec: policyv1.PodDisruptionBudgetSpec{
				MinAvailable: tc.min, MaxUnavailable: tc.max, Selector: &metav1.LabelSelector{MatchLabels: web},
			},
		})
		c.rest(time.Minute)
		b, _ := get[policyv1.PodDisruptionBudget](c, "web")
		got := []int32{b.Status.ExpectedPods, b.Status.DesiredHealthy, b.Status.CurrentHealthy, b.Status.DisruptionsAllowed}
		if diff := cmp.Diff([]int32{tc.expected, tc.desired, tc.healthy, tc.allow}, got); diff != "" {
			t.Errorf("%s: expected, desired, healthy, allowed (-want +got):\n%s", tc.name, diff)
		}
		if b.Status.ObservedGeneration != b.Generation || len(b.Status.Conditions) != 1 {
			t.Errorf("%s: status %+v", tc.name, b.Status)
		}
	}
}

// A pod that stays ready after its granted eviction is held against the budget, for two minutes at most.
func TestDisruptedPods(t *testing.T) {
	c := newCluster(t, 1, world.Lag{}, kube.DisruptionController())
	for i := range 3 {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprintf("web-%d", i), Labels: web}, Spec: podSpec()}
		p.Spec.NodeName = "n1"
		c.create(p)
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if err := c.Status().Update(c.ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	c.create(&policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: web},
		},
	})
	c.rest(10 * time.Second)
	b, _ := get[policyv1.PodDisruptionBudget](c, "web")
	b.Status.DisruptedPods = map[string]metav1.Time{
		"web-0": metav1.NewTime(c.clock.Now()), "gone": metav1.NewTime(c.clock.Now()),
	}
	if err := c.Status().Update(c.ctx, b); err != nil {
		t.Fatal(err)
	}
	c.rest(time.Minute)
	if b, _ = get[policyv1.PodDisruptionBudget](c, "web"); b.Status.DisruptionsAllowed != 1 || len(b.Status.DisruptedPods) != 1 {
		t.Errorf("while held: %+v", b.Status)
	}
	c.rest(5 * time.Minute)
	if b, _ = get[policyv1.PodDisruptionBudget](c, "web"); b.Status.DisruptionsAllowed != 2 || len(b.Status.DisruptedPods) != 0 {
		t.Errorf("after two minutes: %+v", b.Status)
	}
	leaving := c.pods()[0]
	if err := c.Delete(c.ctx, &leaving); err != nil {
		t.Fatal(err)
	}
	c.rest(6 * time.Minute)
	if b, _ = get[policyv1.PodDisruptionBudget](c, "web"); b.Status.DisruptionsAllowed != 1 || b.Status.CurrentHealthy != 2 {
		t.Errorf("while a pod is being deleted: %+v", b.Status)
	}
}

func taints(c *cluster, name string) []string {
	n, _ := get[corev1.Node](c, name)
	var out []string
	for _, t := range n.Spec.Taints {
		out = append(out, t.ToString())
	}
	return out
}

func TestNodeLifecycle(t *testing.T) {
	down := map[string]time.Time{}
	c := newCluster(t, 1, world.Lag{}, kube.NodeLifecycle(kube.Options{Heartbeat: func(n string) (time.Time, bool) {
		at, ok := down[n]
		return at, !ok
	}}))
	c.create(node("n1", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "mine", Effect: corev1.TaintEffectPreferNoSchedule}}
	}))
	step := func(what string, until time.Duration, want ...string) {
		t.Helper()
		c.rest(until)
		if diff := cmp.Diff(append([]string{"mine:PreferNoSchedule"}, want...), taints(c, "n1")); diff != "" {
			t.Errorf("%s: taints (-want +got):\n%s", what, diff)
		}
	}
	ready := func(status corev1.ConditionStatus) {
		change(c, "n1", func(n *corev1.Node) { n.Status.Conditions[0].Status = status })
	}
	step("healthy", time.Minute)
	change(c, "n1", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	step("cordoned", 2*time.Minute, "node.kubernetes.io/unschedulable:NoSchedule")
	down["n1"] = c.clock.Now()
	ready(corev1.ConditionFalse) // the kubelet's own farewell
	step("shutting down", 2*time.Minute+39*time.Second, "node.kubernetes.io/unschedulable:NoSchedule",
		"node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute")
	step("silent", 3*time.Minute, "node.kubernetes.io/unschedulable:NoSchedule",
		"node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute")
	n, _ := get[corev1.Node](c, "n1")
	if r := n.Status.Conditions[0]; r.Status != corev1.ConditionUnknown || r.Reason != "NodeStatusUnknown" ||
		r.LastTransitionTime.Sub(epoch) != 2*time.Minute+40*time.Second {
		t.Errorf("condition %+v", r)
	}
	delete(down, "n1")
	ready(corev1.ConditionTrue)
	change(c, "n1", func(n *corev1.Node) { n.Spec.Unschedulable = false })
	step("back", 4*time.Minute)
	if c.rest(time.Hour); c.world.Jump() {
		t.Error("an idle cluster has a timer")
	}
}

// With a monitor period the loss of power is noticed although no object changes, and only the lost node is written.
func TestNodeLifecycleMonitor(t *testing.T) {
	down := map[string]time.Time{}
	c := newCluster(t, 1, world.Lag{}, kube.NodeLifecycle(kube.Options{
		MonitorPeriod: 5 * time.Second,
		Heartbeat: func(n string) (time.Time, bool) {
			at, ok := down[n]
			return at, !ok
		},
	}))
	c.create(node("n1"), node("n2"), node("n3"))
	before := c.store.Revision()
	c.rest(10 * time.Minute)
	if c.store.Revision() != before {
		t.Error("healthy nodes were written")
	}
	down["n2"] = c.clock.Now()
	c.rest(11 * time.Minute)
	n, _ := get[corev1.Node](c, "n2")
	if at := n.Status.Conditions[0].LastTransitionTime.Sub(epoch); n.Status.Conditions[0].Status != corev1.ConditionUnknown ||
		at < 10*time.Minute+40*time.Second || at > 10*time.Minute+45*time.Second {
		t.Errorf("condition %+v", n.Status.Conditions[0])
	}
	if got := c.store.Revision() - before; got != 2 {
		t.Errorf("%d revisions, want 2", got)
	}
}

func TestSchedulerPredicates(t *testing.T) {
	label := func(k, v string) func(*corev1.Node) { return func(n *corev1.Node) { n.Labels[k] = v } }
	taint := func(e corev1.TaintEffect) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Value: "v", Effect: e}} }
	}
	unready := func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionFalse }
	cordoned := func(n *corev1.Node) { n.Spec.Unschedulable = true }
	tolerate := func(x corev1.Toleration) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.Tolerations = []corev1.Toleration{x} }
	}
	affinity := func(e corev1.NodeSelectorRequirement) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
					{}, {MatchExpressions: []corev1.NodeSelectorRequirement{e}},
				}},
			}}
		}
	}
	any := func(*corev1.PodSpec) {}
	for _, tc := range []struct {
		name string
		node func(*corev1.Node)
		pod  func(*corev1.PodSpec)
		why  string // "" where it fits
	}{
		{"plain", label("a", "b"), any, ""},
		{"cordoned", cordoned, any, "node(s) were unschedulable"},
		{"cordoned, tolerated", cordoned, tolerate(corev1.Toleration{Key: corev1.TaintNodeUnschedulable, Operator: "Exists"}), ""},
		{"not ready", unready, any, "node(s) were not ready"},
		{"NoSchedule", taint("NoSchedule"), any, "node(s) had untolerated taint(s) {k: v}"},
		{"NoExecute", taint("NoExecute"), any, "node(s) had untolerated taint(s) {k: v}"},
		{"PreferNoSchedule", taint("PreferNoSchedule"), any, ""},
		{"tolerated by value", taint("NoSchedule"), tolerate(corev1.Toleration{Key: "k", Value: "v"}), ""},
		{"another value", taint("NoSchedule"), tolerate(corev1.Toleration{Key: "k", Value: "w"}), "node(s) had untolerated taint(s) {k: v}"},
		{"another effect", taint("NoSchedule"), tolerate(corev1.Toleration{Key: "k", Value: "v", Effect: "NoExecute"}),
			"node(s) had untolerated taint(s) {k: v}"},
		{"tolerates all", taint("NoExecute"), tolerate(corev1.Toleration{Operator: "Exists"}), ""},
		{"selector", label("a", "b"), func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"a": "b"} }, ""},
		{"selector of another value", label("a", "b"), func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"a": "c"} },
			"node(s) didn't match Pod's node affinity/selector"},
		{"In", label("a", "b"), affinity(corev1.NodeSelectorRequirement{Key: "a", Operator: "In", Values: []string{"b"}}), ""},
		{"NotIn", label("a", "b"), affinity(corev1.NodeSelectorRequirement{Key: "a", Operator: "NotIn", Values: []string{"b"}}),
			"node(s) didn't match Pod's node affinity/selector"},
		{"Exists", label("a", "b"), affinity(corev1.NodeSelectorRequirement{Key: "a", Operator: "Exists"}), ""},
		{"DoesNotExist", label("a", "b"), affinity(corev1.NodeSelectorRequirement{Key: "a", Operator: "DoesNotExist"}),
			"node(s) didn't match Pod's node affinity/selector"},
		{"Gt", label("a", "5"), affinity(corev1.NodeSelectorRequirement{Key: "a", Operator: "Gt", Values: []string{"4"}}), ""},
		{"Lt", label("a", "5"), affinity(corev1.NodeSelectorRequirement{Key: "a", Operator: "Lt", Values: []string{"5"}}),
			"node(s) didn't match Pod's node affinity/selector"},
	} {
		c := newCluster(t, 1, world.Lag{}, kube.Scheduler())
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: podSpec()}
		tc.pod(&p.Spec)
		c.create(node("n1", tc.node), p)
		c.rest(time.Minute)
		p, _ = get[corev1.Pod](c, "p")
		if tc.why == "" {
			if p.Spec.NodeName != "n1" {
				t.Errorf("%s: not bound: %+v", tc.name, p.Status.Conditions)
			}
			continue
		}
		if p.Spec.NodeName != "" || len(p.Status.Conditions) != 1 {
			t.Errorf("%s: node %q, conditions %+v", tc.name, p.Spec.NodeName, p.Status.Conditions)
			continue
		}
		if got, want := p.Status.Conditions[0].Message, "0/1 nodes are available: 1 "+tc.why+"."; got != want ||
			p.Status.Conditions[0].Reason != "Unschedulable" {
			t.Errorf("%s: condition %+v, want %q", tc.name, p.Status.Conditions[0], want)
		}
		// It is tried again when the node changes.
		change(c, "n1", func(n *corev1.Node) {
			fresh := node("n1", label("a", "c"))
			n.Spec, n.Labels, n.Status.Conditions = fresh.Spec, fresh.Labels, fresh.Status.Conditions
			if tc.name == "DoesNotExist" {
				delete(n.Labels, "a")
			} else if tc.name == "Lt" {
				n.Labels["a"] = "4"
			}
		})
		c.rest(2 * time.Minute)
		if p, _ = get[corev1.Pod](c, "p"); p.Spec.NodeName != "n1" {
			t.Errorf("%s: not bound after the node's change: %+v", tc.name, p.Status.Conditions)
		}
	}
}

func TestSchedulerSpreads(t *testing.T) {
	c := newCluster(t, 1, world.Lag{OneIn: 2, Most: 5 * time.Second}, kube.Scheduler())
	c.create(node("n1"), node("n2"), node("n3"), node("avoided", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "UpdateInProgress", Effect: corev1.TaintEffectPreferNoSchedule}}
	}))
	bindings := 0
	c.store.OnChange(func(ch *store.Change) {
		if ch.Subresource == "binding" {
			bindings++
		}
	})
	for i := range 30 {
		c.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("p", i)}, Spec: podSpec()})
	}
	c.world.Process("scheduler").CrashAt(world.Crash{Write: 7, After: true})
	c.rest(10 * time.Minute)
	if diff := cmp.Diff(map[string]int{"n1": 10, "n2": 10, "n3": 10}, perNode(c)); diff != "" {
		t.Errorf("pods per node (-want +got):\n%s", diff)
	}
	if bindings != 30 {
		t.Errorf("%d bindings, want 30", bindings)
	}
}
