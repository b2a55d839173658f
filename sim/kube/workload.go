package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
)

// DeploymentController models kube's deployment controller as far as a workload needs it to exist and come back: one
// ReplicaSet `<deployment>-<hash>` for the current template, scaled to spec.replicas. When the template changes the
// ReplicaSets of former templates are emptied first, whatever strategy the Deployment names.
func DeploymentController() component.Component {
	return component.Component{
		Name: "deployment-controller",
		Watches: []component.Watch{
			{Object: &appsv1.Deployment{}, When: specMatters},
			{Object: &appsv1.ReplicaSet{}, Map: controllerOf("Deployment", "")},
		},
		New: func(env component.Env) (reconcile.Reconciler, error) { return &deployments{env: env}, nil },
	}
}

// controllerOf maps an object to its controller where that is of a kind.
func controllerOf(kind, prefix string) func(context.Context, client.Reader, client.Object) []reconcile.Request {
	return func(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
		owner := metav1.GetControllerOfNoCopy(o)
		if owner == nil || owner.Kind != kind {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{
			Namespace: o.GetNamespace(), Name: prefix + owner.Name,
		}}}
	}
}

type deployments struct{ env component.Env }

func (r *deployments) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	d := &appsv1.Deployment{}
	if err := r.env.Client.Get(ctx, req.NamespacedName, d); err != nil || !d.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if err := r.sync(ctx, d); err != nil {
		return reconcile.Result{}, fmt.Errorf("sync deployment %s: %w", req.NamespacedName, err)
	}
	return reconcile.Result{}, nil
}

func (r *deployments) sync(ctx context.Context, d *appsv1.Deployment) error {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil || selector.Empty() {
		return errors.Join(errors.New("unusable selector"), err)
	}
	list := &appsv1.ReplicaSetList{}
	if err := r.env.Client.List(ctx, list, client.InNamespace(d.Namespace),
		client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return fmt.Errorf("list replica sets: %w", err)
	}
	hash, err := templateHash(&d.Spec.Template)
	if err != nil {
		return err
	}
	var current *appsv1.ReplicaSet
	var total, formerly int32
	for i := range list.Items {
		rs := &list.Items[i]
		if owner := metav1.GetControllerOfNoCopy(rs); owner == nil || owner.UID != d.UID {
			continue
		}
		if rs.Name == d.Name+"-"+hash {
			current = rs
			total += rs.Status.Replicas
			continue
		}
		total += rs.Status.Replicas
		formerly += rs.Status.Replicas
		if ptr.Deref(rs.Spec.Replicas, 1) != 0 {
			formerly++ // not observed yet
			if err := r.scale(ctx, rs, 0); err != nil {
				return err
			}
		}
	}
	want := ptr.Deref(d.Spec.Replicas, 1)
	switch {
	case formerly > 0:
	case current == nil:
		// A lagging cache is met by the fixed name: the second creation is refused.
		if current, err = r.create(ctx, d, hash, want); err != nil {
			return err
		}
	case ptr.Deref(current.Spec.Replicas, 1) != want:
		if err := r.scale(ctx, current, want); err != nil {
			return err
		}
	}
	return r.report(ctx, d, current, total)
}

func (r *deployments) scale(ctx context.Context, rs *appsv1.ReplicaSet, replicas int32) error {
	rs.Spec.Replicas = &replicas
	if err := r.env.Client.Update(ctx, rs); err != nil {
		return fmt.Errorf("scale replica set %s: %w", rs.Name, err)
	}
	return nil
}

func (r *deployments) create(ctx context.Context, d *appsv1.Deployment, hash string, replicas int32) (*appsv1.ReplicaSet, error) {
	template := *d.Spec.Template.DeepCopy()
	selector := d.Spec.Selector.DeepCopy()
	template.Labels = with(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	selector.MatchLabels = with(selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: d.Name + "-" + hash, Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment")),
			},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: selector, Template: template},
	}
	if err := r.env.Client.Create(ctx, rs); apierrors.IsAlreadyExists(err) {
		return nil, nil // the cache lags, or a former Deployment's is still there: its next event leads back here
	} else if err != nil {
		return nil, fmt.Errorf("create replica set %s: %w", rs.Name, err)
	}
	event(r.env, d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scale", "Scaled up replica set %s from 0 to %d",
		rs.Name, replicas)
	return rs, nil
}

func with(m map[string]string, key, value string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

func (r *deployments) report(ctx context.Context, d *appsv1.Deployment, current *appsv1.ReplicaSet, total int32) error {
	before := d.Status.DeepCopy()
	st := &d.Status
	st.ObservedGeneration, st.Replicas = d.Generation, total
	st.UpdatedReplicas, st.ReadyReplicas, st.AvailableReplicas = 0, 0, 0
	if current != nil {
		st.UpdatedReplicas = current.Status.Replicas
		st.ReadyReplicas = current.Status.ReadyReplicas
		st.AvailableReplicas = current.Status.AvailableReplicas
	}
	want := ptr.Deref(d.Spec.Replicas, 1)
	st.UnavailableReplicas = max(0, want-st.AvailableReplicas)
	available := appsv1.DeploymentCondition{
		Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue,
		Reason: "MinimumReplicasAvailable", Message: "Deployment has minimum availability.",
	}
	if st.AvailableReplicas < want-maxUnavailable(d, want) {
		available.Status, available.Reason = corev1.ConditionFalse, "MinimumReplicasUnavailable"
		available.Message = "Deployment does not have minimum availability."
	}
	available.LastTransitionTime = metav1.NewTime(r.env.Clock.Now())
	available.LastUpdateTime = available.LastTransitionTime
	i := slices.IndexFunc(st.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == available.Type })
	if i < 0 {
		st.Conditions = append(st.Conditions, available)
	} else if st.Conditions[i].Status != available.Status {
		st.Conditions[i] = available
	}
	if equality.Semantic.DeepEqual(before, st) {
		return nil
	}
	if err := r.env.Client.Status().Update(ctx, d); err != nil {
		return fmt.Errorf("update status: %w", err)
	}
	return nil
}

func maxUnavailable(d *appsv1.Deployment, replicas int32) int32 {
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return 0
	}
	if d.Spec.Strategy.RollingUpdate == nil || d.Spec.Strategy.RollingUpdate.MaxUnavailable == nil {
		return replicas / 4 // the API's default, 25%
	}
	return scaled(*d.Spec.Strategy.RollingUpdate.MaxUnavailable, replicas, false)
}

// templateHash names a pod template. It is not the original's hash, which goes through a dump of Go structures.
func templateHash(t *corev1.PodTemplateSpec) (string, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("hash pod template: %w", err)
	}
	h := fnv.New32a()
	h.Write(b)
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32())), nil
}

// ReplicaSetController models kube's replicaset controller: pods `<replicaset>-<5 random>` up to spec.replicas, replaced
// when they end, are deleted or evicted. When there are too many, those that have got least far go first, then those that
// share their node with most others of the set, then the youngest.
func ReplicaSetController() component.Component {
	return component.Component{
		Name: "replicaset-controller",
		Watches: []component.Watch{
			{Object: &appsv1.ReplicaSet{}, When: specMatters},
			{Object: &corev1.Pod{}, When: podMatters, Map: func(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
				if owner := metav1.GetControllerOfNoCopy(o); owner == nil || owner.Kind != "ReplicaSet" {
					return nil
				}
				return request(podPrefix, o)
			}},
		},
		New: func(env component.Env) (reconcile.Reconciler, error) { return &replicaSets{env: env}, nil },
	}
}

// replica is what is remembered of a pod.
type replica struct {
	set                 types.UID
	setName             string
	node                string
	created             time.Time
	bound, ready, alive bool // alive: neither finished nor being deleted
}

type replicaSets struct {
	env    component.Env
	loaded bool
	pods   map[types.NamespacedName]replica
	sets   map[types.UID]map[types.NamespacedName]struct{}
}

func (r *replicaSets) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if err := r.load(ctx); err != nil {
		return reconcile.Result{}, err
	}
	set := req.NamespacedName
	if pod, ok := cutName(req, podPrefix); ok {
		var err error
		if set, err = r.observe(ctx, pod); err != nil || set.Name == "" {
			return reconcile.Result{}, err
		}
	}
	if err := r.sync(ctx, set); err != nil {
		return reconcile.Result{}, fmt.Errorf("sync replica set %s: %w", set, err)
	}
	return reconcile.Result{}, nil
}

func (r *replicaSets) load(ctx context.Context) error {
	if r.loaded {
		return nil
	}
	r.pods = map[types.NamespacedName]replica{}
	r.sets = map[types.UID]map[types.NamespacedName]struct{}{}
	list := &corev1.PodList{}
	if err := r.env.Live.List(ctx, list); err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for i := range list.Items {
		r.remember(&list.Items[i])
	}
	r.loaded = true
	return nil
}

// observe takes in a pod's current state and returns its set, or no name where it has none.
func (r *replicaSets) observe(ctx context.Context, name types.NamespacedName) (types.NamespacedName, error) {
	p := &corev1.Pod{}
	err := r.env.Client.Get(ctx, name, p)
	if client.IgnoreNotFound(err) != nil {
		return types.NamespacedName{}, fmt.Errorf("get pod %s: %w", name, err)
	}
	former := r.pods[name].setName
	r.forget(name)
	if err == nil {
		r.remember(p)
	}
	return types.NamespacedName{Namespace: name.Namespace, Name: cmp.Or(r.pods[name].setName, former)}, nil
}

func (r *replicaSets) remember(p *corev1.Pod) {
	owner := metav1.GetControllerOfNoCopy(p)
	if owner == nil || owner.Kind != "ReplicaSet" {
		return
	}
	name := client.ObjectKeyFromObject(p)
	r.pods[name] = replica{
		set: owner.UID, setName: owner.Name, node: p.Spec.NodeName, created: p.CreationTimestamp.Time,
		bound: p.Spec.NodeName != "", ready: podReady(p), alive: !podFinished(p) && p.DeletionTimestamp.IsZero(),
	}
	if r.sets[owner.UID] == nil {
		r.sets[owner.UID] = map[types.NamespacedName]struct{}{}
	}
	r.sets[owner.UID][name] = struct{}{}
}

func (r *replicaSets) forget(name types.NamespacedName) {
	set := r.pods[name].set
	delete(r.pods, name)
	delete(r.sets[set], name)
	if len(r.sets[set]) == 0 {
		delete(r.sets, set)
	}
}

func (r *replicaSets) sync(ctx context.Context, name types.NamespacedName) error {
	rs := &appsv1.ReplicaSet{}
	if err := r.env.Client.Get(ctx, name, rs); err != nil {
		return client.IgnoreNotFound(err)
	}
	var manageErr error
	if rs.DeletionTimestamp.IsZero() {
		manageErr = r.manage(ctx, rs)
	}
	var replicas, ready int32
	for pod := range r.sets[rs.UID] {
		if p := r.pods[pod]; p.alive {
			replicas++
			if p.ready {
				ready++
			}
		}
	}
	st := rs.Status
	st.Replicas, st.FullyLabeledReplicas, st.ReadyReplicas, st.AvailableReplicas = replicas, replicas, ready, ready
	st.ObservedGeneration = rs.Generation
	if equality.Semantic.DeepEqual(st, rs.Status) {
		return manageErr
	}
	rs.Status = st
	if err := r.env.Client.Status().Update(ctx, rs); err != nil {
		return errors.Join(manageErr, fmt.Errorf("update status: %w", err))
	}
	return manageErr
}

func (r *replicaSets) manage(ctx context.Context, rs *appsv1.ReplicaSet) error {
	var alive []types.NamespacedName
	perNode := map[string]int{}
	for pod := range r.sets[rs.UID] {
		if p := r.pods[pod]; p.alive {
			alive = append(alive, pod)
			perNode[p.node]++
		}
	}
	want := int(ptr.Deref(rs.Spec.Replicas, 1))
	for range want - len(alive) {
		p := &corev1.Pod{ObjectMeta: *rs.Spec.Template.ObjectMeta.DeepCopy(), Spec: *rs.Spec.Template.Spec.DeepCopy()}
		p.Name, p.GenerateName, p.Namespace = "", rs.Name+"-", rs.Namespace
		p.OwnerReferences = []metav1.OwnerReference{
			*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet")),
		}
		if err := r.env.Client.Create(ctx, p); err != nil {
			event(r.env, rs, corev1.EventTypeWarning, "FailedCreate", "Create", "Error creating: %v", err)
			return fmt.Errorf("create pod: %w", err)
		}
		r.remember(p)
		event(r.env, rs, corev1.EventTypeNormal, "SuccessfulCreate", "Create", "Created pod: %s", p.Name)
	}
	if len(alive) <= want {
		return nil
	}
	slices.SortFunc(alive, func(x, y types.NamespacedName) int {
		a, b := r.pods[x], r.pods[y]
		return cmp.Or(compareBool(a.bound, b.bound), compareBool(a.ready, b.ready),
			cmp.Compare(perNode[b.node], perNode[a.node]), b.created.Compare(a.created), cmp.Compare(x.Name, y.Name))
	})
	for _, name := range alive[:len(alive)-want] {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
		if err := r.env.Client.Delete(ctx, p); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete pod %s: %w", name.Name, err)
		}
		gone := r.pods[name]
		gone.alive = false
		r.pods[name] = gone
		event(r.env, rs, corev1.EventTypeNormal, "SuccessfulDelete", "Delete", "Deleted pod: %s", name.Name)
	}
	return nil
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
