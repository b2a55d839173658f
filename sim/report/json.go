package report

import (
	"encoding/json"
	"fmt"
	"io"
)

// JSON writes the suite for scripts: cluster, seed, and a list of scenarios with name, file, verdict, virtualSeconds,
// wallSeconds, revisions, failures (check, message, revision, virtualSeconds) and, where it was skipped, could not run, or failed
// by a known defect, the reason. Lists are never null.
func JSON(w io.Writer, s *Suite) error {
	clean := Suite{Cluster: s.Cluster, Seed: s.Seed, Scenarios: make([]*Result, 0, len(s.Scenarios))}
	for _, r := range s.Scenarios {
		c := *r
		if c.Failures == nil {
			c.Failures = []Failure{}
		}
		if c.Err != nil {
			c.Reason = c.Err.Error()
		}
		clean.Scenarios = append(clean.Scenarios, &c)
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(clean); err != nil {
		return fmt.Errorf("write JSON report: %w", err)
	}
	return nil
}
