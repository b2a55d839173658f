package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
)

// disruptionTimeout is how long an eviction that the API server granted is held against the budget while the pod shows
// no sign of it (pkg/controller/disruption: DeletionTimeout).
const disruptionTimeout = 2 * time.Minute

// DisruptionController models kube's disruption controller: it keeps the status of PodDisruptionBudgets, in which the
// API server looks up whether it may evict a pod.
//
// expectedPods is the sum of spec.replicas of the pods' Deployments and ReplicaSets, or, for an absolute minAvailable, the
// number of pods. Percentages are of expectedPods, rounded up. A pod counts as healthy when it is ready, isn't being
// deleted and isn't in status.disruptedPods, from which entries go when the pod is being deleted, is gone, or after 2 min.
func DisruptionController() component.Component {
	scaleChanged := func(before, after client.Object) bool {
		return before == nil || after == nil || ptr.Deref(replicasOf(before), 1) != ptr.Deref(replicasOf(after), 1)
	}
	scaled := func(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: scalePrefix}}}
	}
	return component.Component{
		Name: "disruption-controller",
		Watches: []component.Watch{
			// Updates of the status are needed too: the API server puts disrupted pods there.
			{Object: &policyv1.PodDisruptionBudget{}},
			{Object: &corev1.Pod{}, When: podMatters, Map: func(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
				return request(podPrefix, o)
			}},
			{Object: &appsv1.ReplicaSet{}, When: scaleChanged, Map: scaled},
			{Object: &appsv1.Deployment{}, When: scaleChanged, Map: scaled},
		},
		New: func(env component.Env) (reconcile.Reconciler, error) { return &budgets{env: env}, nil },
	}
}

func replicasOf(o client.Object) *int32 {
	switch w := o.(type) {
	case *appsv1.ReplicaSet:
		return w.Spec.Replicas
	case *appsv1.Deployment:
		return w.Spec.Replicas
	}
	return nil
}

// covered is what is remembered of a pod that a budget may cover.
type covered struct {
	labels          map[string]string
	controller      *metav1.OwnerReference
	ready, deleting bool
}

type budgets struct {
	env    component.Env
	loaded bool
	pods   map[string]map[string]covered         // namespace -> name
	known  map[string]map[string]labels.Selector // budgets: namespace -> name
}

func (r *budgets) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if err := r.load(ctx); err != nil {
		return reconcile.Result{}, err
	}
	var names []string
	if pod, ok := cutName(req, podPrefix); ok {
		var err error
		if names, err = r.observe(ctx, pod); err != nil {
			return reconcile.Result{}, err
		}
	} else if _, ok := cutName(req, scalePrefix); ok {
		names = slices.Sorted(maps.Keys(r.known[req.Namespace]))
	} else {
		names = []string{req.Name}
	}
	var errs []error
	var wait time.Duration
	for _, name := range names {
		budget := types.NamespacedName{Namespace: req.Namespace, Name: name}
		w, err := r.sync(ctx, budget)
		if err != nil {
			errs = append(errs, fmt.Errorf("sync pod disruption budget %s: %w", budget, err))
		}
		wait = soonest(wait, w)
	}
	return reconcile.Result{RequeueAfter: wait}, errors.Join(errs...)
}

func (r *budgets) load(ctx context.Context) error {
	if r.loaded {
		return nil
	}
	r.pods, r.known = map[string]map[string]covered{}, map[string]map[string]labels.Selector{}
	pods := &corev1.PodList{}
	if err := r.env.Live.List(ctx, pods); err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for i := range pods.Items {
		r.remember(&pods.Items[i])
	}
	list := &policyv1.PodDisruptionBudgetList{}
	if err := r.env.Live.List(ctx, list); err != nil {
		return fmt.Errorf("list pod disruption budgets: %w", err)
	}
	for i := range list.Items {
		r.know(&list.Items[i])
	}
	r.loaded = true
	return nil
}

func (r *budgets) know(b *policyv1.PodDisruptionBudget) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector) // nil selects nothing, {} everything
	if err != nil {
		selector = labels.Nothing()
	}
	if r.known[b.Namespace] == nil {
		r.known[b.Namespace] = map[string]labels.Selector{}
	}
	r.known[b.Namespace][b.Name] = selector
	return selector
}

func (r *budgets) remember(p *corev1.Pod) {
	if r.pods[p.Namespace] == nil {
		r.pods[p.Namespace] = map[string]covered{}
	}
	if podFinished(p) {
		delete(r.pods[p.Namespace], p.Name)
		return
	}
	r.pods[p.Namespace][p.Name] = covered{
		labels: p.Labels, controller: metav1.GetControllerOf(p),
		ready: podReady(p), deleting: !p.DeletionTimestamp.IsZero(),
	}
}

// observe takes in a pod's state and returns the budgets that cover or covered it.
func (r *budgets) observe(ctx context.Context, name types.NamespacedName) ([]string, error) {
	p := &corev1.Pod{}
	err := r.env.Client.Get(ctx, name, p)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get pod %s: %w", name, err)
	}
	before, ok := r.pods[name.Namespace][name.Name]
	if err == nil {
		r.remember(p)
	} else {
		delete(r.pods[name.Namespace], name.Name)
	}
	var names []string
	for budget, selector := range r.known[name.Namespace] {
		if err == nil && selector.Matches(labels.Set(p.Labels)) || ok && selector.Matches(labels.Set(before.labels)) {
			names = append(names, budget)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (r *budgets) sync(ctx context.Context, name types.NamespacedName) (time.Duration, error) {
	b := &policyv1.PodDisruptionBudget{}
	if err := r.env.Client.Get(ctx, name, b); err != nil {
		if client.IgnoreNotFound(err) == nil {
			delete(r.known[name.Namespace], name.Name)
		}
		return 0, client.IgnoreNotFound(err)
	}
	selector := r.know(b)
	st := policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, Conditions: slices.Clone(b.Status.Conditions)}
	var pods []covered
	var wait time.Duration
	for _, pod := range slices.Sorted(maps.Keys(r.pods[b.Namespace])) {
		p := r.pods[b.Namespace][pod]
		if !selector.Matches(labels.Set(p.labels)) {
			continue
		}
		pods = append(pods, p)
		if p.deleting {
			continue
		}
		if at, ok := b.Status.DisruptedPods[pod]; ok {
			if left := at.Add(disruptionTimeout).Sub(r.env.Clock.Now()); left > 0 {
				if st.DisruptedPods == nil {
					st.DisruptedPods = map[string]metav1.Time{}
				}
				st.DisruptedPods[pod] = at
				wait = soonest(wait, left)
				continue
			}
		}
		if p.ready {
			st.CurrentHealthy++
		}
	}
	expected, desired, err := r.expect(ctx, b, pods)
	condition := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, ObservedGeneration: b.Generation}
	switch {
	case err != nil: // nothing may be evicted while the numbers aren't known
		condition.Status, condition.Reason = metav1.ConditionFalse, policyv1.SyncFailedReason
		condition.Message = err.Error()
		st.ExpectedPods, st.DesiredHealthy = b.Status.ExpectedPods, b.Status.DesiredHealthy
	default:
		st.ExpectedPods, st.DesiredHealthy = expected, desired
		if expected > 0 {
			st.DisruptionsAllowed = max(0, st.CurrentHealthy-desired)
		}
		condition.Status, condition.Reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
		if st.DisruptionsAllowed == 0 {
			condition.Status, condition.Reason = metav1.ConditionFalse, policyv1.InsufficientPodsReason
		}
	}
	condition.LastTransitionTime = metav1.NewTime(r.env.Clock.Now())
	meta.SetStatusCondition(&st.Conditions, condition)
	if equality.Semantic.DeepEqual(st, b.Status) {
		return wait, nil
	}
	b.Status = st
	if err := r.env.Client.Status().Update(ctx, b); err != nil {
		return 0, fmt.Errorf("update status: %w", err)
	}
	return wait, nil
}

// expect returns how many pods there should be, and how many of them must stay healthy.
func (r *budgets) expect(ctx context.Context, b *policyv1.PodDisruptionBudget, pods []covered) (expected, desired int32, err error) {
	switch {
	case b.Spec.MaxUnavailable != nil:
		if expected, err = r.scaleOf(ctx, b.Namespace, pods); err != nil {
			return 0, 0, err
		}
		return expected, max(0, expected-scaled(*b.Spec.MaxUnavailable, expected, true)), nil
	case b.Spec.MinAvailable == nil:
		return int32(len(pods)), 0, nil
	case b.Spec.MinAvailable.Type == intstr.Int:
		return int32(len(pods)), b.Spec.MinAvailable.IntVal, nil
	}
	if expected, err = r.scaleOf(ctx, b.Namespace, pods); err != nil {
		return 0, 0, err
	}
	return expected, scaled(*b.Spec.MinAvailable, expected, true), nil
}

// scaleOf sums up the replicas of the pods' controllers. Pods with none don't count.
func (r *budgets) scaleOf(ctx context.Context, namespace string, pods []covered) (int32, error) {
	owners := map[types.UID]*metav1.OwnerReference{}
	for i := range pods {
		if c := pods[i].controller; c != nil {
			owners[c.UID] = c
		}
	}
	scales := map[types.UID]int32{} // a Deployment has several ReplicaSets and counts once
	for _, owner := range slices.SortedFunc(maps.Values(owners), func(a, b *metav1.OwnerReference) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	}) {
		if owner.Kind != "ReplicaSet" {
			return 0, fmt.Errorf("found no scale of controller %s %s", owner.Kind, owner.Name)
		}
		rs := &appsv1.ReplicaSet{}
		err := r.env.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: owner.Name}, rs)
		if client.IgnoreNotFound(err) != nil {
			return 0, fmt.Errorf("get replica set %s: %w", owner.Name, err)
		}
		if err != nil || rs.UID != owner.UID {
			continue // its pods go too
		}
		uid, replicas := rs.UID, ptr.Deref(rs.Spec.Replicas, 1)
		if above := metav1.GetControllerOf(rs); above != nil && above.Kind == "Deployment" {
			d := &appsv1.Deployment{}
			err := r.env.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: above.Name}, d)
			if client.IgnoreNotFound(err) != nil {
				return 0, fmt.Errorf("get deployment %s: %w", above.Name, err)
			}
			if err == nil && d.UID == above.UID {
				uid, replicas = d.UID, ptr.Deref(d.Spec.Replicas, 1)
			}
		}
		scales[uid] = replicas
	}
	var sum int32
	for _, n := range scales {
		sum += n
	}
	return sum, nil
}

// scaled resolves a number or a percentage. What can't be parsed is 0; the API refuses it.
func scaled(v intstr.IntOrString, total int32, up bool) int32 {
	n, err := intstr.GetScaledValueFromIntOrPercent(&v, int(total), up)
	if err != nil {
		return 0
	}
	return int32(n)
}
