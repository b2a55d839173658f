package live

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/layersim/layersim/sim/check"
	"github.com/layersim/layersim/sim/cluster/proxy"
	"github.com/layersim/layersim/sim/history"
)

// What a page of metrics says of pauses.
func TestNextReconcile(t *testing.T) {
	const head = "# HELP other x\n# TYPE other counter\nother 7\n# HELP mco_next_reconcile_timestamp_seconds x\n# TYPE mco_next_reconcile_timestamp_seconds gauge\n"
	metric := func(controller, value string) string {
		return "mco_next_reconcile_timestamp_seconds{controller=\"" + controller + "\"} " + value + "\n"
	}
	for _, c := range []struct {
		name, page string
		want       time.Time
		err        error
	}{
		{"nobody pauses", head + metric("node", "0") + metric("drain", "0"), time.Time{}, nil},
		{"one pauses", head + metric("node", "0") + metric("drain", "1.7000000005e+09"), time.UnixMilli(1_700_000_000_500), nil},
		{"two pause", head + metric("node", "1.700000001e+09") + metric("drain", "1.7e+09"), time.Unix(1_700_000_000, 0), nil},
		{"upstream's metrics", "# TYPE other counter\nother 7\n", time.Time{}, errUntold},
	} {
		got, err := nextReconcile(strings.NewReader(c.page))
		if !got.Equal(c.want) || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v; want %v, %v", c.name, got, err, c.want, c.err)
		}
	}
	if _, err := nextReconcile(strings.NewReader("<html>no metrics")); err == nil || errors.Is(err, errUntold) {
		t.Errorf("a page that is none: %v", err)
	}
}

// A cluster of programs that tell when they look again is at rest early; one that looks again soon, can't tell or isn't
// reached, keeps it from that, and so does a Job that has not finished.
func TestPausing(t *testing.T) {
	job := func(conditions ...string) *unstructured.Unstructured {
		var list []any
		for _, c := range conditions {
			list = append(list, map[string]any{"type": c, "status": "True"})
		}
		return &unstructured.Unstructured{Object: map[string]any{"kind": "Job", "status": map[string]any{"conditions": list}}}
	}
	change := func(kind string, o *unstructured.Unstructured) history.Record {
		return history.Record{Change: &history.Change{GVK: schema.GroupVersionKind{Kind: kind}, Name: "build", New: o}}
	}
	waits := func(time.Time) (time.Time, error) { return time.Time{}, nil }
	step := history.Record{Step: &history.Step{Event: check.Begin}}
	begun, building := []history.Record{step}, []history.Record{step, change("Job", job())}
	for _, c := range []struct {
		name    string
		records []history.Record
		next    func(now time.Time) (time.Time, error)
		ago     time.Duration // when the last of them was made
		want    bool
	}{
		{"waits for events", begun, waits, Settled, false},
		{"looks again soon", begun, func(now time.Time) (time.Time, error) { return now.Add(time.Second), nil }, Settled, true},
		{"looks now", begun, func(now time.Time) (time.Time, error) { return now.Add(-time.Second), nil }, Settled, true},
		{"looks again late", begun, func(now time.Time) (time.Time, error) { return now.Add(time.Hour), nil }, Settled, false},
		{"can't be asked", begun, func(time.Time) (time.Time, error) { return time.Time{}, errors.New("no route") }, Settled, true},
		{"says nothing", begun, nil, Settled, true},
		{"says nothing, and nothing changes", begun, nil, Quiet, false},
		{"says nothing while the cluster is made", []history.Record{change("Node", job())}, nil, Settled, false},
		{"a Job", building, waits, Settled, true},
		{"a Job that hangs", building, waits, Quiet, false},
		{"a Job that has completed", append(slices.Clone(building), change("Job", job("Complete"))), waits, Settled, false},
		{"a Job that has failed", append(slices.Clone(building), change("Job", job("FailureTarget", "Failed"))), waits, Settled, false},
		{"a Job that is about to fail", append(slices.Clone(building), change("Job", job("FailureTarget"))), waits, Settled, true},
		{"a Job that is gone", append(slices.Clone(building), change("Job", nil)), waits, Settled, false},
	} {
		i := &incarnation{}
		if c.next != nil {
			i.next = func(context.Context) (time.Time, error) { return c.next(time.Now()) }
		}
		e := &Engine{ctx: t.Context(), start: time.Now().Add(-time.Hour), processes: []*process{{running: []*incarnation{i}}}}
		then := e.Elapsed() - c.ago
		e.recorder = &history.Recorder{History: &history.History{}, Now: func() time.Duration { return then }, Revision: func() int64 { return 1 }}
		for _, r := range c.records {
			e.recorder.Add(r)
		}
		if got := e.pausing(); got != c.want {
			t.Errorf("%s: pausing is %v, want %v", c.name, got, c.want)
		}
	}
}

// What has come while nobody added anything is in the history of a cluster that could not be made.
func TestDrain(t *testing.T) {
	server := &Server{}
	var err error
	if server.proxy, err = proxy.New(proxy.Options{Target: &rest.Config{Host: "http://127.0.0.1:1"},
		Kinds: func(schema.GroupVersionResource) (schema.GroupVersionKind, bool) {
			return schema.GroupVersionKind{}, false
		}}); err != nil {
		t.Fatal(err)
	}
	defer server.proxy.Close()
	e := &Engine{ctx: t.Context(), start: time.Now(), Options: Options{Server: server}}
	e.init()
	e.drain() // there is no history yet
	e.recorder = &history.Recorder{History: &history.History{}, Now: e.Elapsed, Revision: func() int64 { return 1 }}
	e.drain()
	for _, name := range []string{"first", "second"} {
		e.Record(history.Record{Component: &history.Component{Name: name}})
	}
	e.drain()
	var got []string
	for _, r := range e.recorder.History.Records {
		got = append(got, r.Component.Name)
	}
	if diff := cmp.Diff([]string{"first", "second"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A run leaves nothing but what controllers of Kubernetes make anew.
func TestKept(t *testing.T) {
	for _, c := range []struct {
		kind, namespace, name string
		want                  bool
	}{
		{"Event", "default", "e", true},
		{"Lease", "kube-node-lease", "worker-1", true},
		{"Lease", "openshift-machine-config-operator", "machine-os-builder", false},
		{"ServiceAccount", "n", "default", true},
		{"ServiceAccount", "n", "machine-os-builder", false},
		{"ConfigMap", "n", "kube-root-ca.crt", true},
		{"ConfigMap", "n", "digest", false},
		{"Pod", "kube-system", "p", false},
	} {
		o := &unstructured.Unstructured{}
		o.SetKind(c.kind)
		o.SetNamespace(c.namespace)
		o.SetName(c.name)
		if got := kept(o); got != c.want {
			t.Errorf("%s %s/%s is kept: %v, want %v", c.kind, c.namespace, c.name, got, c.want)
		}
	}
}
