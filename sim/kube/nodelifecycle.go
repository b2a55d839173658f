package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
)

const defaultGracePeriod = 40 * time.Second

// The taints that node-lifecycle owns.
var lifecycleTaints = []string{
	corev1.TaintNodeUnschedulable, corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable,
}

// NodeLifecycle models kube's node lifecycle controller.
//
// A node has the taint node.kubernetes.io/unschedulable:NoSchedule while spec.unschedulable is set, not-ready:NoSchedule
// and :NoExecute while its condition Ready is False, unreachable:NoSchedule and :NoExecute while it is Unknown. When its
// kubelet has been silent for the grace period its conditions become Unknown, reason NodeStatusUnknown. Silence is asked
// of [Options].Heartbeat, so that a healthy node costs no revision.
func NodeLifecycle(o Options) component.Component {
	if o.GracePeriod == 0 {
		o.GracePeriod = defaultGracePeriod
	}
	watch := component.Watch{
		Object: &corev1.Node{}, When: healthMatters,
		Map: func(_ context.Context, _ client.Reader, n client.Object) []reconcile.Request {
			requests := request(nodePrefix, n)
			if o.MonitorPeriod > 0 && o.Heartbeat != nil {
				requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: monitor}})
			}
			return requests
		},
	}
	return component.Component{
		Name:    "node-lifecycle",
		Watches: []component.Watch{watch},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			return &lifecycle{env: env, options: o, nodes: map[string]struct{}{}}, nil
		},
	}
}

// healthMatters drops updates that change neither spec nor the Ready condition of a node.
func healthMatters(before, after client.Object) bool {
	a, ok1 := before.(*corev1.Node)
	b, ok2 := after.(*corev1.Node)
	if !ok1 || !ok2 || a == nil || b == nil {
		return true
	}
	return a.Spec.Unschedulable != b.Spec.Unschedulable || nodeReady(a) != nodeReady(b) || a.UID != b.UID ||
		!slices.EqualFunc(a.Spec.Taints, b.Spec.Taints, sameTaint)
}

func sameTaint(a, b corev1.Taint) bool {
	return a.Key == b.Key && a.Value == b.Value && a.Effect == b.Effect
}

type lifecycle struct {
	env     component.Env
	options Options
	nodes   map[string]struct{}
	next    time.Time // when the monitor looks at all nodes again
}

// NodeKey is the request by which node-lifecycle looks at a node. A driver that lets a machine lose its power may queue
// it, instead of having all nodes looked at every MonitorPeriod.
func NodeKey(node string) string { return nodePrefix + node }

// monitor is the name of the request that looks at all nodes.
const monitor = "monitor/"

func (r *lifecycle) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if node, ok := cutName(req, nodePrefix); ok {
		wait, err := r.look(ctx, node.Name)
		return reconcile.Result{RequeueAfter: wait}, err
	}
	now := r.env.Clock.Now()
	if wait := r.next.Sub(now); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	var silent []string
	for node := range r.nodes {
		if _, alive := r.options.Heartbeat(node); !alive {
			silent = append(silent, node)
		}
	}
	slices.Sort(silent)
	var errs []error
	for _, node := range silent {
		_, err := r.look(ctx, node)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return reconcile.Result{}, err
	}
	r.next = now.Add(r.options.MonitorPeriod)
	return reconcile.Result{RequeueAfter: r.options.MonitorPeriod}, nil
}

// look brings one node up to date, and says when to look again.
func (r *lifecycle) look(ctx context.Context, name string) (time.Duration, error) {
	n := &corev1.Node{}
	if err := r.env.Client.Get(ctx, client.ObjectKey{Name: name}, n); err != nil {
		if client.IgnoreNotFound(err) == nil {
			delete(r.nodes, name)
		}
		return 0, client.IgnoreNotFound(err)
	}
	r.nodes[name] = struct{}{}
	wait, err := r.health(ctx, n)
	if err == nil {
		err = r.taint(ctx, n)
	}
	if err != nil {
		return 0, fmt.Errorf("node %s: %w", name, err)
	}
	return wait, nil
}

// health marks a node whose kubelet has fallen silent, or says when it will be time to.
func (r *lifecycle) health(ctx context.Context, n *corev1.Node) (time.Duration, error) {
	if r.options.Heartbeat == nil {
		return 0, nil
	}
	last, alive := r.options.Heartbeat(n.Name)
	if alive || nodeReady(n) == corev1.ConditionUnknown {
		return 0, nil
	}
	if left := last.Add(r.options.GracePeriod).Sub(r.env.Clock.Now()); left > 0 {
		return left, nil
	}
	now := metav1.NewTime(r.env.Clock.Now())
	found := false
	for i := range n.Status.Conditions {
		c := &n.Status.Conditions[i]
		found = found || c.Type == corev1.NodeReady
		if c.Status != corev1.ConditionUnknown {
			c.Status, c.Reason, c.LastTransitionTime = corev1.ConditionUnknown, "NodeStatusUnknown", now
			c.Message = "Kubelet stopped posting node status."
		}
	}
	if !found {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
			Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated",
			Message: "Kubelet never posted node status.", LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: now,
		})
	}
	if err := r.env.Client.Status().Update(ctx, n); err != nil {
		return 0, fmt.Errorf("update status: %w", err)
	}
	event(r.env, n, corev1.EventTypeNormal, "NodeNotReady", "Monitor", "Node %s status is now: NodeNotReady", n.Name)
	return 0, nil
}

// taint makes the node's taints follow its spec and conditions.
func (r *lifecycle) taint(ctx context.Context, n *corev1.Node) error {
	var want []corev1.Taint
	if n.Spec.Unschedulable {
		want = append(want, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	sick := map[corev1.ConditionStatus]string{
		corev1.ConditionFalse:   corev1.TaintNodeNotReady,
		corev1.ConditionUnknown: corev1.TaintNodeUnreachable,
	}[nodeReady(n)]
	if sick != "" {
		want = append(want, corev1.Taint{Key: sick, Effect: corev1.TaintEffectNoSchedule},
			corev1.Taint{Key: sick, Effect: corev1.TaintEffectNoExecute})
	}
	now := metav1.NewTime(r.env.Clock.Now())
	var taints []corev1.Taint
	changed := false
	for _, t := range n.Spec.Taints {
		if slices.Contains(lifecycleTaints, t.Key) {
			i := slices.IndexFunc(want, func(w corev1.Taint) bool { return w.Key == t.Key && w.Effect == t.Effect })
			if i < 0 {
				changed = true
				continue
			}
			want = slices.Delete(want, i, i+1)
		}
		taints = append(taints, t)
	}
	for _, t := range want {
		t.TimeAdded = &now
		taints = append(taints, t)
		changed = true
	}
	if !changed {
		return nil
	}
	base := n.DeepCopy()
	n.Spec.Taints = taints
	if err := r.env.Client.Patch(ctx, n, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("patch taints: %w", err)
	}
	return nil
}
