// Package storetest checks an API server by random sequences of operations against written rules.
//
// [Check] draws operations on ConfigMaps, Pods, Jobs, Nodes, MachineOSConfigs and MachineOSBuilds, performs them through
// any client.WithWatch and compares each answer with what the Kubernetes API promises:
//
//   - uid and creationTimestamp never change; resourceVersion grows with each change and stays without one;
//   - generation follows the kind's rule: never, or with .spec and with the start of a deletion;
//   - a write with a stale resourceVersion, and only such a one, is a conflict and changes nothing;
//   - a main update leaves the status alone, a status update the rest;
//   - a dry run changes nothing;
//   - an object without finalizers is gone after its deletion, one with finalizers stays with a deletionTimestamp until
//     the last is removed, and none can be added meanwhile;
//   - a propagation policy shows as the garbage collector's finalizer;
//   - a list is exactly what the model holds, in order, by any label selector;
//   - a watch from the start replays to the same state, in growing revisions.
//
// The same sequences can so be run on the in-memory server and on a real kube-apiserver. There must be no other writer:
// no Job controller, garbage collector or scheduler, and the CustomResourceDefinitions of the layering API must be
// installed. The rules say what must hold; they don't compare two servers with each other.
package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Options says where a sequence runs.
type Options struct {
	// Client reaches the server. Its reads must not lag.
	Client client.WithWatch
	// Namespace exists and is used by nothing else.
	Namespace string
	// Prefix begins the names of all objects. With a server that survives a sequence it must be new for each.
	Prefix string
}

// kind is what the rules have to know of a kind.
type kind struct {
	gvk        schema.GroupVersionKind
	namespaced bool
	status     bool
	generation bool
	metadata   bool // a status write may change metadata
	fixed      bool // spec can't change
	body       func(name string) map[string]any
	spec       func(o map[string]any, n int) // changes the part that a main update may change
	state      func(o map[string]any, n int) // changes the status
}

func field(o map[string]any, value any, path ...string) {
	for _, p := range path[:len(path)-1] {
		child, ok := o[p].(map[string]any)
		if !ok {
			child = map[string]any{}
			o[p] = child
		}
		o = child
	}
	o[path[len(path)-1]] = value
}

func podTemplate(policy string) map[string]any {
	return map[string]any{"restartPolicy": policy, "containers": []any{map[string]any{"name": "c", "image": "quay.io/x/y:v1"}}}
}

var kinds = []*kind{{
	gvk: schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, namespaced: true,
	body: func(string) map[string]any { return map[string]any{"data": map[string]any{"k": "v"}} },
	spec: func(o map[string]any, n int) { field(o, fmt.Sprint(n), "data", "n") },
}, {
	gvk: schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, namespaced: true, status: true, generation: true, metadata: true,
	body:  func(string) map[string]any { return map[string]any{"spec": podTemplate("Always")} },
	state: func(o map[string]any, n int) { field(o, fmt.Sprint(n), "status", "message") },
	spec: func(o map[string]any, n int) {
		c := o["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
		c["image"] = fmt.Sprintf("quay.io/x/y:v%d", n)
	},
}, {
	gvk: schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}, namespaced: true, status: true, generation: true, metadata: true,
	body: func(string) map[string]any {
		return map[string]any{"spec": map[string]any{"template": map[string]any{"spec": podTemplate("Never")}}}
	},
	spec:  func(o map[string]any, n int) { field(o, int64(n), "spec", "parallelism") },
	state: func(o map[string]any, n int) { field(o, int64(n), "status", "active") },
}, {
	gvk: schema.GroupVersionKind{Version: "v1", Kind: "Node"}, status: true, metadata: true,
	body: func(string) map[string]any { return map[string]any{} },
	spec: func(o map[string]any, n int) {
		field(o, []any{map[string]any{"key": fmt.Sprintf("k%d", n), "effect": "NoSchedule"}}, "spec", "taints")
	},
	state: func(o map[string]any, n int) {
		field(o, []any{map[string]any{"type": "InternalIP", "address": fmt.Sprintf("10.0.0.%d", n%250)}}, "status", "addresses")
	},
}, {
	gvk:    schema.GroupVersionKind{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: "MachineOSConfig"},
	status: true, generation: true,
	body: func(name string) map[string]any {
		return map[string]any{"spec": map[string]any{
			"machineConfigPool": map[string]any{"name": name}, "imageBuilder": map[string]any{"imageBuilderType": "Job"},
			"renderedImagePushSecret": map[string]any{"name": "push"}, "renderedImagePushSpec": "quay.io/a/b:latest",
		}}
	},
	spec: func(o map[string]any, n int) {
		field(o, fmt.Sprintf("quay.io/a/b:v%d", n), "spec", "renderedImagePushSpec")
	},
	state: func(o map[string]any, n int) { field(o, int64(n), "status", "observedGeneration") },
}, {
	gvk:    schema.GroupVersionKind{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: "MachineOSBuild"},
	status: true, generation: true, fixed: true,
	body: func(string) map[string]any {
		return map[string]any{"spec": map[string]any{
			"machineConfig": map[string]any{"name": "rendered-layered-1"}, "machineOSConfig": map[string]any{"name": "layered"},
			"renderedImagePushSpec": "quay.io/a/b:latest",
		}}
	},
	spec: func(o map[string]any, n int) {
		field(o, fmt.Sprintf("quay.io/a/b:v%d", n), "spec", "renderedImagePushSpec")
	},
	state: func(o map[string]any, n int) {
		field(o, []any{map[string]any{"group": "batch", "resource": "jobs", "namespace": "ns", "name": fmt.Sprintf("c%d", n)}}, "status", "relatedObjects")
	},
}}

// machine is one sequence: the server, and the model of what it holds.
type machine struct {
	Options
	ctx     context.Context
	n       int // makes each change a new one
	objects map[*kind]map[string]*unstructured.Unstructured
	stale   map[*kind]map[string]*unstructured.Unstructured // an earlier state of each object
	watches map[*kind]watch.Interface
}

// Check draws and runs one sequence. The context bounds how long it waits for watch events.
func Check(ctx context.Context, t *rapid.T, o Options) {
	m := &machine{Options: o, ctx: ctx, objects: map[*kind]map[string]*unstructured.Unstructured{},
		stale: map[*kind]map[string]*unstructured.Unstructured{}, watches: map[*kind]watch.Interface{}}
	for _, k := range kinds {
		m.objects[k], m.stale[k] = map[string]*unstructured.Unstructured{}, map[string]*unstructured.Unstructured{}
		l := m.list(t, k)
		w, err := m.Client.Watch(ctx, k.list(), &client.ListOptions{Namespace: k.namespace(m), Raw: &metav1.ListOptions{ResourceVersion: l.GetResourceVersion()}})
		if err != nil {
			t.Fatalf("watch %s: %v", k.gvk.Kind, err)
		}
		m.watches[k] = w
	}
	t.Repeat(map[string]func(*rapid.T){
		"create":     m.create,
		"update":     m.update,
		"stale":      m.staleUpdate,
		"status":     m.status,
		"patch":      m.patch,
		"dryRun":     m.dryRun,
		"noop":       m.noop,
		"finalizers": m.finalizers,
		"delete":     m.delete,
		"many":       m.deleteCollection,
		"":           m.compare,
	})
	for _, k := range kinds {
		m.replay(t, k)
		m.watches[k].Stop()
	}
	for _, k := range kinds {
		for _, name := range slices.Sorted(maps.Keys(m.objects[k])) {
			m.clear(t, k, name)
		}
	}
}

func (k *kind) namespace(m *machine) string {
	if k.namespaced {
		return m.Namespace
	}
	return ""
}

func (k *kind) list() *unstructured.UnstructuredList {
	l := &unstructured.UnstructuredList{}
	l.SetGroupVersionKind(k.gvk.GroupVersion().WithKind(k.gvk.Kind + "List"))
	return l
}

func (m *machine) list(t *rapid.T, k *kind, opts ...client.ListOption) *unstructured.UnstructuredList {
	l := k.list()
	if err := m.Client.List(m.ctx, l, append(opts, client.InNamespace(k.namespace(m)))...); err != nil {
		t.Fatalf("list %s: %v", k.gvk.Kind, err)
	}
	l.Items = slices.DeleteFunc(l.Items, func(u unstructured.Unstructured) bool { return !strings.HasPrefix(u.GetName(), m.Prefix) })
	return l
}

func (m *machine) kind(t *rapid.T) *kind {
	return kinds[rapid.IntRange(0, len(kinds)-1).Draw(t, "kind")]
}

// pick draws an object that exists; the action is skipped where there is none.
func (m *machine) pick(t *rapid.T) (*kind, *unstructured.Unstructured) {
	k := m.kind(t)
	names := slices.Sorted(maps.Keys(m.objects[k]))
	if len(names) == 0 {
		t.Skip("no object")
	}
	return k, m.objects[k][rapid.SampledFrom(names).Draw(t, "name")]
}

func (m *machine) next() int {
	m.n++
	return m.n
}

func (m *machine) create(t *rapid.T) {
	k := m.kind(t)
	name := m.Prefix + rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
	o := &unstructured.Unstructured{Object: k.body(name)}
	o.SetGroupVersionKind(k.gvk)
	o.SetName(name)
	o.SetNamespace(k.namespace(m))
	if v := rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "label"); v != "" {
		o.SetLabels(map[string]string{"l": v})
	}
	if rapid.Bool().Draw(t, "finalizer") {
		o.SetFinalizers([]string{"storetest/one"})
	}
	if k.status && k.gvk.Kind != "Node" {
		k.state(o.Object, m.next())
	}
	o.SetUID("chosen-by-client")
	err := m.Client.Create(m.ctx, o)
	if m.objects[k][name] != nil {
		if !apierrors.IsAlreadyExists(err) {
			t.Fatalf("create %s %s again: %v", k.gvk.Kind, name, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("create %s %s: %v", k.gvk.Kind, name, err)
	}
	generation := int64(0)
	if k.generation {
		generation = 1
	}
	if o.GetGeneration() != generation || o.GetUID() == "" || o.GetUID() == "chosen-by-client" || o.GetCreationTimestamp().Time.IsZero() {
		t.Fatalf("created %s with wrong metadata: %v", k.gvk.Kind, o.Object["metadata"])
	}
	if k.status && k.gvk.Kind != "Node" {
		fresh := o.DeepCopy()
		k.state(fresh.Object, m.n)
		if cmp.Equal(fresh.Object["status"], o.Object["status"]) {
			t.Fatalf("creation of %s took over a status: %v", k.gvk.Kind, o.Object["status"])
		}
	}
	m.objects[k][name] = o
}

// accepted compares the answer to a write with the state before it, and makes it the model's. changed says which part
// the write was allowed to change: spec, status or metadata.
func (m *machine) accepted(t *rapid.T, k *kind, was, now *unstructured.Unstructured, changed string) {
	what := fmt.Sprintf("%s %s", k.gvk.Kind, now.GetName())
	if was.GetUID() != now.GetUID() || !cmp.Equal(was.GetCreationTimestamp(), now.GetCreationTimestamp()) {
		t.Fatalf("%s: uid or creationTimestamp changed", what)
	}
	for _, part := range []string{"spec", "status"} {
		if part != changed && !cmp.Equal(was.Object[part], now.Object[part]) {
			t.Fatalf("%s: a write to %s changed %s:\n%s", what, changed, part, cmp.Diff(was.Object[part], now.Object[part]))
		}
	}
	bare := func(u *unstructured.Unstructured) map[string]any {
		c := u.DeepCopy()
		c.SetResourceVersion("")
		c.SetManagedFields(nil)
		return c.Object
	}
	same := cmp.Equal(bare(was), bare(now))
	before, after := revision(t, was), revision(t, now)
	if same && before != after || !same && after <= before {
		t.Fatalf("%s: resourceVersion %d -> %d, although changed = %v", what, before, after, !same)
	}
	want := was.GetGeneration()
	if k.generation && (!cmp.Equal(was.Object["spec"], now.Object["spec"]) || was.GetDeletionTimestamp() == nil && now.GetDeletionTimestamp() != nil) {
		want++
	}
	if now.GetGeneration() != want {
		t.Fatalf("%s: generation %d, want %d after a write to %s", what, now.GetGeneration(), want, changed)
	}
	m.stale[k][now.GetName()] = was
	m.objects[k][now.GetName()] = now
}

func revision(t *rapid.T, u *unstructured.Unstructured) int64 {
	n, err := strconv.ParseInt(u.GetResourceVersion(), 10, 64)
	if err != nil {
		t.Fatalf("resourceVersion %q: %v", u.GetResourceVersion(), err)
	}
	return n
}

// mixed changes spec and status together and says which of them a write to the main resource can change.
func (m *machine) mixed(t *rapid.T, k *kind, was *unstructured.Unstructured) *unstructured.Unstructured {
	now := was.DeepCopy()
	if !k.fixed {
		k.spec(now.Object, m.next())
	}
	if rapid.Bool().Draw(t, "withLabel") {
		now.SetLabels(merged(now.GetLabels(), "l", rapid.SampledFrom([]string{"x", "y"}).Draw(t, "label")))
	}
	if k.status {
		k.state(now.Object, m.next())
	}
	return now
}

func merged(labels map[string]string, key, value string) map[string]string {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[key] = value
	return labels
}

func (m *machine) update(t *rapid.T) {
	k, was := m.pick(t)
	if k.fixed && rapid.Bool().Draw(t, "forbidden") {
		now := was.DeepCopy()
		k.spec(now.Object, m.next())
		if err := m.Client.Update(m.ctx, now); !apierrors.IsInvalid(err) {
			t.Fatalf("change of the fixed spec of %s: %v", k.gvk.Kind, err)
		}
		return
	}
	now := m.mixed(t, k, was)
	now.SetGeneration(99)
	if err := m.Client.Update(m.ctx, now); err != nil {
		t.Fatalf("update %s: %v", k.gvk.Kind, err)
	}
	m.accepted(t, k, was, now, "spec")
}

func (m *machine) staleUpdate(t *rapid.T) {
	k, was := m.pick(t)
	old := m.stale[k][was.GetName()]
	if old == nil || old.GetUID() != was.GetUID() || old.GetResourceVersion() == was.GetResourceVersion() {
		t.Skip("no earlier state")
	}
	now := m.mixed(t, k, old)
	write := map[string]func() error{
		"update": func() error { return m.Client.Update(m.ctx, now) },
		"patch": func() error {
			return m.Client.Patch(m.ctx, now, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
		},
		"delete": func() error {
			rv := old.GetResourceVersion()
			return m.Client.Delete(m.ctx, now, client.Preconditions{ResourceVersion: &rv})
		},
	}
	if k.status {
		write["status"] = func() error { return m.Client.Status().Update(m.ctx, now) }
	}
	how := rapid.SampledFrom(slices.Sorted(maps.Keys(write))).Draw(t, "how")
	if err := write[how](); !apierrors.IsConflict(err) {
		t.Fatalf("stale %s of %s: %v", how, k.gvk.Kind, err)
	}
}

func (m *machine) status(t *rapid.T) {
	k, was := m.pick(t)
	if !k.status {
		t.Skip("no status")
	}
	now := m.mixed(t, k, was)
	if !k.metadata {
		now.SetAnnotations(map[string]string{"ignored": "yes"})
	}
	k.state(now.Object, m.next())
	if err := m.Client.Status().Update(m.ctx, now); err != nil {
		t.Fatalf("update status of %s: %v", k.gvk.Kind, err)
	}
	m.accepted(t, k, was, now, "status")
	if !k.metadata && (now.GetAnnotations()["ignored"] != "" || !cmp.Equal(was.GetLabels(), now.GetLabels())) {
		t.Fatalf("a status update of %s changed metadata", k.gvk.Kind)
	}
}

func (m *machine) patch(t *rapid.T) {
	k, was := m.pick(t)
	now := was.DeepCopy()
	value := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "label")
	var p client.Patch
	switch rapid.SampledFrom([]string{"merge", "json", "computed"}).Draw(t, "type") {
	case "merge":
		p = client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{"a":%q}}}`, value))
	case "json":
		p = client.RawPatch(types.JSONPatchType, fmt.Appendf(nil, `[{"op":"add","path":"/metadata/labels","value":{"l":%q}}]`, value))
	default:
		now.SetLabels(merged(now.GetLabels(), "l", value))
		p = client.MergeFrom(was)
	}
	if err := m.Client.Patch(m.ctx, now, p); err != nil {
		t.Fatalf("patch %s: %v", k.gvk.Kind, err)
	}
	m.accepted(t, k, was, now, "metadata")
}

func (m *machine) dryRun(t *rapid.T) {
	k, was := m.pick(t)
	now := m.mixed(t, k, was)
	var err error
	if rapid.Bool().Draw(t, "delete") {
		err = m.Client.Delete(m.ctx, now, client.DryRunAll)
	} else {
		err = m.Client.Update(m.ctx, now, client.DryRunAll)
	}
	if err != nil {
		t.Fatalf("dry run on %s: %v", k.gvk.Kind, err)
	}
}

func (m *machine) noop(t *rapid.T) {
	k, was := m.pick(t)
	now := was.DeepCopy()
	if err := m.Client.Update(m.ctx, now); err != nil {
		t.Fatalf("update %s: %v", k.gvk.Kind, err)
	}
	if now.GetResourceVersion() != was.GetResourceVersion() {
		t.Fatalf("%s: an update without a change went from %s to %s", k.gvk.Kind, was.GetResourceVersion(), now.GetResourceVersion())
	}
}

func (m *machine) finalizers(t *rapid.T) {
	k, was := m.pick(t)
	now := was.DeepCopy()
	if rapid.Bool().Draw(t, "add") {
		now.SetFinalizers(append(now.GetFinalizers(), fmt.Sprintf("storetest/f%d", m.next())))
		err := m.Client.Update(m.ctx, now)
		if was.GetDeletionTimestamp() != nil {
			if !apierrors.IsInvalid(err) {
				t.Fatalf("finalizer added to a deleted %s: %v", k.gvk.Kind, err)
			}
			return
		}
		if err != nil {
			t.Fatalf("add a finalizer to %s: %v", k.gvk.Kind, err)
		}
		m.accepted(t, k, was, now, "metadata")
		return
	}
	fs := now.GetFinalizers()
	if len(fs) == 0 {
		t.Skip("no finalizer")
	}
	now.SetFinalizers(fs[1:])
	if err := m.Client.Update(m.ctx, now); err != nil {
		t.Fatalf("remove a finalizer from %s: %v", k.gvk.Kind, err)
	}
	if len(fs) == 1 && was.GetDeletionTimestamp() != nil {
		m.gone(t, k, was)
		return
	}
	m.accepted(t, k, was, now, "metadata")
}

func (m *machine) gone(t *rapid.T, k *kind, was *unstructured.Unstructured) {
	o := was.DeepCopy()
	if err := m.Client.Get(m.ctx, client.ObjectKeyFromObject(was), o); !apierrors.IsNotFound(err) {
		t.Fatalf("%s %s should be gone: %v", k.gvk.Kind, was.GetName(), err)
	}
	delete(m.objects[k], was.GetName())
	delete(m.stale[k], was.GetName())
}

// collector is the finalizer by which a propagation policy shows.
var collector = map[metav1.DeletionPropagation]string{
	metav1.DeletePropagationForeground: metav1.FinalizerDeleteDependents, metav1.DeletePropagationOrphan: metav1.FinalizerOrphanDependents,
}

func (m *machine) delete(t *rapid.T) {
	k, was := m.pick(t)
	policy := rapid.SampledFrom([]metav1.DeletionPropagation{
		metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan,
	}).Draw(t, "policy")
	wrong := types.UID("wrong")
	if err := m.Client.Delete(m.ctx, was.DeepCopy(), client.Preconditions{UID: &wrong}); !apierrors.IsConflict(err) {
		t.Fatalf("delete %s with a wrong uid: %v", k.gvk.Kind, err)
	}
	if err := m.Client.Delete(m.ctx, was.DeepCopy(), client.PropagationPolicy(policy)); err != nil {
		t.Fatalf("delete %s: %v", k.gvk.Kind, err)
	}
	m.deleted(t, k, was, policy)
}

// deleted checks an object after a delete request and updates the model.
func (m *machine) deleted(t *rapid.T, k *kind, was *unstructured.Unstructured, policy metav1.DeletionPropagation) {
	others := slices.DeleteFunc(slices.Clone(was.GetFinalizers()), func(f string) bool {
		return f == metav1.FinalizerDeleteDependents || f == metav1.FinalizerOrphanDependents
	})
	if len(others) == 0 && collector[policy] == "" {
		m.gone(t, k, was)
		return
	}
	now := was.DeepCopy()
	if err := m.Client.Get(m.ctx, client.ObjectKeyFromObject(was), now); err != nil {
		t.Fatalf("get deleted %s: %v", k.gvk.Kind, err)
	}
	if now.GetDeletionTimestamp() == nil {
		t.Fatalf("%s has finalizers %v and no deletionTimestamp", k.gvk.Kind, now.GetFinalizers())
	}
	if before := was.GetDeletionTimestamp(); before != nil && !before.Equal(now.GetDeletionTimestamp()) {
		t.Fatalf("%s: deletionTimestamp moved from %s to %s", k.gvk.Kind, before, now.GetDeletionTimestamp())
	}
	want := slices.Clone(others)
	if f := collector[policy]; f != "" {
		want = append(want, f)
	}
	if got := now.GetFinalizers(); !cmp.Equal(sorted(want), sorted(got)) {
		t.Fatalf("%s: finalizers %v after deletion with policy %s, want %v", k.gvk.Kind, got, policy, want)
	}
	m.accepted(t, k, was, now, "metadata")
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

func (m *machine) deleteCollection(t *rapid.T) {
	k := m.kind(t)
	value := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "label")
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(k.gvk)
	err := m.Client.DeleteAllOf(m.ctx, o, client.InNamespace(k.namespace(m)), client.MatchingLabels{"l": value},
		client.PropagationPolicy(metav1.DeletePropagationBackground))
	if err != nil {
		t.Fatalf("delete all of %s: %v", k.gvk.Kind, err)
	}
	for _, name := range slices.Sorted(maps.Keys(m.objects[k])) {
		if was := m.objects[k][name]; was.GetLabels()["l"] == value {
			m.deleted(t, k, was, metav1.DeletePropagationBackground)
		}
	}
}

// compare reads everything back.
func (m *machine) compare(t *rapid.T) {
	for _, k := range kinds {
		want := []map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(m.objects[k])) {
			want = append(want, m.objects[k][name].Object)
		}
		got := []map[string]any{}
		for _, u := range m.list(t, k).Items {
			got = append(got, u.Object)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("list of %s differs from the model (-model +server):\n%s", k.gvk.Kind, diff)
		}
	}
	k := kinds[m.n%len(kinds)]
	for _, value := range []string{"x", "y"} {
		n := 0
		for _, o := range m.objects[k] {
			if o.GetLabels()["l"] == value {
				n++
			}
		}
		if got := len(m.list(t, k, client.MatchingLabels{"l": value}).Items); got != n {
			t.Fatalf("%d %s with label %s, want %d", got, k.gvk.Kind, value, n)
		}
	}
}

// replay reads the watch up to a last object made for the purpose, and compares what it adds up to.
func (m *machine) replay(t *rapid.T, k *kind) {
	last := &unstructured.Unstructured{Object: k.body(m.Prefix + "last")}
	last.SetGroupVersionKind(k.gvk)
	last.SetName(m.Prefix + "last")
	last.SetNamespace(k.namespace(m))
	if err := m.Client.Create(m.ctx, last); err != nil {
		t.Fatalf("create %s: %v", k.gvk.Kind, err)
	}
	m.objects[k][last.GetName()] = last
	seen := map[string]*unstructured.Unstructured{}
	newest := int64(0)
	for {
		var e watch.Event
		var ok bool
		select {
		case e, ok = <-m.watches[k].ResultChan():
		case <-m.ctx.Done():
			t.Fatalf("watch of %s: %v", k.gvk.Kind, m.ctx.Err())
		}
		u, isObject := e.Object.(*unstructured.Unstructured)
		if !ok || !isObject {
			t.Fatalf("watch of %s ended or failed: %v", k.gvk.Kind, e)
		}
		if !strings.HasPrefix(u.GetName(), m.Prefix) {
			continue
		}
		if rv := revision(t, u); rv <= newest {
			t.Fatalf("watch of %s: revision %d after %d", k.gvk.Kind, rv, newest)
		} else {
			newest = rv
		}
		_, known := seen[u.GetName()]
		if known == (e.Type == watch.Added) {
			t.Fatalf("watch of %s: %s of %s, known = %v", k.gvk.Kind, e.Type, u.GetName(), known)
		}
		seen[u.GetName()] = u
		if e.Type == watch.Deleted {
			delete(seen, u.GetName())
		}
		if u.GetName() == last.GetName() {
			break
		}
	}
	if diff := cmp.Diff(m.objects[k], seen); diff != "" {
		t.Fatalf("watch of %s adds up to something else (-model +watch):\n%s", k.gvk.Kind, diff)
	}
}

// clear removes an object for good, so that a server which survives the sequence is left as it was.
func (m *machine) clear(t *rapid.T, k *kind, name string) {
	o := m.objects[k][name].DeepCopy()
	if len(o.GetFinalizers()) > 0 {
		o.SetFinalizers(nil)
		if err := m.Client.Update(m.ctx, o); err != nil {
			t.Fatalf("clear %s %s: %v", k.gvk.Kind, name, err)
		}
	}
	if o.GetDeletionTimestamp() == nil {
		if err := m.Client.Delete(m.ctx, o, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
			t.Fatalf("clear %s %s: %v", k.gvk.Kind, name, err)
		}
	}
}
