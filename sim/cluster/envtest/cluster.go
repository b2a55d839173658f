package envtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

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
		err = p.settle(ctx, slices.Concat(cluster.Namespaces, o.Namespaces))
	}
	if err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// settle makes what all runs have in common.
func (p *Plane) settle(ctx context.Context, namespaces []string) error {
	c, err := client.New(p.control.Config, client.Options{})
	if err != nil {
		return err
	}
	for _, name := range namespaces {
		n := &corev1.Namespace{}
		n.Name = name
		if err := c.Create(ctx, n); client.IgnoreAlreadyExists(err) != nil {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
		// A pod of a namespace without it would be refused.
		if err := exists(ctx, c, types.NamespacedName{Namespace: name, Name: "default"}, &corev1.ServiceAccount{}); err != nil {
			return err
		}
	}
	return p.server.Mark(ctx)
}

// Foundation creates what the controllers of another release than the bundled one need.
type Foundation func(ctx context.Context, admin client.Client, f Facts) error

// Facts are what a foundation has to know of a cluster.
type Facts struct {
	// BaseImage is the pull spec of the operating system's image, by digest.
	BaseImage string
	// Trust is the registry's certificate authority, in PEM form.
	Trust []byte
}

// Run makes a cluster on the control plane. The run is over when done is called, which removes whatever it left; that has
// to be done in any case.
func (p *Plane) Run(ctx context.Context, t scenario.Topology, lo live.Options, foundation Foundation, o cluster.Options) (c *cluster.Cluster, done func() error, err error) {
	lo.Name, lo.Server, lo.Seed, lo.Logs = Name, p.server, o.Seed, p.control.logs
	lo.Scratch, err = os.MkdirTemp(p.control.dir, "run-")
	if err != nil {
		return nil, func() error { return nil }, err
	}
	e, err := live.New(ctx, lo)
	if err != nil {
		return nil, func() error { return nil }, err
	}
	o.Kube, o.Durations = true, e.Durations()
	if foundation != nil {
		o.Foundation = func(admin client.Client, baseImage string) error {
			return foundation(ctx, admin, Facts{BaseImage: baseImage, Trust: e.Authority()})
		}
	}
	c, err = cluster.Assemble(t, e, o)
	return c, func() error {
		return errors.Join(e.Close(), os.RemoveAll(lo.Scratch), p.server.Reset(ctx))
	}, err
}

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
