package live

import (
	"context"
	"errors"
	"fmt"
	"os"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/scenario"
)

// Foundation creates what the controllers of another release than the bundled one need before there are pools and nodes.
type Foundation func(ctx context.Context, admin client.Client, f Facts) error

// Facts are what a foundation has to know of a cluster.
type Facts struct {
	// BaseImage is the pull spec of the operating system's image, by digest.
	BaseImage string
	// Trust is the registry's certificate authority, in PEM form.
	Trust []byte
}

// Run makes a cluster on the server. The run is over when done is called, which removes whatever it left; that has to be
// done in any case. Server, Seed and Scratch of the engine's options are set here.
func (s *Server) Run(ctx context.Context, t scenario.Topology, lo Options, o cluster.Options) (c *cluster.Cluster, done func() error, err error) {
	done = func() error { return nil }
	lo.Server, lo.Seed = s, o.Seed
	if lo.Scratch, err = os.MkdirTemp(lo.Files, "run-"); err != nil {
		return nil, done, fmt.Errorf("make a directory for the run: %w", err)
	}
	if lo.Logs == "" {
		lo.Logs = lo.Scratch
	}
	e, err := New(ctx, lo)
	if err != nil {
		return nil, done, errors.Join(err, os.RemoveAll(lo.Scratch))
	}
	o.Kube, o.Durations = true, e.Durations()
	if lo.Registry != nil {
		o.Registry = e.openRegistry
	}
	if lo.Nodes != nil {
		o.Fleet = e.openNodes
	}
	if lo.BuildImage != "" {
		o.Builds = e.buildPods
	}
	if lo.Foundation != nil {
		o.Foundation = func(admin client.Client, baseImage string) error {
			return lo.Foundation(ctx, admin, Facts{BaseImage: baseImage, Trust: e.authority()})
		}
	}
	if c, err = cluster.Assemble(t, e, o); err != nil {
		e.drain()
	}
	return c, func() error {
		// Also after a run that was interrupted: the cluster may be kept.
		return errors.Join(e.Close(), os.RemoveAll(lo.Scratch), s.Reset(context.WithoutCancel(ctx), lo.KeepNodes, lo.Outage))
	}, err
}
