package release

import (
	"slices"
	"strings"
	"testing"

	"github.com/layersim/layersim/sim/scenario"
)

// Each entry is for scenarios that exist, and for releases that they hold for.
func TestDefectsAreOfTheLibrary(t *testing.T) {
	list, err := Defects()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../../..") // scenarios name files from there
	library, err := scenario.Load([]string{"scenarios"})
	if err != nil {
		t.Fatal(err)
	}
	for n := range list {
		d := &list[n]
		for _, pattern := range d.Scenarios {
			some := slices.ContainsFunc(library, func(s *scenario.Scenario) bool {
				return scenario.Match(pattern, s.Name) && slices.ContainsFunc(scenario.Releases, func(r string) bool {
					return s.Holds(r) && d.holds(r, s.Name)
				})
			})
			if !some {
				t.Errorf("%s: %q is no scenario that holds for a release with the defect", d, pattern)
			}
		}
		// A check of a step is named by number and name.
		for _, check := range d.Fails {
			step, found := strings.CutPrefix(check, "step *, ")
			name, _, _ := strings.Cut(step, ":")
			if found && !slices.ContainsFunc(library, func(s *scenario.Scenario) bool {
				return matches(d.Scenarios, s.Name) && slices.ContainsFunc(s.Steps, func(st scenario.Step) bool { return st.Name == name })
			}) {
				t.Errorf("%s: %q is no step of it", d, name)
			}
		}
	}
}

func TestKnown(t *testing.T) {
	list, err := parseDefects([]byte(`
- {scenarios: [a, b/*], since: "4.20", until: "4.21", fails: ["step 2*", "invariant x"], bug: OCPBUGS-1, because: one}
- {scenarios: [a], fails: ["step 3*"], sometimes: true, because: two}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		release, name, failed, because, err string
	}{
		{"4.20", "a", "step 2, x", "OCPBUGS-1: one", ""},
		{"4.21", "b/c", "invariant x|step 2, x", "OCPBUGS-1: one", ""},
		{"4.20", "a", "step 2, x|step 3, y", "OCPBUGS-1: one; two", ""},
		{"4.22", "a", "step 3, y", "two", ""},
		// Another check fails, too; another release; another scenario.
		{"4.20", "a", "step 2, x|step 4, z", "", ""},
		{"4.22", "a", "step 2, x", "", ""},
		{"4.20", "c", "step 2, x", "", ""},
		// It passes.
		{"4.20", "a", "", "", "known defect of 4.20 that does not show any more"},
		{"4.22", "a", "", "", ""},
	} {
		var failed []string
		if test.failed != "" {
			failed = strings.Split(test.failed, "|")
		}
		because, err := Known(list, test.release, test.name, failed)
		if because != test.because || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s on %s failed %q: %q, %v", test.name, test.release, test.failed, because, err)
		}
	}
}

func TestDefectsMustBeComplete(t *testing.T) {
	for text, want := range map[string]string{
		"- {scenarios: [a], fails: [x]}":                            "because is missing",
		"- {scenarios: [a], because: x}":                            "fails is missing",
		"- {fails: [a], because: x}":                                "scenarios is missing",
		"- {scenarios: [a], fails: [x], because: x, since: '4.2'}":  `"4.2" is none of 4.18`,
		"- {scenarios: [a], fails: [x], because: x, release: main}": "unknown field",
	} {
		if _, err := parseDefects([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
