package live

import (
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/manager"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/history"
)

// pauses are the requests that a process's components will look at again by themselves.
type pauses struct {
	mu    sync.Mutex
	until map[pause]time.Time
	// failed counts the failures of a request in a row: each doubles the wait for the next try.
	failed map[pause]int
}

type pause struct {
	component string
	request   reconcile.Request
}

// began is told that a request is looked at now. Its pause is not over before ended is told what came of it.
func (p *pauses) began(what pause) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until, p.failed = map[pause]time.Time{}, map[pause]int{}
	}
	p.until[what] = time.Now()
}

// ended is told what came of a reconcile.
func (p *pauses) ended(what pause, result reconcile.Result, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil:
		p.failed[what]++
		p.until[what] = time.Now().Add(min(manager.FirstRetry<<min(p.failed[what]-1, 20), manager.LastRetry))
		return
	case result.RequeueAfter > 0:
		p.until[what] = time.Now().Add(result.RequeueAfter)
	default:
		delete(p.until, what)
	}
	delete(p.failed, what)
}

// before reports whether one of them ends before a time.
func (p *pauses) before(t time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, until := range p.until {
		if until.Before(t) {
			return true
		}
	}
	return false
}

// stillness is what the engine knows of the cluster's coming to rest. It belongs to the goroutine that calls Step.
type stillness struct {
	moved time.Duration // when something last changed
	begun bool          // the scenario's first step; until then a cluster is made, which waits for its pools
	// jobs are those that have not finished.
	jobs map[string]bool
}

// saw takes notice of a record.
func (r *stillness) saw(record *history.Record, now time.Duration) {
	if cluster.Moves(record) {
		r.moved = now
	}
	r.begun = r.begun || record.Step != nil
	c := record.Change
	if c == nil || c.GVK.Kind != "Job" {
		return
	}
	if r.jobs == nil {
		r.jobs = map[string]bool{}
	}
	key := c.Namespace + "/" + c.Name
	if c.New == nil || history.Condition(c.New, "Complete") || history.Condition(c.New, "Failed") {
		delete(r.jobs, key)
	} else {
		r.jobs[key] = true
	}
}

// pausing reports whether somebody makes a pause after which something may change: a component that will look again, the
// Job controller between a Job's pods, or, as far as anybody knows, a program that runs elsewhere.
func (e *Engine) pausing() bool {
	if !e.stillness.begun || e.Elapsed()-e.stillness.moved >= Quiet {
		return false
	}
	if len(e.stillness.jobs) > 0 {
		return true
	}
	end := e.start.Add(e.stillness.moved + Quiet)
	for _, p := range e.processes {
		p.mu.Lock()
		running := p.running
		p.mu.Unlock()
		for _, i := range running {
			if i.pauses == nil || i.pauses.before(end) {
				return true
			}
		}
	}
	return false
}
