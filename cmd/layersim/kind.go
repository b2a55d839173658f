//go:build live

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/kind"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// onKind runs scenarios on clusters of kind, one for each slot. They are kept from run to run.
type onKind struct {
	system
	speed        float64
	keep, retain bool
	out          io.Writer

	mu     sync.Mutex
	planes map[int]*kind.Plane
}

func (*onKind) name() string           { return kind.Name }
func (*onKind) capabilities() []string { return kind.Capabilities }
func (*onKind) parallel() int          { return 1 }
func (*onKind) lasting(int) []string   { return nil } // pods write no files here, and other programs end with the run

// take returns a slot's cluster.
func (b *onKind) take(ctx context.Context, slot int, logs string) (*kind.Plane, error) {
	b.mu.Lock()
	plane := b.planes[slot]
	if plane != nil && !plane.Spoilt() {
		b.mu.Unlock()
		return plane, nil
	}
	delete(b.planes, slot)
	b.mu.Unlock()
	if plane != nil {
		if err := plane.Stop(); err != nil {
			return nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the agent: %w", err)
	}
	name := kind.ClusterName(slot)
	plane, err = kind.NewPlane(ctx, kind.PlaneOptions{
		Cluster: name, Programs: filepath.Dir(self), Deployed: b.deployed, CRDs: b.plane.CRDs, Namespaces: b.plane.Namespaces,
		Logs: logs, Keep: b.keep, Retain: b.retain, Progress: func(step string) { fmt.Fprintf(b.out, "%s: %s\n", name, step) },
	})
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.planes[slot] = plane
	return plane, nil
}

func (b *onKind) run(ctx context.Context, slot int, s *scenario.Scenario, o run.Options, wall func() time.Duration) *report.Result {
	lo := live.Options{Speed: b.speed, Program: b.program, MinimumBuild: b.minimum, Foundation: b.foundation}
	if b.artifacts != "" {
		lo.Logs = logsOf(b.artifacts, kind.Name, slot)
		if err := os.MkdirAll(lo.Logs, 0o755); err != nil {
			return report.NewResult(s, report.Errored, err)
		}
	}
	plane, err := b.take(ctx, slot, lo.Logs)
	if err != nil {
		return report.NewResult(s, report.Errored, err)
	}
	done := func() error { return nil }
	result := run.On(ctx, func(t scenario.Topology, co cluster.Options) (c *cluster.Cluster, err error) {
		co.NoMachineConfigNodes = b.noMachineConfigNodes
		c, done, err = plane.Run(ctx, t, lo, co)
		return c, err
	}, s, o, wall)
	b.judge(result, o.Release)
	if err := done(); err != nil && result.Err == nil {
		result.Verdict, result.Err = report.Errored, fmt.Errorf("after the run: %w", err)
	}
	return result
}

// collect leaves out a cluster that could not be made, whose logs were collected before it was removed.
func (b *onKind) collect(slot int) error {
	b.mu.Lock()
	plane := b.planes[slot]
	b.mu.Unlock()
	if plane == nil {
		return nil
	}
	return plane.Collect()
}

func (b *onKind) close() error {
	var wait sync.WaitGroup
	errs := make([]error, len(b.planes))
	for n, slot := range slices.Sorted(maps.Keys(b.planes)) {
		wait.Go(func() { errs[n] = b.planes[slot].Stop() })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// liveCommands are those that only the program with the real clusters has.
func liveCommands() []*cobra.Command {
	var archives []string
	var retain bool
	up := &cobra.Command{
		Use: "up", Short: upShort, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := kind.Up(cmd.Context(), kind.Options{Retain: retain, Archives: archives,
				Progress: func(step string) { fmt.Fprintln(cmd.ErrOrStderr(), "kind:", step) }})
			if err != nil {
				return &brokenError{err}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cluster %s is up: export KUBECONFIG=%s\n", c.Name, c.KubeConfig)
			return nil
		},
	}
	up.Flags().BoolVar(&retain, "retain", false, "keep a cluster that could not be created")
	up.Flags().StringSliceVar(&archives, "load", nil, "container images to load, as `ARCHIVE`s")
	down := &cobra.Command{
		Use: "down", Short: downShort, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := kind.Numbered()
			if err != nil {
				return &brokenError{err}
			}
			var errs []error
			for _, name := range names {
				errs = append(errs, kind.Down(cmd.Context(), name, func(removed string) { fmt.Fprintln(cmd.OutOrStdout(), removed) }))
			}
			if err := errors.Join(errs...); err != nil {
				return &brokenError{err}
			}
			return nil
		},
	}
	return []*cobra.Command{up, down, debugCommand()}
}
