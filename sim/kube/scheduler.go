package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
)

// Scheduler models kube's scheduler: it binds pods of the default scheduler that have no node to the node with the
// fewest pods among those that fit, and among those whose PreferNoSchedule taints the pod tolerates where there are any.
// Equals are chosen between at random ([component.Env].Rand).
//
// A node fits when it is ready and schedulable, when the pod tolerates its NoSchedule and NoExecute taints, and when it
// matches nodeSelector and the required node affinity. A pod that fits nowhere gets the condition PodScheduled=False,
// reason Unschedulable, with the count of nodes for each cause, and is tried again when a node comes or changes so that
// the pod fits it.
func Scheduler() component.Component {
	return component.Component{
		Name: "scheduler",
		Watches: []component.Watch{
			{Object: &corev1.Node{}, When: placeMatters, Map: func(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
				return request(nodePrefix, o)
			}},
			{Object: &corev1.Pod{}, When: podMatters, Map: func(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
				return request(podPrefix, o)
			}},
		},
		New: func(env component.Env) (reconcile.Reconciler, error) { return &scheduler{env: env}, nil },
	}
}

// placeMatters drops updates of nodes that change nothing of what places are chosen by.
func placeMatters(before, after client.Object) bool {
	a, ok1 := before.(*corev1.Node)
	b, ok2 := after.(*corev1.Node)
	if !ok1 || !ok2 || a == nil || b == nil {
		return true
	}
	return healthMatters(before, after) || !sameStrings(a.Labels, b.Labels)
}

// place is what is remembered of a node.
type place struct {
	name          string
	labels        map[string]string
	taints        []corev1.Taint
	unschedulable bool
	ready         bool
}

type scheduler struct {
	env     component.Env
	loaded  bool
	nodes   map[string]*place
	pods    map[types.NamespacedName]seat
	load    map[string]int // pods per node name
	waiting map[types.NamespacedName]*corev1.Pod
}

// seat is where a pod runs.
type seat struct {
	uid  types.UID
	node string
}

func (r *scheduler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if err := r.start(ctx); err != nil {
		return reconcile.Result{}, err
	}
	var err error
	if node, ok := cutName(req, nodePrefix); ok {
		err = r.node(ctx, node.Name)
	} else if pod, ok := cutName(req, podPrefix); ok {
		err = r.pod(ctx, pod)
	}
	return reconcile.Result{}, err
}

// start loads what exists.
func (r *scheduler) start(ctx context.Context) error {
	if r.loaded {
		return nil
	}
	r.nodes, r.pods, r.load = map[string]*place{}, map[types.NamespacedName]seat{}, map[string]int{}
	r.waiting = map[types.NamespacedName]*corev1.Pod{}
	nodes, pods := &corev1.NodeList{}, &corev1.PodList{}
	if err := r.env.Live.List(ctx, nodes); err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	if err := r.env.Live.List(ctx, pods); err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for i := range nodes.Items {
		r.nodes[nodes.Items[i].Name] = placeOf(&nodes.Items[i])
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Spec.NodeName != "" && !podFinished(p) {
			r.sit(client.ObjectKeyFromObject(p), seat{p.UID, p.Spec.NodeName})
		}
	}
	r.loaded = true
	return nil
}

func placeOf(n *corev1.Node) *place {
	return &place{
		name: n.Name, labels: n.Labels, taints: n.Spec.Taints,
		unschedulable: n.Spec.Unschedulable, ready: nodeReady(n) == corev1.ConditionTrue,
	}
}

func (r *scheduler) sit(pod types.NamespacedName, s seat) {
	r.rise(pod)
	r.pods[pod] = s
	r.load[s.node]++
}

func (r *scheduler) rise(pod types.NamespacedName) {
	s, ok := r.pods[pod]
	if !ok {
		return
	}
	delete(r.pods, pod)
	if r.load[s.node]--; r.load[s.node] == 0 {
		delete(r.load, s.node)
	}
}

// node takes in a node's state, and tries the waiting pods that fit it now.
func (r *scheduler) node(ctx context.Context, name string) error {
	n := &corev1.Node{}
	if err := r.env.Client.Get(ctx, client.ObjectKey{Name: name}, n); apierrors.IsNotFound(err) {
		delete(r.nodes, name)
		return nil
	} else if err != nil {
		return fmt.Errorf("get node %s: %w", name, err)
	}
	r.nodes[name] = placeOf(n)
	waiting := slices.SortedFunc(maps.Values(r.waiting), func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var errs []error
	for _, p := range waiting {
		if misfit(p, r.nodes[name]) == "" {
			errs = append(errs, r.pod(ctx, client.ObjectKeyFromObject(p)))
		}
	}
	return errors.Join(errs...)
}

// pod takes in a pod's state, and finds a place for one that has none.
func (r *scheduler) pod(ctx context.Context, name types.NamespacedName) error {
	p := &corev1.Pod{}
	if err := r.env.Client.Get(ctx, name, p); apierrors.IsNotFound(err) {
		r.rise(name)
		delete(r.waiting, name)
		return nil
	} else if err != nil {
		return fmt.Errorf("get pod %s: %w", name, err)
	}
	if podFinished(p) {
		r.rise(name)
		delete(r.waiting, name)
		return nil
	}
	if p.Spec.NodeName != "" {
		r.sit(name, seat{p.UID, p.Spec.NodeName})
		delete(r.waiting, name)
		return nil
	}
	if r.pods[name].uid == p.UID { // bound by us; the cache doesn't know yet
		return nil
	}
	r.rise(name)
	mine := p.Spec.SchedulerName == "" || p.Spec.SchedulerName == corev1.DefaultSchedulerName
	if !mine || !p.DeletionTimestamp.IsZero() || len(p.Spec.SchedulingGates) > 0 {
		delete(r.waiting, name)
		return nil
	}
	node, why := r.choose(p)
	if node == "" {
		r.waiting[name] = p
		return r.unschedulable(ctx, p, why)
	}
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	if err := r.env.Client.SubResource("binding").Create(ctx, p, binding); apierrors.IsNotFound(err) {
		delete(r.waiting, name)
		return nil
	} else if err != nil {
		return fmt.Errorf("bind pod %s to %s: %w", name, node, err)
	}
	r.sit(name, seat{p.UID, node})
	delete(r.waiting, name)
	event(r.env, p, corev1.EventTypeNormal, "Scheduled", "Binding", "Successfully assigned %s to %s", name, node)
	return nil
}

// choose returns the best node, or none and why.
func (r *scheduler) choose(p *corev1.Pod) (string, string) {
	var best []string
	var bestAvoided, bestLoad int
	causes := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(r.nodes)) {
		n := r.nodes[name]
		if cause := misfit(p, n); cause != "" {
			causes[cause]++
			continue
		}
		avoided, load := avoids(p, n), r.load[n.name]
		switch d := cmp.Or(cmp.Compare(avoided, bestAvoided), cmp.Compare(load, bestLoad)); {
		case best == nil || d < 0:
			best, bestAvoided, bestLoad = []string{n.name}, avoided, load
		case d == 0:
			best = append(best, n.name)
		}
	}
	if best != nil {
		slices.Sort(best)
		return best[r.env.Rand.IntN(len(best))], ""
	}
	if len(r.nodes) == 0 {
		return "", "no nodes available to schedule pods"
	}
	var parts []string
	for _, cause := range slices.Sorted(maps.Keys(causes)) {
		parts = append(parts, fmt.Sprintf("%d %s", causes[cause], cause))
	}
	return "", fmt.Sprintf("0/%d nodes are available: %s.", len(r.nodes), strings.Join(parts, ", "))
}

// misfit says why a pod can't run on a node; "" where it can.
func misfit(p *corev1.Pod, n *place) string {
	tolerated := func(t corev1.Taint) bool {
		return slices.ContainsFunc(p.Spec.Tolerations, func(x corev1.Toleration) bool { return tolerates(x, t) })
	}
	if n.unschedulable && !tolerated(corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}) {
		return "node(s) were unschedulable"
	}
	for _, t := range n.taints {
		if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerated(t) {
			return fmt.Sprintf("node(s) had untolerated taint(s) {%s: %s}", t.Key, t.Value)
		}
	}
	if !n.ready && !tolerated(corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}) {
		return "node(s) were not ready"
	}
	for key, value := range p.Spec.NodeSelector {
		if got, ok := n.labels[key]; !ok || got != value {
			return "node(s) didn't match Pod's node affinity/selector"
		}
	}
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		if required := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil &&
			!slices.ContainsFunc(required.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool { return termMatches(t, n) }) {
			return "node(s) didn't match Pod's node affinity/selector"
		}
	}
	return ""
}

// avoids counts the PreferNoSchedule taints that a pod doesn't tolerate.
func avoids(p *corev1.Pod, n *place) int {
	count := 0
	for _, t := range n.taints {
		if t.Effect == corev1.TaintEffectPreferNoSchedule &&
			!slices.ContainsFunc(p.Spec.Tolerations, func(x corev1.Toleration) bool { return tolerates(x, t) }) {
			count++
		}
	}
	return count
}

func tolerates(x corev1.Toleration, t corev1.Taint) bool {
	if x.Effect != "" && x.Effect != t.Effect || x.Key != "" && x.Key != t.Key {
		return false
	}
	switch x.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return x.Key != "" && x.Value == t.Value
	}
	return false
}

// termMatches evaluates one term of a node affinity; an empty one matches nothing.
func termMatches(term corev1.NodeSelectorTerm, n *place) bool {
	if len(term.MatchExpressions) == 0 && len(term.MatchFields) == 0 {
		return false
	}
	for _, e := range term.MatchExpressions {
		value, ok := n.labels[e.Key]
		if !requirementMatches(e, value, ok) {
			return false
		}
	}
	for _, e := range term.MatchFields {
		if !requirementMatches(e, n.name, e.Key == metav1.ObjectNameField) {
			return false
		}
	}
	return true
}

func requirementMatches(e corev1.NodeSelectorRequirement, value string, ok bool) bool {
	switch e.Operator {
	case corev1.NodeSelectorOpIn:
		return ok && slices.Contains(e.Values, value)
	case corev1.NodeSelectorOpNotIn:
		return !ok || !slices.Contains(e.Values, value)
	case corev1.NodeSelectorOpExists:
		return ok
	case corev1.NodeSelectorOpDoesNotExist:
		return !ok
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if !ok || len(e.Values) != 1 {
			return false
		}
		got, err1 := strconv.ParseInt(value, 10, 64)
		bound, err2 := strconv.ParseInt(e.Values[0], 10, 64)
		if err1 != nil || err2 != nil {
			return false
		}
		return e.Operator == corev1.NodeSelectorOpGt && got > bound || e.Operator == corev1.NodeSelectorOpLt && got < bound
	}
	return false
}

// unschedulable tells on the pod that it has to wait.
func (r *scheduler) unschedulable(ctx context.Context, p *corev1.Pod, why string) error {
	want := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: why,
		LastTransitionTime: metav1.NewTime(r.env.Clock.Now().Truncate(time.Second)),
	}
	base := p.DeepCopy()
	i := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == want.Type })
	switch {
	case i < 0:
		p.Status.Conditions = append(p.Status.Conditions, want)
	case p.Status.Conditions[i].Status == want.Status && p.Status.Conditions[i].Message == why:
		return nil
	default:
		if p.Status.Conditions[i].Status == want.Status {
			want.LastTransitionTime = p.Status.Conditions[i].LastTransitionTime
		}
		p.Status.Conditions[i] = want
	}
	err := r.env.Client.Status().Patch(ctx, p, client.StrategicMergeFrom(base))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("mark pod %s unschedulable: %w", client.ObjectKeyFromObject(p), err)
	}
	if err == nil {
		r.waiting[client.ObjectKeyFromObject(p)] = p
		event(r.env, p, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", "%s", why)
	}
	return nil
}
