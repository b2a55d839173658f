package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/layersim/layersim/controllers/manager"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/history"
)

// stillness is what the engine knows of the cluster's coming to rest. It belongs to the goroutine that calls Step.
type stillness struct {
	seen  int           // how many records it knows
	moved time.Duration // when something last changed
	begun bool          // the scenario's first step; until then a cluster is made, which waits for its pools
	// jobs are those that have not finished.
	jobs map[string]bool
	// paused is when somebody was last found to make a pause.
	paused time.Time
}

// read takes notice of what is new in a history.
func (s *stillness) read(h *history.History) {
	for ; s.seen < len(h.Records); s.seen++ {
		record := &h.Records[s.seen]
		if cluster.Moves(record) {
			s.moved = record.Time
		}
		s.begun = s.begun || record.Step != nil
		c := record.Change
		if c == nil || c.GVK.Kind != "Job" {
			continue
		}
		if s.jobs == nil {
			s.jobs = map[string]bool{}
		}
		key := c.Namespace + "/" + c.Name
		if c.New == nil || history.Condition(c.New, "Complete") || history.Condition(c.New, "Failed") {
			delete(s.jobs, key)
		} else {
			s.jobs[key] = true
		}
	}
}

// askAgain is how long what was said about a pause holds: programs elsewhere aren't asked more often.
const askAgain = time.Second

// pausing reports whether somebody makes a pause after which something may change: a component that will look again, the
// Job controller between a Job's pods, or, as far as anybody knows, a program that doesn't tell.
func (e *Engine) pausing() bool {
	e.stillness.read(e.recorder.History)
	if !e.stillness.begun || e.Elapsed()-e.stillness.moved >= Quiet {
		return false
	}
	if len(e.stillness.jobs) > 0 || time.Since(e.stillness.paused) < askAgain {
		return true
	}
	end := e.start.Add(e.stillness.moved + Quiet)
	for _, p := range e.processes {
		p.mu.Lock()
		running := p.running
		p.mu.Unlock()
		for _, i := range running {
			if next, err := i.pause(e.ctx); err != nil || !next.IsZero() && next.Before(end) {
				e.stillness.paused = time.Now()
				return true
			}
		}
	}
	return false
}

// errUntold is why nobody knows a program's pauses.
var errUntold = errors.New("it doesn't tell when it looks again")

// pause is when a life's components look again by themselves: the zero time if they wait for events only.
func (i *incarnation) pause(ctx context.Context) (time.Time, error) {
	if i.next == nil {
		return time.Time{}, errUntold
	}
	return i.next(ctx)
}

// metricsPort is where the controllers' pods serve metrics, by their manifests.
const metricsPort = "8797"

// next reads in a controller's metrics when it looks again.
func (d *deployed) next(ctx context.Context) (time.Time, error) {
	ctx, done := context.WithTimeout(ctx, askAgain)
	defer done()
	d.mu.Lock()
	pods := slices.Collect(maps.Keys(d.there))
	d.mu.Unlock()
	if len(pods) != 1 {
		return time.Time{}, fmt.Errorf("%s has %d pods", d.id, len(pods))
	}
	page, err := d.pods.ProxyGet("http", pods[0], metricsPort, "metrics", nil).Stream(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer page.Close()
	return nextReconcile(page)
}

// nextReconcile is the earliest time of [manager.NextReconcileMetric] on a page of metrics.
func nextReconcile(page io.Reader) (time.Time, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return time.Time{}, fmt.Errorf("read metrics: %w", err)
	}
	family := families[manager.NextReconcileMetric]
	if len(family.GetMetric()) == 0 {
		return time.Time{}, errUntold
	}
	first := 0.0
	for _, m := range family.GetMetric() {
		if at := m.GetGauge().GetValue(); at > 0 && (first == 0 || at < first) {
			first = at
		}
	}
	if first == 0 {
		return time.Time{}, nil
	}
	return time.UnixMilli(int64(first * 1000)), nil
}
