package store

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// write is a write request on its way through the server.
type write struct {
	req     *Request
	kind    *kind
	dryRun  bool
	manager string
	force   bool // of an apply
	// canonical says that the object came in as a Go type, so that its encoding has no unknown fields and no empty ones.
	canonical bool
	// hasRules says that a custom resource has CEL rules, and ruleErrors is the number of errors, the last ones, that
	// they found.
	hasRules   bool
	ruleErrors int
}

// optimisticLock is the text of kube-apiserver's conflict.
const optimisticLock = "the object has been modified; please apply your changes to the latest version and try again"

func serverError(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonUnknown, Message: message,
	}}
}

func (k *kind) notFound(name string) error { return apierrors.NewNotFound(k.resource, name) }

func (k *kind) invalid(name string, errs field.ErrorList) error {
	return apierrors.NewInvalid(k.gvk.GroupKind(), name, errs)
}

// create stores a new object. The caller holds writing.
func (s *Store) create(w *write, in map[string]any) (*Object, error) {
	k := w.kind
	meta, err := decodeMeta(in)
	if err != nil {
		return nil, k.unreadable(s.badMetadata(k, in, err))
	}
	versioned := meta.ResourceVersion != "" && meta.ResourceVersion != "0"
	meta.ResourceVersion = ""
	meta.OwnerReferences = distinct(meta.OwnerReferences)
	if err := s.scope(k, w.req.Namespace, meta); err != nil {
		return nil, err
	}
	if meta.Name == "" && meta.GenerateName != "" {
		meta.Name = s.generateName(meta.GenerateName)
		for s.lookup(k, meta.Namespace, meta.Name) != nil {
			meta.Name = s.generateName(meta.GenerateName)
		}
	}
	if k.namespaced {
		if err := s.admitNamespace(k, meta); err != nil {
			return nil, err
		}
	}
	meta.UID = s.uid()
	meta.CreationTimestamp = s.now()
	meta.DeletionTimestamp, meta.DeletionGracePeriodSeconds, meta.SelfLink = nil, nil, ""
	meta.Generation = 0
	if k.generation != generationNever {
		meta.Generation = 1
	}
	if len(meta.ManagedFields) > 0 && w.req.Verb != "apply" {
		meta.ManagedFields = nil
	}
	if err := encodeMeta(in, meta); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	w.canonical = w.canonical || k.crd != nil
	if k.status && k.gvk.Kind != "Node" { // a kubelet registers its Node with a status
		delete(in, "status")
	}
	next, typed, errs, err := s.admit(w, in, nil)
	if err != nil {
		return nil, err
	}
	accessor, err := metaOf(next, typed)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	all := append(apivalidation.ValidateObjectMetaAccessor(accessor, k.namespaced, k.validName, field.NewPath("metadata")), k.validateFinalizers(accessor)...)
	if all = w.together(all, errs); len(all) > 0 {
		return nil, k.invalid(meta.Name, all)
	}
	// The storage says so, which a dry run doesn't reach.
	if versioned && !w.dryRun {
		return nil, serverError("resourceVersion should not be set on objects to be created")
	}
	if old := s.lookup(k, meta.Namespace, meta.Name); old != nil {
		err := apierrors.NewAlreadyExists(k.resource, meta.Name)
		if old.deleting {
			err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
		}
		return nil, err
	}
	return s.store(w, nil, next, typed)
}

// scope checks a request's namespace against the object's and the kind's.
func (s *Store) scope(k *kind, namespace string, meta *metav1.ObjectMeta) error {
	if !k.namespaced {
		meta.Namespace = ""
		return nil
	}
	if meta.Namespace == "" {
		meta.Namespace = namespace
	}
	if namespace == "" {
		return apierrors.NewBadRequest("an empty namespace may not be set during creation")
	}
	if meta.Namespace != namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// admitNamespace does what the NamespaceLifecycle admission does.
func (s *Store) admitNamespace(k *kind, meta *metav1.ObjectMeta) error {
	ns := s.lookup(s.kind(namespaceKind), "", meta.Namespace)
	if ns == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, meta.Namespace)
	}
	if !ns.deleting {
		return nil
	}
	err := apierrors.NewForbidden(k.resource, meta.Name,
		fmt.Errorf("unable to create new content in namespace %s because it is being terminated", meta.Namespace))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: "NamespaceTerminating", Field: "metadata.namespace",
		Message: fmt.Sprintf("namespace %s is being terminated", meta.Namespace),
	})
	return err
}

func (s *Store) lookup(k *kind, namespace, name string) *Object {
	o, _ := s.head(k).objects.Get(k.key(namespace, name))
	return o
}

// store commits an accepted state, or only shows it for a dry run.
func (s *Store) store(w *write, old *Object, next map[string]any, typed client.Object) (*Object, error) {
	if w.dryRun {
		revision := int64(0)
		if old != nil {
			revision = old.revision
		}
		return s.newObject(w.kind, next, revision), nil
	}
	o := s.commit(w, old, next, typed)
	if w.kind.gvk == crdKind {
		if err := s.install(o); err != nil {
			return o, err
		}
	}
	return o, nil
}

// admit runs an object through its kind's pruning, defaulting and validation. old is nil on creation. It returns the
// canonical next state.
func (s *Store) admit(w *write, in map[string]any, old *Object) (map[string]any, client.Object, field.ErrorList, error) {
	if w.kind.crd != nil {
		next, errs, err := w.kind.crd.admit(w, in, old)
		return next, nil, errs, err
	}
	return s.admitBuiltin(w, in, old)
}

// update replaces an object, or its status, by in. The caller holds writing.
func (s *Store) update(w *write, in map[string]any) (*Object, error) {
	k := w.kind
	if w.req.Name == "" {
		return nil, apierrors.NewBadRequest("resource name may not be empty")
	}
	if _, ok := in["metadata"].(map[string]any); in["metadata"] != nil && !ok {
		return nil, apierrors.NewBadRequest("metadata: expected an object")
	}
	if k.crd == nil && !w.canonical && w.req.Verb == "update" {
		// Also what this write leaves alone has to be of the kind's form.
		if _, err := s.decode(w, in); err != nil {
			return nil, err
		}
	}
	meta := metadataOf(in)
	namespace, _ := meta["namespace"].(string)
	om := metav1.ObjectMeta{Namespace: namespace}
	if err := s.scope(k, w.req.Namespace, &om); err != nil {
		return nil, err
	}
	setOrDelete(meta, "namespace", om.Namespace)
	if om.Namespace == "" {
		delete(meta, "namespace")
	}
	if name, _ := meta["name"].(string); name != "" && name != w.req.Name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", name, w.req.Name))
	}
	uid, _ := meta["uid"].(string)
	old := s.lookup(k, w.req.Namespace, w.req.Name)
	if old == nil {
		if k.createOnPut && w.req.Verb == "update" && w.req.Subresource == "" {
			if uid != "" {
				return nil, k.uidConflict(w, types.UID(uid), "")
			}
			delete(meta, "resourceVersion")
			return s.create(w, in)
		}
		return nil, k.notFound(w.req.Name)
	}
	if uid != "" && uid != string(old.uid) && w.req.Verb != "patch" { // the validation refuses a patch of it
		return nil, k.uidConflict(w, types.UID(uid), old.uid)
	}
	switch rv, _ := meta["resourceVersion"].(string); {
	case rv == "" || rv == "0":
		if !k.unconditional {
			return nil, apierrors.NewInvalid(schema.GroupKind{Group: k.gvk.Group, Kind: k.plural}, old.name, field.ErrorList{
				field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update")})
		}
	case rv != strconv.FormatInt(old.revision, 10):
		return nil, apierrors.NewConflict(k.resource, old.name, fmt.Errorf(optimisticLock))
	}
	return s.replace(w, old, in)
}

// uidConflict is the storage's error for a UID that is not the object's.
func (k *kind) uidConflict(w *write, uid, actual types.UID) error {
	prefix := k.plural
	switch {
	case k.crd != nil:
		prefix = k.gvk.Group + "/" + k.plural
	case k.gvk.Kind == "Node":
		prefix = "minions"
	case k.gvk.Kind == "Service":
		prefix = "services/specs"
	case k.gvk == crdKind:
		prefix = "apiextensions.k8s.io/customresourcedefinitions"
	}
	return apierrors.NewConflict(k.resource, w.req.Name, fmt.Errorf(
		"StorageError: invalid object, Code: 4, Key: /registry/%s/%s, ResourceVersion: 0, AdditionalErrorMsg: "+
			"Precondition failed: UID in precondition: %v, UID in object meta: %v", prefix, k.key(w.req.Namespace, w.req.Name), uid, actual))
}

// validateFinalizers checks what most built-in kinds demand of a finalizer's name.
func (k *kind) validateFinalizers(meta metav1.Object) field.ErrorList {
	switch {
	case k.crd != nil, k.gvk == crdKind, k.gvk.Kind == "Event", k.gvk.Kind == "Lease", k.gvk == pdbKind:
		return nil
	}
	var errs field.ErrorList
	for i, f := range meta.GetFinalizers() {
		switch f {
		case metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents, "kubernetes":
		default:
			if !strings.Contains(f, "/") {
				errs = append(errs, field.Invalid(field.NewPath("metadata", "finalizers").Index(i), f,
					"name is neither a standard finalizer name nor is it fully qualified"))
			}
		}
	}
	return errs
}

// together joins the errors of an object's metadata with those of the rest.
func (w *write) together(meta, rest field.ErrorList) field.ErrorList {
	if schema := len(rest) - w.ruleErrors; w.hasRules && blocksRules(meta) && !blocksRules(rest[:schema]) {
		rest = append(rest[:schema:schema], notChecked)
	}
	return append(meta, rest...)
}

// distinct drops owner references that are there twice.
func distinct(refs []metav1.OwnerReference) []metav1.OwnerReference {
	var out []metav1.OwnerReference
	for _, r := range refs {
		if !slices.ContainsFunc(out, func(o metav1.OwnerReference) bool { return equality.Semantic.DeepEqual(o, r) }) {
			out = append(out, r)
		}
	}
	return out
}

// distinctOwners does the same for undecoded metadata.
func distinctOwners(meta map[string]any) {
	refs, ok := meta["ownerReferences"].([]any)
	if !ok {
		return
	}
	var out []any
	for _, r := range refs {
		if !slices.ContainsFunc(out, func(o any) bool { return equal(o, r) }) {
			out = append(out, r)
		}
	}
	meta["ownerReferences"] = out
}

// replace makes the next state of an existing object.
func (s *Store) replace(w *write, old *Object, in map[string]any) (*Object, error) {
	k := w.kind
	in = s.isolate(w, in, old)
	in, err := s.track(w, old, in)
	if err != nil {
		return nil, err
	}
	meta, was := metadataOf(in), metadataOf(old.u.Object)
	distinctOwners(meta)
	for _, f := range []string{"resourceVersion", "generation", "creationTimestamp", "selfLink"} {
		setOrDelete(meta, f, was[f])
	}
	for _, f := range []string{"uid", "generateName", "deletionGracePeriodSeconds"} {
		if meta[f] == nil || meta[f] == "" {
			setOrDelete(meta, f, was[f])
		}
	}
	if was["deletionTimestamp"] != nil {
		meta["deletionTimestamp"] = was["deletionTimestamp"]
	}
	next, typed, errs, err := s.admit(w, in, old)
	if err != nil {
		return nil, err
	}
	nextMeta, err := metaOf(next, typed)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	oldMeta, err := old.meta()
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	path := field.NewPath("metadata")
	all := apivalidation.ValidateObjectMetaAccessor(nextMeta, k.namespaced, segmentName, path)
	all = append(all, apivalidation.ValidateObjectMetaAccessorUpdate(nextMeta, oldMeta, path)...)
	all = append(all, k.validateFinalizers(nextMeta)...)
	if all = w.together(all, errs); len(all) > 0 {
		return nil, k.invalid(old.name, all)
	}
	if k.generationGrows(next, old.u.Object) {
		metadataOf(next)["generation"] = oldMeta.GetGeneration() + 1
	}
	return s.finish(w, old, next, nextMeta, typed)
}

// metaOf returns an object's metadata, from its typed form if there is one.
func metaOf(m map[string]any, typed client.Object) (metav1.Object, error) {
	if typed != nil {
		return typed, nil
	}
	return decodeMeta(m)
}

// finish stores an update, unless it changes nothing or leaves a deleted object without finalizers.
func (s *Store) finish(w *write, old *Object, next map[string]any, meta metav1.Object, typed client.Object) (*Object, error) {
	if equal(next, old.u.Object) {
		return old, nil
	}
	if s.done(w.kind, next, old, meta) {
		last := s.newObject(w.kind, next, old.revision)
		if !w.dryRun {
			if err := s.remove(w, old); err != nil {
				return nil, err
			}
		}
		return last, nil
	}
	return s.store(w, old, next, typed)
}

// done says whether an update removes the object: it is being deleted without grace and has no finalizer left.
func (s *Store) done(k *kind, next map[string]any, old *Object, meta metav1.Object) bool {
	if len(meta.GetFinalizers()) > 0 || !old.deleting {
		return false
	}
	if k.gvk == namespaceKind {
		if f, ok := nested(next, "spec", "finalizers").([]any); ok && len(f) > 0 {
			return false
		}
	}
	grace, _ := nested(old.u.Object, "metadata", "deletionGracePeriodSeconds").(int64)
	return grace == 0
}

// remove deletes an object for good.
func (s *Store) remove(w *write, old *Object) error {
	s.commit(w, old, nil, nil)
	if w.kind.gvk == crdKind {
		return s.uninstall(w, old)
	}
	return nil
}

// isolate keeps a write to the object out of its status, and a write to its status out of the rest. in may be changed.
func (s *Store) isolate(w *write, in map[string]any, old *Object) map[string]any {
	k := w.kind
	switch {
	case w.req.Subresource == "status":
		oldm := old.u.Object
		if k.crd != nil {
			out := runtime.DeepCopyJSON(oldm)
			setOrDelete(out, "status", in["status"])
			setOrDelete(metadataOf(out), "managedFields", metadataOf(in)["managedFields"])
			return out
		}
		// Built-in kinds let a status write change metadata, but only what their strategies let through.
		for key := range in {
			if key != "status" && key != "metadata" {
				delete(in, key)
			}
		}
		for key, v := range oldm {
			if key != "status" && key != "metadata" {
				in[key] = runtime.DeepCopyJSONValue(v)
			}
		}
		keep := []string{}
		switch k.gvk.Kind {
		case "Pod":
			keep = []string{"ownerReferences"}
			if qos := nested(oldm, "status", "qosClass"); qos != nil {
				status, ok := in["status"].(map[string]any)
				if !ok {
					status = map[string]any{}
					in["status"] = status
				}
				status["qosClass"] = qos
			}
		case "Deployment":
			keep = []string{"labels"}
		case "CustomResourceDefinition":
			keep = []string{"labels", "annotations", "finalizers", "ownerReferences"}
		}
		for _, f := range keep {
			setOrDelete(metadataOf(in), f, runtime.DeepCopyJSONValue(metadataOf(oldm)[f]))
		}
	case k.status:
		setOrDelete(in, "status", runtime.DeepCopyJSONValue(old.u.Object["status"]))
	}
	return in
}

func setOrDelete(m map[string]any, key string, v any) {
	if v == nil {
		delete(m, key)
		return
	}
	m[key] = v
}

func nested(m map[string]any, path ...string) any {
	var v any = m
	for _, p := range path {
		mm, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = mm[p]
	}
	return v
}

func (k *kind) generationGrows(next, old map[string]any) bool {
	switch k.generation {
	case generationSpec:
		return !equal(next["spec"], old["spec"])
	case generationDeploy:
		return !equal(next["spec"], old["spec"]) ||
			!equal(nested(next, "metadata", "annotations"), nested(old, "metadata", "annotations"))
	case generationAll:
		differs := func(a, b map[string]any) bool {
			for key, v := range a {
				if key == "metadata" || key == "status" && k.status {
					continue
				}
				if !equal(v, b[key]) {
					return true
				}
			}
			return false
		}
		return differs(next, old) || differs(old, next)
	}
	return false
}

// delete deletes an object, or marks it as being deleted. The caller holds writing.
func (s *Store) delete(w *write, name string, o metav1.DeleteOptions) (*Object, error) {
	k := w.kind
	old := s.lookup(k, w.req.Namespace, name)
	if old == nil {
		return nil, k.notFound(name)
	}
	if p := o.Preconditions; p != nil {
		gr := schema.GroupResource{Group: k.gvk.Group, Resource: k.gvk.Kind}
		if p.UID != nil && *p.UID != old.uid && k.gvk == namespaceKind {
			return nil, apierrors.NewConflict(k.resource, name,
				fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", *p.UID, old.uid))
		}
		if p.UID != nil && *p.UID != old.uid {
			return nil, apierrors.NewConflict(gr, name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). "+
				"The object might have been deleted and then recreated", *p.UID, old.uid))
		}
		if rv := strconv.FormatInt(old.revision, 10); p.ResourceVersion != nil && *p.ResourceVersion != rv {
			return nil, apierrors.NewConflict(gr, name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the "+
				"ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, rv))
		}
	}
	if o.PropagationPolicy != nil && o.OrphanDependents != nil {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "DeleteOptions"}, "", field.ErrorList{
			field.Invalid(field.NewPath("propagationPolicy"), o.PropagationPolicy, "orphanDependents and deletionPropagation cannot be both set")})
	}
	meta, err := decodeMeta(old.u.Object)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if k.gvk == namespaceKind {
		return s.deleteNamespace(w, old, meta, o)
	}
	before := meta.DeepCopy()
	graceful, pending := s.beforeDelete(k, old, meta, &o)
	if pending {
		return old, nil
	}
	meta.Finalizers = collectorFinalizers(k, meta.Finalizers, o)
	if !graceful {
		if len(meta.Finalizers) == 0 {
			return old, s.erase(w, old)
		}
		s.markDeleting(meta)
	}
	next := old
	if !slices.Equal(before.Finalizers, meta.Finalizers) || !before.DeletionTimestamp.Equal(meta.DeletionTimestamp) ||
		before.DeletionGracePeriodSeconds == nil || *before.DeletionGracePeriodSeconds != *meta.DeletionGracePeriodSeconds {
		m := runtime.DeepCopyJSON(old.u.Object)
		if err := encodeMeta(m, meta); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		if next, err = s.store(w, old, m, nil); err != nil {
			return nil, err
		}
	}
	if len(meta.Finalizers) > 0 || graceful && *o.GracePeriodSeconds > 0 {
		return next, nil
	}
	return next, s.erase(w, next)
}

// erase removes an object unless the request is a dry run.
func (s *Store) erase(w *write, old *Object) error {
	if w.dryRun {
		return nil
	}
	return s.remove(w, old)
}

// beforeDelete sets the deletion time of an object that is deleted gracefully (only pods are). pending means that
// there is nothing to do.
func (s *Store) beforeDelete(k *kind, old *Object, meta *metav1.ObjectMeta, o *metav1.DeleteOptions) (graceful, pending bool) {
	if o.GracePeriodSeconds != nil && *o.GracePeriodSeconds < 0 {
		one := int64(1)
		o.GracePeriodSeconds = &one
	}
	if k.gvk != podKind {
		return false, false
	}
	now := s.now()
	if meta.DeletionTimestamp != nil {
		if meta.DeletionGracePeriodSeconds == nil || *meta.DeletionGracePeriodSeconds == 0 {
			return false, false
		}
		if o.GracePeriodSeconds == nil {
			return false, true
		}
		period := *o.GracePeriodSeconds
		if period >= *meta.DeletionGracePeriodSeconds {
			return false, true
		}
		at := metav1.NewTime(meta.DeletionTimestamp.Add(time.Duration(period-*meta.DeletionGracePeriodSeconds) * time.Second))
		if at.Before(&now) {
			at = now
			if period != 0 {
				period = 1
			}
		}
		meta.DeletionTimestamp, meta.DeletionGracePeriodSeconds = &at, &period
		return true, false
	}
	period := int64(0)
	if o.GracePeriodSeconds != nil {
		period = *o.GracePeriodSeconds
	} else if g, ok := nested(old.u.Object, "spec", "terminationGracePeriodSeconds").(int64); ok {
		period = g
	}
	node, _ := nested(old.u.Object, "spec", "nodeName").(string)
	phase, _ := nested(old.u.Object, "status", "phase").(string)
	if node == "" || phase == "Failed" || phase == "Succeeded" {
		period = 0
	}
	period = max(period, 0)
	o.GracePeriodSeconds = &period
	at := metav1.NewTime(now.Add(time.Duration(period) * time.Second))
	meta.DeletionTimestamp, meta.DeletionGracePeriodSeconds = &at, &period
	if meta.Generation > 0 {
		meta.Generation++
	}
	return true, false
}

func (s *Store) markDeleting(meta *metav1.ObjectMeta) {
	if meta.DeletionTimestamp == nil && meta.Generation > 0 {
		meta.Generation++
	}
	now := s.now()
	if meta.DeletionTimestamp == nil || meta.DeletionTimestamp.After(now.Time) {
		meta.DeletionTimestamp = &now
	}
	zero := int64(0)
	meta.DeletionGracePeriodSeconds = &zero
}

// collectorFinalizers adds and removes the finalizers by which the garbage collector learns of the propagation policy.
func collectorFinalizers(k *kind, finalizers []string, o metav1.DeleteOptions) []string {
	if k.gvk.Kind == "Event" && k.crd == nil {
		return finalizers // nothing depends on an event
	}
	orphan := slices.Contains(finalizers, metav1.FinalizerOrphanDependents)
	foreground := !orphan && slices.Contains(finalizers, metav1.FinalizerDeleteDependents)
	if !orphan && !foreground && k.gvk.Group == "batch" && k.gvk.Kind == "Job" {
		orphan = true // batch/v1 keeps a Job's pods unless told otherwise
	}
	switch {
	case o.OrphanDependents != nil:
		orphan, foreground = *o.OrphanDependents, false
	case o.PropagationPolicy != nil:
		orphan = *o.PropagationPolicy == metav1.DeletePropagationOrphan
		foreground = *o.PropagationPolicy == metav1.DeletePropagationForeground
	}
	var out []string
	for _, f := range finalizers {
		if f == metav1.FinalizerOrphanDependents && !orphan || f == metav1.FinalizerDeleteDependents && !foreground {
			continue
		}
		out = append(out, f)
	}
	if orphan && !slices.Contains(out, metav1.FinalizerOrphanDependents) {
		out = append(out, metav1.FinalizerOrphanDependents)
	}
	if foreground && !slices.Contains(out, metav1.FinalizerDeleteDependents) {
		out = append(out, metav1.FinalizerDeleteDependents)
	}
	return out
}

// deleteNamespace starts the termination of a namespace; it goes when its last finalizer is removed, those of its spec
// through the subresource finalize.
func (s *Store) deleteNamespace(w *write, old *Object, meta *metav1.ObjectMeta, o metav1.DeleteOptions) (*Object, error) {
	switch old.name {
	case metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic:
		return nil, apierrors.NewForbidden(w.kind.resource, old.name, errors.New("this namespace may not be deleted"))
	}
	next := old
	if meta.DeletionTimestamp == nil {
		now := s.now()
		meta.DeletionTimestamp = &now
		meta.Finalizers = collectorFinalizers(w.kind, meta.Finalizers, o)
		m := runtime.DeepCopyJSON(old.u.Object)
		if err := encodeMeta(m, meta); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		status, _ := m["status"].(map[string]any)
		if status == nil {
			status = map[string]any{}
			m["status"] = status
		}
		status["phase"] = "Terminating"
		var err error
		if next, err = s.store(w, old, m, nil); err != nil {
			return nil, err
		}
	}
	if f, _ := nested(next.u.Object, "spec", "finalizers").([]any); len(f) > 0 || len(meta.Finalizers) > 0 {
		return next, nil
	}
	return next, s.erase(w, next)
}
