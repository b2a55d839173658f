package compare_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/compare"
	"github.com/layersim/layersim/sim/history"
)

// told is a history of nodes with one role that are there at the begin, and then what happens to them, in this order: "a
// target", "b Degraded", "a boot".
func told(nodes string, events ...string) *history.History {
	h := &history.History{Header: history.Header{Cluster: "sim"}}
	add := func(r history.Record) {
		r.Seq, r.Time = int64(len(h.Records))+1, time.Duration(len(h.Records))*time.Second
		h.Records = append(h.Records, r)
	}
	last := map[string]*unstructured.Unstructured{}
	change := func(name, annotation, value string) {
		annotations := map[string]any{}
		if last[name] != nil {
			for k, v := range last[name].GetAnnotations() {
				annotations[k] = v
			}
		}
		annotations[annotation] = value
		node := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": name,
			"labels": map[string]any{layering.NodeRolePrefix + "worker": ""}, "annotations": annotations}}}
		add(history.Record{Change: &history.Change{GVK: schema.GroupVersionKind{Kind: "Node"}, Name: name, Old: last[name], New: node}})
		last[name] = node
	}
	for _, name := range strings.Fields(nodes) {
		change(name, layering.CurrentConfig, "rendered-worker-"+strings.Repeat("0", 32))
	}
	add(history.Record{Step: &history.Step{Event: "begin"}})
	for _, e := range events {
		switch name, what, _ := strings.Cut(e, " "); what {
		case "target":
			change(name, layering.DesiredConfig, "rendered-worker-"+strings.Repeat("1", 32))
		case "boot":
			add(history.Record{Node: &history.Node{Node: name, Event: "boot"}})
		default:
			change(name, layering.State, what)
		}
	}
	add(history.Record{Step: &history.Step{Event: "end"}})
	return h
}

// The node that a real cluster runs on is none of the simulated ones.
func TestNodeOfTheWorld(t *testing.T) {
	plain := told("a", "a target", "a boot", "a Done")
	carried := told("a", "a target", "a boot", "a Done")
	node := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "layersim-control-plane",
		"labels": map[string]any{layering.NodeRolePrefix + "control-plane": "", history.World: "true"}}}}
	heartbeat := func(before *unstructured.Unstructured) {
		carried.Records = slices.Insert(carried.Records, 3, history.Record{Seq: 3, Time: 3 * time.Second,
			Change: &history.Change{GVK: schema.GroupVersionKind{Kind: "Node"}, Name: node.GetName(), Old: before, New: node}})
	}
	heartbeat(node)
	heartbeat(nil) // the history met it after its begin
	if found := compare.Histories(plain, carried); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}

// Nodes with the same roles stand in for each other, but what each of them goes through still matters.
func TestNodesStandInForEachOther(t *testing.T) {
	first := told("a b", "a target", "a Degraded", "b target", "b boot", "b Done")
	for _, c := range []struct {
		what  string
		other *history.History
		want  []string
	}{
		{"other names", told("y z", "y target", "y Degraded", "z target", "z boot", "z Done"), nil},
		{"another one comes first", told("a b", "a target", "a boot", "a Done", "b target", "b Degraded"), nil},
		{"what one goes through is spread over two", told("a b", "a target", "b target", "a Degraded", "b Done", "a boot"), []string{
			"only on sim first: node worker-N2, boots: boot 1 into the base image",
			"only on sim second: node worker-N1, boots: boot 1 into the base image",
			"order: node worker-N2, state: Done (the node boots -> the node is Done): after 1 on sim first, after 0 on sim second"}},
		{"a third one", told("a b c", "a target", "a Degraded", "b target", "b boot", "b Done", "c target", "c Done"), []string{
			"only on sim first: machineconfigpool worker, nodes under way: 2 at most",
			"only on sim second: machineconfigpool worker, nodes under way: 3 at most",
			"only on sim second: node worker-N3, state: Done",
			"only on sim second: node worker-N3, targets: rendered-worker-H2, no image"}},
		{"Done before the boot", told("a b", "a target", "a Degraded", "b target", "b Done", "b boot"), []string{
			"order: node worker-N2, state: Done (the node boots -> the node is Done): after 1 on sim first, after 0 on sim second"}},
	} {
		var found []string
		for _, d := range compare.Histories(first, c.other) {
			found = append(found, d.String())
		}
		slices.Sort(found)
		if diff := cmp.Diff(c.want, found); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

// A rebuild is asked for by an annotation, whatever its value: nothing, more often than not.
func TestRebuild(t *testing.T) {
	const current = layering.CurrentBuild
	asks := func(values ...map[string]any) *history.History {
		h := &history.History{Records: []history.Record{{Seq: 1, Step: &history.Step{Event: "begin"}}}}
		var last *unstructured.Unstructured
		for _, annotations := range values {
			config := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "layered"}}}
			if annotations != nil {
				config.Object["metadata"].(map[string]any)["annotations"] = annotations
			}
			h.Records = append(h.Records, history.Record{Seq: int64(len(h.Records)) + 1, Change: &history.Change{
				GVK: schema.GroupVersionKind{Kind: "MachineOSConfig"}, Name: "layered", Old: last, New: config}})
			last = config
		}
		return h
	}
	const asked, withdrawn = "life: rebuild asked for", "life: rebuild no longer asked for"
	for _, c := range []struct {
		what   string
		values []map[string]any
		want   []string
	}{
		{"no value", []map[string]any{nil, {layering.Rebuild: ""}}, []string{asked}},
		{"a value", []map[string]any{nil, {layering.Rebuild: "now"}}, []string{asked}},
		{"among others", []map[string]any{{current: ""}, {current: "", layering.Rebuild: ""}, {layering.Rebuild: ""}}, []string{asked}},
		{"from the beginning", []map[string]any{{layering.Rebuild: ""}}, []string{asked}},
		{"once more", []map[string]any{nil, {layering.Rebuild: ""}, {layering.Rebuild: "now"}, {layering.Rebuild: ""}}, []string{asked, asked, asked}},
		{"withdrawn", []map[string]any{nil, {layering.Rebuild: ""}, nil, nil, {layering.Rebuild: "now"}, {}}, []string{asked, withdrawn, asked, withdrawn}},
		{"served", []map[string]any{nil, {layering.Rebuild: ""}, {current: "layered-" + strings.Repeat("0", 32)}},
			[]string{asked, withdrawn, "current build: layered-H1"}},
	} {
		h := asks(c.values...)
		want := []string{"machineosconfig layered, life: created"}
		for _, text := range c.want {
			want = append(want, "machineosconfig layered, "+text)
		}
		var got []string
		for _, m := range compare.Milestones(h)[1:] { // the step begins
			got = append(got, m.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}

	// One of two runs in which nobody asked is another run.
	found := compare.Histories(asks(nil, map[string]any{layering.Rebuild: ""}), asks(nil, nil))
	if len(found) != 1 || !strings.Contains(found[0].String(), asked) {
		t.Errorf("found\n%s", printed(t, found))
	}
}

// A difference is told in one line, with both sides below it.
func TestText(t *testing.T) {
	a := told("a b", "a target", "a Working", "a boot", "a Done")
	b := told("a b", "a target", "a Working", "a Degraded", "a Done", "a boot")
	want := `
only on sim second: node worker-N1, state: Degraded
    sim first                                                                  | sim second
           2.0s  #5      Working [a]                                           |        2.0s  #5      Working [a]
           4.0s  #7      Done [a]                                              | >      3.0s  #6      Degraded [a]
                                                                               |        4.0s  #7      Done [a]

order: node worker-N1, state: Done (the node boots -> the node is Done): after 1 on sim first, after 0 on sim second
    sim first                                                                  | sim second
           3.0s  #6      node worker-N1, boot 1 into the base image [a]        |   (no cause before it)
    >      4.0s  #7      node worker-N1, Done [a]                              | >      4.0s  #7      node worker-N1, Done [a]
                                                                               |        5.0s  #8      node worker-N1, boot 1 into the base image [a]
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), printed(t, compare.Histories(a, b))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
