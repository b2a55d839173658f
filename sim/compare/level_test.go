package compare_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/layersim/layersim/sim/compare"
	"github.com/layersim/layersim/sim/history"
)

// counted is a history in which a pool counts so many updated machines, each for so long: "0 1m, 1 5s, 2 1h".
func counted(tb testing.TB, cluster, values string) *history.History {
	tb.Helper()
	h := &history.History{Header: history.Header{Cluster: cluster}}
	var now time.Duration
	add := func(r history.Record) {
		r.Seq, r.Time = int64(len(h.Records))+1, now
		h.Records = append(h.Records, r)
	}
	add(history.Record{Step: &history.Step{Event: "begin"}})
	var last *unstructured.Unstructured
	for _, part := range strings.Split(values, ", ") {
		n, text, _ := strings.Cut(part, " ")
		held, err := time.ParseDuration(text)
		if err != nil {
			tb.Fatal(err)
		}
		pool := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "layered"},
			"status": map[string]any{"updatedMachineCount": int64(n[0] - '0')}}}
		add(history.Record{Change: &history.Change{GVK: schema.GroupVersionKind{Kind: "MachineConfigPool"}, Name: "layered", Old: last, New: pool}})
		last = pool
		now += held
	}
	add(history.Record{Step: &history.Step{Event: "end"}})
	return h
}

// Values that did not last may be missing, on either side; others may not.
func TestLevels(t *testing.T) {
	const count = "machineconfigpool layered, updatedMachineCount: "
	for _, c := range []struct {
		what, a, b string
		want       []string
	}{
		{"other times", "0 1m, 1 2m, 2 1h", "0 9m, 1 70m, 2 1m", nil},
		{"a passing value", "0 5m, 1 5s, 2 1h", "0 5m, 2 1h", nil},
		{"a passing value between equals", "0 5m, 1 59s, 0 1h", "0 1h", nil},
		{"two passing values, others on each side", "0 5m, 1 5s, 3 2s, 0 1h", "0 5m, 2 30s, 0 1h", nil},
		{"a lasting value", "0 5m, 1 61s, 2 1h", "0 5m, 2 1h", []string{"only on a: " + count + "1"}},
		{"a lasting value between equals", "0 5m, 1 61s, 0 1h", "0 1h", []string{"only on a: " + count + "1"}},
		{"the last value, however short", "0 1h, 1 1s", "0 1h", []string{"only on a: " + count + "1"}},
		{"another order", "0 5m, 1 5m, 2 5m, 3 5m", "0 5m, 2 5m, 1 5m, 3 5m", []string{"only on a: " + count + "1", "only on b: " + count + "1"}},
		{"a faster run", "0 1h, 1 1h", "0 1m, 2 25s, 1 10m", []string{"only on b: " + count + "2"}},
		{"a faster run, passing", "0 1h, 1 1h", "0 1m, 2 15s, 1 10m", nil},
	} {
		for _, turned := range []bool{false, true} {
			a, b, want := counted(t, "a", c.a), counted(t, "b", c.b), c.want
			if turned {
				a, b = b, a
			}
			var found []string
			for _, d := range compare.Histories(a, b) {
				found = append(found, d.String())
			}
			slices.Sort(found)
			if c.what == "another order" { // which of the two is left out doesn't matter
				if len(found) != 2 {
					t.Errorf("%s: %v", c.what, found)
				}
				continue
			}
			if diff := cmp.Diff(want, found); diff != "" {
				t.Errorf("%s, turned %v (-want +got):\n%s", c.what, turned, diff)
			}
		}
	}
}
