package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/layersim/layersim/sim/compare"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/scenario"
)

// library is the folder whose scenarios explanations are for.
const library = "scenarios"

// most is how many differences are shown of one scenario: what comes after the first few is their consequence as a rule.
const most = 3

// comparison compares the results of scenarios on several clusters.
type comparison struct {
	mu        sync.Mutex
	explained *compare.Explanations
}

func newComparison() (*comparison, error) {
	explained, err := compare.Explained()
	if err != nil {
		return nil, err
	}
	return &comparison{explained: explained}, nil
}

// compare fails a result for each difference from the first cluster's that nobody has explained. Runs that have no history,
// or one that ends in the middle, can't be compared, and say so themselves.
func (c *comparison) compare(first *report.Result, firstCluster string, other *report.Result, otherCluster string) error {
	for _, r := range []*report.Result{first, other} {
		if r.History == nil || r.Verdict == report.Errored {
			return nil
		}
	}
	differences := compare.Histories(first.History, other.History)
	c.mu.Lock()
	differences = c.explained.Explain(differences, first.Name, [2]string{firstCluster, otherCluster})
	c.mu.Unlock()
	if len(differences) == 0 {
		return nil
	}
	var text strings.Builder
	if err := compare.Text(&text, differences[:min(len(differences), most)]); err != nil {
		return err
	}
	if n := len(differences) - most; n > 0 {
		fmt.Fprintf(&text, "\n… %s more, most often because of the first\n", plural(n, "difference"))
	}
	if other.Verdict == report.Passed {
		other.Verdict = report.Failed
	}
	other.Comparison = text.String()
	other.Failures = append(other.Failures, report.Failure{
		Check: "compare with " + firstCluster, Message: fmt.Sprintf("%s, the first: %s", plural(len(differences), "difference"), differences[0])})
	return nil
}

// stale is an error for each explanation that explained nothing although all the scenarios that it is for were compared.
func (c *comparison) stale() error {
	var names []string
	if _, err := os.Stat(library); err == nil {
		list, err := scenario.Load([]string{library})
		if err != nil {
			return err
		}
		for _, s := range list {
			names = append(names, s.Name)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	stale := c.explained.Stale(names)
	if len(names) == 0 || len(stale) == 0 {
		return nil
	}
	text := "explained differences that are none any more; take them out of sim/compare/explained.yaml:"
	for _, entry := range stale {
		text += "\n  " + entry.String()
	}
	return errors.New(text)
}
