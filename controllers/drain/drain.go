// Package drain cordons, drains and uncordons nodes on behalf of their machine-config-daemons.
//
// A daemon that is about to disrupt its node writes drain-<config> to the node's annotation desiredDrain and waits until
// lastAppliedDrain says the same; when it is done it asks for uncordon-<config> likewise. The controller looks at one
// node at a time:
//
//   - drain: it cordons the node, notes when it started in the annotation drain-started, evicts the node's pods, and
//     acknowledges once they are gone and the node is still cordoned. A node that somebody uncordons before that is
//     cordoned again.
//   - uncordon: it makes the node schedulable and acknowledges in the same write.
//
// Pods of DaemonSets and mirror pods stay. All others go through the eviction subresource, pods without a controller
// too, so PodDisruptionBudgets hold and each pod gets its own grace period. Pods that a budget protects are asked for
// again every 5 s during an attempt of 90 s; then the controller pauses for one minute, or for five once the drain has
// lasted ten minutes, and tries again, for as long as the daemon wants it. Ten minutes lead to a Warning event
// DrainThresholdExceeded on the node, one hour to DrainFailed.
//
// When the drain started, and so where in this cycle it is, is kept on the node, so a restart changes nothing but may
// repeat an event. A node's pods are read from the server by the field spec.nodeName.
//
// # Not done
//
// MachineConfigNode conditions, and drains of a cluster's only node: the daemon doesn't ask for those.
package drain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
)

// Name is the component's name.
const Name = "drain-controller"

// Delay is the time between an event and the sync that it leads to; upstream's.
const Delay = 5 * time.Second

// Started is the annotation that says since when which request is being worked on: "<time in RFC 3339> <request>".
const Started = layering.Prefix + "drain-started"

// The rhythm of a drain; upstream's.
const (
	poll         = 5 * time.Second  // between two looks at the pods during an attempt
	attempt      = 90 * time.Second // how long evictions are tried without a pause
	shortPause   = time.Minute      // after an attempt, at first
	longPause    = 5 * time.Minute  // after an attempt, once the drain has lasted longer than threshold
	threshold    = 10 * time.Minute // Warning DrainThresholdExceeded
	failureAfter = time.Hour        // Warning DrainFailed
)

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups="",resources=pods,verbs=list
// +kubebuilder:rbac:groups="",resources=pods/eviction,verbs=create
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,namespace=default,verbs=create;patch

// Metrics receives what the controller counts. Implementations must not block.
type Metrics interface {
	// DrainFailing is called with true when a node's drain has lasted an hour, with false when the node has no such drain
	// any more.
	DrainFailing(node string, failing bool)
}

// Options are the controller's settings. The zero value is good.
type Options struct {
	// Metrics may be nil.
	Metrics Metrics
}

// New declares the drain controller. Its requests are the names of nodes.
func New(o Options) component.Component {
	return component.Component{
		Name:    Name,
		Delay:   Delay,
		Watches: []component.Watch{{Object: &corev1.Node{}, When: nodeChanged}},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			return &reconciler{env: env, options: o, warned: map[string]string{}}, nil
		},
	}
}

type reconciler struct {
	env     component.Env
	options Options
	// warned holds the last warning about a node, by node, so that it is given once. Losing it costs one more event.
	warned map[string]string
}

// Reconcile brings a node one step nearer to what its daemon asked for.
func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	node := &corev1.Node{}
	err := r.env.Client.Get(ctx, request.NamespacedName, node)
	if err == nil && !wanted(node) {
		r.forget(node.Name)
		return reconcile.Result{}, nil
	}
	if err == nil {
		// The view may be behind the daemon, and an old request must not cordon a node that has moved on.
		err = r.env.Live.Get(ctx, request.NamespacedName, node)
	}
	if apierrors.IsNotFound(err) {
		r.forget(request.Name)
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("get node %s: %w", request.Name, err)
	}
	if !wanted(node) {
		r.forget(node.Name)
		return reconcile.Result{}, nil
	}
	verb, _, _ := strings.Cut(node.Annotations[layering.DesiredDrain], "-")
	switch verb {
	case layering.DrainVerb:
		return r.drain(ctx, node)
	case layering.UncordonVerb:
		r.forget(node.Name)
		return reconcile.Result{}, r.patch(ctx, node, func(n *corev1.Node) {
			n.Spec.Unschedulable = false
			acknowledge(n)
		})
	}
	r.warn(node, "InvalidDrainRequest", fmt.Sprintf("annotation %s has value %q, want drain-<config> or uncordon-<config>",
		layering.DesiredDrain, node.Annotations[layering.DesiredDrain]))
	return reconcile.Result{}, nil
}

// drain cordons, evicts, and acknowledges when there is nothing left to evict.
func (r *reconciler) drain(ctx context.Context, node *corev1.Node) (reconcile.Result, error) {
	now := r.env.Clock.Now()
	since, started := startOf(node)
	if !started || !node.Spec.Unschedulable {
		if !started {
			since = now.Truncate(time.Second)
		}
		if err := r.patch(ctx, node, func(n *corev1.Node) {
			n.Spec.Unschedulable = true
			n.Annotations[Started] = since.UTC().Format(time.RFC3339) + " " + n.Annotations[layering.DesiredDrain]
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	pods, err := r.pods(ctx, node.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(pods) == 0 {
		r.forget(node.Name)
		return reconcile.Result{}, r.patch(ctx, node, acknowledge)
	}

	elapsed := now.Sub(since)
	evicting, left := phase(elapsed)
	held := false
	var failed []error
	for _, p := range pods {
		if p.DeletionTimestamp != nil {
			continue
		}
		if !evicting {
			held = true
			continue
		}
		switch err := r.evict(ctx, p); {
		case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err):
			// Gone, going, or another pod of the same name: the next look will tell.
		case apierrors.IsTooManyRequests(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			// A budget holds it, or its namespace is about to take it.
		default:
			failed = append(failed, fmt.Errorf("evict pod %s/%s from node %s: %w", p.Namespace, p.Name, node.Name, err))
		}
	}
	r.complain(node, elapsed, pods)
	if len(failed) > 0 {
		return reconcile.Result{}, errors.Join(failed...)
	}
	// Pods that are only shutting down are looked at all the time; the pauses are for those that may not go.
	if held {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	return reconcile.Result{RequeueAfter: poll}, nil
}

// phase tells where in the cycle of attempts and pauses a drain is: whether pods are to be evicted, and how long that
// stays so.
func phase(elapsed time.Duration) (evicting bool, left time.Duration) {
	elapsed = max(elapsed, 0)
	for at := time.Duration(0); ; {
		if at += attempt; elapsed < at {
			return true, at - elapsed
		}
		pause := shortPause
		if at > threshold {
			pause = longPause
		}
		if at += pause; elapsed < at {
			return false, at - elapsed
		}
	}
}

// evict asks the server to evict a pod, this very one.
func (r *reconciler) evict(ctx context.Context, pod *corev1.Pod) error {
	return r.env.Client.SubResource("eviction").Create(ctx, pod, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}},
	})
}

// pods are the pods that have to leave a node, by namespace and name.
func (r *reconciler) pods(ctx context.Context, node string) ([]*corev1.Pod, error) {
	list := &corev1.PodList{}
	if err := r.env.Live.List(ctx, list, client.MatchingFields{"spec.nodeName": node}); err != nil {
		return nil, fmt.Errorf("list pods of node %s: %w", node, err)
	}
	var pods []*corev1.Pod
	for i := range list.Items {
		if p := &list.Items[i]; !stays(p) {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return pods, nil
}

// stays tells whether a pod belongs to its node: a static pod's mirror, or one of a DaemonSet.
func stays(pod *corev1.Pod) bool {
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return true
	}
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "DaemonSet" && pod.Status.Phase != corev1.PodSucceeded &&
		pod.Status.Phase != corev1.PodFailed
}

// complain warns about drains that take long.
func (r *reconciler) complain(node *corev1.Node, elapsed time.Duration, left []*corev1.Pod) {
	names := make([]string, 0, 3)
	for _, p := range left[:min(len(left), cap(names))] {
		names = append(names, p.Namespace+"/"+p.Name)
	}
	what := fmt.Sprintf("%d pods left, among them %s", len(left), strings.Join(names, ", "))
	switch {
	case elapsed >= failureAfter:
		if r.options.Metrics != nil {
			r.options.Metrics.DrainFailing(node.Name, true)
		}
		r.warn(node, "DrainFailed", fmt.Sprintf("Drain of node %s has been failing for more than %s: %s",
			node.Name, failureAfter, what))
	case elapsed >= threshold:
		r.warn(node, "DrainThresholdExceeded", fmt.Sprintf("Drain of node %s has taken more than %s: %s",
			node.Name, threshold, what))
	}
}

// warn writes a warning about a node, once for each reason and request.
func (r *reconciler) warn(node *corev1.Node, reason, note string) {
	key := reason + " " + node.Annotations[layering.DesiredDrain]
	if r.warned[node.Name] == key || r.env.Recorder == nil {
		return
	}
	r.warned[node.Name] = key
	r.env.Recorder.Eventf(node, nil, corev1.EventTypeWarning, reason, "Drain", "%s", note)
}

func (r *reconciler) forget(node string) {
	if r.warned[node] != "" && r.options.Metrics != nil {
		r.options.Metrics.DrainFailing(node, false)
	}
	delete(r.warned, node)
}

// patch changes a node as it was read; the server refuses if it moved meanwhile.
func (r *reconciler) patch(ctx context.Context, node *corev1.Node, change func(*corev1.Node)) error {
	old := node.DeepCopy()
	change(node)
	patch := client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{})
	if err := r.env.Client.Patch(ctx, node, patch); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("patch node %s: %w", old.Name, err))
	}
	return nil
}

// wanted tells whether there is an unanswered request on a node.
func wanted(node *corev1.Node) bool {
	desired := node.Annotations[layering.DesiredDrain]
	return desired != "" && desired != node.Annotations[layering.LastAppliedDrain]
}

// acknowledge tells the daemon that its request is done.
func acknowledge(node *corev1.Node) {
	node.Annotations[layering.LastAppliedDrain] = node.Annotations[layering.DesiredDrain]
	delete(node.Annotations, Started)
}

// startOf tells since when the node's present request is being worked on.
func startOf(node *corev1.Node) (time.Time, bool) {
	since, request, _ := strings.Cut(node.Annotations[Started], " ")
	if request == "" || request != node.Annotations[layering.DesiredDrain] {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, since)
	return t, err == nil
}

// nodeChanged keeps the changes that a request, or somebody's uncordon in the midst of one, makes.
func nodeChanged(before, after client.Object) bool {
	node, _ := after.(*corev1.Node)
	if node == nil {
		return true // forget it
	}
	old, _ := before.(*corev1.Node)
	if old == nil {
		return wanted(node)
	}
	return wanted(node) && (old.Annotations[layering.DesiredDrain] != node.Annotations[layering.DesiredDrain] ||
		old.Annotations[layering.LastAppliedDrain] != node.Annotations[layering.LastAppliedDrain] ||
		old.Spec.Unschedulable != node.Spec.Unschedulable)
}
