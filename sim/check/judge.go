package check

import (
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/scenario"
)

// Phases of a step, as the runner records them in records of kind step.
const (
	Begin    = "begin"    // the step begins
	Did      = "did"      // an action was performed
	Acted    = "acted"    // all actions were performed; from now on expectations are looked at
	Rest     = "rest"     // the cluster has come to rest
	Deadline = "deadline" // the step's time is over
	DeadEnd  = "dead end" // nothing can happen any more
	End      = "end"      // the step ends
)

// Columns gives the printer columns of a kind; nil for built-in kinds.
type Columns func(schema.GroupVersionKind) []apiextensionsv1.CustomResourceColumnDefinition

// Failure is one thing that is wrong.
type Failure struct {
	// Check names the step and expectation, or the invariant.
	Check string
	// Message says what was seen instead.
	Message string
	// Revision and Time are where it went wrong.
	Revision int64
	Time     time.Duration
	// Seq is the record.
	Seq int64
}

// Judge judges a run. Feed it each record in order by Observe.
type Judge struct {
	State    *State
	failures []Failure
	scenario *scenario.Scenario
	steps    []*step
	current  *step
	rules    []*rule
	invs     []*invariant
	seq      int64
	begun    bool
}

// step is a step while it is judged.
type step struct {
	*scenario.Step
	index                          int
	expect, inOrder, settles, ever []*expectation
	rules                          []*rule
	acted, rested, over            bool
	// met says that expect, in order and settles were met; next is the first of in order that was not.
	expectMet, settlesMet bool
	next                  int
	why                   string
}

type rule struct {
	*expectation
	name   string
	always bool
	broken bool
}

// NewJudge prepares the judgement of a scenario's run that started at start.
func NewJudge(s *scenario.Scenario, start time.Time, columns Columns) (*Judge, error) {
	j := &Judge{State: NewState(start), scenario: s, invs: newInvariants()}
	var err error
	if j.rules, err = newRules(j.State, s.Never, s.Always, columns); err != nil {
		return nil, err
	}
	for n := range s.Steps {
		st := &step{Step: &s.Steps[n], index: n}
		for _, list := range []struct {
			from []scenario.Expectation
			to   *[]*expectation
		}{{st.Expect, &st.expect}, {st.InOrder, &st.inOrder}, {st.Settles, &st.settles}, {st.Ever, &st.ever}} {
			for i := range list.from {
				x, err := newExpectation(&list.from[i], j.State, columns)
				if err != nil {
					return nil, err
				}
				*list.to = append(*list.to, x)
			}
		}
		if st.rules, err = newRules(j.State, st.Never, st.Always, columns); err != nil {
			return nil, err
		}
		j.steps = append(j.steps, st)
	}
	return j, nil
}

func newRules(s *State, never, always []scenario.Rule, columns Columns) ([]*rule, error) {
	var rules []*rule
	for n, r := range append(append([]scenario.Rule{}, never...), always...) {
		x, err := newExpectation(&r.Expectation, s, columns)
		if err != nil {
			return nil, err
		}
		rules = append(rules, &rule{expectation: x, name: r.Name, always: n >= len(never)})
	}
	return rules, nil
}

// Failures returns what is wrong so far.
func (j *Judge) Failures() []Failure { return j.failures }

// Met reports whether the present step's expectations are met. Statements of ever and the time of For are the runner's
// to end with.
func (j *Judge) Met() bool { return j.current != nil && j.current.met() }

// NeedsRest reports whether the present step waits for the cluster to come to rest, and for that alone.
func (j *Judge) NeedsRest() bool {
	s := j.current
	return s != nil && s.acted && !s.over && s.expectMet && s.next == len(s.inOrder) && !s.settlesMet
}

// Missed reports whether the present step can't be met any more.
func (j *Judge) Missed() bool { return j.current != nil && j.current.over }

func (s *step) met() bool {
	return s.acted && s.expectMet && s.next == len(s.inOrder) && s.settlesMet
}

// Observe moves the judgement on by one record.
func (j *Judge) Observe(r *history.Record) {
	j.seq = r.Seq
	before := j.State.version
	j.State.Apply(r)
	for _, i := range j.invs {
		if i.observe != nil && !i.broken {
			j.violated(i, i.observe(j.State, r))
		}
	}
	if r.Change != nil {
		for _, s := range j.steps {
			for _, x := range s.ever {
				x.remember(j.State, r.Change)
			}
		}
	}
	if r.Step != nil {
		j.phase(r.Step)
	}
	if j.State.version == before && r.Step == nil {
		return
	}
	if j.begun {
		for _, rule := range j.rules {
			j.judgeRule(rule, r, "")
		}
	}
	if s := j.current; s != nil {
		for _, rule := range s.rules {
			j.judgeRule(rule, r, s.label())
		}
		if s.acted && !s.over {
			s.look(j.State)
		}
	}
}

func (s *step) label() string { return fmt.Sprintf("step %d, %s: ", s.index+1, s.Name) }

// look judges the step's expectations now.
func (s *step) look(state *State) {
	if !s.expectMet {
		s.expectMet = true
		for _, x := range s.expect {
			if ok, _ := x.judge(state); !ok {
				s.expectMet = false
				break
			}
		}
	}
	for s.next < len(s.inOrder) {
		if ok, _ := s.inOrder[s.next].judge(state); !ok {
			break
		}
		s.next++
	}
}

// proves tells whether a step that does something could miss its expectations: whether something that it expects doesn't
// hold before it acts. A test that can't fail is worth nothing, and looks as if it were.
func (s *step) proves(state *State) bool {
	if len(s.Actions) == 0 || len(s.expect) == 0 || len(s.inOrder) > 0 || len(s.settles) > 0 {
		return true
	}
	for _, x := range s.expect {
		if ok, _ := x.judge(state); !ok {
			return true
		}
	}
	return false
}

// phase handles the runner's marks.
func (j *Judge) phase(r *history.Step) {
	if r.Index < 0 || r.Index >= len(j.steps) {
		return
	}
	switch s := j.steps[r.Index]; r.Event {
	case Begin:
		j.current, j.begun = s, true
		for _, list := range [][]*expectation{s.expect, s.inOrder, s.settles} {
			for _, x := range list {
				x.begin(j.State, j.seq)
			}
		}
		for _, rule := range s.rules {
			rule.begin(j.State, j.seq)
		}
		if s.proves(j.State) {
			break
		}
		j.fail(s.label()+"expect", "all that is expected held before the step did anything, so it shows nothing; "+
			"say with in order what happens first, or with settles how it ends")
	case Acted:
		s.acted = true
		s.settlesMet = len(s.settles) == 0
		s.look(j.State)
	case Rest:
		for _, i := range j.invs {
			if i.rest != nil && !i.broken && len(j.State.down) == 0 {
				j.violated(i, i.rest(j.State))
			}
		}
		s.settlesMet = true
		for _, x := range s.settles {
			if ok, _ := x.judge(j.State); !ok {
				s.settlesMet = false
			}
		}
		if !s.settlesMet {
			j.missed(s, "when the cluster had come to rest")
		}
	case Deadline:
		if !s.met() {
			j.missed(s, fmt.Sprintf("within %s", s.Within))
		}
	case DeadEnd:
		if !s.met() {
			j.missed(s, "and nothing can happen any more")
		}
	case End:
		if !s.met() && !s.over {
			j.missed(s, "by the end of the step")
		}
		for _, x := range s.ever {
			if ok, why := x.judgeEver(j.State); !ok {
				j.fail(s.label()+"ever "+x.Text, why)
			}
		}
		if j.current == s {
			j.current = nil
		}
	}
}

// missed reports what a step still waits for, once.
func (j *Judge) missed(s *step, when string) {
	if s.over {
		return
	}
	s.over = true
	report := func(kind string, x *expectation, why string) {
		j.fail(s.label()+kind+" "+x.Text, "not met "+when+": "+why)
	}
	if !s.expectMet {
		for _, x := range s.expect {
			if ok, why := x.judge(j.State); !ok {
				report("expect", x, why)
			}
		}
		if len(s.expect) > 0 && !j.failedIn(s) {
			j.fail(s.label()+"expect", "each statement was met, but never all together, "+when)
		}
	}
	if s.next < len(s.inOrder) {
		x := s.inOrder[s.next]
		_, why := x.judge(j.State)
		report(fmt.Sprintf("in order, number %d:", s.next+1), x, why)
	}
	if !s.settlesMet {
		for _, x := range s.settles {
			if ok, why := x.judge(j.State); !ok {
				report("settles", x, why)
			}
		}
		if !j.failedIn(s) {
			j.fail(s.label()+"settles", "the cluster did not come to rest "+when)
		}
	}
}

func (j *Judge) failedIn(s *step) bool {
	for _, f := range j.failures {
		if len(f.Check) >= len(s.label()) && f.Check[:len(s.label())] == s.label() {
			return true
		}
	}
	return false
}

// judgeRule looks at never and always. A rule on objects of which neither number nor all are asked is judged on the
// object that changed; others on the whole.
func (j *Judge) judgeRule(r *rule, rec *history.Record, label string) {
	if r.broken {
		return
	}
	kind := "never "
	if r.always {
		kind = "always "
	}
	var holds bool
	var why string
	single := r.Object != nil && r.Object.Count == nil && !r.Object.All
	switch {
	case single && rec.Change != nil:
		c := rec.Change
		if c.New == nil || c.GVK.GroupKind() != r.gvk.GroupKind() || !r.named(c.New) {
			return
		}
		holds, why = r.matches(j.State, c.New, c.Old)
		if holds {
			why = c.New.GetName() + " meets it"
		} else {
			why = c.New.GetName() + ": " + why
		}
	case single:
		return
	default:
		holds, why = r.judge(j.State)
		if holds {
			why = "it holds"
		}
	}
	if holds == r.always {
		return
	}
	r.broken = true
	j.fail(label+kind+r.name, why)
}

func (j *Judge) fail(check, message string) {
	j.failures = append(j.failures, Failure{Check: check, Message: message, Revision: j.State.Revision, Time: j.State.Time, Seq: j.seq})
}

// Finish ends the judgement: steps that never began are failures, and invariants about the end are looked at.
func (j *Judge) Finish() []Failure {
	for _, s := range j.steps {
		if !s.acted && len(j.failures) == 0 {
			j.fail(s.label()+"run", "the step was never performed")
		}
	}
	rules := j.rules
	for _, s := range j.steps {
		rules = append(rules, s.rules...)
	}
	for _, r := range rules {
		if r.evaluated > 0 && r.evaluated == r.expectation.broken {
			j.fail("rule "+r.name, fmt.Sprintf("its expression could not be evaluated even once, so it shows nothing: %v", r.last))
		}
	}
	for _, i := range j.invs {
		if i.finish != nil && !i.broken {
			j.violated(i, i.finish(j.State))
		}
	}
	return j.failures
}

// violated notes what an invariant found. The first violation says it; what follows from it would only hide it.
func (j *Judge) violated(i *invariant, found []string) {
	for _, message := range found {
		j.fail("invariant "+i.ID, i.Text+": "+message)
	}
	i.broken = len(found) > 0
}

// History judges a whole history.
func History(h *history.History, s *scenario.Scenario, columns Columns) ([]Failure, error) {
	j, err := NewJudge(s, h.Header.Start, columns)
	if err != nil {
		return nil, err
	}
	for n := range h.Records {
		j.Observe(&h.Records[n])
	}
	return j.Finish(), nil
}
