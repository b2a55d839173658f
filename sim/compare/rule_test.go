package compare_test

import (
	"slices"
	"testing"

	"github.com/layersim/layersim/sim/compare"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/scenario"
)

func named(tb testing.TB, name string) *scenario.Scenario {
	tb.Helper()
	for _, s := range library(tb) {
		if s.Name == name {
			return s
		}
	}
	tb.Fatalf("there is no scenario %s", name)
	return nil
}

// moved is a history in which one record comes at the place of another one.
func moved(h *history.History, from, to int64) *history.History {
	records := slices.Clone(h.Records)
	record := records[from-1]
	records = slices.Delete(records, int(from-1), int(from))
	records = slices.Insert(records, int(to-1), record)
	for n := range records {
		records[n].Seq = int64(n) + 1
	}
	return &history.History{Header: h.Header, Records: records}
}

// Each rule finds an effect that comes before its cause, and each is at work in the library.
func TestRulesFindEffectsBeforeCauses(t *testing.T) {
	var histories []*history.History
	for _, name := range []string{"happy-path", "build-failure-three-retries", "paused-pool", "label-revert"} {
		histories = append(histories, reference(t, name))
	}
	for _, rule := range compare.Rules() {
		t.Run(rule.String(), func(t *testing.T) {
			tried := 0
			for _, h := range histories {
				for _, p := range compare.Pairs(h, rule) {
					tried++
					cause, effect := p[0].Seq, p[1].Seq
					found := compare.Histories(h, moved(h, effect, cause))
					found = append(found, compare.Histories(h, moved(h, cause, effect))...)
					if slices.ContainsFunc(found, func(d compare.Difference) bool { return d.Rule != nil && *d.Rule == rule }) {
						return
					}
				}
			}
			t.Errorf("nothing is found though %d causes and effects changed places", tried)
		})
	}
}
