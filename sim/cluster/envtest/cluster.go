package envtest

import (
	"cmp"
	"context"
	"errors"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/rest"

	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/scenario"
)

// Name is the name of this kind of cluster.
const Name = "envtest"

// workloads are the controllers that let drained workloads come back.
var workloads = []string{"deployment-controller", "replicaset-controller", "ttl-after-finished-controller"}

// Plane is a control plane on which scenarios are run, one after the other.
type Plane struct {
	control *ControlPlane
	server  *live.Server
}

// PlaneOptions say what is on a control plane for runs.
type PlaneOptions struct {
	// CRDs are layering's kinds; by default the bundled controllers'.
	CRDs []*apiextensionsv1.CustomResourceDefinition
	// Namespaces are there beside those of all clusters.
	Namespaces []string
	// Logs is a directory for the output of all processes; by default it is removed with the control plane.
	Logs string
}

// NewPlane starts a control plane with the controllers of Kubernetes and with layering's kinds and namespaces.
func NewPlane(ctx context.Context, o PlaneOptions) (*Plane, error) {
	var err error
	if o.CRDs == nil {
		if o.CRDs, err = fixtures.CRDs(); err != nil {
			return nil, err
		}
	}
	p := &Plane{}
	p.control, err = Start(ctx, Options{
		CRDs: o.CRDs, Controllers: slices.Concat(Controllers, workloads), Scheduler: true, Logs: o.Logs,
		Through: func(admin *rest.Config, program string) ([]byte, error) {
			if p.server == nil {
				var err error
				if p.server, err = live.NewServer(admin); err != nil {
					return nil, err
				}
			}
			return p.server.Kubeconfig(program), nil
		},
	})
	if err == nil {
		ctx, cancel := p.control.within(ctx)
		defer cancel()
		err = p.server.Settle(ctx, slices.Concat(cluster.Namespaces, o.Namespaces))
		// Whatever else goes wrong comes of a death.
		err = cmp.Or(p.Err(), err)
	}
	if err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// Run makes a cluster on the control plane; see [live.Server.Run]. When the control plane dies the cluster is broken, and
// done says why.
func (p *Plane) Run(ctx context.Context, t scenario.Topology, lo live.Options, o cluster.Options) (c *cluster.Cluster, done func() error, err error) {
	ctx, cancel := p.control.within(ctx)
	lo.Name, lo.Logs, lo.Files = Name, p.control.logs, p.control.dir
	c, over, err := p.server.Run(ctx, t, lo, o)
	// Whatever else goes wrong comes of it.
	died := func(err error) error { return cmp.Or(p.Err(), err) }
	return c, func() error {
		defer cancel()
		return died(over())
	}, died(err)
}

// Err is why the control plane died, see [ControlPlane.Err]; nil for one that lives, or was stopped.
func (p *Plane) Err() error { return p.control.Err() }

// Stop ends the control plane.
func (p *Plane) Stop() error {
	var errs []error
	if p.server != nil {
		errs = append(errs, p.server.Close())
	}
	if p.control != nil {
		errs = append(errs, p.control.Stop())
	}
	return errors.Join(errs...)
}
