package compare

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"

	"github.com/goccy/go-yaml"

	"github.com/layersim/layersim/sim/scenario"
)

//go:embed explained.yaml
var explained []byte

// Entry explains differences that people have looked into. It matches a difference if all its patterns do; in a pattern *
// stands for any text and ? for any character.
type Entry struct {
	// Scenario is a pattern of names, Cluster of the name of one of the two clusters.
	Scenario string `yaml:"scenario"`
	Cluster  string `yaml:"cluster"`
	// Difference is a pattern of what [Difference.String] says.
	Difference string `yaml:"difference"`
	// Reason says why the difference is right, or whose bug it is.
	Reason string `yaml:"reason"`
}

func (e Entry) String() string {
	return fmt.Sprintf("scenario %q, cluster %q, difference %q", e.Scenario, e.Cluster, e.Difference)
}

// Explanations is a reviewed file of explained differences, and how far it was of use. It may only shrink: an entry that
// explains nothing any more has to go.
type Explanations struct {
	Entries []Entry
	used    []bool
	covered []map[string]bool // by scenario
}

// Explained returns the explanations that come with this package, explained.yaml, unused.
func Explained() (*Explanations, error) {
	e, err := ParseExplanations(explained)
	if err != nil {
		return nil, fmt.Errorf("explained.yaml: %w", err)
	}
	return e, nil
}

// ParseExplanations reads a YAML list of entries. Each field is required.
func ParseExplanations(text []byte) (*Explanations, error) {
	e := &Explanations{}
	if err := yaml.UnmarshalWithOptions(text, &e.Entries, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("parse explained differences: %w", err)
	}
	var wrong []error
	for n, entry := range e.Entries {
		for _, f := range []struct{ name, value string }{{"scenario", entry.Scenario}, {"cluster", entry.Cluster},
			{"difference", entry.Difference}, {"reason", entry.Reason}} {
			if f.value == "" {
				wrong = append(wrong, fmt.Errorf("entry %d (%s): %s is missing", n+1, entry, f.name))
			}
		}
		if slices.ContainsFunc(e.Entries[:n], func(o Entry) bool {
			return o.Scenario == entry.Scenario && o.Cluster == entry.Cluster && o.Difference == entry.Difference
		}) {
			wrong = append(wrong, fmt.Errorf("entry %d (%s): it is there twice", n+1, entry))
		}
		e.covered = append(e.covered, map[string]bool{})
	}
	e.used = make([]bool, len(e.Entries))
	return e, errors.Join(wrong...)
}

// Explain takes the differences of one scenario's runs on two clusters and returns those that no entry explains. It
// remembers which entries were of use. Call it for each scenario that was compared, with or without differences.
func (e *Explanations) Explain(differences []Difference, name string, clusters [2]string) []Difference {
	var unexplained []Difference
	var applies []int
	for n, entry := range e.Entries {
		if scenario.Match(entry.Scenario, name) && (scenario.Match(entry.Cluster, clusters[0]) || scenario.Match(entry.Cluster, clusters[1])) {
			applies = append(applies, n)
			e.covered[n][name] = true
		}
	}
	for _, d := range differences {
		text, known := d.String(), false
		for _, n := range applies {
			if scenario.Match(e.Entries[n].Difference, text) {
				e.used[n], known = true, true
			}
		}
		if !known {
			unexplained = append(unexplained, d)
		}
	}
	return unexplained
}

// Stale returns the entries that explained nothing although all the scenarios of the library that they are for were
// compared, and those that are for no scenario of the library at all.
func (e *Explanations) Stale(library []string) []Entry {
	var stale []Entry
	for n, entry := range e.Entries {
		if e.used[n] {
			continue
		}
		anywhere, all := false, true
		for _, name := range library {
			if scenario.Match(entry.Scenario, name) {
				anywhere = true
				all = all && e.covered[n][name]
			}
		}
		if !anywhere || all {
			stale = append(stale, entry)
		}
	}
	return stale
}
