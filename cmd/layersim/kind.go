//go:build live

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/kind"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// silentNodes lets nodes be silent for a day: the simulated ones have no kubelet that reports by wall time.
const silentNodes = `kind: ClusterConfiguration
controllerManager:
  extraArgs:
  - {name: node-monitor-grace-period, value: 24h}
  - {name: node-startup-grace-period, value: 24h}
`

// onKind runs scenarios on one cluster of kind, one after the other.
type onKind struct {
	system
	speed  float64
	keep   bool
	retain bool
	out    io.Writer

	mu      sync.Mutex
	cluster *kind.Cluster
	server  *live.Server
}

func (*onKind) name() string           { return "kind" }
func (*onKind) capabilities() []string { return live.Capabilities }
func (*onKind) parallel() int          { return 1 }

// up makes the cluster, or adopts the one that is there.
func (b *onKind) up(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return nil
	}
	var err error
	if b.cluster == nil {
		b.cluster, err = kind.Up(ctx, kind.Options{Patches: []string{silentNodes}, Retain: b.retain,
			Progress: func(step string) { fmt.Fprintln(b.out, "kind:", step) }})
		if err != nil {
			return err
		}
	}
	crds := b.plane.CRDs
	if crds == nil {
		if crds, err = fixtures.CRDs(); err != nil {
			return err
		}
	}
	if err := live.Define(ctx, b.cluster.Config, crds); err != nil {
		return err
	}
	server, err := live.NewServer(b.cluster.Config)
	if err != nil {
		return err
	}
	if err := server.Settle(ctx, slices.Concat(cluster.Namespaces, b.plane.Namespaces)); err != nil {
		return errors.Join(err, server.Close())
	}
	b.server = server
	return nil
}

func (b *onKind) run(ctx context.Context, _ int, s *scenario.Scenario, o run.Options, wall func() time.Duration) *report.Result {
	errored := func(err error) *report.Result {
		return &report.Result{Name: s.Name, File: s.Pos.File, Scenario: s, Verdict: report.Errored, Failures: []report.Failure{}, Err: err}
	}
	if err := b.up(ctx); err != nil {
		return errored(err)
	}
	done := func() error { return nil }
	result := run.On(ctx, func(t scenario.Topology, co cluster.Options) (c *cluster.Cluster, err error) {
		co.RevertReboots = b.reverts
		c, done, err = b.server.Run(ctx, t, live.Options{Name: b.name(), Speed: b.speed, Program: b.program, MinimumBuild: b.minimum,
			Foundation: b.foundation, Logs: b.logs}, co)
		return c, err
	}, s, o, wall)
	if err := done(); err != nil && result.Err == nil {
		result.Verdict, result.Err = report.Errored, fmt.Errorf("after the run: %w", err)
	}
	return result
}

func (b *onKind) close() error {
	var errs []error
	if b.server != nil {
		errs = append(errs, b.server.Close())
	}
	if b.cluster != nil && !b.keep && !b.cluster.Adopted {
		errs = append(errs, kind.Down(context.Background(), b.cluster.Name, nil))
	}
	return errors.Join(errs...)
}

// liveCommands are those that only the program with the real clusters has.
func liveCommands() []*cobra.Command {
	var archives []string
	var retain bool
	up := &cobra.Command{
		Use: "up", Short: upShort, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := kind.Up(cmd.Context(), kind.Options{Patches: []string{silentNodes}, Retain: retain, Archives: archives,
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
			err := kind.Down(cmd.Context(), kind.DefaultName, func(removed string) { fmt.Fprintln(cmd.OutOrStdout(), "removed", removed) })
			if err != nil {
				return &brokenError{err}
			}
			return nil
		},
	}
	return []*cobra.Command{up, down}
}
