//go:build likeness

package envtest_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// script is a list of requests about one object. Each answer is compared; none is expected.
type script struct {
	*pair
	t *testing.T
	o *unstructured.Unstructured
}

// on starts a script with the creation of an example under a new name.
func (p *pair) on(t *testing.T, kind, name string, change ...func(map[string]any)) *script {
	t.Helper()
	o := p.parse(t, examples[kind])
	o.SetName(name)
	for _, c := range change {
		c(o.Object)
	}
	s := &script{p, t, o}
	_ = p.Create(t.Context(), o)
	return s
}

func put(value any, path ...string) func(map[string]any) {
	return func(o map[string]any) {
		if value == nil {
			unstructured.RemoveNestedField(o, path...)
		} else if err := unstructured.SetNestedField(o, value, path...); err != nil {
			panic(err)
		}
	}
}

func (s *script) read() *script {
	_ = s.Get(s.t.Context(), client.ObjectKeyFromObject(s.o), s.o)
	return s
}

func (s *script) update(value any, path ...string) *script {
	o := s.o.DeepCopy()
	put(value, path...)(o.Object)
	if s.Update(s.t.Context(), o) == nil {
		s.o = o
	}
	return s
}

func (s *script) status(value any, path ...string) *script {
	o := s.o.DeepCopy()
	put(value, path...)(o.Object)
	if s.Status().Update(s.t.Context(), o) == nil {
		s.o = o
	}
	return s
}

func (s *script) patch(kind types.PatchType, data string, sub ...string) *script {
	o := s.o.DeepCopy()
	var err error
	if len(sub) > 0 {
		err = s.SubResource(sub[0]).Patch(s.t.Context(), o, client.RawPatch(kind, []byte(data)))
	} else {
		err = s.Patch(s.t.Context(), o, client.RawPatch(kind, []byte(data)))
	}
	if err == nil {
		s.o = o
	}
	return s
}

func (s *script) apply(manager, manifest string, force bool, sub ...string) *script {
	o := &unstructured.Unstructured{}
	must(s.t, yaml.Unmarshal([]byte(manifest), &o.Object))
	o.Object = numbers(o.Object).(map[string]any)
	o.SetGroupVersionKind(s.o.GroupVersionKind())
	o.SetName(s.o.GetName())
	o.SetNamespace(s.o.GetNamespace())
	p := client.RawPatch(types.ApplyPatchType, []byte(text(o.Object)))
	var err error
	if len(sub) > 0 {
		opts := []client.SubResourcePatchOption{client.FieldOwner(manager)}
		if force {
			opts = append(opts, client.ForceOwnership)
		}
		err = s.SubResource(sub[0]).Patch(s.t.Context(), o, p, opts...)
	} else {
		opts := []client.PatchOption{client.FieldOwner(manager)}
		if force {
			opts = append(opts, client.ForceOwnership)
		}
		err = s.Patch(s.t.Context(), o, p, opts...)
	}
	if err == nil {
		s.o = o
	}
	return s
}

func (s *script) delete(opts ...client.DeleteOption) *script {
	_ = s.Delete(s.t.Context(), s.o.DeepCopy(), opts...)
	return s
}

var propagation = map[string]client.PropagationPolicy{
	"bg": client.PropagationPolicy(metav1.DeletePropagationBackground), "fg": client.PropagationPolicy(metav1.DeletePropagationForeground),
	"orphan": client.PropagationPolicy(metav1.DeletePropagationOrphan),
}

const (
	mergePatch     = types.MergePatchType
	jsonPatch      = types.JSONPatchType
	strategicPatch = types.StrategicMergePatchType
)

// requests sends what controllers send, and what they should not.
func requests(t *testing.T, p *pair) {
	ctx := t.Context()
	for _, kind := range sortedKeys(examples) {
		name := "rq-" + strings.ToLower(kind)
		fit := func(o map[string]any) {
			switch kind {
			case "MachineOSConfig":
				put(name, "spec", "machineConfigPool", "name")(o)
			case "MachineConfigNode":
				put(name, "spec", "node", "name")(o)
			}
		}
		s := p.on(t, kind, name, fit)
		_ = p.Create(ctx, s.o.DeepCopy()) // has a resourceVersion
		again := s.o.DeepCopy()
		again.SetResourceVersion("")
		_ = p.Create(ctx, again)
		old := s.o.DeepCopy()
		s.read().update("y", "metadata", "labels", "l").update("y", "metadata", "labels", "l")
		_ = p.Update(ctx, old.DeepCopy())
		_ = p.Status().Update(ctx, old.DeepCopy())
		_ = p.Patch(ctx, old.DeepCopy(), client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
		blind := s.o.DeepCopy()
		blind.SetResourceVersion("")
		put("blind", "metadata", "annotations", "b")(blind.Object)
		_ = p.Update(ctx, blind)
		s.read()
		wrong := s.o.DeepCopy()
		wrong.SetUID("00000000-0000-4000-8000-000000000000")
		_ = p.Update(ctx, wrong)
		named := s.o.DeepCopy()
		named.SetName(name + "-absent")
		_ = p.Update(ctx, named.DeepCopy())
		named.SetResourceVersion("")
		named.SetUID("")
		_ = p.Update(ctx, named.DeepCopy(), client.DryRunAll)
		_ = p.Get(ctx, client.ObjectKeyFromObject(named), named.DeepCopy())
		_ = p.Delete(ctx, named.DeepCopy())
		_ = p.Patch(ctx, named.DeepCopy(), client.RawPatch(mergePatch, []byte(`{}`)))
		s.update("Not Valid", "metadata", "labels", "l").update("v", "metadata", "labels", "not a key")
		s.update([]any{"nodomain"}, "metadata", "finalizers").update([]any{"x/y"}, "metadata", "finalizers")
		s.update([]any{map[string]any{"apiVersion": "v1", "kind": "Pod", "name": "p"}}, "metadata", "ownerReferences")
		owner := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "name": "p", "uid": "00000000-0000-4000-8000-000000000001", "controller": true}
		s.update([]any{owner, owner}, "metadata", "ownerReferences").update([]any{owner}, "metadata", "ownerReferences")
		s.update("2000-01-01T00:00:00Z", "metadata", "creationTimestamp").update("2000-01-01T00:00:00Z", "metadata", "deletionTimestamp")
		s.update(int64(7), "metadata", "generation").update("00000000-0000-4000-8000-000000000000", "metadata", "uid")
		s.patch(mergePatch, `{"metadata":{"labels":{"l":null,"n":"1"}}}`).patch(mergePatch, `{"metadata":{"labels":{"n":"1"}}}`)
		s.patch(jsonPatch, `[{"op":"add","path":"/metadata/labels/j","value":"1"},{"op":"test","path":"/metadata/labels/j","value":"2"}]`)
		s.patch(jsonPatch, `[{"op":"remove","path":"/metadata/labels/absent"}]`).patch(jsonPatch, `{"op":"remove"}`)
		s.patch(jsonPatch, `[{"op":"add","path":"/metadata/labels/j","value":"1"}]`).patch(mergePatch, `not json`)
		s.patch(jsonPatch, `[{"op":"replace","path":"/metadata/name","value":"other"}]`).patch(mergePatch, `{"metadata":{"name":"other"}}`)
		s.patch(mergePatch, `{"metadata":{"resourceVersion":"1"}}`).patch(mergePatch, `{"metadata":{"uid":"00000000-0000-4000-8000-000000000009"}}`)
		s.patch(mergePatch, `{"kind":"Other"}`).patch(mergePatch, `{"metadata":{"labels":{"l":5}}}`)
		s.patch(strategicPatch, `{"metadata":{"labels":{"s":"1"}}}`).patch(strategicPatch, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["x/y"]}}`)
		s.patch(mergePatch, `{"metadata":{"labels":{"st":"1"}},"status":{"observedGeneration":3}}`, "status")
		s.apply("one", `{metadata: {labels: {applied: one}}}`, false).apply("one", `{metadata: {labels: {applied: one}}}`, false)
		s.apply("two", `{metadata: {labels: {applied: two}}}`, false).apply("two", `{metadata: {labels: {applied: two}}}`, true)
		s.apply("one", `{metadata: {labels: {other: one}}}`, false).apply("two", `{metadata: {labels: {}}}`, false)
		s.apply("", `{metadata: {labels: {other: one}}}`, false).apply("two", `{metadata: {resourceVersion: "1"}}`, false)
		s.apply("two", `{unknown: 1, metadata: {unknown: 2}}`, false)
		s.read().delete(client.Preconditions{UID: new(types.UID)}).delete(client.DryRunAll).delete(propagation["bg"]).read()
		s.update([]any{"x/y", "x/z"}, "metadata", "finalizers").update("y", "metadata", "labels", "deleting").update(nil, "metadata", "finalizers").read()

		s = p.on(t, kind, name, fit)
		s.delete(propagation["fg"]).read().delete(propagation["orphan"]).read().update(nil, "metadata", "finalizers").read()
		s = p.on(t, kind, name, fit, put([]any{"x/y"}, "metadata", "finalizers"))
		s.delete().read().delete().read().delete(propagation["fg"]).read().patch(mergePatch, `{"metadata":{"finalizers":["x/z"]}}`)
		_ = p.Create(ctx, again.DeepCopy())
		s.patch(jsonPatch, `[{"op":"remove","path":"/metadata/finalizers"}]`).read()
		s = p.on(t, kind, name, fit)
		s.delete().read().update(nil, "metadata", "finalizers").read()
		for _, change := range []func(map[string]any){
			put("Upper_Case", "metadata", "name"), put(strings.Repeat("x", 260), "metadata", "name"), put("", "metadata", "name"), put("a/b", "metadata", "name"),
			put("gone", "metadata", "namespace"), put("5", "metadata", "resourceVersion"), put("v0", "apiVersion"), put("Nothing", "kind"),
			put(map[string]any{"a": "b", "c": "d"}, "metadata", "unknown"), put(int64(5), "metadata", "name"), put("2000-01-01T00:00:00Z", "metadata", "deletionTimestamp"),
			put("long-"+strings.Repeat("x", 70), "metadata", "labels", "l"),
		} {
			o := p.parse(t, examples[kind])
			fit(o.Object)
			change(o.Object)
			_ = p.Create(ctx, o, client.DryRunAll)
		}
		generated := p.parse(t, examples[kind])
		generated.SetName("")
		generated.SetGenerateName("generated-")
		if kind != "MachineOSConfig" && kind != "MachineConfigNode" {
			_ = p.Create(ctx, generated, client.DryRunAll)
		}
	}

	lists(t, p)
	pods(t, p)
	scales(t, p)
	namespaces(t, p)
	custom(t, p)
	tables(t, p)
}

func lists(t *testing.T, p *pair) {
	ctx := t.Context()
	for i, l := range []string{"a", "b", "a", "c", "a"} {
		p.on(t, "ConfigMap", "list-"+string(rune('a'+i)), put(l, "metadata", "labels", "list"))
	}
	maps := func() *unstructured.UnstructuredList {
		l := &unstructured.UnstructuredList{}
		l.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMapList"})
		return l
	}
	for _, text := range []string{"list", "!list", "list=a", "list!=a", "list in (a,b)", "list notin (a)", "list=a,list!=b", "list in (a),l=x"} {
		s, err := labels.Parse(text)
		must(t, err)
		_ = p.List(ctx, maps(), client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: s})
	}
	for _, f := range []string{"metadata.name=list-b", "metadata.name!=list-b", "metadata.namespace=likeness", "spec.nodeName=x", "data.k=v"} {
		s, err := fields.ParseSelector(f)
		must(t, err)
		_ = p.List(ctx, maps(), client.InNamespace(namespace), client.MatchingFieldsSelector{Selector: s})
	}
	l := maps()
	_ = p.List(ctx, l, client.InNamespace(namespace), client.Limit(2))
	_ = p.List(ctx, maps(), client.InNamespace(namespace), client.Limit(2), client.MatchingLabels{"list": "a"})
	_ = p.List(ctx, maps(), client.InNamespace("absent"))
	_ = p.List(ctx, maps(), client.InNamespace(namespace), client.Continue("nonsense"))
	_ = p.List(ctx, maps(), client.InNamespace(namespace), &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "nonsense"}})
	o := maps()
	o.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "SecretList"})
	s, err := fields.ParseSelector("type=kubernetes.io/dockerconfigjson")
	must(t, err)
	_ = p.List(ctx, o, client.InNamespace(namespace), client.MatchingFieldsSelector{Selector: s})
	for _, kind := range []string{"MachineOSConfig", "Machine", "Job", "Node", "Event"} {
		for _, f := range []string{"metadata.name=x", "spec.unschedulable=true", "status.successful=0", "status.phase=Running", "involvedObject.name=p", "reason=R", "type=Normal"} {
			o := maps()
			o.SetGroupVersionKind(p.parse(t, examples[kind]).GroupVersionKind().GroupVersion().WithKind(kind + "List"))
			s, err := fields.ParseSelector(f)
			must(t, err)
			_ = p.List(ctx, o, client.MatchingFieldsSelector{Selector: s})
		}
	}
}

func pods(t *testing.T, p *pair) {
	ctx := t.Context()
	p.on(t, "Node", "pods-node", put(nil, "spec"))
	pod := func(name string) *script {
		return p.on(t, "Pod", name, put("evict", "metadata", "labels", "app"))
	}
	typed := func(s *script) *corev1.Pod {
		return &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.o.GetName()}}
	}
	evict := func(s *script, e *policyv1.Eviction) {
		t.Helper()
		_ = p.SubResource("eviction").Create(ctx, typed(s), e)
		s.read()
	}
	bind := func(s *script, node string) {
		t.Helper()
		b := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}}
		_ = p.SubResource("binding").Create(ctx, typed(s), b)
		s.read()
	}
	running := map[string]any{"phase": "Running", "conditions": []any{map[string]any{"type": "Ready", "status": "True"}}}
	s := pod("bound")
	bind(s, "pods-node")
	bind(s, "pods-node")
	bind(s, "")
	s.status(running, "status").update("quay.io/x/z", "spec", "nodeName").update(int64(3), "spec", "activeDeadlineSeconds")
	s.update(int64(1), "spec", "activeDeadlineSeconds").update(int64(9), "spec", "activeDeadlineSeconds").update(int64(7), "spec", "terminationGracePeriodSeconds")
	s.update([]any{}, "spec", "tolerations").patch(strategicPatch, `{"spec":{"containers":[{"name":"c","image":"quay.io/x/y:v2"}]}}`)
	s.patch(strategicPatch, `{"spec":{"containers":[{"name":"d","image":"quay.io/x/y:v2"}]}}`).patch(strategicPatch, `{"spec":{"tolerations":[{"key":"t","operator":"Exists"}]}}`)
	s.patch(strategicPatch, `{"status":{"conditions":[{"type":"Ready","status":"False"},{"type":"Other","status":"True"}]}}`, "status")
	s.patch(strategicPatch, `{"status":{"conditions":[{"$patch":"delete","type":"Other"}]}}`, "status").patch(strategicPatch, `{"status":{"$patch":"replace","phase":"Running"}}`, "status")
	s.delete().read().delete().read().update("y", "metadata", "labels", "late").delete(client.GracePeriodSeconds(2)).read().delete(client.GracePeriodSeconds(0)).read()

	s = pod("evicted")
	bind(s, "pods-node")
	s.status(running, "status")
	budget := p.on(t, "PodDisruptionBudget", "budget", put("evict", "spec", "selector", "matchLabels", "app"))
	evict(s, &policyv1.Eviction{})
	allowed := func(n int64) map[string]any {
		return map[string]any{"observedGeneration": budget.o.GetGeneration(), "disruptionsAllowed": n, "currentHealthy": n + 1, "desiredHealthy": int64(1), "expectedPods": n + 1}
	}
	budget.status(allowed(0), "status")
	evict(s, &policyv1.Eviction{})
	evict(s, &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{DryRun: []string{"All"}}})
	budget.read().status(allowed(1), "status")
	uid := types.UID("00000000-0000-4000-8000-000000000009")
	evict(s, &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}})
	budget.read()
	evict(s, &policyv1.Eviction{})
	budget.read()
	evict(s, &policyv1.Eviction{})
	budget.read()
	pending := pod("pending")
	evict(pending, &policyv1.Eviction{})
	done := pod("done")
	bind(done, "pods-node")
	done.status("Succeeded", "status", "phase")
	evict(done, &policyv1.Eviction{})
	second := p.on(t, "PodDisruptionBudget", "budget-two", put("evict", "spec", "selector", "matchLabels", "app"))
	s = pod("evicted-two")
	bind(s, "pods-node")
	s.status(running, "status")
	evict(s, &policyv1.Eviction{})
	budget.delete().read()
	second.delete().read()
	absent := &script{p, t, s.o.DeepCopy()}
	absent.o.SetName("absent")
	evict(absent, &policyv1.Eviction{})
	evict(s, &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: new(int64)}})

	s = p.on(t, "Job", "finished")
	now := "2026-01-01T00:00:00Z"
	s.status(map[string]any{"startTime": now, "active": int64(1)}, "status").status(map[string]any{"startTime": now, "failed": int64(4), "conditions": []any{
		map[string]any{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}}}, "status")
	s.status(map[string]any{"startTime": now, "failed": int64(4), "conditions": []any{
		map[string]any{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"}}}, "status")
	s.status(map[string]any{"startTime": now, "failed": int64(4), "conditions": []any{
		map[string]any{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"}, map[string]any{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}}}, "status")
	s.status(map[string]any{"startTime": now, "failed": int64(1), "conditions": []any{}}, "status")
	s.update(true, "spec", "suspend").update(int64(9), "spec", "backoffLimit").update(int64(9), "spec", "completions").update("x", "spec", "template", "metadata", "labels", "p").read()
}

func scales(t *testing.T, p *pair) {
	for _, kind := range []string{"Deployment", "ReplicaSet", "MachineSet", "DaemonSet", "Job"} {
		s := p.on(t, kind, "scaled")
		scale := func() *unstructured.Unstructured {
			u := &unstructured.Unstructured{}
			u.SetAPIVersion("autoscaling/v1")
			u.SetKind("Scale")
			return u
		}
		_ = p.SubResource("scale").Get(t.Context(), s.o.DeepCopy(), scale())
		up := scale()
		up.SetName("scaled")
		up.SetNamespace(namespace)
		for _, n := range []any{int64(5), int64(-1), "x"} {
			put(n, "spec", "replicas")(up.Object)
			_ = p.SubResource("scale").Update(t.Context(), s.o.DeepCopy(), client.WithSubResourceBody(up.DeepCopy()))
		}
		s.read().status(map[string]any{"replicas": int64(3), "observedGeneration": int64(2)}, "status")
		_ = p.SubResource("scale").Get(t.Context(), s.o.DeepCopy(), scale())
		s.patch(mergePatch, `{"spec":{"replicas":7}}`, "scale")
		s.read().update("x", "metadata", "annotations", "a").update("x", "spec", "template", "metadata", "labels", "more")
		s.update(map[string]any{"matchLabels": map[string]any{"other": "x"}}, "spec", "selector")
	}
}

func namespaces(t *testing.T, p *pair) {
	s := p.on(t, "Namespace", "ending")
	s.patch(mergePatch, `{"spec":{"finalizers":null}}`).delete().read()
	m := p.parse(t, examples["ConfigMap"])
	m.SetNamespace("ending")
	_ = p.Create(t.Context(), m.DeepCopy())
	s.delete().read().update("z", "metadata", "labels", "l")
	o := s.o.DeepCopy()
	put([]any{}, "spec", "finalizers")(o.Object)
	_ = p.SubResource("finalize").Update(t.Context(), o)
	s.read()
	_ = p.Create(t.Context(), m.DeepCopy())
	other := p.parse(t, examples["ConfigMap"])
	other.SetNamespace("absent")
	_ = p.Create(t.Context(), other.DeepCopy())
	_ = p.Update(t.Context(), other.DeepCopy())
	_ = p.Delete(t.Context(), other.DeepCopy())
	fixed := p.parse(t, "{apiVersion: v1, kind: Namespace, metadata: {name: default}}")
	_ = p.Delete(t.Context(), fixed, client.DryRunAll)
}

// custom goes through the validation rules of the layering API.
func custom(t *testing.T, p *pair) {
	s := p.on(t, "MachineOSConfig", "rules", put("rules", "spec", "machineConfigPool", "name"))
	for _, spec := range []string{"quay.io/a/b", "quay.io/a/b@sha256:1", "https://quay.io/a/b:latest", "a", "image-registry.openshift-image-registry.svc:5000/ns/b:latest",
		"quay.io:443/a/b:v1", "127.0.0.1:5000/a/b:v1", "quay.io/" + strings.Repeat("x", 500) + ":v1", "a.svc:1/b:c", ""} {
		s.update(spec, "spec", "renderedImagePushSpec")
	}
	s.update("other", "spec", "machineConfigPool", "name").update(nil, "spec", "machineConfigPool").update("PodImageBuilder", "spec", "imageBuilder", "imageBuilderType")
	entry := func(arch, content any) any {
		m := map[string]any{}
		if arch != nil {
			m["containerfileArch"] = arch
		}
		if content != nil {
			m["content"] = content
		}
		return m
	}
	for _, files := range [][]any{{}, {entry("ARM64", "x")}, {entry("NoArch", "x"), entry("NoArch", "y")}, {entry(nil, "x")}, {entry("NoArch", nil)}, {entry("noarch", "x")},
		{entry("NoArch", strings.Repeat("x", 5000))}, {entry("ARM64", "x"), entry("AMD64", "y"), entry("PPC64LE", "y"), entry("S390X", "y"), entry("NoArch", "z"), entry("Z", "z"), entry("Y", "z"), entry("X", "z")}} {
		s.update(files, "spec", "containerFile")
	}
	s.update(map[string]any{"name": "UPPER"}, "spec", "renderedImagePushSecret").update(map[string]any{"name": ""}, "spec", "baseImagePullSecret").update(nil, "spec", "baseImagePullSecret")
	s.update("x", "spec", "unknown").update(map[string]any{"name": "a", "x": "y"}, "spec", "renderedImagePushSecret").update(nil, "spec")
	for _, image := range []string{"quay.io/a/b", "quay.io/a/b:latest", "quay.io/a/b@sha256:" + strings.Repeat("a", 64), "quay.io/a/b@sha256:" + strings.Repeat("a", 63), "@sha256:" + strings.Repeat("a", 64)} {
		s.status(image, "status", "currentImagePullSpec")
	}
	s.status(int64(2), "status", "observedGeneration").status(int64(1), "status", "observedGeneration").status(int64(-1), "status", "observedGeneration")
	s.status(map[string]any{"name": "b"}, "status", "machineOSBuild").status(map[string]any{"name": "b", "group": "machineconfiguration.openshift.io", "resource": "machineosbuilds"}, "status", "machineOSBuild")
	condition := func(kv ...any) any {
		m := map[string]any{"type": "Failed", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}
		for i := 0; i < len(kv); i += 2 {
			put(kv[i+1], kv[i].(string))(m)
		}
		return m
	}
	for _, c := range [][]any{{condition()}, {condition(), condition()}, {condition("status", "Maybe")}, {condition("reason", "")}, {condition("reason", nil)}, {condition("type", "a b")},
		{condition("lastTransitionTime", "yesterday")}, {condition("message", strings.Repeat("x", 40000))}, {condition("observedGeneration", int64(-1))}, {condition("type", nil)}} {
		s.status(c, "status", "conditions")
	}
	s.apply("one", `{spec: {containerFile: [{containerfileArch: NoArch, content: a}]}}`, false).apply("two", `{spec: {containerFile: [{containerfileArch: ARM64, content: b}]}}`, false)
	s.apply("two", `{spec: {containerFile: [{containerfileArch: NoArch, content: c}]}}`, false).apply("two", `{spec: {containerFile: [{containerfileArch: NoArch, content: c}]}}`, true)
	s.apply("one", `{spec: {}}`, false).apply("st", `{status: {observedGeneration: 9}}`, false, "status").apply("st", `{status: {observedGeneration: 9}}`, false).read()

	b := p.on(t, "MachineOSBuild", "rules")
	b.status(nil, "status")
	names := []string{"Prepared", "Building", "Failed", "Interrupted", "Succeeded"}
	phase := func(on string) []any {
		var out []any
		for _, n := range names {
			status := "False"
			if n == on {
				status = "True"
			}
			out = append(out, condition("type", n, "status", status))
		}
		return out
	}
	for _, step := range []string{"Prepared", "Building", "Succeeded", "Building", "Failed", "Prepared", "Interrupted", ""} {
		b.status(phase(step), "status", "conditions")
	}
	b.status("2026-01-01T00:00:00Z", "status", "buildStart").status("2026-01-02T00:00:00Z", "status", "buildStart").status(nil, "status", "buildStart").status("2025-01-02T00:00:00Z", "status", "buildEnd")
	b.status("2026-01-03T00:00:00Z", "status", "buildEnd").status("2026-01-04T00:00:00Z", "status", "buildEnd").status(nil, "status", "buildEnd")
	b.status("quay.io/a/b@sha256:"+strings.Repeat("a", 64), "status", "digestedImagePushSpec").status("quay.io/a/b@sha256:"+strings.Repeat("b", 64), "status", "digestedImagePushSpec").status(nil, "status", "digestedImagePushSpec")
	b.status(map[string]any{"imageBuilderType": "Job"}, "status", "builder").status(map[string]any{"imageBuilderType": "Job", "job": map[string]any{"name": "j", "group": "batch", "resource": "jobs", "namespace": "n"}}, "status", "builder")
	b.update("other", "spec", "machineConfig", "name").update("quay.io/a/c:latest", "spec", "renderedImagePushSpec").read()

	for kind, paths := range map[string][][]string{
		"MachineConfigPool": {{"spec", "maxUnavailable"}, {"spec", "nodeSelector"}, {"spec", "paused"}, {"spec", "configuration", "name"}},
		"MachineConfigNode": {{"spec", "node", "name"}, {"spec", "configVersion", "desired"}, {"spec", "configImage", "desiredImage"}, {"spec", "pool", "name"}},
		"MachineSet":        {{"spec", "replicas"}, {"spec", "deletePolicy"}, {"spec", "selector"}},
		"MachineConfig":     {{"spec", "config"}, {"spec", "extensions"}, {"spec", "fips"}},
	} {
		s := p.on(t, kind, "rules-"+strings.ToLower(kind), func(o map[string]any) {
			if kind == "MachineConfigNode" {
				put("rules-machineconfignode", "spec", "node", "name")(o)
			}
		})
		for _, path := range paths {
			for _, v := range []any{"50%", "x", int64(0), int64(-1), true, map[string]any{}, []any{"a"}, "other-name", "quay.io/a/b@sha256:" + strings.Repeat("b", 64), nil} {
				s.update(v, path...)
			}
		}
	}
}

func tables(t *testing.T, p *pair) {
	for _, k := range sortedKeys(examples) {
		gvk := p.parse(t, examples[k]).GroupVersionKind()
		m, err := p.WithWatch.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version)
		must(t, err)
		p.table(t, gvk, m.Resource.Resource)
	}
}
