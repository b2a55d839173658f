// Package run runs scenarios: scenario and seed in, history and verdict out.
//
// The runner is an actor of the cluster's world. Each action of a step is one thing that the schedule may choose, so that
// what a user does falls between any two things that controllers do. A step begins when the one before has ended:
//
//	begin -> actions, one by one -> expectations are looked at after each thing that happens -> met -> for -> end
//
// A step that is not met within its time ends the run, and so do a hot loop and a dead end: nothing is left that could
// happen, so nothing will ever be met. After the last step the cluster may come to rest before the last judgement.
package run

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/sim/check"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/world"
)

// Quiet is how long nothing may have changed until a cluster counts as being at rest: longer than any pause that
// controllers make between two attempts, the longest being the drain controller's 5 minutes.
const Quiet = 6 * time.Minute

// DefaultWithin is the time of a step that names none.
const DefaultWithin = 2 * time.Hour

// Options of a run.
type Options struct {
	// Seed of the schedule. A scenario's own seed comes before it.
	Seed uint64
	// Break changes the declarations of components before they start; tests break them with it.
	Break func(*component.Component)
	// Lag of watches; zero means the cluster's default.
	Lag world.Lag
	// Password, where not nil, is told each password that the cluster's accounts get. Tests look for them in outputs.
	Password func(string)
}

// Scenario runs a scenario on a simulated cluster of its own. wall measures the time that it takes, since this package
// knows only virtual time; nil leaves WallSeconds zero.
func Scenario(ctx context.Context, s *scenario.Scenario, o Options, wall func() time.Duration) *report.Result {
	result := &report.Result{Name: s.Name, File: s.Pos.File, Verdict: report.Errored, Scenario: s, Failures: []report.Failure{}}
	if wall != nil {
		start := wall()
		defer func() { result.WallSeconds = (wall() - start).Seconds() }()
	}
	for _, need := range s.Needs {
		if !slices.Contains(cluster.Capabilities, need) {
			result.Verdict = report.Skipped
			result.Err = fmt.Errorf("it needs %s, which the simulated cluster doesn't have: it has %s", need, strings.Join(cluster.Capabilities, ", "))
			return result
		}
	}
	if s.Seed != 0 {
		o.Seed = s.Seed
	}
	r := &runner{scenario: s}
	var err error
	if r.judge, err = check.NewJudge(s, cluster.Start, cluster.Columns); err != nil {
		result.Err = err
		return result
	}
	r.cluster, err = cluster.New(s.Cluster, cluster.Options{
		Seed: o.Seed, Lag: o.Lag, Break: o.Break, Observe: r.observe, Password: o.Password,
		Header: history.Header{Scenario: s.Name, File: s.Pos.File},
	})
	if r.cluster != nil {
		result.History = r.cluster.Recorder.History
	}
	if err != nil {
		result.Err = fmt.Errorf("scenario %s: %w", s.Name, err)
		return result
	}
	begin := r.cluster.World.Clock.Elapsed()
	r.cluster.World.AddActor(r)
	if err := r.run(ctx); err != nil {
		if ctx.Err() != nil {
			result.Err = err
			return result
		}
		r.fail("run", err.Error())
	}
	for _, name := range r.cluster.Faults.Unfired() {
		r.fail("fault "+name, "it never fired: nothing that it was aimed at happened while it was armed")
	}
	failures := append(r.judge.Finish(), r.failures...)
	result.Verdict = report.Passed
	for _, f := range failures {
		result.Verdict = report.Failed
		result.Failures = append(result.Failures, report.Failure{
			Check: f.Check, Message: f.Message, Revision: f.Revision, VirtualSeconds: (f.Time - begin).Seconds(), Seq: f.Seq,
		})
	}
	result.VirtualSeconds = (r.cluster.World.Clock.Elapsed() - begin).Seconds()
	result.Revisions = r.cluster.Store.Revision()
	_, result.Reconciles = r.cluster.World.Counters()
	return result
}

// runner performs a scenario's steps.
type runner struct {
	scenario *scenario.Scenario
	cluster  *cluster.Cluster
	judge    *check.Judge
	failures []check.Failure

	step, action int
	phase        phase
	pause        bool // a wait action goes on
	deadline     *world.Timer
	rest         *world.Timer
	// last is when something last moved.
	last time.Duration
	over bool
}

type phase int

const (
	idle    phase = iota // between steps
	acting               // actions are left
	waiting              // for the expectations
	holding              // for the step's time For
)

func (r *runner) observe(rec *history.Record) {
	if cluster.Moves(rec) {
		r.last = rec.Time
	}
	r.judge.Observe(rec)
}

// fail adds a failure that no record of the history leads to.
func (r *runner) fail(what, message string) {
	s := r.judge.State
	r.failures = append(r.failures, check.Failure{Check: what, Message: message, Revision: s.Revision, Time: s.Time,
		Seq: int64(len(r.cluster.Recorder.History.Records))})
}

// Ready implements world.Actor.
func (r *runner) Ready() bool {
	return !r.over && (r.phase == idle && r.step < len(r.scenario.Steps) || r.phase == acting && !r.pause)
}

// Act implements world.Actor: it begins a step or performs its next action.
func (r *runner) Act() {
	s := &r.scenario.Steps[r.step]
	if r.phase == idle {
		r.record(check.Begin, "")
		r.phase, r.action = acting, 0
		within := s.Within
		if within == 0 {
			within = DefaultWithin
		}
		r.deadline = r.cluster.World.Deadline(within, func() {
			r.record(check.Deadline, "")
			r.finish()
		})
		return
	}
	if r.action < len(s.Actions) {
		a := &s.Actions[r.action]
		r.action++
		message, err := r.perform(a)
		if err != nil {
			r.fail(fmt.Sprintf("step %d, %s: %s", r.step+1, s.Name, a.Verb), err.Error())
			r.over = true
			return
		}
		r.record(check.Did, message)
		return
	}
	r.phase = waiting
	r.record(check.Acted, "")
}

func (r *runner) record(event, message string) {
	r.cluster.Recorder.Add(history.Record{Step: &history.Step{
		Index: r.step, Name: r.scenario.Steps[r.step].Name, Event: event, Message: message}})
}

// finish ends the present step; a step that was not met ends the run.
func (r *runner) finish() {
	w := r.cluster.World
	w.Stop(r.deadline)
	w.Stop(r.rest)
	r.deadline, r.rest = nil, nil
	met := r.judge.Met()
	r.record(check.End, "")
	r.phase = idle
	r.step++
	if !met {
		r.over = true
	}
}

// run drives the world until the last step has ended.
func (r *runner) run(ctx context.Context) error {
	w := r.cluster.World
	for !r.over && (r.phase != idle || r.step < len(r.scenario.Steps)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		outcome, err := w.Step()
		if err != nil {
			return err
		}
		if r.phase == waiting {
			r.look(outcome == world.DeadEnd)
		}
		if outcome == world.DeadEnd && (r.phase == holding || r.pause) {
			w.Jump()
		}
	}
	if r.over {
		return nil
	}
	return r.cluster.Rest(Quiet, DefaultWithin)
}

// look sees whether the present step is met.
func (r *runner) look(deadEnd bool) {
	w, s := r.cluster.World, &r.scenario.Steps[r.step]
	if r.judge.NeedsRest() && !r.cluster.Faults.Timed() { // a fault that will heal itself is no rest
		switch {
		case deadEnd || w.Clock.Elapsed()-r.last >= Quiet:
			r.record(check.Rest, "")
		case r.rest == nil:
			r.rest = w.Deadline(Quiet, func() { r.rest = nil })
		}
	}
	switch {
	case r.judge.Met():
		if s.For == 0 {
			r.finish()
			return
		}
		r.phase = holding
		w.Stop(r.deadline)
		r.deadline = w.Deadline(s.For, r.finish)
	case r.judge.Missed():
		r.finish()
	case deadEnd:
		r.record(check.DeadEnd, "")
		r.finish()
	}
}
