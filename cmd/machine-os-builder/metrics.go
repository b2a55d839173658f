package main

import (
	"fmt"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	"github.com/prometheus/client_golang/prometheus"
)

// buildMetrics are upstream's series of the build controller, as far as they tell something that is known: each build
// is counted once.
type buildMetrics struct {
	state    *prometheus.GaugeVec     // 1 for the state of the pool's newest build, 0 for the others
	total    *prometheus.CounterVec   // builds that ended
	duration *prometheus.HistogramVec // seconds from start to end
	active   *prometheus.GaugeVec     // builds that run
	running  map[string]string        // build to pool; used by the one worker only
}

// buildStates are the values of the label state.
var buildStates = map[mcfgv1.BuildProgress]string{
	mcfgv1.MachineOSBuildPrepared: "pending", mcfgv1.MachineOSBuilding: "building",
	mcfgv1.MachineOSBuildSucceeded: "succeeded", mcfgv1.MachineOSBuildFailed: "failed",
	mcfgv1.MachineOSBuildInterrupted: "interrupted",
}

func newBuildMetrics(registry prometheus.Registerer) (*buildMetrics, error) {
	labels := []string{"pool", "state"}
	m := &buildMetrics{
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ocl_build_state", Help: "Whether a pool's newest image build is in a state (1) or not (0).",
		}, labels),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ocl_build_total", Help: "Image builds that ended, by final state.",
		}, labels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ocl_build_duration_seconds", Help: "Time from an image build's start to its end.",
			Buckets: []float64{60, 120, 300, 600, 900, 1200, 1800, 2700, 3600},
		}, labels),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ocl_active_builds", Help: "Image builds that run.",
		}, []string{"pool"}),
		running: map[string]string{},
	}
	for _, c := range []prometheus.Collector{m.state, m.total, m.duration, m.active} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// State implements build.Metrics.
func (m *buildMetrics) State(pool, build string, state mcfgv1.BuildProgress, took time.Duration) {
	for s, label := range buildStates {
		value := 0.0
		if s == state {
			value = 1
		}
		m.state.WithLabelValues(pool, label).Set(value)
	}
	switch state {
	case mcfgv1.MachineOSBuildPrepared, mcfgv1.MachineOSBuilding:
		if _, known := m.running[build]; !known {
			m.running[build] = pool
			m.active.WithLabelValues(pool).Inc()
		}
	default:
		m.total.WithLabelValues(pool, buildStates[state]).Inc()
		if took > 0 {
			m.duration.WithLabelValues(pool, buildStates[state]).Observe(took.Seconds())
		}
		m.Gone(pool, build)
	}
}

// Gone implements build.Metrics.
func (m *buildMetrics) Gone(pool, build string) {
	if _, known := m.running[build]; known {
		delete(m.running, build)
		m.active.WithLabelValues(pool).Dec()
	}
}
