//go:build live

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/envtest"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// live returns a kind of real cluster.
func (f *runFlags) live(ctx context.Context, name string) (backend, error) {
	flags := *f
	if name == "kind" && flags.controllers == "bundled" {
		flags.controllers = "deployed"
	}
	controllers, err := flags.system(ctx)
	if err != nil {
		return nil, err
	}
	live.Quieten()
	if name == "kind" {
		return &onKind{speed: f.speed, system: controllers, keep: f.keep, retain: f.retain, out: os.Stderr}, nil
	}
	if controllers.deployed != nil {
		return nil, fmt.Errorf("--controllers %q: pods need a kubelet, which %s has not; add --cluster kind", f.controllers, name)
	}
	if err := builtPlane(ctx); err != nil {
		return nil, &brokenError{err}
	}
	return &onEnvtest{speed: f.speed, system: controllers, planes: map[int]*envtest.Plane{}}, nil
}

// builtPlane makes sure that there is a control plane to start. Where there is somebody to ask, it offers to build it.
func builtPlane(ctx context.Context) error {
	_, err := envtest.Binaries()
	build := filepath.Join("hack", "controlplane", "build")
	if !errors.Is(err, envtest.ErrNotBuilt) || !isTerminal(os.Stdin) || !isFile(build) {
		return err
	}
	fmt.Fprint(os.Stderr, "The control plane is not built on this machine. Build it now (about eight minutes)? [y/N] ")
	var answer string
	if _, scanErr := fmt.Fscanln(os.Stdin, &answer); scanErr != nil || !strings.HasPrefix(strings.ToLower(answer), "y") {
		return err
	}
	cmd := exec.CommandContext(ctx, build)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the control plane: %w", err)
	}
	return nil
}

// onEnvtest runs scenarios on control planes, one for each slot. They are kept from run to run.
type onEnvtest struct {
	system
	speed float64

	mu     sync.Mutex
	planes map[int]*envtest.Plane
}

// take returns a slot's control plane, which is nobody's then.
func (b *onEnvtest) take(ctx context.Context, slot int) (*envtest.Plane, error) {
	b.mu.Lock()
	plane := b.planes[slot]
	delete(b.planes, slot)
	b.mu.Unlock()
	if plane != nil {
		return plane, nil
	}
	o := b.plane
	if b.logs != "" {
		var err error
		if o.Logs, err = logsOf(b.logs, fmt.Sprintf("envtest-%d", slot)); err != nil {
			return nil, err
		}
	}
	return envtest.NewPlane(ctx, o)
}

func (b *onEnvtest) give(slot int, plane *envtest.Plane) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.planes[slot] = plane
}

func (b *onEnvtest) close() error {
	var errs []error
	for _, slot := range slices.Sorted(maps.Keys(b.planes)) {
		errs = append(errs, b.planes[slot].Stop())
	}
	return errors.Join(errs...)
}

func (*onEnvtest) name() string           { return envtest.Name }
func (*onEnvtest) capabilities() []string { return live.Capabilities }

// parallel: most of a run is waiting for pauses that controllers make, so that two can share a core.
func (*onEnvtest) parallel() int { return 2 * runtime.GOMAXPROCS(0) }

func (b *onEnvtest) run(ctx context.Context, slot int, s *scenario.Scenario, o run.Options, wall func() time.Duration) *report.Result {
	plane, err := b.take(ctx, slot)
	if err != nil {
		return report.NewResult(s, report.Errored, err)
	}
	done := func() error { return nil }
	result := run.On(ctx, func(t scenario.Topology, co cluster.Options) (c *cluster.Cluster, err error) {
		co.NoMachineConfigNodes = b.noMachineConfigNodes
		c, done, err = plane.Run(ctx, t, live.Options{Speed: b.speed, Program: b.program, MinimumBuild: b.minimum, Foundation: b.foundation}, co)
		return c, err
	}, s, o, wall)
	err = done()
	if err == nil && result.Verdict != report.Errored {
		b.give(slot, plane)
		return result
	}
	// A control plane that something went wrong with isn't used again.
	if stopErr := plane.Stop(); err == nil {
		err = stopErr
	}
	if err != nil && result.Err == nil {
		result.Verdict, result.Err = report.Errored, fmt.Errorf("after the run: %w", err)
	}
	return result
}
