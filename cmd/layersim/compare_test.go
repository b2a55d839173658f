package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// short is a cluster whose histories lack all that comes after their first records, because a run was interrupted or because
// less happened there.
type short struct {
	simulated
	interrupted bool
}

func (short) name() string { return "short" }

func (b short) run(ctx context.Context, slot int, s *scenario.Scenario, o run.Options, wall func() time.Duration) *report.Result {
	result := b.simulated.run(ctx, slot, s, o, wall)
	result.History.Records = result.History.Records[:2]
	if b.interrupted {
		result.Verdict, result.Err = report.Errored, errors.New("interrupted")
	}
	return result
}

// What an interrupted run didn't come to is no difference.
func TestCompareInterrupted(t *testing.T) {
	for _, interrupted := range []bool{false, true} {
		compared, err := newComparison()
		if err != nil {
			t.Fatal(err)
		}
		f := &runFlags{seed: 1, shown: newProgress(io.Discard)}
		results, err := f.one(t.Context(), []backend{simulated{}, short{interrupted: interrupted}}, 0, pausing(t, "first"), false,
			compared, func() time.Duration { return 0 })
		if err != nil {
			t.Fatal(err)
		}
		want := report.Failed
		if interrupted {
			want = report.Errored
		}
		if got := results[1]; got.Verdict != want || (len(got.Failures) > 0) == interrupted || (got.Comparison != "") == interrupted {
			t.Errorf("interrupted: %t: verdict %s with failures %v, want %s", interrupted, got.Verdict, got.Failures, want)
		}
	}
}
