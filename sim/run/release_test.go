package run_test

import (
	"strings"
	"testing"

	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// What holds for other releases is not expected, and a scenario that holds for others is skipped.
func TestRelease(t *testing.T) {
	never := scenario.Expectation{Text: "node nobody", Span: scenario.Span{Since: "4.20", Until: "4.21"},
		Object: &scenario.ObjectExpectation{Ref: scenario.Ref{Kind: "Node", Name: "nobody"}}}
	for _, test := range []struct{ release, verdict, why string }{
		{"", report.Passed, ""},
		{"4.19", report.Passed, ""},
		{"4.21", report.Failed, ""},
		{"4.18", report.Skipped, "it holds since 4.19, and this is 4.18"},
		{"4.2", report.Errored, `release "4.2" is none of 4.18,`},
	} {
		s := named(t, "happy-path")
		s.Since = "4.19"
		last := &s.Steps[len(s.Steps)-1]
		last.Settles = append(last.Settles, never)
		r := run.Scenario(t.Context(), s, run.Options{Seed: 1, Release: test.release}, nil)
		why := ""
		if r.Err != nil {
			why = r.Err.Error()
		}
		if r.Verdict != test.verdict || !strings.HasPrefix(why, test.why) || test.why == "" && why != "" {
			t.Errorf("release %q: %s: %s %+v", test.release, r.Verdict, why, r.Failures)
		}
		if test.verdict == report.Passed && len(r.Scenario.Steps[len(s.Steps)-1].Settles) != len(last.Settles)-1 {
			t.Errorf("release %q: the report speaks of what was not expected", test.release)
		}
	}
}
