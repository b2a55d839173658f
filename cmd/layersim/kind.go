//go:build live

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	gateway string
	server  *live.Server
	// deployment is how the controllers run in the cluster; nil if they don't.
	deployment *live.Deployment
	temporary  string // folder for logs that nobody wants
}

func (*onKind) name() string           { return "kind" }
func (*onKind) capabilities() []string { return live.Capabilities }
func (*onKind) parallel() int          { return 1 }

// agentTag is the image of the pods that layersim runs in the cluster.
const agentTag = "layersim.io/agent:dev"

// agentImage writes the image to an archive, which done removes.
func agentImage() (archive string, done func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, fmt.Errorf("find the agent: %w", err)
	}
	agent := filepath.Join(filepath.Dir(self), "layersim-agent")
	if _, err := os.Stat(agent); err != nil {
		return "", nil, fmt.Errorf("%w: `make live` builds it", err)
	}
	dir, err := os.MkdirTemp("", "layersim-image-")
	if err != nil {
		return "", nil, err
	}
	archive = filepath.Join(dir, "agent.tar")
	if err := kind.WriteImage(archive, kind.Image{Tag: agentTag, Files: map[string]string{"/bin/bash": agent}}); err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return archive, func() error { return os.RemoveAll(dir) }, nil
}

// up makes the cluster, or adopts the one that is there.
func (b *onKind) up(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return nil
	}
	var err error
	if b.cluster == nil {
		archive, done, err := agentImage()
		if err != nil {
			return err
		}
		b.cluster, err = kind.Up(ctx, kind.Options{Patches: []string{silentNodes}, Retain: b.retain, Archives: []string{archive},
			Progress: func(step string) { fmt.Fprintln(b.out, "kind:", step) }})
		if err := errors.Join(err, done()); err != nil {
			return err
		}
	}
	if b.gateway, err = b.cluster.Gateway(ctx); err != nil {
		return err
	}
	if b.deployed != nil {
		if b.deployment, err = b.deployed.load(ctx, b.cluster); err != nil {
			return err
		}
	}
	if b.logs == "" {
		if b.temporary, err = os.MkdirTemp("", "layersim-logs-"); err != nil {
			return err
		}
		b.logs = b.temporary
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
	if err := b.up(ctx); err != nil {
		return report.NewResult(s, report.Errored, err)
	}
	logs, err := logsOf(b.logs, s.Name)
	if err != nil {
		return report.NewResult(s, report.Errored, err)
	}
	done := func() error { return nil }
	result := run.On(ctx, func(t scenario.Topology, co cluster.Options) (c *cluster.Cluster, err error) {
		co.NoMachineConfigNodes = b.noMachineConfigNodes
		lo := live.Options{Name: b.name(), Speed: b.speed, Program: b.program, MinimumBuild: b.minimum, Foundation: b.foundation,
			Logs: logs, Deployment: b.deployment}
		if b.deployment != nil {
			lo.Address = b.gateway
		}
		if b.foundation == nil { // the bundled controllers' build pods are real ones
			lo.BuildImage, lo.BuildNodes, lo.Address = agentTag, kind.World, b.gateway
		}
		c, done, err = b.server.Run(ctx, t, lo, co)
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
	if b.temporary != "" {
		errs = append(errs, os.RemoveAll(b.temporary))
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
