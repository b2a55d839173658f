package release

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/layersim/layersim/sim/scenario"
)

//go:embed defects.yaml
var defects []byte

// Defect is one of upstream's that people have looked into: a scenario fails by it on some releases, and neither the
// scenario nor the world around the controllers is to blame.
type Defect struct {
	// Scenarios are patterns of names; in a pattern * stands for any text and ? for any character.
	Scenarios []string `yaml:"scenarios"`
	// Since and Until are the first and the last release that has the defect; "" is open.
	Since string `yaml:"since"`
	Until string `yaml:"until"`
	// Fails are patterns of the checks that fail by it, as reports name them.
	Fails []string `yaml:"fails"`
	// Sometimes says that it is a race, or a matter of names: the scenario may pass as well.
	Sometimes bool `yaml:"sometimes"`
	// Bug is upstream's id, where there is one.
	Bug string `yaml:"bug"`
	// Because says what upstream does.
	Because string `yaml:"because"`
}

func (d *Defect) String() string {
	return fmt.Sprintf("%s: %s", strings.Join(d.Scenarios, ", "), d.Because)
}

// holds reports whether a scenario meets the defect on a release.
func (d *Defect) holds(release, name string) bool {
	return scenario.Span{Since: d.Since, Until: d.Until}.Holds(release) && matches(d.Scenarios, name)
}

// Defects returns the known defects of upstream, defects.yaml. The list may only shrink, but for defects of releases that
// are new to it.
func Defects() ([]Defect, error) {
	list, err := parseDefects(defects)
	if err != nil {
		return nil, fmt.Errorf("defects.yaml: %w", err)
	}
	return list, nil
}

func parseDefects(text []byte) ([]Defect, error) {
	var list []Defect
	if err := yaml.UnmarshalWithOptions(text, &list, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("parse known defects: %w", err)
	}
	var wrong []error
	for n := range list {
		d := &list[n]
		for _, f := range []struct {
			name string
			set  bool
		}{{"scenarios", len(d.Scenarios) > 0}, {"fails", len(d.Fails) > 0}, {"because", d.Because != ""}} {
			if !f.set {
				wrong = append(wrong, fmt.Errorf("entry %d (%s): %s is missing", n+1, d, f.name))
			}
		}
		for _, name := range []string{d.Since, d.Until} {
			if name != "" && !slices.Contains(scenario.Releases, name) {
				wrong = append(wrong, fmt.Errorf("entry %d (%s): %q is none of %s", n+1, d, name, strings.Join(scenario.Releases, ", ")))
			}
		}
	}
	return list, errors.Join(wrong...)
}

// Known says by which known defects a run of a scenario failed, given the names of the checks that did: "" if there is one
// that no defect accounts for, or none that failed. Where nothing failed although a defect should have shown,
// the error says so: then the entry has to go, or its releases have to change.
func Known(list []Defect, release, name string, failed []string) (because string, err error) {
	var reasons []string
	left := slices.Clone(failed)
	for n := range list {
		d := &list[n]
		if !d.holds(release, name) {
			continue
		}
		if len(failed) == 0 && !d.Sometimes {
			return "", fmt.Errorf("known defect of %s that does not show any more; take it out of sim/cluster/release/defects.yaml: %s",
				release, d.Because)
		}
		before := len(left)
		left = slices.DeleteFunc(left, func(check string) bool { return matches(d.Fails, check) })
		if len(left) < before {
			reason := strings.TrimSpace(d.Because)
			if d.Bug != "" {
				reason = d.Bug + ": " + reason
			}
			reasons = append(reasons, reason)
		}
	}
	if len(left) > 0 {
		return "", nil
	}
	return strings.Join(reasons, "; "), nil
}

func matches(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return scenario.Match(p, text) })
}
