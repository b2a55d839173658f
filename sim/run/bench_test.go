package run_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// rollout is a scenario that builds an image and rolls it out to that many nodes, a tenth of them at a time.
func rollout(tb testing.TB, nodes int) *scenario.Scenario {
	tb.Helper()
	text := fmt.Sprintf(`
kind: Scenario
name: rollout-%d
area: bench
shows: an image is built and rolled out to %d nodes
cluster:
  like: two-pools
  pools: {layered: {maxUnavailable: 10%%}}
  nodes: {layered: {count: %d, roles: [worker, layered]}}
steps:
  - ask for an image:
      apply: fixtures/layered.yaml
      within: 24h
      in order:
        - machineosbuild layered-*: {condition: Succeeded}
        - machineconfigpool layered: {condition: Updated, updated: %d}
`, nodes, nodes, nodes, nodes)
	list, err := scenario.Parse("../../scenarios/rollout.yaml", []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return list[0]
}

func benchmarkRollout(b *testing.B, nodes int) {
	s := rollout(b, nodes)
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		r := run.Scenario(b.Context(), s, run.Options{Seed: 1}, nil)
		wall := time.Since(start).Seconds()
		runtime.GC()
		runtime.ReadMemStats(&after)
		if r.Verdict != report.Passed {
			b.Fatalf("%s: %v %+v", r.Verdict, r.Err, r.Failures)
		}
		b.ReportMetric(r.VirtualSeconds/wall, "virtual-s/s")
		b.ReportMetric(float64(r.Reconciles)/wall, "reconciles/s")
		b.ReportMetric(float64(r.Revisions)/wall, "revisions/s")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		b.ReportMetric(float64(len(r.History.Records)), "records")
		runtime.KeepAlive(r)
	}
}

func BenchmarkRollout100(b *testing.B)  { benchmarkRollout(b, 100) }
func BenchmarkRollout1000(b *testing.B) { benchmarkRollout(b, 1000) }

// The happy path and the five mission scenarios, one after the other, each on a cluster of its own.
func BenchmarkMission(b *testing.B) {
	names := []string{"happy-path", "build-failure-three-retries", "secret-rotation/push-mid-rollout", "paused-pool", "machine-set-scale-up", "label-revert"}
	for b.Loop() {
		var virtual float64
		for _, name := range names {
			r := run.Scenario(b.Context(), named(b, name), run.Options{Seed: 1}, nil)
			if r.Verdict != report.Passed {
				b.Fatalf("%s: %s: %v %+v", name, r.Verdict, r.Err, r.Failures)
			}
			virtual += r.VirtualSeconds
		}
		b.ReportMetric(virtual, "virtual-s")
	}
}
