//go:build live || likeness

package envtest_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/layersim/layersim/sim/cluster/envtest"
)

// From nothing to a control plane that is ready for a scenario: with definitions, controllers, namespaces and rights.
//
//	go test -tags=live -run='^$' -bench=Start -benchtime=5x ./sim/cluster/envtest
func BenchmarkStart(b *testing.B) {
	var wall, processor time.Duration
	for b.Loop() {
		began, used := time.Now(), processorTime(b)
		p, err := envtest.NewPlane(b.Context(), envtest.PlaneOptions{})
		if err != nil {
			b.Fatal(err)
		}
		wall += time.Since(began)
		if err := p.Stop(); err != nil {
			b.Fatal(err)
		}
		processor += processorTime(b) - used
	}
	b.ReportMetric(wall.Seconds()/float64(b.N), "s-to-ready")
	b.ReportMetric(processor.Seconds()/float64(b.N), "cpu-s/op") // until all programs have stopped
}

// processorTime is what this program and all its processes that have ended have used.
func processorTime(b *testing.B) time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}
