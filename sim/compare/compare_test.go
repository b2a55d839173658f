package compare_test

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layersim/layersim/sim/compare"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/world"
)

func library(tb testing.TB) []*scenario.Scenario {
	tb.Helper()
	list, err := scenario.Load([]string{"../../scenarios"})
	if err != nil {
		tb.Fatal(err)
	}
	return list
}

func attempt(tb testing.TB, s *scenario.Scenario, o run.Options) (*history.History, []report.Failure) {
	tb.Helper()
	r := run.Scenario(tb.Context(), s, o, nil)
	if r.Err != nil {
		tb.Fatal(r.Err)
	}
	return r.History, r.Failures
}

func perform(tb testing.TB, s *scenario.Scenario, o run.Options) *history.History {
	tb.Helper()
	h, failures := attempt(tb, s, o)
	if o.Break == nil && len(failures) > 0 {
		tb.Fatalf("%s, seed %d: %+v", s.Name, o.Seed, failures)
	}
	return h
}

var references = struct {
	sync.Mutex
	by map[string]*history.History
}{by: map[string]*history.History{}}

// reference is the history of a scenario with seed 1.
func reference(tb testing.TB, name string) *history.History {
	tb.Helper()
	references.Lock()
	defer references.Unlock()
	h, ok := references.by[name]
	if !ok {
		h = perform(tb, named(tb, name), run.Options{Seed: 1})
		references.by[name] = h
	}
	return h
}

func printed(tb testing.TB, list []compare.Difference) string {
	tb.Helper()
	var text strings.Builder
	if err := compare.Text(&text, list); err != nil {
		tb.Fatal(err)
	}
	return text.String()
}

// whole says whether to compare each scenario under many schedules, which takes minutes.
var whole = os.Getenv("LAYERSIM_COMPARE_ALL") != ""

// Runs of one scenario that differ in nothing but the schedule have no differences.
func TestSchedulesAreAlike(t *testing.T) {
	sample := []string{"happy-path", "paused-pool-newest", "label-revert", "machine-set-scale-up", "secret-name/push-mid-build"}
	seeds, lags := uint64(1), []world.Lag{{}, {OneIn: 3, Most: 2 * time.Second}}
	if whole {
		seeds, lags = 4, append(lags, world.Lag{OneIn: 2, Most: 10 * time.Second})
	}
	for _, s := range library(t) {
		named := whole
		for _, name := range sample {
			named = named || name == s.Name
		}
		if !named {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			s := *s
			s.Seed = 0
			first := reference(t, s.Name)
			for seed := range seeds {
				for _, lag := range lags {
					other, failures := attempt(t, &s, run.Options{Seed: seed + 2, Lag: lag})
					if len(failures) > 0 {
						if lag == (world.Lag{}) { // some scenarios forbid what caches that lag more lead to
							t.Errorf("seed %d, lag %s one in %d: %+v", seed+2, lag.Most, lag.OneIn, failures)
						}
						continue
					}
					if found := compare.Histories(first, other); len(found) > 0 {
						t.Errorf("seed %d, lag %s one in %d: %d differences\n%s", seed+2, lag.Most, lag.OneIn, len(found), printed(t, found))
					}
				}
			}
		})
	}
}
