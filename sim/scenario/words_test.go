package scenario

import (
	"bytes"
	"cmp"
	"fmt"
	"go/format"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestWordsAreSorted(t *testing.T) {
	sorted := slices.IsSortedFunc(words, func(a, b Word) int {
		return cmp.Or(slices.Index(sections, a.Section)-slices.Index(sections, b.Section), strings.Compare(a.Name, b.Name))
	})
	if !sorted {
		t.Error("the table of words is not sorted by section and name")
	}
	for i, w := range words {
		if w.Short == "" || w.Grammar == "" || w.Example == "" {
			t.Errorf("%s (%s): a field is empty", w.Name, w.Section)
		}
		if i > 0 && words[i-1].Name == w.Name && words[i-1].Section == w.Section {
			t.Errorf("%s (%s): stands twice", w.Name, w.Section)
		}
		if w.Section == SectionAction && w.act == nil || w.Section == SectionExpectation && w.Name != objectWord && w.Name != inSince && w.Name != inUntil && w.expect == nil {
			t.Errorf("%s (%s): has no reader", w.Name, w.Section)
		}
	}
}

// TestFieldsAreWords ties the fields that the reader knows to the manual.
func TestFieldsAreWords(t *testing.T) {
	for section, fields := range map[string][]string{
		SectionScenario: fileFields, SectionStep: stepFields, SectionCheck: objectFields, SectionCluster: clusterFields,
		SectionFault: placeNames(),
	} {
		var have []string
		for _, w := range words {
			if w.Section == section {
				have = append(have, w.Name)
			}
		}
		want := slices.Sorted(slices.Values(fields))
		if !slices.Equal(want, have) {
			t.Errorf("%s: the reader knows %v, the manual explains %v", section, want, have)
		}
	}
}

// document wraps a word's example so that it becomes a whole file.
func document(w Word) string {
	body := func(text string) string { return "      " + strings.ReplaceAll(text, "\n", "\n      ") }
	file := map[string]string{
		"kind": "kind: Scenario", "name": "name: example", "shows": "shows: an example", "cluster": "cluster: two-pools",
		"steps": "steps:\n  - the only step:\n      wait: 1s",
	}
	switch w.Section {
	case SectionScenario:
		file[w.Name] = w.Example
		if w.Name == "variants" {
			file["steps"] = "steps:\n  - the only step:\n      fault: {on: repository, do: unreachable, times: $(failures)}"
		}
	case SectionStep, SectionAction, SectionFault:
		file["steps"] = "steps:\n  - the only step:\n" + body(w.Example)
		if w.Section == SectionFault && w.Name == onHost {
			file["needs"] = "needs: [host]"
		}
		if w.Section == SectionStep && (w.Name == "always") {
			file["steps"] += "\n      for: 1m"
		}
		if w.Name == inSince || w.Name == inUntil {
			file["steps"] += "\n  - a step for all releases: {wait: 1s}"
		}
	case SectionExpectation:
		file["steps"] = "steps:\n  - the only step:\n      wait: 1s\n      expect:\n        - " + w.Example
	case SectionCheck:
		file["steps"] = "steps:\n  - the only step:\n      ever:\n        - " + w.Example
	case SectionCluster:
		file["cluster"] = "cluster:\n" + body("like: two-pools\n"+w.Example)
	}
	var lines []string
	for _, key := range []string{"kind", "name", "area", "shows", "source", "needs", "since", "until", "seed", "cluster", "variants", "steps", "never", "always"} {
		if file[key] != "" {
			lines = append(lines, file[key])
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestExamplesAreGood(t *testing.T) {
	for _, w := range words {
		text := document(w)
		got, err := Parse("testdata/example.yaml", []byte(text))
		if err != nil || len(got) == 0 {
			t.Errorf("%s (%s):\n%s\n%v", w.Name, w.Section, text, err)
		}
	}
}

// TestManual ties the manual in doc.go to the table. With LAYERSIM_UPDATE=1 it writes doc.go.
func TestManual(t *testing.T) {
	data, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "// # Words\n", "package scenario\n"
	head, rest, ok := strings.Cut(string(data), begin)
	if !ok || !strings.HasSuffix(rest, end) {
		t.Fatalf("doc.go has no section %q", begin)
	}
	var b strings.Builder
	b.WriteString("\nWhat `layersim explain` prints of each word.\n")
	for _, section := range sections {
		fmt.Fprintf(&b, "\n# %s\n", section)
		for _, w := range words {
			if w.Section == section {
				b.WriteString("\n")
				w.write(&b)
			}
		}
	}
	var manual strings.Builder
	for line := range strings.Lines(b.String()) {
		if line == "\n" {
			manual.WriteString("//\n")
		} else if strings.HasPrefix(line, "\t") {
			manual.WriteString("//" + line)
		} else {
			manual.WriteString("// " + line)
		}
	}
	formatted, err := format.Source([]byte(head + begin + manual.String() + end))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(formatted, data) {
		return
	}
	if os.Getenv("LAYERSIM_UPDATE") == "" {
		t.Fatal("doc.go is not what the table of words says: run LAYERSIM_UPDATE=1 go test ./sim/scenario")
	}
	if err := os.WriteFile("doc.go", formatted, 0o644); err != nil {
		t.Fatal(err)
	}
}
