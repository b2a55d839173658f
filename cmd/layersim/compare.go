package main

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"github.com/layersim/layersim/sim/compare"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/scenario"
)

// comparison compares the results of scenarios on several clusters.
type comparison struct {
	mu        sync.Mutex
	explained *compare.Explanations
	seen      []string
}

func newComparison() (*comparison, error) {
	explained, err := compare.Explained()
	if err != nil {
		return nil, err
	}
	return &comparison{explained: explained}, nil
}

// compare fails a result for each difference from the first cluster's that nobody has explained. Runs that have no history
// can't be compared, and say so themselves.
func (c *comparison) compare(first *report.Result, firstCluster string, other *report.Result, otherCluster string) error {
	if first.History == nil || other.History == nil {
		return nil
	}
	differences := compare.Histories(first.History, other.History)
	c.mu.Lock()
	c.seen = append(c.seen, first.Name)
	differences = c.explained.Explain(differences, first.Name, [2]string{firstCluster, otherCluster})
	c.mu.Unlock()
	for _, d := range differences {
		var text bytes.Buffer
		if err := compare.Text(&text, []compare.Difference{d}); err != nil {
			return err
		}
		if other.Verdict == report.Passed {
			other.Verdict = report.Failed
		}
		other.Failures = append(other.Failures, report.Failure{Check: "compare with " + firstCluster, Message: text.String()})
	}
	return nil
}

// stale is an error for each explanation that none of the compared scenarios needed any more.
func (c *comparison) stale() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var text bytes.Buffer
	for _, entry := range c.explained.Stale(c.seen) {
		if slices.ContainsFunc(c.seen, func(name string) bool { return scenario.Match(entry.Scenario, name) }) {
			fmt.Fprintf(&text, "\n  %s", entry)
		}
	}
	if text.Len() == 0 {
		return nil
	}
	return fmt.Errorf("explained differences that are none any more; take them out of sim/compare/explained.yaml:%s", text.String())
}
