package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

type junitSuites struct {
	XMLName  xml.Name   `xml:"testsuites"`
	Name     string     `xml:"name,attr"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Errors   int        `xml:"errors,attr"`
	Skipped  int        `xml:"skipped,attr"`
	Time     string     `xml:"time,attr"`
	Suite    junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string          `xml:"name,attr"`
	Tests      int             `xml:"tests,attr"`
	Failures   int             `xml:"failures,attr"`
	Errors     int             `xml:"errors,attr"`
	Skipped    int             `xml:"skipped,attr"`
	Time       string          `xml:"time,attr"`
	Properties []junitProperty `xml:"properties>property"`
	Cases      []junitCase     `xml:"testcase"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	ClassName string        `xml:"classname,attr"`
	Name      string        `xml:"name,attr"`
	File      string        `xml:"file,attr,omitempty"`
	Time      string        `xml:"time,attr"`
	Failure   *junitProblem `xml:"failure"`
	Error     *junitProblem `xml:"error"`
	Skipped   *junitSkipped `xml:"skipped"`
}

type junitProblem struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

type junitSkipped struct {
	Message string `xml:"message,attr"`
}

// JUnit writes the suite for CI: one testsuite, a testcase for each scenario with its area as class. A failure holds all
// that was wrong and the timeline around it. Times are wall seconds.
func JUnit(w io.Writer, s *Suite) error {
	c := count(s)
	out := junitSuites{Name: "layersim", Tests: len(s.Scenarios), Failures: c[Failed], Errors: c[Errored], Skipped: c[Skipped] + c[Known]}
	out.Suite = junitSuite{Name: "layersim on " + s.Cluster, Tests: out.Tests, Failures: out.Failures, Errors: out.Errors, Skipped: out.Skipped,
		Properties: []junitProperty{{"cluster", s.Cluster}, {"seed", fmt.Sprint(s.Seed)}}}
	var total float64
	for _, r := range s.Scenarios {
		total += r.WallSeconds
		t := junitCase{ClassName: "layersim." + area(r), Name: r.Name, File: r.File, Time: fmt.Sprintf("%.3f", r.WallSeconds)}
		switch r.Verdict {
		case Failed:
			t.Failure = &junitProblem{Type: "scenario", Message: Wrong(r), Text: "\n" + failureText(r)}
			if n := len(r.Failures) - 1; n > 0 {
				t.Failure.Message += fmt.Sprintf(" (and %d more)", n)
			}
		case Skipped:
			t.Skipped = &junitSkipped{Message: reason(r)}
		case Known:
			t.Skipped = &junitSkipped{Message: "failed by a known defect: " + reason(r)}
		case Errored:
			t.Error = &junitProblem{Type: "could not run", Message: Wrong(r), Text: reason(r)}
		}
		out.Suite.Cases = append(out.Suite.Cases, t)
	}
	out.Time = fmt.Sprintf("%.3f", total)
	out.Suite.Time = out.Time
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(out); err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	return nil
}

// area is the scenario's area; "scenarios" if it has none.
func area(r *Result) string {
	if r.Scenario == nil || r.Scenario.Area == "" {
		return "scenarios"
	}
	return r.Scenario.Area
}

// Wrong is what went wrong first in a scenario that failed or could not be run, in one line; "" for others.
func Wrong(r *Result) string {
	switch {
	case r.Verdict == Failed && len(r.Failures) > 0:
		return oneLine(r.Failures[0].Check + ": " + r.Failures[0].Message)
	case r.Verdict == Errored:
		return oneLine(reason(r))
	}
	return ""
}

// reason says why a scenario was skipped or could not be run.
func reason(r *Result) string {
	if r.Err != nil {
		return r.Err.Error()
	}
	if r.Verdict == Skipped && r.Scenario != nil && len(r.Scenario.Needs) > 0 {
		return "needs " + strings.Join(r.Scenario.Needs, ", ")
	}
	return "no reason is known"
}

// failureText is what was wrong, and the timeline around it.
func failureText(r *Result) string {
	var b strings.Builder
	p := &printer{w: &b}
	p.failures(r)
	p.around(r)
	return b.String()
}
