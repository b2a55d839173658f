//go:build likeness

package envtest_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/envtest"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

func TestTry(t *testing.T) {
	p, err := envtest.NewPlane(t.Context(), envtest.PlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	start := time.Now()
	list, err := scenario.Load([]string{os.Getenv("SCENARIO")})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		var done func() error
		made := func(topology scenario.Topology, o cluster.Options) (c *cluster.Cluster, err error) {
			c, done, err = p.Run(context.Background(), topology, live.Options{}, nil, o)
			return
		}
		result := run.On(t.Context(), made, s, run.Options{Seed: 1}, func() time.Duration { return time.Since(start) })
		report.Text(os.Stdout, &report.Suite{Cluster: "envtest", Scenarios: []*report.Result{result}}, report.TextOptions{Verbose: os.Getenv("V") != ""})
		if result.Err != nil {
			t.Error(result.Err)
		}
		if result.History != nil {
			f, _ := os.Create("/tmp/real/" + s.Name + ".jsonl")
			history.Write(f, result.History)
			f.Close()
		}
		b := time.Now()
		if err := done(); err != nil {
			t.Error(err)
		}
		t.Log("reset", time.Since(b))
	}
}
