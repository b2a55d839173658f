package store_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/layersim/layersim/sim/store"
)

// row prints one object, two hours and a bit after its creation.
func row(t *testing.T, gvk schema.GroupVersionKind, object string) string {
	t.Helper()
	u := &unstructured.Unstructured{}
	must(t, json.Unmarshal([]byte(object), &u.Object))
	u.SetName("x")
	u.SetCreationTimestamp(metav1.NewTime(start))
	_, rows := store.TextOf(store.TableOf(nil, gvk, []*unstructured.Unstructured{u}, start.Add(2*time.Hour+5*time.Minute)))
	return strings.Join(rows[0], " | ")
}

func TestTableOfBuiltins(t *testing.T) {
	const two = `"spec":{"containers":[{"name":"a"},{"name":"b"}],"initContainers":[{"name":"i"}]}`
	p, n, j := corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("Node"), schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}
	for _, c := range []struct {
		gvk          schema.GroupVersionKind
		object, want string
	}{
		{p, `{` + two + `,"status":{"phase":"Pending"}}`, "x | 0/2 | Pending | 0 | 125m"},
		{p, `{` + two + `,"status":{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"running":{}}}]}}`, "x | 0/2 | Init:0/1 | 0 | 125m"},
		{p, `{` + two + `,"status":{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":1,"reason":"Error"}}}]}}`, "x | 0/2 | Init:Error | 0 | 125m"},
		{p, `{` + two + `,"status":{"phase":"Running","containerStatuses":[{"name":"a","ready":true,"state":{"running":{}}},{"name":"b","ready":true,"state":{"running":{}}}]}}`, "x | 2/2 | Running | 0 | 125m"},
		{p, `{` + two + `,"status":{"phase":"Failed","containerStatuses":[{"name":"a","state":{"terminated":{"exitCode":1,"reason":"Error"}}},{"name":"b","state":{"terminated":{"exitCode":0,"reason":"Completed"}}}]}}`, "x | 0/2 | Error | 0 | 125m"},
		{p, `{` + two + `,"status":{"phase":"Succeeded","containerStatuses":[{"name":"a","state":{"terminated":{"exitCode":0,"reason":"Completed"}}}]}}`, "x | 0/2 | Completed | 0 | 125m"},
		{p, `{` + two + `,"status":{"phase":"Running","containerStatuses":[{"name":"a","restartCount":3,"lastState":{"terminated":{"finishedAt":"2026-01-02T05:04:05Z"}},"state":{"waiting":{"reason":"CrashLoopBackOff"}}}]}}`, "x | 0/2 | CrashLoopBackOff | 3 (5m ago) | 125m"},
		{p, `{"metadata":{"deletionTimestamp":"2026-01-02T05:00:00Z"},` + two + `,"status":{"phase":"Running"}}`, "x | 0/2 | Terminating | 0 | 125m"},
		{n, `{"metadata":{"labels":{"node-role.kubernetes.io/worker":"","node-role.kubernetes.io/layered":""}},"spec":{"unschedulable":true},"status":{"nodeInfo":{"kubeletVersion":"v1.31.5"},"conditions":[{"type":"Ready","status":"True"}]}}`, "x | Ready,SchedulingDisabled | layered,worker | 125m | v1.31.5"},
		{n, `{}`, "x | Unknown | <none> | 125m | "},
		{n, `{"status":{"conditions":[{"type":"Ready","status":"Unknown"}]}}`, "x | NotReady | <none> | 125m | "},
		{j, `{"spec":{"completions":1},"status":{"startTime":"2026-01-02T04:04:05Z"}}`, "x | Running | 0/1 | 65m | 125m"},
		{j, `{"spec":{"completions":1},"status":{"succeeded":1,"startTime":"2026-01-02T04:04:05Z","completionTime":"2026-01-02T04:04:47Z","conditions":[{"type":"Complete","status":"True"}]}}`, "x | Complete | 1/1 | 42s | 125m"},
		{corev1.SchemeGroupVersion.WithKind("Secret"), `{"type":"Opaque","data":{"a":"","b":""}}`, "x | Opaque | 2 | 125m"},
		{corev1.SchemeGroupVersion.WithKind("ServiceAccount"), `{}`, "x | 125m"},
	} {
		if got := row(t, c.gvk, c.object); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.gvk.Kind, c.object, got, c.want)
		}
	}
}

func TestTableOfCustomResource(t *testing.T) {
	s := newServer(t)
	b := osBuild("layered-1")
	must(t, s.Create(t.Context(), b))
	now := metav1.NewTime(start)
	for _, c := range []string{"Prepared", "Building", "Failed", "Interrupted", "Succeeded"} {
		status := metav1.ConditionFalse
		if c == "Building" {
			status = metav1.ConditionTrue
		}
		b.Status.Conditions = append(b.Status.Conditions, metav1.Condition{Type: c, Status: status, Reason: "R", LastTransitionTime: now})
	}
	must(t, s.Status().Update(t.Context(), b))
	s.clock.SetTime(start.Add(90 * time.Second))
	gvk := mcfgv1.GroupVersion.WithKind("MachineOSBuild")
	table, err := s.store.Table(gvk, []*unstructured.Unstructured{s.store.Get(gvk, "", "layered-1").Unstructured()})
	must(t, err)
	header, rows := store.TextOf(table)
	got := append([]string{strings.Join(header, " | ")}, strings.Join(rows[0], " | "))
	want := []string{
		"NAME | PREPARED | BUILDING | SUCCEEDED | INTERRUPTED | FAILED | AGE",
		"layered-1 | False | True | False | False | False | 90s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
