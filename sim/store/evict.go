package store

import (
	"context"
	"fmt"
	"slices"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// subWrite starts a write to a subresource that has a body of its own.
func (r *subresource) subWrite(verb string, obj, body client.Object, dryRun []string, manager string) (*write, error) {
	k, err := r.c.kindOf(obj)
	if err != nil {
		return nil, err
	}
	w := r.c.newWrite(verb, k, obj.GetNamespace(), obj.GetName())
	w.req.Subresource, w.req.Object = r.name, body
	w.options(dryRun, manager)
	return w, nil
}

var pdbKind = policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget")

// maxDisruptedPods is the size that kube-apiserver lets a budget's status.disruptedPods grow to.
const maxDisruptedPods = 2000

// evict deletes a pod unless a PodDisruptionBudget forbids it.
func (r *subresource) evict(ctx context.Context, obj, body client.Object, o *client.SubResourceCreateOptions) error {
	w, err := r.subWrite("create", obj, body, o.DryRun, o.FieldManager)
	if err != nil {
		return err
	}
	return r.c.execute(ctx, w, nil, func() (*Object, error) {
		if w.kind.gvk != podKind {
			return nil, noSuchResource()
		}
		eviction, ok := body.(*policyv1.Eviction)
		if !ok {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("not a policy/v1 Eviction: %T", body))
		}
		if eviction.Name != "" && eviction.Name != w.req.Name {
			return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
		}
		return r.c.s.evict(w, eviction)
	})
}

func (s *Store) evict(w *write, eviction *policyv1.Eviction) (*Object, error) {
	old := s.lookup(w.kind, w.req.Namespace, w.req.Name)
	if old == nil {
		return nil, w.kind.notFound(w.req.Name)
	}
	pod, ok := old.Typed().(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("pod %s: not decoded", old.key))
	}
	options := metav1.DeleteOptions{}
	if eviction.DeleteOptions != nil {
		options = *eviction.DeleteOptions
		w.dryRun = w.dryRun || len(options.DryRun) > 0
	}
	if !ignoresBudget(pod) {
		if err := s.disrupt(w, pod); err != nil {
			return nil, err
		}
	}
	return s.delete(w, w.req.Name, options)
}

// ignoresBudget says whether a pod may go whatever its budget says, because it doesn't count as running or is on its
// way already.
func ignoresBudget(pod *corev1.Pod) bool {
	switch pod.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed, corev1.PodPending:
		return true
	}
	return pod.DeletionTimestamp != nil
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// disrupt takes one disruption from the pod's budget.
func (s *Store) disrupt(w *write, pod *corev1.Pod) error {
	k := s.kind(pdbKind)
	var found []*Object
	var budget *policyv1.PodDisruptionBudget
	s.head(k).objects.Scan(func(_ string, o *Object) bool {
		if o.namespace != pod.Namespace {
			return true
		}
		p, ok := o.Typed().(*policyv1.PodDisruptionBudget)
		if !ok || p.Spec.Selector == nil {
			return true
		}
		sel, err := metav1.LabelSelectorAsSelector(p.Spec.Selector)
		if err == nil && sel.Matches(labelSet(pod.Labels)) {
			found, budget = append(found, o), p
		}
		return true
	})
	switch len(found) {
	case 0:
		return nil
	case 1:
	default:
		return serverError("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
	}
	if p := budget.Spec.UnhealthyPodEvictionPolicy; !podReady(pod) {
		if p != nil && *p == policyv1.AlwaysAllow {
			return nil
		}
		if budget.Status.CurrentHealthy >= budget.Status.DesiredHealthy && budget.Status.DesiredHealthy > 0 {
			return nil
		}
	}
	if budget.Status.ObservedGeneration < budget.Generation {
		return disruptionError(budget, "The disruption budget %s is still being processed by the server.", 10, budget.Name)
	}
	if budget.Status.DisruptionsAllowed < 0 {
		return apierrors.NewForbidden(schema.GroupResource{Group: "policy", Resource: "poddisruptionbudget"}, budget.Name,
			fmt.Errorf("pdb disruptions allowed is negative"))
	}
	if len(budget.Status.DisruptedPods) > maxDisruptedPods {
		return apierrors.NewForbidden(schema.GroupResource{Group: "policy", Resource: "poddisruptionbudget"}, budget.Name,
			fmt.Errorf("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	}
	if budget.Status.DisruptionsAllowed == 0 && budget.Status.CurrentHealthy > budget.Status.DesiredHealthy {
		return disruptionError(budget, "The disruption budget %s does not allow evicting pods currently", 0, budget.Name)
	}
	if budget.Status.DisruptionsAllowed == 0 {
		return disruptionError(budget, "The disruption budget %s needs %d healthy pods and has %d currently", 0,
			budget.Name, budget.Status.DesiredHealthy, budget.Status.CurrentHealthy)
	}
	next := runtime.DeepCopyJSON(found[0].u.Object)
	status, ok := next["status"].(map[string]any)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("poddisruptionbudget %s: no status", found[0].key))
	}
	status["disruptionsAllowed"] = int64(budget.Status.DisruptionsAllowed - 1)
	if budget.Status.DisruptionsAllowed == 1 {
		conditions := slices.Clone(budget.Status.Conditions)
		meta.SetStatusCondition(&conditions, metav1.Condition{
			Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason,
			ObservedGeneration: budget.Status.ObservedGeneration, LastTransitionTime: s.now(),
		})
		out := make([]any, len(conditions))
		for i := range conditions {
			c, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&conditions[i])
			if err != nil {
				return apierrors.NewInternalError(err)
			}
			out[i] = c
		}
		status["conditions"] = out
	}
	disrupted, _ := status["disruptedPods"].(map[string]any)
	if disrupted == nil {
		disrupted = map[string]any{}
		status["disruptedPods"] = disrupted
	}
	disrupted[pod.Name] = s.now().UTC().Format("2006-01-02T15:04:05Z")
	bw := &write{kind: k, dryRun: w.dryRun, manager: w.manager, req: w.req}
	_, err := s.store(bw, found[0], next, nil)
	return err
}

func disruptionError(budget *policyv1.PodDisruptionBudget, format string, retryAfter int, args ...any) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", retryAfter)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf(format, args...),
	})
	return err
}

// bind assigns a pod to a node.
func (r *subresource) bind(ctx context.Context, obj, body client.Object, o *client.SubResourceCreateOptions) error {
	w, err := r.subWrite("create", obj, body, o.DryRun, o.FieldManager)
	if err != nil {
		return err
	}
	return r.c.execute(ctx, w, nil, func() (*Object, error) {
		binding, ok := body.(*corev1.Binding)
		if w.kind.gvk != podKind {
			return nil, noSuchResource()
		}
		if !ok {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", body))
		}
		return r.c.s.bind(w, binding)
	})
}

func (s *Store) bind(w *write, binding *corev1.Binding) (*Object, error) {
	k := w.kind
	old := s.lookup(k, w.req.Namespace, w.req.Name)
	if old == nil {
		return nil, k.notFound(w.req.Name)
	}
	conflict := func(format string, args ...any) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, old.name, fmt.Errorf(format, args...))
	}
	node, _ := nested(old.u.Object, "spec", "nodeName").(string)
	switch {
	case binding.Target.Name == "":
		return nil, serverError("target.name: Required value")
	case binding.UID != "" && binding.UID != old.uid:
		return nil, conflict("the UID in the precondition (%s) does not match the UID in record (%s)", binding.UID, old.uid)
	case old.deleting:
		return nil, conflict("pod %s is being deleted, cannot be assigned to a host", old.name)
	case node != "":
		return nil, conflict("pod %v is already assigned to node %q", old.name, node)
	}
	next := runtime.DeepCopyJSON(old.u.Object)
	spec, ok := next["spec"].(map[string]any)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("pod %s: no spec", old.key))
	}
	spec["nodeName"] = binding.Target.Name
	annotations, _ := metadataOf(next)["annotations"].(map[string]any)
	if annotations == nil && len(binding.Annotations) > 0 {
		annotations = map[string]any{}
		metadataOf(next)["annotations"] = annotations
	}
	for key, v := range binding.Annotations {
		annotations[key] = v
	}
	status, _ := next["status"].(map[string]any)
	if status == nil {
		status = map[string]any{}
		next["status"] = status
	}
	scheduled := map[string]any{
		"type": string(corev1.PodScheduled), "status": "True", "lastProbeTime": nil,
		"lastTransitionTime": s.now().UTC().Format("2006-01-02T15:04:05Z"),
	}
	conditions, _ := status["conditions"].([]any)
	out := []any{}
	for _, c := range conditions {
		if m, ok := c.(map[string]any); !ok || m["type"] != string(corev1.PodScheduled) {
			out = append(out, c)
		}
	}
	status["conditions"] = append(out, scheduled)
	return s.store(w, old, next, nil)
}

// scaleOf returns an object's scale in the form of autoscaling/v1.
func (k *kind) scaleOf(o *Object) *scale {
	m := o.u.Object
	number := func(path []string) int32 {
		n, _ := nested(m, path...).(int64)
		return int32(n)
	}
	out := &scale{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{
			Name: o.name, Namespace: o.namespace, UID: o.uid, ResourceVersion: o.u.GetResourceVersion(),
			CreationTimestamp: o.u.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: number(k.scale.spec)},
		Status: autoscalingv1.ScaleStatus{Replicas: number(k.scale.status)},
	}
	switch sel := nested(m, k.scale.selector...).(type) {
	case string:
		if len(k.scale.selector) > 0 {
			out.Status.Selector = sel
		}
	case map[string]any:
		ls := &metav1.LabelSelector{}
		if k.crd == nil && runtime.DefaultUnstructuredConverter.FromUnstructured(sel, ls) == nil {
			if s, err := metav1.LabelSelectorAsSelector(ls); err == nil {
				out.Status.Selector = s.String()
			}
		}
	}
	return out
}

func (r *subresource) getScale(ctx context.Context, obj, body client.Object) error {
	k, err := r.c.kindOf(obj)
	if err != nil {
		return err
	}
	req := &Request{Verb: "get", Subresource: r.name, GVK: k.gvk, Namespace: obj.GetNamespace(), Name: obj.GetName()}
	return r.c.do(ctx, req, func() error {
		if k.scale == nil {
			return noSuchResource()
		}
		o := r.c.s.lookup(k, obj.GetNamespace(), obj.GetName())
		if o == nil {
			return k.notFound(obj.GetName())
		}
		return k.scaleOf(o).into(body)
	})
}

// scale is an autoscaling/v1 Scale on its way to or from a client.
type scale autoscalingv1.Scale

// into fills a client's object, which may be typed or unstructured.
func (s *scale) into(body client.Object) error {
	switch out := body.(type) {
	case *autoscalingv1.Scale:
		*out = autoscalingv1.Scale(*s)
		return nil
	case *unstructured.Unstructured:
		m, err := runtime.DefaultUnstructuredConverter.ToUnstructured((*autoscalingv1.Scale)(s))
		if err != nil {
			return fmt.Errorf("encode scale %s: %w", s.Name, err)
		}
		out.Object = m
		return nil
	}
	return apierrors.NewBadRequest(fmt.Sprintf("expected an autoscaling/v1 Scale, got %T", body))
}

// from reads a client's object.
func (s *scale) from(body client.Object) error {
	switch in := body.(type) {
	case *autoscalingv1.Scale:
		*s = scale(*in.DeepCopy())
		return nil
	case *unstructured.Unstructured:
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(in.Object, (*autoscalingv1.Scale)(s)); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		return nil
	}
	return apierrors.NewBadRequest(fmt.Sprintf("expected an autoscaling/v1 Scale, got %T", body))
}

func (r *subresource) updateScale(ctx context.Context, obj client.Object, o *client.SubResourceUpdateOptions) error {
	w, err := r.subWrite("update", obj, o.SubResourceBody, o.DryRun, o.FieldManager)
	if err != nil {
		return err
	}
	return r.c.do(ctx, w.req, func() error {
		if w.kind.scale == nil {
			return noSuchResource()
		}
		want := &scale{}
		if err := want.from(o.SubResourceBody); err != nil {
			return err
		}
		stored, err := r.c.locked(func() (*Object, error) { return r.c.s.rescale(w, want) })
		if err != nil {
			return err
		}
		return w.kind.scaleOf(stored).into(o.SubResourceBody)
	})
}

func (r *subresource) patchScale(ctx context.Context, obj, body client.Object, patch client.Patch, o *client.SubResourcePatchOptions) error {
	data, err := patch.Data(body)
	if err != nil {
		return err
	}
	w, err := r.subWrite("patch", obj, body, o.DryRun, o.FieldManager)
	if err != nil {
		return err
	}
	w.req.Patch, w.req.PatchType = data, patch.Type()
	return r.c.do(ctx, w.req, func() error {
		stored, err := r.c.locked(func() (*Object, error) {
			k := w.kind
			if k.scale == nil {
				return nil, noSuchResource()
			}
			old := r.c.s.lookup(k, w.req.Namespace, w.req.Name)
			if old == nil {
				return nil, k.notFound(w.req.Name)
			}
			if patch.Type() != types.MergePatchType && patch.Type() != types.JSONPatchType {
				return nil, unsupportedPatch()
			}
			m, err := runtime.DefaultUnstructuredConverter.ToUnstructured((*autoscalingv1.Scale)(k.scaleOf(old)))
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			in, err := r.c.s.patched(w, r.c.s.newObject(&kind{gvk: autoscalingv1.SchemeGroupVersion.WithKind("Scale")}, m, old.revision), data)
			if err != nil {
				return nil, err
			}
			want := &scale{}
			if err := want.from(&unstructured.Unstructured{Object: in}); err != nil {
				return nil, err
			}
			return r.c.s.rescale(w, want)
		})
		if err != nil {
			return err
		}
		if _, untyped := body.(*unstructured.Unstructured); body == obj && !untyped {
			return stored.into(body, false)
		}
		if err := w.kind.scaleOf(stored).into(body); err != nil {
			return err
		}
		if body == obj { // the client keeps the kind that it was called with
			body.GetObjectKind().SetGroupVersionKind(w.kind.gvk)
		}
		return nil
	})
}

// rescale writes the number of replicas. An empty resourceVersion or the newest one is accepted.
func (s *Store) rescale(w *write, scale *scale) (*Object, error) {
	k := w.kind
	if k.scale == nil {
		return nil, noSuchResource()
	}
	old := s.lookup(k, w.req.Namespace, w.req.Name)
	if old == nil {
		return nil, k.notFound(w.req.Name)
	}
	if k.crd == nil && scale.Spec.Replicas < 0 {
		return nil, apierrors.NewInvalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), old.name,
			apivalidation.ValidateNonnegativeField(int64(scale.Spec.Replicas), field.NewPath("spec", "replicas")))
	}
	in := runtime.DeepCopyJSON(old.u.Object)
	m := in
	for _, p := range k.scale.spec[:len(k.scale.spec)-1] {
		child, ok := m[p].(map[string]any)
		if !ok {
			child = map[string]any{}
			m[p] = child
		}
		m = child
	}
	m[k.scale.spec[len(k.scale.spec)-1]] = int64(scale.Spec.Replicas)
	if scale.ResourceVersion != "" {
		metadataOf(in)["resourceVersion"] = scale.ResourceVersion
	}
	return s.update(w, in)
}

// labelSet is a pod's labels as a selector wants them.
type labelSet map[string]string

func (l labelSet) Has(label string) bool                      { _, ok := l[label]; return ok }
func (l labelSet) Get(label string) string                    { return l[label] }
func (l labelSet) Lookup(label string) (value string, _ bool) { v, ok := l[label]; return v, ok }
