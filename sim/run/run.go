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
	"cmp"
	"context"
	"errors"
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

// DefaultWithin is the time of a step that names none.
const DefaultWithin = 2 * time.Hour

// Options of a run.
type Options struct {
	// Seed of the schedule. A scenario's own seed comes before it.
	Seed uint64
	// Release whose behaviour is expected, one of scenario.Releases; "" is the newest. Scenarios that don't hold for it are
	// skipped, and of the others what holds only for other releases is left out.
	Release string
	// Break changes the declarations of components before they start; tests break them with it.
	Break func(*component.Component)
	// Lag of watches; zero means the cluster's default.
	Lag world.Lag
	// Observe, where not nil, is told each record of the history as it comes, for those who wait.
	Observe func(*history.Record)
	// Password, where not nil, is told each password that the cluster's accounts get. Tests look for them in outputs.
	Password func(string)
}

// Maker makes the cluster of one run.
type Maker func(scenario.Topology, cluster.Options) (*cluster.Cluster, error)

// Simulated makes simulated clusters whose watches have that lag; zero means the default.
func Simulated(lag world.Lag) Maker {
	return func(t scenario.Topology, o cluster.Options) (*cluster.Cluster, error) { return cluster.New(t, lag, o) }
}

// Lacks says what a scenario needs and a cluster doesn't have; nil means that it can run.
func Lacks(s *scenario.Scenario, name string, capabilities []string) error {
	for _, need := range s.Needs {
		if !slices.Contains(capabilities, need) {
			return fmt.Errorf("it needs %s, which %s doesn't have: it has %s", need, name, strings.Join(capabilities, ", "))
		}
	}
	return nil
}

// Scenario runs a scenario on a simulated cluster of its own. wall measures the time that it takes, since this package
// knows only virtual time; nil leaves WallSeconds zero.
func Scenario(ctx context.Context, s *scenario.Scenario, o Options, wall func() time.Duration) *report.Result {
	if err := Lacks(s, "the simulated cluster", cluster.Capabilities); err != nil {
		return report.NewResult(s, report.Skipped, err)
	}
	return On(ctx, Simulated(o.Lag), s, o, wall)
}

// On runs a scenario on a cluster that is made for it.
func On(ctx context.Context, makeCluster Maker, s *scenario.Scenario, o Options, wall func() time.Duration) *report.Result {
	result := report.NewResult(s, report.Errored, nil)
	if wall != nil {
		start := wall()
		defer func() { result.WallSeconds = (wall() - start).Seconds() }()
	}
	switch {
	case o.Release != "" && !slices.Contains(scenario.Releases, o.Release):
		result.Err = fmt.Errorf("release %q is none of %s", o.Release, strings.Join(scenario.Releases, ", "))
		return result
	case !s.Holds(o.Release):
		result.Verdict, result.Err = report.Skipped, fmt.Errorf("it holds %s, and this is %s", s.Range(), cmp.Or(o.Release, "the newest"))
		return result
	}
	s = s.For(o.Release)
	result.Scenario = s
	if s.Seed != 0 {
		o.Seed = s.Seed
	}
	r := &runner{scenario: s, observer: o.Observe}
	var err error
	if r.judge, err = check.NewJudge(s, cluster.Start, cluster.Columns); err != nil {
		result.Err = err
		return result
	}
	r.cluster, err = makeCluster(s.Cluster, cluster.Options{
		Seed: o.Seed, Break: o.Break, Begin: func(start time.Time) { r.judge.State.Start = start }, Observe: r.observe, Password: o.Password,
		Header: history.Header{Scenario: s.Name, File: s.Pos.File},
	})
	if r.cluster != nil {
		result.History = r.cluster.Recorder.History
		result.Timing = result.History.Header.Timing
	}
	if err != nil {
		result.Err = fmt.Errorf("scenario %s: %w", s.Name, err)
		return result
	}
	r.Engine = r.cluster.Engine
	begin := r.Elapsed()
	r.AddActor(r)
	if err := r.run(ctx); err != nil {
		if ctx.Err() != nil || errors.Is(err, cluster.ErrBroken) {
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
	result.VirtualSeconds = (r.Elapsed() - begin).Seconds()
	result.Revisions = r.Revision()
	result.Reconciles = r.Reconciles()
	return result
}

// runner performs a scenario's steps.
type runner struct {
	cluster.Engine
	scenario *scenario.Scenario
	cluster  *cluster.Cluster
	judge    *check.Judge
	observer func(*history.Record)
	failures []check.Failure

	step, action int
	phase        phase
	pause        bool // a wait action goes on
	// deadline and rest take back what was set.
	deadline, rest func()
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
	if r.observer != nil {
		r.observer(rec)
	}
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
		r.deadline = r.Deadline(r.Timing().Within(within), func() {
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
	for _, stop := range []func(){r.deadline, r.rest} {
		if stop != nil {
			stop()
		}
	}
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
	for !r.over && (r.phase != idle || r.step < len(r.scenario.Steps)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		outcome, err := r.Step()
		if err != nil {
			return err
		}
		if r.phase == waiting {
			r.look(outcome == world.DeadEnd)
		}
		if outcome == world.DeadEnd && (r.phase == holding || r.pause) {
			r.Jump()
		}
	}
	if r.over {
		return nil
	}
	return r.cluster.Rest(r.Timing().Quiet, r.Timing().Within(DefaultWithin))
}

// look sees whether the present step is met.
func (r *runner) look(deadEnd bool) {
	s, quiet := &r.scenario.Steps[r.step], r.Timing().Quiet
	if r.judge.NeedsRest() && !r.cluster.Faults.Timed() { // a fault that will heal itself is no rest
		switch {
		case deadEnd || r.Elapsed()-r.last >= quiet && !r.Busy():
			r.record(check.Rest, "")
		case r.rest == nil:
			r.rest = r.Deadline(quiet, func() { r.rest = nil })
		}
	}
	switch {
	case r.judge.Met():
		if s.For == 0 {
			r.finish()
			return
		}
		r.phase = holding
		r.deadline()
		r.deadline = r.Deadline(r.Timing().Of(s.For), r.finish)
	case r.judge.Missed():
		r.finish()
	case deadEnd:
		r.record(check.DeadEnd, "")
		r.finish()
	}
}
