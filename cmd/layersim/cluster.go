package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/world"
)

// backend is a kind of cluster that scenarios are run on.
type backend interface {
	name() string
	capabilities() []string
	// parallel is how many scenarios run side by side unless it is said otherwise.
	parallel() int
	// run runs a scenario. A slot is one of those that run side by side, counted from 0; what a slot needs is made when it
	// is first used.
	run(ctx context.Context, slot int, s *scenario.Scenario, o run.Options, wall func() time.Duration) *report.Result
	// lasting are the files, in the folder for logs of a slot, of programs that outlive runs.
	lasting(slot int) []string
	// collect adds to that folder, after a run, what programs have said and don't write there by themselves.
	collect(slot int) error
	// close ends whatever was made, after all runs.
	close() error
}

// simulated is the default: in memory, in virtual time.
type simulated struct{}

func (simulated) name() string           { return "sim" }
func (simulated) capabilities() []string { return cluster.Capabilities }
func (simulated) parallel() int          { return runtime.GOMAXPROCS(0) }
func (simulated) lasting(int) []string   { return nil }
func (simulated) collect(int) error      { return nil }
func (simulated) close() error           { return nil }

func (simulated) run(ctx context.Context, _ int, s *scenario.Scenario, o run.Options, wall func() time.Duration) *report.Result {
	return run.On(ctx, run.Simulated(world.Lag{}), s, o, wall)
}

// realClusters are the kinds that take part in the program when it is built with the tag live.
var realClusters = []string{"envtest", "kind"}

// The commands for a cluster of kind by itself.
const (
	upShort    = "Make a cluster of kind, for run --cluster kind and for a look around"
	downShort  = "Remove the cluster of kind that layersim made, and all that belongs to it"
	debugUse   = "debug node/NAME -- COMMAND..."
	debugShort = "Run rpm-ostree status, rpm -qa or cat on a node of a cluster of kind"
)

// backends returns what --cluster names.
func (f *runFlags) backends(ctx context.Context) ([]backend, error) {
	var list []backend
	for _, name := range strings.Split(f.cluster, ",") {
		if slices.ContainsFunc(list, func(b backend) bool { return b.name() == name }) {
			return nil, fmt.Errorf("--cluster %q names %s twice", f.cluster, name)
		}
		switch {
		case name == "sim":
			list = append(list, simulated{})
		case slices.Contains(realClusters, name):
			b, err := f.live(ctx, name)
			if err != nil {
				return nil, err
			}
			list = append(list, b)
		default:
			return nil, fmt.Errorf("--cluster %q is not a cluster: sim, %s, or several with commas between", name, strings.Join(realClusters, ", "))
		}
	}
	if f.compare && len(list) < 2 {
		return nil, fmt.Errorf("--compare needs two clusters, e.g. --cluster sim,envtest")
	}
	return list, nil
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}
