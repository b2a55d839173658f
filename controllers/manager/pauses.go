package manager

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
)

// NextReconcileMetric is the gauge by which a process tells, for each of its components, the Unix time at which the component
// looks again by itself at the earliest: after a pause that it asked for, or after a failure. It is the past while it looks,
// and 0 while it waits for events only. A time that stays in the past tells of a component that hangs.
const NextReconcileMetric = "mco_next_reconcile_timestamp_seconds"

var nextReconcile = prometheus.NewDesc(NextReconcileMetric,
	"When the controller looks again by itself at the earliest, as Unix time; 0 while it waits for events only.", []string{"controller"}, nil)

// Pauses are the requests that components will look at again by themselves. The zero value knows of none. As a
// [prometheus.Collector] it tells them as [NextReconcileMetric]. Its methods may be called at the same time.
type Pauses struct {
	mu         sync.Mutex // guards what follows
	components []string
	until      map[pause]time.Time
	// failed counts the failures of a request in a row: each doubles the wait for the next try.
	failed map[pause]int
}

type pause struct {
	component string
	request   reconcile.Request
}

// Follow returns a component whose pauses p knows.
func (p *Pauses) Follow(c component.Component) component.Component {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until, p.failed = map[pause]time.Time{}, map[pause]int{}
	}
	p.components = append(p.components, c.Name)
	return c.Around(func(env component.Env, inner reconcile.Reconciler) reconcile.Reconciler {
		return reconcile.Func(func(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
			this := pause{c.Name, r}
			p.began(this, env.Clock.Now())
			result, err := inner.Reconcile(ctx, r)
			p.ended(this, env.Clock.Now(), result, err)
			return result, err
		})
	})
}

// began is told that a request is looked at now. Its pause is not over before ended is told what came of it.
func (p *Pauses) began(what pause, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until[what] = now
}

// ended is told what came of a reconcile.
func (p *Pauses) ended(what pause, now time.Time, result reconcile.Result, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil:
		p.failed[what]++
		p.until[what] = now.Add(min(FirstRetry<<min(p.failed[what]-1, 20), LastRetry))
		return
	case result.RequeueAfter > 0:
		p.until[what] = now.Add(result.RequeueAfter)
	default:
		delete(p.until, what)
	}
	delete(p.failed, what)
}

// Next is when the earliest pause is over: a time in the past while a component looks at something, the zero time while
// all wait for events only.
func (p *Pauses) Next() time.Time {
	var first time.Time
	for _, next := range p.next() {
		first = earlier(first, next)
	}
	return first
}

// next is [Pauses.Next] of each component.
func (p *Pauses) next() map[string]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := map[string]time.Time{}
	for _, name := range p.components {
		next[name] = time.Time{}
	}
	for what, until := range p.until {
		next[what.component] = earlier(next[what.component], until)
	}
	return next
}

// earlier is the earlier of two times, of which the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Describe implements [prometheus.Collector], as does Collect.
func (p *Pauses) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- nextReconcile }

// Collect tells the components' pauses.
func (p *Pauses) Collect(metrics chan<- prometheus.Metric) {
	for name, next := range p.next() {
		value := 0.0
		if !next.IsZero() {
			value = float64(next.UnixMilli()) / 1000
		}
		metrics <- prometheus.MustNewConstMetric(nextReconcile, prometheus.GaugeValue, value, name)
	}
}
