package run_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/world"
)

// With caches that lag by up to half a minute, whatever the controllers decide from them, no invariant may break, and a
// rollout still ends.
func TestInvariantsHoldUnderLag(t *testing.T) {
	for seed := range uint64(12) {
		for name, steps := range map[string]string{"roll out": rollOut, "edit": askAndEdit, "remove": removeAgain} {
			t.Run(fmt.Sprintf("%s %d", name, seed), func(t *testing.T) {
				t.Parallel()
				r := run.Scenario(t.Context(), base(t, steps), run.Options{Seed: seed, Lag: world.Lag{OneIn: 2, Most: 30 * time.Second}}, nil)
				if r.Verdict != report.Passed {
					t.Errorf("%s: %v %+v", r.Verdict, r.Err, r.Failures)
				}
			})
		}
	}
}
