package node_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/node"
	"github.com/layersim/layersim/sim/world"
)

// BenchmarkRollout takes nodes from their base image to a layered image, all at once: ns/node and B/node must not grow
// with the number of nodes.
func BenchmarkRollout(b *testing.B) {
	for _, count := range []int{100, 1000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rollout(b, count)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*count), "ns/node")
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.TotalAlloc)/float64(b.N*count), "B/node")
		})
	}
}

func rollout(b *testing.B, count int) {
	clock := world.NewClock(start)
	l := newLabAt(b, clock, func(o *node.FleetOptions) { o.Before, o.Wake, o.Observe = nil, nil, nil })
	w := world.New(world.Options{Store: l.store, Clock: clock, Seed: 1})
	for i := range count {
		if err := l.fleet.Install(node.HostSpec{Name: fmt.Sprintf("w%04d", i), Roles: []string{"worker"}, BaseImage: l.base,
			Config: "rendered-worker-1"}); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Start("nodes", 1, append(l.fleet.Components(node.ComponentOptions{}), l.drainController())...); err != nil {
		b.Fatal(err)
	}
	settle := func() {
		for {
			outcome, err := w.Step()
			if err != nil {
				b.Fatal(err)
			}
			if outcome == world.DeadEnd {
				return
			}
		}
	}
	settle()
	target := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"rendered-layered-1",%q:%q}}}`, layering.DesiredConfig,
		layering.DesiredImage, l.layered)
	for _, h := range l.fleet.Hosts() {
		if err := l.client.Patch(context.Background(), l.node(h.Name()), client.RawPatch("application/merge-patch+json", target)); err != nil {
			b.Fatal(err)
		}
	}
	settle()
	for _, h := range l.fleet.Hosts() {
		if h.Boots() != 2 || !l.done(h.Name())() {
			b.Fatalf("%s at %s after %s:\n%s", h.Name(), clock.Now(), time.Since(start), l.describe())
		}
	}
}
