package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
)

// collectedKinds are the kinds that the garbage collector always looks at. Nodes are here as owners only.
func collectedKinds() []client.Object {
	return []client.Object{
		&corev1.Pod{}, &corev1.ConfigMap{}, &corev1.Secret{}, &corev1.Node{},
		&batchv1.Job{}, &appsv1.ReplicaSet{}, &appsv1.Deployment{},
		&mcfgv1.MachineOSBuild{}, &mcfgv1.MachineOSConfig{}, &mcfgv1.MachineConfig{}, &mcfgv1.MachineConfigPool{},
		&mcfgv1.MachineConfigNode{},
		&machinev1beta1.MachineSet{}, &machinev1beta1.Machine{},
	}
}

// GarbageCollector models kube's garbage collector.
//
//   - An object all of whose owners are gone, or were replaced by others of the same name (another UID), is deleted.
//     That an owner is gone is asked of the server, never of a cache. As long as one owner is left the references to the
//     others are only removed.
//   - An owner that is being deleted and has the finalizer foregroundDeletion has its dependents deleted, and loses the
//     finalizer when none is left whose reference says blockOwnerDeletion. The finalizer alone means nothing: a
//     MachineOSBuild has it from its creation, and is then deleted in the foreground whoever deletes it.
//   - An owner that is being deleted and has the finalizer orphan first has the references to it removed.
//
// It looks only at objects that changed and at those tied to them by a reference, which an index in memory finds; the
// index is built from the server at the first reconcile after a start.
func GarbageCollector(o Options) component.Component {
	scheme, schemeErr := o.Scheme, error(nil)
	if scheme == nil {
		scheme, schemeErr = defaultScheme()
	}
	var kinds []collected
	var watches []component.Watch
	errs := []error{schemeErr}
	if schemeErr == nil {
		seen := map[schema.GroupVersionKind]bool{}
		for _, object := range append(collectedKinds(), o.Kinds...) {
			gvk := object.GetObjectKind().GroupVersionKind()
			if gvk.Empty() {
				var err error
				if gvk, err = apiutil.GVKForObject(object, scheme); err != nil {
					errs = append(errs, fmt.Errorf("kind %T: %w", object, err))
					continue
				}
			}
			if !seen[gvk] {
				seen[gvk] = true
				kinds = append(kinds, collected{gvk: gvk, object: object})
				watches = append(watches, component.Watch{Object: object, When: collectable, Map: identity(gvk)})
			}
		}
	}
	return component.Component{
		Name:    "garbage-collector",
		Watches: watches,
		New: func(env component.Env) (reconcile.Reconciler, error) {
			if err := errors.Join(errs...); err != nil {
				return nil, err
			}
			return &garbage{env: env, scheme: env.Client.Scheme(), kinds: kinds}, nil
		},
	}
}

type collected struct {
	gvk    schema.GroupVersionKind
	object client.Object
}

// collectable drops events that tell the collector nothing: of objects that neither have an owner nor are going away.
func collectable(before, after client.Object) bool {
	switch {
	case after == nil:
		return true // it may have dependents
	case before == nil:
		return len(after.GetOwnerReferences()) > 0 || !after.GetDeletionTimestamp().IsZero()
	}
	return before.GetUID() != after.GetUID() ||
		before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero() ||
		!after.GetDeletionTimestamp().IsZero() && !slices.Equal(before.GetFinalizers(), after.GetFinalizers()) ||
		!slices.EqualFunc(before.GetOwnerReferences(), after.GetOwnerReferences(), sameReference)
}

func sameReference(a, b metav1.OwnerReference) bool {
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion &&
		ptr.Deref(a.BlockOwnerDeletion, false) == ptr.Deref(b.BlockOwnerDeletion, false)
}

// identity maps an object to a request that names this very object: Kind.version.group/name/uid.
func identity(gvk schema.GroupVersionKind) func(context.Context, client.Reader, client.Object) []reconcile.Request {
	kind := gvk.Kind + "." + gvk.Version + "." + gvk.Group
	return func(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{
			Namespace: o.GetNamespace(), Name: kind + "/" + o.GetName() + "/" + string(o.GetUID()),
		}}}
	}
}

func parseIdentity(req reconcile.Request) (thing, error) {
	parts := strings.Split(req.Name, "/")
	if len(parts) != 3 {
		return thing{}, fmt.Errorf("malformed request %q", req.Name)
	}
	gvk, _ := schema.ParseKindArg(parts[0])
	if gvk == nil {
		return thing{}, fmt.Errorf("malformed kind %q", parts[0])
	}
	return thing{gvk: *gvk, namespace: req.Namespace, name: parts[1], uid: types.UID(parts[2])}, nil
}

// thing is the identity of an object.
type thing struct {
	gvk             schema.GroupVersionKind
	namespace, name string
	uid             types.UID
}

func (t thing) String() string {
	if t.namespace == "" {
		return t.gvk.Kind + " " + t.name
	}
	return t.gvk.Kind + " " + t.namespace + "/" + t.name
}

// dependent is an object with owners, as last seen.
type dependent struct {
	thing
	owners []metav1.OwnerReference
}

type garbage struct {
	env    component.Env
	scheme *runtime.Scheme
	kinds  []collected

	loaded     bool
	dependents map[types.UID]*dependent             // by their own UID
	owned      map[types.UID]map[types.UID]struct{} // owner's UID -> dependents' UIDs
	waiting    map[types.UID]thing                  // owners whose deletion waits for dependents
}

func (r *garbage) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	t, err := parseIdentity(req)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(err)
	}
	if err := r.load(ctx); err != nil {
		return reconcile.Result{}, fmt.Errorf("load owner index: %w", err)
	}
	object, err := r.get(ctx, r.env.Client, t)
	if err != nil {
		return reconcile.Result{}, err
	}
	if object == nil {
		err = r.gone(ctx, t)
	} else {
		err = r.changed(ctx, t, object)
	}
	return reconcile.Result{}, err
}

// load builds the index of what exists. A kind that the server doesn't serve has no objects.
func (r *garbage) load(ctx context.Context) error {
	if r.loaded {
		return nil
	}
	r.dependents = map[types.UID]*dependent{}
	r.owned = map[types.UID]map[types.UID]struct{}{}
	r.waiting = map[types.UID]thing{}
	for _, k := range r.kinds {
		if k.gvk.Kind == "Node" {
			continue
		}
		list, err := r.newList(k.gvk)
		if err != nil {
			return err
		}
		if err := r.env.Live.List(ctx, list); notServed(err) {
			continue
		} else if err != nil {
			return fmt.Errorf("list %s: %w", k.gvk.Kind, err)
		}
		if err := meta.EachListItem(list, func(item runtime.Object) error {
			o, err := meta.Accessor(item)
			if err != nil {
				return err
			}
			r.remember(thing{k.gvk, o.GetNamespace(), o.GetName(), o.GetUID()}, o.GetOwnerReferences())
			return nil
		}); err != nil {
			return fmt.Errorf("read list of %s: %w", k.gvk.Kind, err)
		}
	}
	r.loaded = true
	return nil
}

func notServed(err error) bool {
	return err != nil && (apierrors.IsNotFound(err) || meta.IsNoMatchError(err) || runtime.IsNotRegisteredError(err))
}

func (r *garbage) newList(gvk schema.GroupVersionKind) (client.ObjectList, error) {
	list := gvk.GroupVersion().WithKind(gvk.Kind + "List")
	if r.scheme.Recognizes(list) {
		o, err := r.scheme.New(list)
		if err != nil {
			return nil, fmt.Errorf("new %s: %w", list.Kind, err)
		}
		if typed, ok := o.(client.ObjectList); ok {
			return typed, nil
		}
	}
	u := &unstructured.UnstructuredList{}
	u.SetGroupVersionKind(list)
	return u, nil
}

func (r *garbage) newObject(gvk schema.GroupVersionKind) (client.Object, error) {
	if r.scheme.Recognizes(gvk) {
		o, err := r.scheme.New(gvk)
		if err != nil {
			return nil, fmt.Errorf("new %s: %w", gvk.Kind, err)
		}
		if typed, ok := o.(client.Object); ok {
			return typed, nil
		}
	}
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gvk)
	return u, nil
}

// get returns the very object that t names, or nil where it is gone or another has its name.
func (r *garbage) get(ctx context.Context, reader client.Reader, t thing) (client.Object, error) {
	o, err := r.newObject(t.gvk)
	if err != nil {
		return nil, err
	}
	err = reader.Get(ctx, types.NamespacedName{Namespace: t.namespace, Name: t.name}, o)
	if apierrors.IsNotFound(err) || err == nil && o.GetUID() != t.uid {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", t, err)
	}
	return o, nil
}

// remember keeps the index in step with one object's owners.
func (r *garbage) remember(t thing, owners []metav1.OwnerReference) {
	if d := r.dependents[t.uid]; d != nil {
		for _, ref := range d.owners {
			if set := r.owned[ref.UID]; set != nil {
				delete(set, t.uid)
				if len(set) == 0 {
					delete(r.owned, ref.UID)
				}
			}
		}
		delete(r.dependents, t.uid)
	}
	if len(owners) == 0 {
		return
	}
	r.dependents[t.uid] = &dependent{thing: t, owners: owners}
	for _, ref := range owners {
		if r.owned[ref.UID] == nil {
			r.owned[ref.UID] = map[types.UID]struct{}{}
		}
		r.owned[ref.UID][t.uid] = struct{}{}
	}
}

// of returns the dependents of an owner in a fixed order.
func (r *garbage) of(owner types.UID) []*dependent {
	var ds []*dependent
	for uid := range maps.Keys(r.owned[owner]) {
		ds = append(ds, r.dependents[uid])
	}
	slices.SortFunc(ds, func(a, b *dependent) int {
		return cmp.Or(cmp.Compare(a.gvk.Kind, b.gvk.Kind), cmp.Compare(a.gvk.Group, b.gvk.Group),
			cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name), cmp.Compare(a.uid, b.uid))
	})
	return ds
}

// gone follows the disappearance of an object: it may have been the last owner of others, and the last dependent that
// an owner waited for.
func (r *garbage) gone(ctx context.Context, t thing) error {
	var owners []metav1.OwnerReference
	if d := r.dependents[t.uid]; d != nil {
		owners = d.owners
	}
	var errs []error
	for _, d := range r.of(t.uid) {
		errs = append(errs, r.collect(ctx, d.thing))
	}
	for _, ref := range owners {
		if owner, ok := r.waiting[ref.UID]; ok {
			errs = append(errs, r.proceed(ctx, owner, t.uid))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err // what is known of t is still needed for the next attempt
	}
	r.remember(t, nil)
	delete(r.waiting, t.uid)
	return nil
}

// changed follows an object's new state.
func (r *garbage) changed(ctx context.Context, t thing, o client.Object) error {
	var former []metav1.OwnerReference
	if d := r.dependents[t.uid]; d != nil {
		former = d.owners
	}
	r.remember(t, o.GetOwnerReferences())
	var errs []error
	for _, ref := range former {
		// A reference that went, or ceased to block, may be what the owner waits for.
		if owner, ok := r.waiting[ref.UID]; ok {
			errs = append(errs, r.proceed(ctx, owner, ""))
		}
	}
	if !o.GetDeletionTimestamp().IsZero() && hasDeletionFinalizer(o) {
		errs = append(errs, r.proceed(ctx, t, ""))
	} else if len(o.GetOwnerReferences()) > 0 {
		errs = append(errs, r.collect(ctx, t))
	}
	return errors.Join(errs...)
}

func hasDeletionFinalizer(o metav1.Object) bool {
	return slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents) ||
		slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents)
}

func deletesDependents(o metav1.Object) bool {
	return !o.GetDeletionTimestamp().IsZero() && slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents)
}

// The states of an owner from the point of view of a dependent.
type ownerState int

const (
	solid    ownerState = iota // it is there
	dangling                   // it is gone
	awaiting                   // it is being deleted, and waits for its dependents
)

// owner looks an owner up: in the cache, and on the server before it is called gone.
func (r *garbage) owner(ctx context.Context, namespace string, ref metav1.OwnerReference) (ownerState, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return solid, fmt.Errorf("owner %s %s: %w", ref.Kind, ref.Name, err)
	}
	t := thing{gvk: gv.WithKind(ref.Kind), namespace: namespace, name: ref.Name, uid: ref.UID}
	probe, err := r.newObject(t.gvk)
	if err != nil {
		return solid, err
	}
	if namespaced, err := r.env.Client.IsObjectNamespaced(probe); err != nil {
		return solid, fmt.Errorf("owner %s: %w", t, err)
	} else if !namespaced {
		t.namespace = ""
	}
	o, err := r.get(ctx, r.env.Client, t)
	if err == nil && o == nil {
		o, err = r.get(ctx, r.env.Live, t)
	}
	switch {
	case err != nil:
		return solid, err
	case o == nil:
		return dangling, nil
	case deletesDependents(o):
		return awaiting, nil
	}
	return solid, nil
}

// collect decides about one dependent: keep it, cut the references to owners that are gone, or delete it.
func (r *garbage) collect(ctx context.Context, t thing) error {
	d := r.dependents[t.uid]
	if d == nil {
		return nil
	}
	states, err := r.states(ctx, t.namespace, d.owners)
	if err != nil || !slices.ContainsFunc(states, func(s ownerState) bool { return s != solid }) {
		return err
	}
	// Something is to be done. From here on only the server's word counts.
	o, err := r.get(ctx, r.env.Live, t)
	if err != nil || o == nil || !o.GetDeletionTimestamp().IsZero() && !deletesDependents(o) {
		return err // gone or going: an event tells
	}
	if deletesDependents(o) {
		return nil // handled as an owner
	}
	refs := o.GetOwnerReferences()
	if states, err = r.states(ctx, t.namespace, refs); err != nil || len(refs) == 0 {
		return err
	}
	if slices.Contains(states, solid) {
		var keep []metav1.OwnerReference
		for i, ref := range refs {
			if states[i] == solid {
				keep = append(keep, ref)
			}
		}
		if len(keep) == len(refs) {
			return nil
		}
		return r.setOwners(ctx, t, o, keep)
	}
	policy := metav1.DeletePropagationBackground
	switch {
	case slices.Contains(states, awaiting) && len(r.owned[t.uid]) > 0:
		policy = metav1.DeletePropagationForeground // the owner waits for dependents of dependents too
		if err := r.breakCycle(ctx, t, o); err != nil {
			return err
		}
	case slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	}
	uid := t.uid
	err = r.env.Client.Delete(ctx, o, client.Preconditions{UID: &uid}, client.PropagationPolicy(policy))
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete %s: %w", t, err)
	}
	return nil
}

// breakCycle stops an object from blocking its owners where one of its own dependents is itself waiting for dependents:
// two objects could otherwise wait for each other for ever.
func (r *garbage) breakCycle(ctx context.Context, t thing, o client.Object) error {
	for _, d := range r.of(t.uid) {
		if _, ok := r.waiting[d.uid]; !ok {
			continue
		}
		refs := slices.Clone(o.GetOwnerReferences())
		for i := range refs {
			refs[i].BlockOwnerDeletion = ptr.To(false)
		}
		return r.setOwners(ctx, t, o, refs)
	}
	return nil
}

func (r *garbage) states(ctx context.Context, namespace string, refs []metav1.OwnerReference) ([]ownerState, error) {
	states := make([]ownerState, len(refs))
	for i, ref := range refs {
		s, err := r.owner(ctx, namespace, ref)
		if notServed(err) {
			s, err = solid, nil // nothing can be said of a kind that isn't served
		}
		if err != nil {
			return nil, err
		}
		states[i] = s
	}
	return states, nil
}

func (r *garbage) setOwners(ctx context.Context, t thing, o client.Object, refs []metav1.OwnerReference) error {
	base, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("copy %s: not an object", t)
	}
	o.SetOwnerReferences(refs)
	err := r.env.Client.Patch(ctx, o, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove owners of %s: %w", t, err)
	}
	return nil
}

// proceed moves the deletion of an owner on. The dependent named by without is known to be gone.
func (r *garbage) proceed(ctx context.Context, t thing, without types.UID) error {
	o, err := r.get(ctx, r.env.Live, t)
	if err != nil {
		return err
	}
	if o == nil || o.GetDeletionTimestamp().IsZero() || !hasDeletionFinalizer(o) {
		delete(r.waiting, t.uid)
		return nil
	}
	orphan := slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents)
	finalizer, blocked := metav1.FinalizerDeleteDependents, false
	if orphan {
		finalizer = metav1.FinalizerOrphanDependents
	}
	_, again := r.waiting[t.uid]
	r.waiting[t.uid] = t
	var errs []error
	for _, d := range r.of(t.uid) {
		switch {
		case d.uid == without:
		case orphan:
			errs = append(errs, r.disown(ctx, d.thing, t.uid))
		default:
			if !again || without == "" {
				errs = append(errs, r.collect(ctx, d.thing))
			}
			blocked = blocked || slices.ContainsFunc(d.owners, func(ref metav1.OwnerReference) bool {
				return ref.UID == t.uid && ptr.Deref(ref.BlockOwnerDeletion, false)
			})
		}
	}
	if err := errors.Join(errs...); err != nil || blocked {
		return err
	}
	base, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("copy %s: not an object", t)
	}
	controllerutil.RemoveFinalizer(o, finalizer)
	err = r.env.Client.Patch(ctx, o, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove finalizer of %s: %w", t, err)
	}
	delete(r.waiting, t.uid)
	return nil
}

// disown removes the references to one owner from a dependent.
func (r *garbage) disown(ctx context.Context, t thing, owner types.UID) error {
	o, err := r.get(ctx, r.env.Live, t)
	if err != nil || o == nil {
		return err
	}
	refs := slices.DeleteFunc(slices.Clone(o.GetOwnerReferences()),
		func(ref metav1.OwnerReference) bool { return ref.UID == owner })
	if len(refs) == len(o.GetOwnerReferences()) {
		return nil
	}
	return r.setOwners(ctx, t, o, refs)
}
