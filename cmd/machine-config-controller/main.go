// Command machine-config-controller runs the render, node and drain controllers.
//
//	machine-config-controller start [--kubeconfig FILE] [--payload-version VERSION] [--templates DIR] ...
//
// Flags and environment are those of upstream's process, so that it can take that one's place in a Deployment. It doesn't
// render templates, though: --templates and --streams-cache are accepted and not used. See package
// [github.com/layersim/layersim/controllers/manager] for the rest of the command line.
package main

import (
	"cmp"
	"os"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/drain"
	"github.com/layersim/layersim/controllers/manager"
	"github.com/layersim/layersim/controllers/node"
	"github.com/layersim/layersim/controllers/render"
)

// version is set when a release is linked.
var version string

// The Lease. A creation can't be limited to a name.
//
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=openshift-machine-config-operator,resources=leases,resourceNames=machine-config-controller,verbs=get;update
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=openshift-machine-config-operator,resources=leases,verbs=create

func main() { os.Exit(program().Main()) }

// program describes the process.
func program() manager.Program {
	var payload string
	return manager.Program{
		Name:    "machine-config-controller",
		Short:   "Render machine configurations, roll them out to nodes and drain the nodes for it",
		Version: version,
		Flags: func(flags *pflag.FlagSet) {
			flags.StringVar(&payload, "payload-version", cmp.Or(os.Getenv("RELEASE_VERSION"), "0.0.1-snapshot"),
				"version of the release; default $RELEASE_VERSION")
			flags.String("templates", "/etc/mcc/templates", "accepted for compatibility; templates aren't rendered")
			flags.String("streams-cache", "", "accepted for compatibility; OS image streams aren't inspected")
		},
		Components: func() ([]component.Component, error) {
			gauges, err := newGauges(metrics.Registry)
			if err != nil {
				return nil, err
			}
			return []component.Component{
				render.New(render.Options{Version: cmp.Or(version, payload)}),
				node.New(node.Options{Metrics: gauges}),
				drain.New(drain.Options{Metrics: gauges}),
			}, nil
		},
	}
}

// gauges are upstream's metrics of pools and drains.
type gauges struct {
	machines, updated, unavailable, degraded, drainErr *prometheus.GaugeVec
}

var (
	_ node.Metrics  = (*gauges)(nil)
	_ drain.Metrics = (*gauges)(nil)
)

func newGauges(registry prometheus.Registerer) (*gauges, error) {
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
	}
	g := &gauges{
		machines:    gauge("mco_machine_count", "nodes of a pool", "pool"),
		updated:     gauge("mco_updated_machine_count", "nodes of a pool that are updated", "pool"),
		unavailable: gauge("mco_unavailable_machine_count", "nodes of a pool that are unavailable", "pool"),
		degraded:    gauge("mco_degraded_machine_count", "nodes of a pool that are degraded", "pool"),
		drainErr:    gauge("mcc_drain_err", "1 while the drain of a node has lasted longer than an hour", "node"),
	}
	for _, c := range []prometheus.Collector{g.machines, g.updated, g.unavailable, g.degraded, g.drainErr} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// Pool implements node.Metrics.
func (g *gauges) Pool(pool string, status *mcfgv1.MachineConfigPoolStatus) {
	g.machines.WithLabelValues(pool).Set(float64(status.MachineCount))
	g.updated.WithLabelValues(pool).Set(float64(status.UpdatedMachineCount))
	g.unavailable.WithLabelValues(pool).Set(float64(status.UnavailableMachineCount))
	g.degraded.WithLabelValues(pool).Set(float64(status.DegradedMachineCount))
}

// DrainFailing implements drain.Metrics.
func (g *gauges) DrainFailing(node string, failing bool) {
	if failing {
		g.drainErr.WithLabelValues(node).Set(1)
	} else {
		g.drainErr.DeleteLabelValues(node)
	}
}
