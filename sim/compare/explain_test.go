package compare_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layersim/layersim/sim/compare"
)

const file = `
- scenario: paused-*
  cluster: envtest
  difference: 'only on envtest: job of *-H1, end: Failed'
  reason: a test's
- scenario: happy-path
  cluster: kind
  difference: '*'
  reason: never used
- scenario: gone
  cluster: envtest
  difference: '*'
  reason: its scenario was removed
`

func difference(subject, text string) compare.Difference {
	return compare.Difference{Kind: compare.OnlyB, Milestone: compare.Milestone{Subject: subject, Track: "end", Text: text},
		A: compare.Side{Run: "sim"}, B: compare.Side{Run: "envtest"}}
}

func TestExplain(t *testing.T) {
	e, err := compare.ParseExplanations([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	library := []string{"happy-path", "paused-pool", "paused-pool-newest"}
	stale := func() (list []string) {
		for _, s := range e.Stale(library) {
			list = append(list, s.Scenario)
		}
		return list
	}
	envtest := [2]string{"sim", "envtest"}
	explained, other := difference("job of layered-H1", "Failed"), difference("job of layered-H2", "Failed")
	if left := e.Explain([]compare.Difference{explained}, "happy-path", envtest); len(left) != 1 {
		t.Errorf("an entry for another scenario explains: %v is left", left)
	}
	if left := e.Explain([]compare.Difference{explained}, "paused-pool", [2]string{"sim", "kind"}); len(left) != 1 {
		t.Errorf("an entry for another cluster explains: %v is left", left)
	}
	if diff := cmp.Diff([]string{"gone"}, stale()); diff != "" {
		t.Errorf("stale before all was compared (-want +got):\n%s", diff)
	}
	e.Explain(nil, "paused-pool", envtest)
	e.Explain(nil, "paused-pool-newest", envtest)
	if diff := cmp.Diff([]string{"paused-*", "gone"}, stale()); diff != "" {
		t.Errorf("stale when nothing was explained (-want +got):\n%s", diff)
	}
	left := e.Explain([]compare.Difference{explained, other}, "paused-pool", envtest)
	if len(left) != 1 || left[0].Milestone != other.Milestone {
		t.Errorf("left: %v", left)
	}
	if diff := cmp.Diff([]string{"gone"}, stale()); diff != "" {
		t.Errorf("stale after use (-want +got):\n%s", diff)
	}
}

func TestParseExplanationsFindsMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"- {scenario: a, cluster: b, difference: c}":                                                                       "entry 1 (scenario \"a\", cluster \"b\", difference \"c\"): reason is missing",
		"- {scenario: a, cluster: b, difference: c, reason: d, why: e}":                                                    "unknown field",
		"- {scenario: a, cluster: b, difference: c, reason: d}\n- {scenario: a, cluster: b, difference: c, reason: other}": "entry 2 (scenario \"a\", cluster \"b\", difference \"c\"): it is there twice",
	} {
		if _, err := compare.ParseExplanations([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	if _, err := compare.Explained(); err != nil {
		t.Error(err)
	}
}
