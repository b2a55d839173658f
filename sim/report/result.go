package report

import (
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/scenario"
)

// Verdicts.
const (
	Passed  = "passed"
	Failed  = "failed"
	Skipped = "skipped"
	// Known: failed, by a defect of the controllers that people have looked into. It fails no suite.
	Known   = "known"
	Errored = "error"
)

// Failure is one thing that was wrong in a run.
type Failure struct {
	// Check names the step and its expectation, the invariant, or the fault that never fired.
	Check   string `json:"check"`
	Message string `json:"message"`
	// Revision of the store, and virtual seconds since the scenario's begin, at which it went wrong.
	Revision       int64   `json:"revision"`
	VirtualSeconds float64 `json:"virtualSeconds"`
	// Seq is the record of the history at which it went wrong.
	Seq int64 `json:"-"`
}

// Result is the outcome of one scenario.
type Result struct {
	Name    string `json:"name"`
	File    string `json:"file"`
	Verdict string `json:"verdict"`
	// Cluster is the one that it was run on, where a suite has several.
	Cluster string `json:"cluster,omitempty"`
	// Timing says what times mean where they are not virtual.
	Timing string `json:"timing,omitempty"`
	// VirtualSeconds and WallSeconds count from the scenario's first step, and from the making of its cluster.
	VirtualSeconds float64   `json:"virtualSeconds"`
	WallSeconds    float64   `json:"wallSeconds"`
	Revisions      int64     `json:"revisions"`
	Failures       []Failure `json:"failures"`
	// Reason is what Err says, for JSON.
	Reason string `json:"reason,omitempty"`

	Scenario *scenario.Scenario `json:"-"`
	History  *history.History   `json:"-"`
	// Reconciles counts what components did.
	Reconciles int64 `json:"-"`
	// Comparison shows, side by side, what is unlike another cluster's run. It is text of fixed width.
	Comparison string `json:"-"`
	// Err says why the scenario could not be run (the verdict is then error) or was skipped, or which defect is known.
	Err error `json:"-"`
}

// NewResult returns the outcome of a scenario that has not been run, and why; err may be nil where it is about to be.
func NewResult(s *scenario.Scenario, verdict string, err error) *Result {
	return &Result{Name: s.Name, File: s.Pos.File, Scenario: s, Verdict: verdict, Failures: []Failure{}, Err: err}
}

// Suite is the outcome of a run of scenarios. Its JSON form is the CLI's --json.
type Suite struct {
	Cluster   string    `json:"cluster"`
	Seed      uint64    `json:"seed"`
	Scenarios []*Result `json:"scenarios"`
}
