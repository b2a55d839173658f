//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/envtest"
	"github.com/layersim/layersim/sim/cluster/kind"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/world"
)

// backend is a kind of cluster that scenarios are run on, one after the other.
type backend interface {
	capabilities() []string
	// ready says what is missing on this machine.
	ready() error
	// run makes the cluster of one run. Done ends it, and has to be called in any case. What it needs is made when it is
	// first called, and again after stop.
	run(context.Context, scenario.Topology, cluster.Options) (c *cluster.Cluster, done func() error, err error)
	// collect adds to the folder logs, after a run, what programs have said and don't write there by themselves.
	collect() error
	// stop ends whatever was made.
	stop() error
}

// clusters are what -cluster may name.
var clusters = []string{envtest.Name, kind.Name, "sim"}

// newBackend returns the backend of a name. Its programs write what they say into the folder logs, each a file. It tells what
// it waits for.
func newBackend(name string, speed float64, logs string, tell func(string)) (backend, error) {
	switch {
	case speed <= 0:
		return nil, fmt.Errorf("-speed %v must be more than 0", speed)
	case !slices.Contains(clusters, name):
		return nil, fmt.Errorf("-cluster %q is not a cluster: %s", name, strings.Join(clusters, ", "))
	case name == envtest.Name:
		live.Quieten()
		return &onEnvtest{speed: speed, logs: logs}, nil
	case name == kind.Name:
		live.Quieten()
		return &onKind{speed: speed, logs: logs, tell: tell}, nil
	}
	return simulated{}, nil
}

// onEnvtest has a control plane that is kept from run to run.
type onEnvtest struct {
	speed float64
	logs  string
	plane *envtest.Plane
}

func (b *onEnvtest) capabilities() []string { return live.Capabilities }

func (b *onEnvtest) ready() error {
	_, err := envtest.Binaries()
	return err
}

func (b *onEnvtest) run(ctx context.Context, t scenario.Topology, o cluster.Options) (*cluster.Cluster, func() error, error) {
	if b.plane == nil {
		start := time.Now()
		var err error
		if b.plane, err = envtest.NewPlane(ctx, envtest.PlaneOptions{Logs: b.logs}); err != nil {
			return nil, func() error { return nil }, err
		}
		GinkgoWriter.Printf("the control plane was ready after %s\n", time.Since(start).Round(100*time.Millisecond))
	}
	return b.plane.Run(ctx, t, live.Options{Speed: b.speed}, o)
}

func (*onEnvtest) collect() error { return nil }

func (b *onEnvtest) stop() error {
	if b.plane == nil {
		return nil
	}
	err := b.plane.Stop()
	b.plane = nil
	return err
}

// onKind has a cluster in containers that is kept from run to run, with the controllers and the build pods in it.
type onKind struct {
	speed float64
	logs  string
	tell  func(string)
	plane *kind.Plane
}

func (b *onKind) capabilities() []string { return kind.Capabilities }

// What else is missing is said by whoever makes the first cluster.
func (b *onKind) ready() error {
	suite, _ := GinkgoConfiguration()
	return kind.Room(suite.ParallelTotal)
}

func (b *onKind) run(ctx context.Context, t scenario.Topology, o cluster.Options) (*cluster.Cluster, func() error, error) {
	nothing := func() error { return nil }
	if err := os.MkdirAll(b.logs, 0o755); err != nil {
		return nil, nothing, err
	}
	if b.plane == nil {
		start := time.Now()
		programs, name := filepath.Join(root, "bin"), kind.ClusterName(GinkgoParallelProcess()-1)
		var err error
		b.plane, err = kind.NewPlane(ctx, kind.PlaneOptions{Cluster: name, Programs: programs, Deployed: programs, Logs: b.logs,
			Progress: func(step string) {
				GinkgoWriter.Println(step)
				b.tell(name + ": " + step)
			}})
		if err != nil {
			return nil, nothing, err
		}
		GinkgoWriter.Printf("the cluster was ready after %s\n", time.Since(start).Round(100*time.Millisecond))
	}
	return b.plane.Run(ctx, t, live.Options{Speed: b.speed, Logs: b.logs}, o)
}

// collect leaves out a cluster that could not be made, whose logs were collected before it was removed.
func (b *onKind) collect() error {
	if b.plane == nil {
		return nil
	}
	return b.plane.Collect()
}

func (b *onKind) stop() error {
	if b.plane == nil {
		return nil
	}
	err := b.plane.Stop()
	b.plane = nil
	return err
}

// simulated clusters have nothing that is kept.
type simulated struct{}

func (simulated) capabilities() []string { return cluster.Capabilities }
func (simulated) ready() error           { return nil }
func (simulated) collect() error         { return nil }
func (simulated) stop() error            { return nil }

func (simulated) run(_ context.Context, t scenario.Topology, o cluster.Options) (*cluster.Cluster, func() error, error) {
	c, err := run.Simulated(world.Lag{})(t, o)
	return c, func() error { return nil }, err
}
