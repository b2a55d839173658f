// Package machine models the Machine API: MachineSet -> Machine -> first boot -> Node, and back.
//
// [New] returns the component "machine-api". It stands for four controllers of OpenShift's machine-api-operator: the
// machineset, machine and nodelink controllers, and the cloud.
//
// # Growing
//
// A MachineSet with fewer Machines than spec.replicas gets new ones, `<set>-<5 random>`, with the template's labels, spec and
// the set as controller. A Machine goes through the phases
//
//	Provisioning   from its creation, for Options.Provision: the cloud makes an instance
//	Provisioned    Options.Boot was called: the instance starts, with the base image
//	Running        a Node with the Machine's name exists: status.nodeRef
//
// and the Node gets the annotation machine.openshift.io/machine, and the labels and taints of the Machine's
// spec.metadata.labels and spec.taints. What the instance does between its first boot and the moment its Node appears is the
// business of whoever implements Options.Boot.
//
// # Shrinking
//
// When there are too many Machines, those marked by the annotation machine.openshift.io/delete-machine go first, then those
// without a Node, then the newest; deletePolicy Oldest reverses the last rule. ("Random", the API's default, means the
// newest here, as the original's is arbitrary too.) A deleted Machine is held by its finalizer while its Node is cordoned and
// drained by evictions, which PodDisruptionBudgets may refuse for as long as they like (asked again after 20 s); then
// Options.Remove is called, and the Node object is deleted. Lifecycle hooks preDrain and preTerminate are waited for.
//
// # Status
//
// status.replicas counts the Machines that aren't being deleted, readyReplicas and availableReplicas those of them whose
// Node is ready. The Machines of all sets are kept in memory as small records, so that a Node's event costs the same
// however many there are; the records are loaded from the server at the first reconcile after a start.
//
// # What it does not model
//
// Providers and their specs, failed machines and MachineHealthChecks, minReadySeconds, adoption of Machines, certificate
// signing requests, the control plane's machine set, autoscaling, migration to the Cluster API.
package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
)

// Namespace is where MachineSets and Machines live.
const Namespace = "openshift-machine-api"

// Finalizer holds a deleted Machine until its instance is gone.
const Finalizer = machinev1beta1.MachineFinalizer

// Annotations of the Machine API.
const (
	NodeAnnotation   = "machine.openshift.io/machine"        // on a Node: NAMESPACE/NAME of its Machine
	DeleteAnnotation = "machine.openshift.io/delete-machine" // on a Machine: delete this one first
)

// The waiting times of the original's machine controller.
const (
	drainRetry   = 20 * time.Second
	drainRecheck = 5 * time.Second
)

// Options are what the cloud does.
type Options struct {
	// Boot starts the Machine's instance: a host of the Machine's name that boots the base image and registers as a
	// Node of that name with the labels of the Machine's spec.metadata. It must do nothing where the host exists
	// already, as it is called again when the component was interrupted before it wrote the phase. An error is retried
	// with back-off. Nil boots nothing.
	Boot func(*machinev1beta1.Machine) error

	// Remove switches the Machine's instance off and gives it back. It must do nothing where the host is gone already.
	// Nil removes nothing.
	Remove func(*machinev1beta1.Machine) error

	// Provision is how long the cloud takes to make an instance; zero means [Provision].
	Provision time.Duration
}

// Provision is how long the cloud takes to make an instance, unless it is said otherwise.
const Provision = 2 * time.Minute

// A request names a MachineSet or a Machine by the prefix of its name.
const (
	setPrefix     = "machineset/"
	machinePrefix = "machine/"
)

// New returns the component.
func New(o Options) component.Component {
	if o.Provision == 0 {
		o.Provision = Provision
	}
	return component.Component{
		Name: "machine-api",
		Watches: []component.Watch{
			{Object: &machinev1beta1.MachineSet{}, When: setMatters, Map: named(setPrefix)},
			{Object: &machinev1beta1.Machine{}, When: machineMatters, Map: named(machinePrefix)},
			{Object: &corev1.Node{}, When: nodeMatters, Map: machineOfNode},
		},
		New: func(env component.Env) (reconcile.Reconciler, error) { return &api{env: env, options: o}, nil },
	}
}

func named(prefix string) func(context.Context, client.Reader, client.Object) []reconcile.Request {
	return func(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
		return []reconcile.Request{request(prefix, o.GetNamespace(), o.GetName())}
	}
}

func request(prefix, namespace, name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: prefix + name}}
}

func machineOfNode(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
	return []reconcile.Request{request(machinePrefix, Namespace, o.GetName())}
}

func setMatters(before, after client.Object) bool {
	return before == nil || after == nil || before.GetGeneration() != after.GetGeneration() ||
		before.GetUID() != after.GetUID() || before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero()
}

func machineMatters(before, after client.Object) bool {
	a, ok1 := before.(*machinev1beta1.Machine)
	b, ok2 := after.(*machinev1beta1.Machine)
	if !ok1 || !ok2 || a == nil || b == nil {
		return true
	}
	return setMatters(before, after) || ptr.Deref(a.Status.Phase, "") != ptr.Deref(b.Status.Phase, "") ||
		!maps.Equal(a.Labels, b.Labels) || !maps.Equal(a.Annotations, b.Annotations) ||
		!slices.Equal(a.Finalizers, b.Finalizers)
}

func nodeMatters(before, after client.Object) bool {
	a, ok1 := before.(*corev1.Node)
	b, ok2 := after.(*corev1.Node)
	if !ok1 || !ok2 || a == nil || b == nil {
		return true
	}
	return a.UID != b.UID || nodeReady(a) != nodeReady(b) ||
		a.Annotations[NodeAnnotation] != b.Annotations[NodeAnnotation]
}

func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// record is what is remembered of a Machine.
type record struct {
	set     types.UID // controller
	setName string
	uid     types.UID
	created time.Time
	marked  bool // to be deleted first
	running bool // has a Node
	ready   bool // its Node is ready
	leaving bool // being deleted
}

type api struct {
	env      component.Env
	options  Options
	loaded   bool
	machines map[types.NamespacedName]record
	sets     map[types.UID]map[types.NamespacedName]struct{}
}

func (r *api) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if err := r.load(ctx); err != nil {
		return reconcile.Result{}, fmt.Errorf("load machines: %w", err)
	}
	if set, ok := strings.CutPrefix(req.Name, setPrefix); ok {
		return reconcile.Result{}, r.set(ctx, types.NamespacedName{Namespace: req.Namespace, Name: set})
	}
	name := types.NamespacedName{Namespace: req.Namespace, Name: strings.TrimPrefix(req.Name, machinePrefix)}
	before := r.machines[name]
	wait, err := r.machine(ctx, name)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("machine %s: %w", name, err)
	}
	after := r.machines[name]
	for _, set := range slices.Compact([]string{before.setName, after.setName}) {
		if set != "" && before != after {
			if err := r.set(ctx, types.NamespacedName{Namespace: name.Namespace, Name: set}); err != nil {
				// The change is in memory already, so it would not be noticed again.
				r.forget(name)
				return reconcile.Result{}, err
			}
		}
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// load remembers the Machines that exist.
func (r *api) load(ctx context.Context) error {
	if r.loaded {
		return nil
	}
	r.machines, r.sets = map[types.NamespacedName]record{}, map[types.UID]map[types.NamespacedName]struct{}{}
	list := &machinev1beta1.MachineList{}
	if err := r.env.Live.List(ctx, list); err != nil {
		return err
	}
	for i := range list.Items {
		if err := r.remember(ctx, &list.Items[i]); err != nil {
			return err
		}
	}
	r.loaded = true
	return nil
}

func (r *api) remember(ctx context.Context, m *machinev1beta1.Machine) error {
	name := client.ObjectKeyFromObject(m)
	_, marked := m.Annotations[DeleteAnnotation]
	rec := record{
		uid: m.UID, created: m.CreationTimestamp.Time, marked: marked,
		running: m.Status.NodeRef != nil, leaving: !m.DeletionTimestamp.IsZero(),
	}
	if owner := metav1.GetControllerOfNoCopy(m); owner != nil && owner.Kind == "MachineSet" {
		rec.set, rec.setName = owner.UID, owner.Name
	}
	if rec.running {
		n, err := r.node(ctx, m.Name)
		if err != nil {
			return err
		}
		rec.ready = n != nil && nodeReady(n)
	}
	r.forget(name)
	r.machines[name] = rec
	if rec.set != "" {
		if r.sets[rec.set] == nil {
			r.sets[rec.set] = map[types.NamespacedName]struct{}{}
		}
		r.sets[rec.set][name] = struct{}{}
	}
	return nil
}

func (r *api) forget(name types.NamespacedName) {
	set := r.machines[name].set
	delete(r.machines, name)
	delete(r.sets[set], name)
	if len(r.sets[set]) == 0 {
		delete(r.sets, set)
	}
}

// node returns a Node from the cache, or nil where there is none.
func (r *api) node(ctx context.Context, name string) (*corev1.Node, error) {
	n := &corev1.Node{}
	if err := r.env.Client.Get(ctx, client.ObjectKey{Name: name}, n); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("get node %s: %w", name, err)
	}
	return n, nil
}

// set brings a MachineSet's Machines to the number that it wants, and its status up to date.
func (r *api) set(ctx context.Context, name types.NamespacedName) error {
	ms := &machinev1beta1.MachineSet{}
	if err := r.env.Client.Get(ctx, name, ms); err != nil {
		return client.IgnoreNotFound(err)
	}
	var manageErr error
	if ms.DeletionTimestamp.IsZero() {
		manageErr = r.scale(ctx, ms)
	}
	err := errors.Join(manageErr, r.report(ctx, ms))
	if err != nil {
		return fmt.Errorf("machine set %s: %w", name, err)
	}
	return nil
}

// staying returns the set's Machines that aren't being deleted, those to be deleted first in front.
func (r *api) staying(ms *machinev1beta1.MachineSet) []types.NamespacedName {
	var names []types.NamespacedName
	for name := range r.sets[ms.UID] {
		if !r.machines[name].leaving {
			names = append(names, name)
		}
	}
	oldest := ms.Spec.DeletePolicy == string(machinev1beta1.OldestMachineSetDeletePolicy)
	slices.SortFunc(names, func(x, y types.NamespacedName) int {
		a, b := r.machines[x], r.machines[y]
		age := b.created.Compare(a.created)
		if oldest {
			age = -age
		}
		return cmp.Or(boolFirst(a.marked, b.marked), boolFirst(!a.running, !b.running), age, cmp.Compare(x.Name, y.Name))
	})
	return names
}

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (r *api) scale(ctx context.Context, ms *machinev1beta1.MachineSet) error {
	staying, want := r.staying(ms), int(ptr.Deref(ms.Spec.Replicas, 1))
	for range want - len(staying) {
		m := &machinev1beta1.Machine{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: ms.Namespace, GenerateName: ms.Name + "-", Finalizers: []string{Finalizer},
				Labels:      maps.Clone(ms.Spec.Template.Labels),
				Annotations: maps.Clone(ms.Spec.Template.Annotations),
				OwnerReferences: []metav1.OwnerReference{
					*metav1.NewControllerRef(ms, machinev1beta1.GroupVersion.WithKind("MachineSet")),
				},
			},
			Spec: *ms.Spec.Template.Spec.DeepCopy(),
		}
		if err := r.env.Client.Create(ctx, m); err != nil {
			return fmt.Errorf("create machine: %w", err)
		}
		if err := r.remember(ctx, m); err != nil {
			return err
		}
	}
	for _, name := range staying[:max(0, len(staying)-want)] {
		rec := r.machines[name]
		m := &machinev1beta1.Machine{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
		err := r.env.Client.Delete(ctx, m, client.Preconditions{UID: &rec.uid})
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete machine %s: %w", name.Name, err)
		}
		rec.leaving = true
		r.machines[name] = rec
	}
	return nil
}

func (r *api) report(ctx context.Context, ms *machinev1beta1.MachineSet) error {
	st := *ms.Status.DeepCopy()
	st.Replicas, st.FullyLabeledReplicas, st.ReadyReplicas, st.AvailableReplicas = 0, 0, 0, 0
	for name := range r.sets[ms.UID] {
		if m := r.machines[name]; !m.leaving {
			st.Replicas++
			st.FullyLabeledReplicas++
			if m.ready {
				st.ReadyReplicas++
				st.AvailableReplicas++
			}
		}
	}
	st.ObservedGeneration = ms.Generation
	st.LabelSelector = metav1.FormatLabelSelector(&ms.Spec.Selector)
	if equality.Semantic.DeepEqual(st, ms.Status) {
		return nil
	}
	ms.Status = st
	if err := r.env.Client.Status().Update(ctx, ms); err != nil {
		return fmt.Errorf("update status: %w", err)
	}
	return nil
}

// machine moves one Machine on, remembers it, and says when to look again.
func (r *api) machine(ctx context.Context, name types.NamespacedName) (time.Duration, error) {
	m := &machinev1beta1.Machine{}
	if err := r.env.Client.Get(ctx, name, m); apierrors.IsNotFound(err) {
		r.forget(name)
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("get: %w", err)
	}
	step := r.grow
	if !m.DeletionTimestamp.IsZero() {
		step = r.shrink
	} else if !controllerutil.ContainsFinalizer(m, Finalizer) {
		base := m.DeepCopy()
		controllerutil.AddFinalizer(m, Finalizer)
		if err := r.env.Client.Patch(ctx, m, optimistic(base)); err != nil {
			return 0, fmt.Errorf("add finalizer: %w", err)
		}
	}
	wait, err := step(ctx, m)
	if err != nil {
		return 0, err
	}
	return wait, r.remember(ctx, m)
}

func optimistic(base client.Object) client.Patch {
	return client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})
}

// grow takes a Machine from its creation to its Node.
func (r *api) grow(ctx context.Context, m *machinev1beta1.Machine) (time.Duration, error) {
	phase := ptr.Deref(m.Status.Phase, "")
	if phase == "" {
		if err := r.enter(ctx, m, machinev1beta1.PhaseProvisioning); err != nil {
			return 0, err
		}
		phase = machinev1beta1.PhaseProvisioning
	}
	if phase == machinev1beta1.PhaseProvisioning {
		due := m.CreationTimestamp.Add(r.options.Provision)
		if wait := due.Sub(r.env.Clock.Now()); wait > 0 {
			return wait, nil
		}
		if r.options.Boot != nil {
			if err := r.options.Boot(m.DeepCopy()); err != nil {
				return 0, fmt.Errorf("boot: %w", err)
			}
		}
		if m.Spec.ProviderID == nil {
			base := m.DeepCopy()
			m.Spec.ProviderID = ptr.To("layersim:///" + m.Name)
			if err := r.env.Client.Patch(ctx, m, optimistic(base)); err != nil {
				return 0, fmt.Errorf("set provider id: %w", err)
			}
		}
		m.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalDNS, Address: m.Name}}
		if err := r.enter(ctx, m, machinev1beta1.PhaseProvisioned); err != nil {
			return 0, err
		}
	}
	n, err := r.node(ctx, m.Name)
	if err != nil || n == nil {
		return 0, err
	}
	if err := r.link(ctx, m, n); err != nil {
		return 0, err
	}
	if m.Status.NodeRef == nil || m.Status.NodeRef.UID != n.UID {
		m.Status.NodeRef = &corev1.ObjectReference{Kind: "Node", Name: n.Name, UID: n.UID}
	} else if ptr.Deref(m.Status.Phase, "") == machinev1beta1.PhaseRunning {
		return 0, nil
	}
	return 0, r.enter(ctx, m, machinev1beta1.PhaseRunning)
}

// enter writes a Machine's phase and the rest of its status.
func (r *api) enter(ctx context.Context, m *machinev1beta1.Machine, phase string) error {
	m.Status.Phase = &phase
	m.Status.LastUpdated = ptr.To(metav1.NewTime(r.env.Clock.Now()))
	if err := r.env.Client.Status().Update(ctx, m); err != nil {
		return fmt.Errorf("enter phase %s: %w", phase, err)
	}
	return nil
}

// link puts a Machine's name, labels and taints on its Node.
func (r *api) link(ctx context.Context, m *machinev1beta1.Machine, n *corev1.Node) error {
	base := n.DeepCopy()
	key := m.Namespace + "/" + m.Name
	changed := n.Annotations[NodeAnnotation] != key
	if changed && n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	for _, label := range slices.Sorted(maps.Keys(m.Spec.Labels)) {
		value := m.Spec.Labels[label]
		if got, ok := n.Labels[label]; !ok || got != value {
			if n.Labels == nil {
				n.Labels = map[string]string{}
			}
			n.Labels[label], changed = value, true
		}
	}
	for _, t := range m.Spec.Taints {
		if base.Annotations[NodeAnnotation] != key && // only once: somebody may have removed it since
			!slices.ContainsFunc(n.Spec.Taints, func(x corev1.Taint) bool { return x.MatchTaint(&t) }) {
			n.Spec.Taints, changed = append(n.Spec.Taints, t), true
		}
	}
	if !changed {
		return nil
	}
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	n.Annotations[NodeAnnotation] = key
	if err := r.env.Client.Patch(ctx, n, optimistic(base)); err != nil {
		return fmt.Errorf("link node %s: %w", n.Name, err)
	}
	return nil
}

// shrink takes a deleted Machine's Node and instance away.
func (r *api) shrink(ctx context.Context, m *machinev1beta1.Machine) (time.Duration, error) {
	if !controllerutil.ContainsFinalizer(m, Finalizer) {
		return 0, nil
	}
	if ptr.Deref(m.Status.Phase, "") != machinev1beta1.PhaseDeleting {
		if err := r.enter(ctx, m, machinev1beta1.PhaseDeleting); err != nil {
			return 0, err
		}
	}
	if len(m.Spec.LifecycleHooks.PreDrain) > 0 {
		return 0, nil // removing the hook changes the generation
	}
	n, err := r.node(ctx, m.Name)
	if err != nil {
		return 0, err
	}
	if n != nil && m.Status.NodeRef != nil {
		if wait, err := r.drain(ctx, n); err != nil || wait > 0 {
			return wait, err
		}
	}
	if len(m.Spec.LifecycleHooks.PreTerminate) > 0 {
		return 0, nil
	}
	if r.options.Remove != nil {
		if err := r.options.Remove(m.DeepCopy()); err != nil {
			return 0, fmt.Errorf("remove: %w", err)
		}
	}
	if n != nil {
		if err := client.IgnoreNotFound(r.env.Client.Delete(ctx, n, client.Preconditions{UID: &n.UID})); err != nil {
			return 0, fmt.Errorf("delete node: %w", err)
		}
	}
	base := m.DeepCopy()
	controllerutil.RemoveFinalizer(m, Finalizer)
	if err := client.IgnoreNotFound(r.env.Client.Patch(ctx, m, optimistic(base))); err != nil {
		return 0, fmt.Errorf("remove finalizer: %w", err)
	}
	return 0, nil
}

// drain cordons a Node and evicts its pods. It returns zero once none is left but those of the node itself.
func (r *api) drain(ctx context.Context, n *corev1.Node) (time.Duration, error) {
	if !n.Spec.Unschedulable {
		base := n.DeepCopy()
		n.Spec.Unschedulable = true
		if err := r.env.Client.Patch(ctx, n, client.MergeFrom(base)); err != nil {
			return 0, fmt.Errorf("cordon node: %w", err)
		}
	}
	pods := &corev1.PodList{}
	if err := r.env.Live.List(ctx, pods, client.MatchingFields{"spec.nodeName": n.Name}); err != nil {
		return 0, fmt.Errorf("list pods of node: %w", err)
	}
	var wait time.Duration
	for i := range pods.Items {
		p := &pods.Items[i]
		if !evictable(p) || !p.DeletionTimestamp.IsZero() && !nodeReady(n) {
			continue // a dead node's kubelet will never finish a deletion
		}
		wait = max(wait, drainRecheck)
		if !p.DeletionTimestamp.IsZero() {
			continue
		}
		eviction := &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
			DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}},
		}
		err := r.env.Client.SubResource("eviction").Create(ctx, p, eviction)
		switch {
		case apierrors.IsTooManyRequests(err):
			wait = max(wait, drainRetry)
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
		case err != nil:
			return 0, fmt.Errorf("evict pod %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	return wait, nil
}

// evictable leaves out the pods that a drain ignores: finished ones, static ones and those of DaemonSets.
func evictable(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return false
	}
	if _, static := p.Annotations[corev1.MirrorPodAnnotationKey]; static {
		return false
	}
	owner := metav1.GetControllerOfNoCopy(p)
	return owner == nil || owner.Kind != "DaemonSet"
}
