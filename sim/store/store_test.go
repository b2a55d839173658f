package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/store"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)

// server is a store with the layering CRDs and namespace ns, and a clock to step.
type server struct {
	client.WithWatch
	store *store.Store
	clock *clocktesting.FakePassiveClock
}

func newServer(t testing.TB) *server {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcfgv1.Install} {
		must(t, add(scheme))
	}
	clock := clocktesting.NewFakePassiveClock(start)
	s := store.New(store.Options{Clock: clock, Scheme: scheme, Seed: 1})
	c := s.Client(store.ClientOptions{Author: "test"})
	must(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}))
	crds, err := fixtures.CRDs()
	must(t, err)
	for _, crd := range crds {
		must(t, c.Create(t.Context(), crd.DeepCopy()))
	}
	return &server{c, s, clock}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that an error has a reason and contains a text.
func refused(t testing.TB, err error, reason metav1.StatusReason, text string) {
	t.Helper()
	if apierrors.ReasonForError(err) != reason || err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v (reason %q), want reason %q and text %q", err, apierrors.ReasonForError(err), reason, text)
	}
}

func named(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "ns", Name: name} }

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: named(name), Data: data}
}

func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: named(name), Spec: corev1.PodSpec{
		NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "quay.io/x/y:v1"}},
	}}
}

func job(name string) *batchv1.Job {
	return &batchv1.Job{ObjectMeta: named(name), Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "quay.io/x/y:v1"}},
	}}}}
}

func osConfig(name string, change ...func(map[string]any)) *unstructured.Unstructured {
	spec := map[string]any{
		"machineConfigPool":       map[string]any{"name": name},
		"imageBuilder":            map[string]any{"imageBuilderType": "Job"},
		"renderedImagePushSecret": map[string]any{"name": "push"},
		"renderedImagePushSpec":   "quay.io/a/b:latest",
	}
	for _, c := range change {
		c(spec)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetGroupVersionKind(mcfgv1.GroupVersion.WithKind("MachineOSConfig"))
	u.SetName(name)
	return u
}

func set(key string, value any) func(map[string]any) {
	return func(m map[string]any) { m[key] = value }
}

func unset(key string) func(map[string]any) { return func(m map[string]any) { delete(m, key) } }

// The messages are those that a real server was seen to give for these objects.
func TestCustomResourceMessages(t *testing.T) {
	const tail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
	entry := func(arch string) any {
		return map[string]any{"containerfileArch": arch, "content": "FROM configs AS final"}
	}
	missing := func(f string) string {
		return fmt.Sprintf("[spec.%s: Required value, <nil>: Invalid value: null: %s]", f, tail)
	}
	const pushSpec = `: the OCI Image name should follow the host[:port][/namespace]/name format, resembling a valid URL without the scheme. ` +
		`Or it must be a valid .svc followed by a port, repository, image name, and tag.`
	for _, c := range []struct {
		input  string
		change func(map[string]any)
		want   string
	}{
		{"other pool", set("machineConfigPool", map[string]any{"name": "other"}),
			"<nil>: Invalid value: MachineOSConfig name must match the referenced MachineConfigPool name; can only have one MachineOSConfig per MachineConfigPool"},
		{"no pool", unset("machineConfigPool"), missing("machineConfigPool")},
		{"no builder", unset("imageBuilder"), missing("imageBuilder")},
		{"no push secret", unset("renderedImagePushSecret"), missing("renderedImagePushSecret")},
		{"no push spec", unset("renderedImagePushSpec"), missing("renderedImagePushSpec")},
		{"builder type", set("imageBuilder", map[string]any{"imageBuilderType": "PodImageBuilder"}),
			`spec.imageBuilder.imageBuilderType: Unsupported value: "PodImageBuilder": supported values: "Job"`},
		{"secret name", set("renderedImagePushSecret", map[string]any{"name": "Upper_Case"}),
			`spec.renderedImagePushSecret.name: Invalid value: "Upper_Case": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character.`},
		{"no tag", set("renderedImagePushSpec", "quay.io/a/b"), `spec.renderedImagePushSpec: Invalid value: "quay.io/a/b"` + pushSpec},
		{"empty push spec", set("renderedImagePushSpec", ""), "spec.renderedImagePushSpec in body should be at least 1 chars long"},
		{"long file", set("containerFile", []any{map[string]any{"content": strings.Repeat("x", 4097)}}),
			"spec.containerFile[0].content: Too long: may not be more than 4096 bytes"},
		{"arch", set("containerFile", []any{entry("amd64")}), `Unsupported value: "amd64": supported values: "ARM64", "AMD64", "PPC64LE", "S390X", "NoArch"`},
		{"twice", set("containerFile", []any{entry("NoArch"), entry("NoArch")}), `spec.containerFile[1]: Duplicate value: {"containerfileArch":"NoArch"}`},
		{"five", set("containerFile", []any{entry("ARM64"), entry("AMD64"), entry("PPC64LE"), entry("S390X"), entry("NoArch")}),
			"spec.containerFile: Too many: 5: must have at most 4 items"},
	} {
		t.Run(c.input, func(t *testing.T) {
			s := newServer(t)
			err := s.Create(t.Context(), osConfig("layered", c.change))
			refused(t, err, metav1.StatusReasonInvalid, `MachineOSConfig.machineconfiguration.openshift.io "layered" is invalid: `)
			refused(t, err, metav1.StatusReasonInvalid, c.want)
		})
	}
	s := newServer(t)
	for i, spec := range []string{"quay.io/b:latest", "quay.io/A/B:latest", "quay.io/a/b/c/d:latest", "image-registry.openshift-image-registry.svc:5000/ns/img:latest"} {
		must(t, s.Create(t.Context(), osConfig(fmt.Sprintf("p%d", i), set("renderedImagePushSpec", spec))))
	}
	u := osConfig("layered", set("unknown", "dropped"), set("containerFile", []any{map[string]any{"content": "FROM configs AS final"}}))
	must(t, s.Create(t.Context(), u))
	if _, ok := u.Object["spec"].(map[string]any)["unknown"]; ok {
		t.Error("unknown field was kept")
	}
	files, _, _ := unstructured.NestedSlice(u.Object, "spec", "containerFile")
	if got := files[0].(map[string]any)["containerfileArch"]; got != "NoArch" {
		t.Errorf("containerfileArch = %v, want the default NoArch", got)
	}
	refused(t, s.Create(t.Context(), osConfig("layered")), metav1.StatusReasonAlreadyExists,
		`machineosconfigs.machineconfiguration.openshift.io "layered" already exists`)
}

func osBuild(name string) *mcfgv1.MachineOSBuild {
	return &mcfgv1.MachineOSBuild{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: mcfgv1.MachineOSBuildSpec{
		MachineConfig: mcfgv1.MachineConfigReference{Name: "rendered-layered-1"}, MachineOSConfig: mcfgv1.MachineOSConfigReference{Name: "layered"},
		RenderedImagePushSpec: "quay.io/a/b:latest",
	}}
}

// Transition rules, and status kept apart from the rest.
func TestCustomResourceStatus(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	b := osBuild("b")
	b.Status.RelatedObjects = []mcfgv1.ObjectReference{{Name: "x", Resource: "jobs"}}
	must(t, s.Create(ctx, b))
	if len(b.Status.RelatedObjects) != 0 || b.Generation != 1 {
		t.Fatalf("creation kept a status: %+v", b.Status)
	}
	begin := metav1.NewTime(start.Truncate(time.Second))
	b.Status.BuildStart = &begin
	b.Labels = map[string]string{"ignored": ""}
	must(t, s.Status().Update(ctx, b))
	if b.Labels != nil || b.Generation != 1 || b.Status.BuildStart == nil {
		t.Fatalf("status update: %+v", b)
	}
	later := metav1.NewTime(begin.Add(time.Minute))
	c := b.DeepCopy()
	c.Status.BuildStart = &later
	refused(t, s.Status().Update(ctx, c), metav1.StatusReasonInvalid, "buildStart is immutable once set")
	c = b.DeepCopy()
	c.Spec.RenderedImagePushSpec = "quay.io/a/c:latest"
	refused(t, s.Update(ctx, c), metav1.StatusReasonInvalid, "spec: Invalid value: machineOSBuildSpec is immutable once set")
	c = b.DeepCopy()
	c.Labels = map[string]string{"a": "b"}
	c.Status = mcfgv1.MachineOSBuildStatus{}
	must(t, s.Update(ctx, c))
	if c.Status.BuildStart == nil || c.Generation != 1 || c.Labels["a"] != "b" {
		t.Fatalf("update of labels: %+v", c)
	}
	c.ResourceVersion = ""
	refused(t, s.Update(ctx, c), metav1.StatusReasonInvalid, "metadata.resourceVersion: Invalid value: 0: must be specified for an update")

	b = osBuild("done")
	must(t, s.Create(ctx, b))
	cond := func(status metav1.ConditionStatus) []metav1.Condition {
		var out []metav1.Condition
		for _, typ := range []string{"Prepared", "Building", "Failed", "Interrupted", "Succeeded"} {
			c := metav1.Condition{Type: typ, Status: metav1.ConditionFalse, Reason: "R", LastTransitionTime: begin}
			if typ == "Succeeded" {
				c.Status = status
			}
			out = append(out, c)
		}
		return out
	}
	b.Status.BuildStart, b.Status.BuildEnd = &begin, &later
	b.Status.DigestedImagePushSpec = mcfgv1.ImageDigestFormat("quay.io/a/b@sha256:" + strings.Repeat("0", 64))
	b.Status.Conditions = cond(metav1.ConditionTrue)
	must(t, s.Status().Update(ctx, b))
	b.Status.Conditions = cond(metav1.ConditionFalse)
	refused(t, s.Status().Update(ctx, b), metav1.StatusReasonInvalid, "status.conditions: Invalid value: once an Succeeded condition is set, conditions are immutable")
}

func TestUpdate(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	c := configMap("a", map[string]string{"k": "v"})
	must(t, s.Create(ctx, c))
	if c.UID == "" || !c.CreationTimestamp.Time.Equal(start.Truncate(time.Second)) || c.Generation != 0 {
		t.Fatalf("created %+v", c.ObjectMeta)
	}
	before := s.store.Revision()
	must(t, s.Update(ctx, c))
	if s.store.Revision() != before {
		t.Error("an update without a change made a revision")
	}
	stale := c.DeepCopy()
	c.Data["k"] = "w"
	must(t, s.Update(ctx, c))
	stale.Data["k"] = "x"
	refused(t, s.Update(ctx, stale), metav1.StatusReasonConflict,
		`Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again`)
	stale.ResourceVersion, stale.UID = "", "other"
	refused(t, s.Update(ctx, stale), metav1.StatusReasonConflict, "Precondition failed: UID in precondition: other")
	stale.UID = ""
	must(t, s.Update(ctx, stale)) // unconditional
	stale.ResourceVersion = "7"
	refused(t, s.Create(ctx, stale), metav1.StatusReasonUnknown, "resourceVersion should not be set on objects to be created")
	refused(t, s.Create(ctx, configMap("a", nil)), metav1.StatusReasonAlreadyExists, `configmaps "a" already exists`)
	refused(t, s.Create(ctx, configMap("A_b", nil)), metav1.StatusReasonInvalid, "a lowercase RFC 1123 subdomain")
	refused(t, s.Update(ctx, configMap("none", nil)), metav1.StatusReasonNotFound, `configmaps "none" not found`)
	other := configMap("a", nil)
	other.Namespace = "nowhere"
	refused(t, s.Create(ctx, other), metav1.StatusReasonNotFound, `namespaces "nowhere" not found`)

	dry := configMap("dry", nil)
	must(t, s.Create(ctx, dry, client.DryRunAll))
	refused(t, s.Get(ctx, client.ObjectKeyFromObject(dry), dry), metav1.StatusReasonNotFound, `configmaps "dry" not found`)

	for i, n := range []any{2, float64(2), int32(2), int64(2)} {
		pool := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"maxUnavailable": n}}}
		pool.SetGroupVersionKind(mcfgv1.GroupVersion.WithKind("MachineConfigPool"))
		pool.SetName(fmt.Sprintf("pool%d", i))
		must(t, s.Create(ctx, pool))
		if got, _, _ := unstructured.NestedFieldNoCopy(pool.Object, "spec", "maxUnavailable"); got != int64(2) {
			t.Errorf("maxUnavailable %T became %T", n, got)
		}
	}
	names := map[string]bool{}
	for range 20 {
		g := configMap("", nil)
		g.GenerateName = "gen-"
		must(t, s.Create(ctx, g))
		names[g.Name] = true
	}
	if len(names) != 20 {
		t.Errorf("%d generated names, want 20", len(names))
	}

	d := &appsv1.Deployment{ObjectMeta: named("d"), Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: pod("", "").Spec},
	}}
	must(t, s.Create(ctx, d))
	d.Labels = map[string]string{"x": "y"}
	must(t, s.Update(ctx, d))
	if d.Generation != 1 {
		t.Errorf("generation after a label = %d, want 1", d.Generation)
	}
	scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 4}}
	must(t, s.SubResource("scale").Update(ctx, d, client.WithSubResourceBody(scale)))
	must(t, s.Get(ctx, client.ObjectKeyFromObject(d), d))
	if d.Generation != 2 || *d.Spec.Replicas != 4 {
		t.Errorf("after scale: generation %d, replicas %d", d.Generation, *d.Spec.Replicas)
	}
	must(t, s.SubResource("scale").Patch(ctx, d, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":2}}`)), client.WithSubResourceBody(scale)))
	must(t, s.SubResource("scale").Get(ctx, d, scale))
	if scale.Spec.Replicas != 2 || scale.Status.Selector != "a=b" {
		t.Errorf("scale = %+v", scale)
	}
}

func TestBuiltinRules(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	sec := &corev1.Secret{ObjectMeta: named("s"), StringData: map[string]string{"k": "v"}}
	must(t, s.Create(ctx, sec))
	if sec.Type != corev1.SecretTypeOpaque || string(sec.Data["k"]) != "v" || sec.StringData != nil {
		t.Errorf("secret = %+v", sec)
	}
	sec.Type = "other"
	refused(t, s.Update(ctx, sec), metav1.StatusReasonInvalid, `type: Invalid value: "other": field is immutable`)
	refused(t, s.Create(ctx, &corev1.Secret{ObjectMeta: named("p"), Type: corev1.SecretTypeDockerConfigJson}), metav1.StatusReasonInvalid,
		"data[.dockerconfigjson]: Required value")
	yes := true
	c := configMap("fixed", map[string]string{"k": "v"})
	c.Immutable = &yes
	must(t, s.Create(ctx, c))
	c.Data["k"] = "w"
	refused(t, s.Update(ctx, c), metav1.StatusReasonInvalid, "data: Forbidden: field is immutable when `immutable` is set")

	j := job("j")
	must(t, s.Create(ctx, j))
	if j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] != string(j.UID) || j.Spec.Template.Labels[batchv1.JobNameLabel] != "j" ||
		*j.Spec.BackoffLimit != 6 || j.Labels["job-name"] != "j" {
		t.Errorf("job = %+v", j.Spec)
	}
	j.Spec.Template.Spec.Containers[0].Image = "other"
	refused(t, s.Update(ctx, j), metav1.StatusReasonInvalid, "field is immutable")
	bad := job("always")
	bad.Spec.Template.Spec.RestartPolicy = ""
	refused(t, s.Create(ctx, bad), metav1.StatusReasonInvalid, `spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`)
	refused(t, s.Create(ctx, job(strings.Repeat("x", 64))), metav1.StatusReasonInvalid, "must be no more than 63")
	j.ResourceVersion = ""
	j.Status = batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}}
	refused(t, s.Status().Update(ctx, j), metav1.StatusReasonInvalid, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition")

	p := pod("p", "")
	must(t, s.Create(ctx, p))
	if p.Status.Phase != corev1.PodPending || p.Spec.RestartPolicy != corev1.RestartPolicyAlways || *p.Spec.TerminationGracePeriodSeconds != 30 ||
		p.Spec.Containers[0].ImagePullPolicy != corev1.PullIfNotPresent {
		t.Errorf("pod = %+v", p)
	}
	p.Spec.Hostname = "h"
	refused(t, s.Update(ctx, p), metav1.StatusReasonInvalid, "spec: Forbidden: pod updates may not change fields other than")
	must(t, s.SubResource("binding").Create(ctx, p, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}))
	refused(t, s.SubResource("binding").Create(ctx, p, &corev1.Binding{Target: corev1.ObjectReference{Name: "m"}}), metav1.StatusReasonConflict,
		`pod p is already assigned to node "n"`)
	var list corev1.PodList
	must(t, s.List(ctx, &list, client.MatchingFields{"spec.nodeName": "n"}))
	if len(list.Items) != 1 {
		t.Errorf("%d pods on the node, want 1", len(list.Items))
	}
	for _, name := range []string{"q", "r", "s"} {
		must(t, s.Create(ctx, pod(name, "n")))
	}
	must(t, s.Create(ctx, pod("elsewhere", "n2")))
	must(t, s.Delete(ctx, pod("r", ""), client.GracePeriodSeconds(0)))
	var names []string
	for token, pages := "", 0; pages == 0 || token != ""; pages++ {
		must(t, s.List(ctx, &list, client.InNamespace("ns"), client.MatchingFields{"spec.nodeName": "n"}, client.Limit(2), client.Continue(token)))
		for _, p := range list.Items {
			names = append(names, p.Name)
		}
		token = list.Continue
	}
	if diff := cmp.Diff([]string{"p", "q", "s"}, names); diff != "" {
		t.Errorf("pods of the node (-want +got):\n%s", diff)
	}
	refused(t, s.List(ctx, &list, client.MatchingFields{"spec.hostname": "n"}), metav1.StatusReasonBadRequest, "field label not supported: spec.hostname")

	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Phase: "kept"}}
	must(t, s.Create(ctx, n))
	if n.Status.Phase != "kept" {
		t.Error("a node's status was dropped on creation")
	}
	n.Annotations = map[string]string{"a": "b"}
	n.Spec.Unschedulable = true
	must(t, s.Status().Update(ctx, n))
	if n.Annotations["a"] != "b" || n.Spec.Unschedulable {
		t.Errorf("status update of a node: %+v", n)
	}
	n.Labels = map[string]string{"l": strings.Repeat("x", 64)}
	refused(t, s.Update(ctx, n), metav1.StatusReasonInvalid, "metadata.labels: Invalid value")
}

func TestDelete(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	get := func(o client.Object) error { return s.Get(ctx, client.ObjectKeyFromObject(o), o) }
	gone := func(o client.Object) {
		t.Helper()
		if err := get(o); !apierrors.IsNotFound(err) {
			t.Fatalf("%s still exists: %v", o.GetName(), err)
		}
	}
	c := configMap("a", nil)
	c.Finalizers = []string{"x/y"}
	must(t, s.Create(ctx, c))
	uid := types.UID("other")
	refused(t, s.Delete(ctx, c, client.Preconditions{UID: &uid}), metav1.StatusReasonConflict, "the UID in the precondition (other) does not match")
	must(t, s.Delete(ctx, c))
	must(t, get(c))
	if c.DeletionTimestamp == nil || *c.DeletionGracePeriodSeconds != 0 {
		t.Fatalf("not being deleted: %+v", c.ObjectMeta)
	}
	c.Finalizers = append(c.Finalizers, "z/z")
	refused(t, s.Update(ctx, c), metav1.StatusReasonInvalid, "no new finalizers can be added if the object is being deleted")
	refused(t, s.Create(ctx, configMap("a", nil)), metav1.StatusReasonAlreadyExists, "object is being deleted: ")
	c.Finalizers = nil
	must(t, s.Update(ctx, c))
	gone(c)

	for _, p := range []struct {
		name      string
		object    client.Object
		opts      []client.DeleteOption
		finalizer []string
	}{
		{"background", configMap("p", nil), nil, nil},
		{"foreground", configMap("p", nil), []client.DeleteOption{client.PropagationPolicy(metav1.DeletePropagationForeground)}, []string{"foregroundDeletion"}},
		{"orphan", configMap("p", nil), []client.DeleteOption{client.PropagationPolicy(metav1.DeletePropagationOrphan)}, []string{"orphan"}},
		{"job by default", job("p"), nil, []string{"orphan"}},
		{"job in background", job("p"), []client.DeleteOption{client.PropagationPolicy(metav1.DeletePropagationBackground)}, nil},
	} {
		must(t, s.Create(ctx, p.object))
		must(t, s.Delete(ctx, p.object, p.opts...))
		err := get(p.object)
		if p.finalizer == nil {
			if !apierrors.IsNotFound(err) {
				t.Errorf("%s: %v", p.name, err)
			}
			continue
		}
		if diff := cmp.Diff(p.finalizer, p.object.GetFinalizers()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", p.name, diff)
		}
		p.object.SetFinalizers(nil)
		must(t, s.Update(ctx, p.object))
	}

	free := pod("free", "")
	must(t, s.Create(ctx, free))
	must(t, s.Delete(ctx, free))
	gone(free)
	bound := pod("bound", "n")
	must(t, s.Create(ctx, bound))
	must(t, s.Delete(ctx, bound))
	must(t, get(bound))
	if want := start.Truncate(time.Second).Add(30 * time.Second); !bound.DeletionTimestamp.Time.Equal(want) || *bound.DeletionGracePeriodSeconds != 30 || bound.Generation != 2 {
		t.Fatalf("bound pod: %+v", bound.ObjectMeta)
	}
	before := s.store.Revision()
	must(t, s.Delete(ctx, bound)) // pending
	if s.store.Revision() != before {
		t.Error("a second deletion changed the pod")
	}
	must(t, s.Delete(ctx, bound, client.GracePeriodSeconds(0)))
	gone(bound)

	for _, name := range []string{"m1", "m2", "m3"} {
		m := configMap(name, nil)
		m.Labels = map[string]string{"all": "of"}
		must(t, s.Create(ctx, m))
	}
	must(t, s.DeleteAllOf(ctx, &corev1.ConfigMap{}, client.InNamespace("ns"), client.MatchingLabels{"all": "of"}))
	var l corev1.ConfigMapList
	must(t, s.List(ctx, &l))
	if len(l.Items) != 0 {
		t.Errorf("%d ConfigMaps left", len(l.Items))
	}

	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}
	must(t, s.Delete(ctx, ns))
	must(t, get(ns))
	if ns.Status.Phase != corev1.NamespaceTerminating {
		t.Fatalf("namespace: %+v", ns.Status)
	}
	refused(t, s.Create(ctx, configMap("late", nil)), metav1.StatusReasonForbidden,
		`configmaps "late" is forbidden: unable to create new content in namespace ns because it is being terminated`)
	ns.Spec.Finalizers = nil
	must(t, s.SubResource("finalize").Update(ctx, ns))
	gone(ns)
}

func TestEviction(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	ready := func(name string) *corev1.Pod {
		p := pod(name, "n")
		p.Labels = map[string]string{"app": "a"}
		must(t, s.Create(ctx, p))
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
		must(t, s.Status().Update(ctx, p))
		return p
	}
	one, two := ready("one"), ready("two")
	b := &policyv1.PodDisruptionBudget{ObjectMeta: named("b"), Spec: policyv1.PodDisruptionBudgetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}}
	must(t, s.Create(ctx, b))
	refused(t, s.SubResource("eviction").Create(ctx, one, &policyv1.Eviction{}), metav1.StatusReasonTooManyRequests,
		"Cannot evict pod as it would violate the pod's disruption budget.")
	b.Status = policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1, CurrentHealthy: 2, DesiredHealthy: 1, ExpectedPods: 2, ObservedGeneration: 1}
	must(t, s.Status().Update(ctx, b))
	must(t, s.SubResource("eviction").Create(ctx, one, &policyv1.Eviction{}))
	must(t, s.Get(ctx, client.ObjectKeyFromObject(one), one))
	must(t, s.Get(ctx, client.ObjectKeyFromObject(b), b))
	if one.DeletionTimestamp == nil || b.Status.DisruptionsAllowed != 0 || len(b.Status.DisruptedPods) != 1 {
		t.Fatalf("after eviction: %v, %+v", one.DeletionTimestamp, b.Status)
	}
	err := s.SubResource("eviction").Create(ctx, two, &policyv1.Eviction{})
	refused(t, err, metav1.StatusReasonTooManyRequests, "Cannot evict pod as it would violate the pod's disruption budget.")
	cause, ok := apierrors.StatusCause(err, policyv1.DisruptionBudgetCause)
	if !ok || cause.Message != "The disruption budget b does not allow evicting pods currently" {
		t.Errorf("cause = %+v", cause)
	}
}

func TestPatch(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoSchedule}}}}
	must(t, s.Create(ctx, n))
	old := n.DeepCopy()
	n.Spec.Unschedulable = true
	n.Labels = map[string]string{"a": "b"}
	must(t, s.Patch(ctx, n, client.MergeFrom(old)))
	patch := func(kind types.PatchType, data string) error {
		return s.Patch(ctx, n, client.RawPatch(kind, []byte(data)))
	}
	must(t, patch(types.JSONPatchType, `[{"op":"test","path":"/spec/unschedulable","value":true},{"op":"remove","path":"/spec/unschedulable"}]`))
	if n.Spec.Unschedulable || n.Labels["a"] != "b" {
		t.Fatalf("after the JSON patch: %+v", n)
	}
	refused(t, patch(types.JSONPatchType, `[{"op":"test","path":"/spec/unschedulable","value":true}]`), metav1.StatusReasonInvalid, "the server rejected our request due to an error in our request")
	must(t, patch(types.MergePatchType, `{"metadata":{"labels":{"a":null,"c":"d"}}}`))
	if diff := cmp.Diff(map[string]string{"c": "d"}, n.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	must(t, patch(types.StrategicMergePatchType, `{"status":{"conditions":[{"type":"Ignored"}]},"spec":{"taints":[{"key":"b","effect":"NoSchedule"}]}}`))
	if len(n.Spec.Taints) != 1 || len(n.Status.Conditions) != 0 { // taints have no merge key
		t.Errorf("after the strategic merge patch: %+v %+v", n.Spec.Taints, n.Status)
	}
	cond := func(typ string) client.Patch {
		return client.RawPatch(types.StrategicMergePatchType, []byte(`{"status":{"conditions":[{"type":"`+typ+`","status":"True"}]}}`))
	}
	must(t, s.Status().Patch(ctx, n, cond("Ready")))
	must(t, s.Status().Patch(ctx, n, cond("Other")))
	if len(n.Status.Conditions) != 2 {
		t.Errorf("conditions = %+v", n.Status.Conditions)
	}
	n.Labels = map[string]string{"e": "f"}
	refused(t, s.Patch(ctx, n, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{})), metav1.StatusReasonConflict, "the object has been modified")
	u := osConfig("layered")
	must(t, s.Create(ctx, u))
	refused(t, s.Patch(ctx, u, client.RawPatch(types.StrategicMergePatchType, []byte(`{}`))), metav1.StatusReasonUnsupportedMediaType, "the body of the request was in an unknown format")
}

func TestApply(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	apply := func(manager, object string, opts ...client.ApplyOption) (*unstructured.Unstructured, error) {
		u := &unstructured.Unstructured{}
		must(t, u.UnmarshalJSON([]byte(object)))
		err := s.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), append(opts, client.FieldOwner(manager))...)
		return u, err
	}
	const cm = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"ns"},"data":{%s}}`
	_, err := apply("one", fmt.Sprintf(cm, `"k":"v","l":"v"`))
	must(t, err)
	_, err = apply("two", fmt.Sprintf(cm, `"k":"w"`))
	refused(t, err, metav1.StatusReasonConflict, `Apply failed with 1 conflict: conflict with "one": .data.k`)
	u, err := apply("two", fmt.Sprintf(cm, `"k":"w"`), client.ForceOwnership)
	must(t, err)
	u, err = apply("one", fmt.Sprintf(cm, ``)) // gives up both, of which k is two's by now
	must(t, err)
	data, _, _ := unstructured.NestedStringMap(u.Object, "data")
	if diff := cmp.Diff(map[string]string{"k": "w"}, data); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	before := s.store.Revision()
	s.clock.SetTime(start.Add(time.Hour))
	u, err = apply("one", fmt.Sprintf(cm, ``))
	must(t, err)
	if s.store.Revision() != before {
		t.Error("applying the same again made a revision")
	}
	for _, f := range u.GetManagedFields() {
		if !f.Time.Time.Equal(start.Truncate(time.Second)) {
			t.Errorf("managed fields of %s are of %s", f.Manager, f.Time)
		}
	}
	c := &corev1.ConfigMap{}
	must(t, s.Get(ctx, types.NamespacedName{Namespace: "ns", Name: "a"}, c))
	c.Data["k"] = "x"
	must(t, s.Update(ctx, c))
	_, err = apply("two", fmt.Sprintf(cm, `"k":"w"`))
	refused(t, err, metav1.StatusReasonConflict, `conflict with "test" using v1: .data.k`)

	// Lists with keys merge: containers of a Deployment, files of a custom resource.
	d := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","namespace":"ns"},"spec":{"selector":{"matchLabels":{"a":"b"}},` +
		`"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"%s","image":"i"}]}}}}`
	_, err = apply("one", fmt.Sprintf(d, "x"))
	must(t, err)
	u, err = apply("two", fmt.Sprintf(d, "y"))
	must(t, err)
	cs, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
	if len(cs) != 2 {
		t.Errorf("%d containers, want 2", len(cs))
	}
	must(t, s.Create(ctx, osConfig("layered", set("containerFile", []any{map[string]any{"containerfileArch": "AMD64", "content": "FROM configs AS final"}}))))
	u, err = apply("one", `{"apiVersion":"machineconfiguration.openshift.io/v1","kind":"MachineOSConfig","metadata":{"name":"layered"},
		"spec":{"containerFile":[{"containerfileArch":"ARM64","content":"FROM configs AS final"}]}}`)
	must(t, err)
	files, _, _ := unstructured.NestedSlice(u.Object, "spec", "containerFile")
	if len(files) != 2 {
		t.Errorf("%d files, want 2", len(files))
	}
	var managers []string
	for _, f := range u.GetManagedFields() {
		managers = append(managers, f.Manager+" "+string(f.Operation))
	}
	if diff := cmp.Diff([]string{"one Apply", "before-first-apply Update"}, managers); diff != "" {
		t.Errorf("managers (-want +got):\n%s", diff)
	}
	_, err = apply("status", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"none"},"status":{}}`)
	must(t, err)
}

// lag is a view that stands still.
type lag int64

func (l lag) Revision(schema.GroupVersionKind) int64 { return int64(l) }

func TestViewListWatch(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	var changes []string
	s.store.OnChange(func(c *store.Change) {
		changes = append(changes, fmt.Sprintf("%s %s old=%v new=%v", c.Verb, c.Name, c.Old != nil, c.New != nil))
	})
	var first corev1.ConfigMapList
	must(t, s.List(ctx, &first))
	w, err := s.Watch(ctx, &corev1.ConfigMapList{}, client.MatchingLabels{"on": "yes"}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: first.ResourceVersion}})
	must(t, err)
	defer w.Stop()
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		must(t, s.Create(ctx, configMap(name, nil)))
	}
	view := lag(s.store.Revision())
	cached := s.store.Client(store.ClientOptions{Author: "lagging", View: view})
	a := configMap("a", map[string]string{"k": "v"})
	a.Labels = map[string]string{"on": "yes"}
	must(t, cached.Update(ctx, a)) // writes go to the head
	must(t, s.Delete(ctx, configMap("b", nil)))
	seen := &corev1.ConfigMap{}
	must(t, cached.Get(ctx, client.ObjectKeyFromObject(a), seen))
	if len(seen.Data) != 0 {
		t.Error("the view sees what it can't")
	}
	var l corev1.ConfigMapList
	must(t, cached.List(ctx, &l))
	if len(l.Items) != 5 || l.ResourceVersion != fmt.Sprint(int64(view)) {
		t.Errorf("%d items at %s", len(l.Items), l.ResourceVersion)
	}
	must(t, s.List(ctx, &l, client.Limit(3)))
	if len(l.Items) != 3 || *l.RemainingItemCount != 1 {
		t.Fatalf("page of %d", len(l.Items))
	}
	token := l.Continue
	must(t, s.Create(ctx, configMap("f", nil)))
	must(t, s.List(ctx, &l, client.Limit(3), client.Continue(token)))
	if len(l.Items) != 1 || l.Items[0].Name != "e" || l.Continue != "" {
		t.Errorf("the second page is not of the first one's revision: %d items", len(l.Items))
	}
	a.Labels = nil
	must(t, s.Update(ctx, a))
	var events []string
	for range 2 {
		e := <-w.ResultChan()
		events = append(events, string(e.Type)+" "+e.Object.(*corev1.ConfigMap).Name)
	}
	if diff := cmp.Diff([]string{string(watch.Added) + " a", string(watch.Deleted) + " a"}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"create a old=false new=true", "update a old=true new=true", "delete b old=true new=false"},
		[]string{changes[0], changes[5], changes[6]}); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	s.store.Compact(s.store.Revision())
	refused(t, s.List(ctx, &l, client.Continue(token)), metav1.StatusReasonExpired, "too old")
	_, err = s.Watch(ctx, &l, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: first.ResourceVersion}})
	refused(t, err, metav1.StatusReasonExpired, "too old resource version")
	refused(t, cached.Get(ctx, client.ObjectKeyFromObject(a), seen), metav1.StatusReasonExpired, "too old resource version")
}

func TestHooks(t *testing.T) {
	s, ctx := newServer(t), t.Context()
	var seen []string
	broken := fmt.Errorf("broken")
	var before, after error
	c := s.store.Client(store.ClientOptions{Author: "hooked",
		Before: func(r *store.Request) error { seen = append(seen, r.Verb+" "+r.GVK.Kind+" "+r.Name); return before },
		After: func(_ *store.Request, err error) error {
			if after != nil {
				return after
			}
			return err
		}})
	refusals := 0
	s.store.OnRefused(func(*store.Request, error) { refusals++ })
	before = broken
	if err := c.Create(ctx, configMap("a", nil)); err != broken {
		t.Fatal(err)
	}
	refused(t, s.Get(ctx, types.NamespacedName{Namespace: "ns", Name: "a"}, &corev1.ConfigMap{}), metav1.StatusReasonNotFound, "")
	before, after = nil, broken
	if err := c.Create(ctx, configMap("a", nil)); err != broken {
		t.Fatal(err)
	}
	must(t, s.Get(ctx, types.NamespacedName{Namespace: "ns", Name: "a"}, &corev1.ConfigMap{}))
	if diff := cmp.Diff([]string{"create ConfigMap a", "create ConfigMap a"}, seen); diff != "" || refusals != 2 {
		t.Errorf("%d refusals, requests (-want +got):\n%s", refusals, diff)
	}
}

// count counts the ConfigMaps at the head.
func count(s *server) int {
	n := 0
	s.store.ListObjects(corev1.SchemeGroupVersion.WithKind("ConfigMap"), func(*store.Object) bool { n++; return true })
	return n
}
