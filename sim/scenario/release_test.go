package scenario

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReleasesHaveFixtures: releases are known under one set of names.
func TestReleasesHaveFixtures(t *testing.T) {
	files, err := filepath.Glob("../../fixtures/releases/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".yaml"))
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(Releases)), slices.Sorted(slices.Values(names))); diff != "" {
		t.Errorf("-Releases +fixtures/releases:\n%s", diff)
	}
}

// outline says what is left of a scenario.
func outline(s *Scenario) string {
	var b strings.Builder
	list := func(what string, of []Expectation) {
		for _, x := range of {
			fmt.Fprintf(&b, " %s %s;", what, x.Text)
		}
	}
	rules := func(what string, of []Rule) {
		for _, x := range of {
			fmt.Fprintf(&b, " %s %s;", what, x.Name)
		}
	}
	for _, step := range s.Steps {
		b.WriteString(step.Name + ":")
		for _, a := range step.Actions {
			b.WriteString(" " + a.Verb + ";")
		}
		list("expect", step.Expect)
		list("in order", step.InOrder)
		list("settles", step.Settles)
		list("ever", step.Ever)
		rules("never", step.Never)
		rules("always", step.Always)
		b.WriteString("\n")
	}
	rules("never", s.Never)
	rules("always", s.Always)
	return b.String()
}

func TestFor(t *testing.T) {
	s := parseOne(t, `
kind: Scenario
name: releases
shows: what is left for a release
cluster: two-pools
until: "4.22"
steps:
  - ask:
      fault: {on: repository, do: unreachable}
      expect:
        - mcp layered: {ready: 1}
        - {since: 4.20, mcp layered: {ready: 2}, true: 'list("node").size() > 1'}
        - until: "4.19"
          log build-*: text
      in order: {since: "4.19", until: "4.20", boots: {layered-*: 1}}
      settles: [{until: "4.18", machine layered-1: {booted: base}}]
      ever: [{since: "4.22", registry: {status: 500}}]
      never: [{a: {since: "4.21", node *: {}}}, {b: {node *: {}}}]
      always: [c: {mcp layered: {}, until: "4.20"}]
  - new:
      since: "4.20"
      heal: repository
      expect: {until: "4.21", mcp layered: {ready: 3}}
  - old:
      until: 4.19
      heal: repository
  - nothing else:
      expect: {since: "4.22", mcp layered: {ready: 4}}
never: [d: {since: "4.19", pods a: {}}]
always: [e: {until: "4.19", pods b: {}}]
`)
	before := outline(s)
	for release, want := range map[string]string{
		"4.18": `ask: fault; expect mcp layered: {ready: 1}; expect log build-*: text; settles machine layered-1: {booted: base}; never b; always c;
old: heal;
 always e;`,
		"4.19": `ask: fault; expect mcp layered: {ready: 1}; expect log build-*: text; in order boots: {layered-*: 1}; never b; always c;
old: heal;
 never d; always e;`,
		"4.20": `ask: fault; expect mcp layered: {ready: 1}; expect mcp layered: {ready: 2}; expect true: "list(\"node\").size() > 1"; in order boots: {layered-*: 1}; never b; always c;
new: heal; expect mcp layered: {ready: 3};
 never d;`,
		"4.22": `ask: fault; expect mcp layered: {ready: 1}; expect mcp layered: {ready: 2}; expect true: "list(\"node\").size() > 1"; ever registry: {status: 500}; never a; never b;
new: heal;
nothing else: expect mcp layered: {ready: 4};
 never d;`,
	} {
		if diff := cmp.Diff(want, outline(s.For(release))); diff != "" {
			t.Errorf("%s: -want +got:\n%s", release, diff)
		}
	}
	if got := outline(s); got != before {
		t.Errorf("For changed the original:\n%s", got)
	}
	if s.Since != "" || s.Until != "4.22" || s.Range() != "until 4.22" || s.Steps[1].Range() != "since 4.20" {
		t.Errorf("got %+v and %+v", s.Span, s.Steps[1].Span)
	}
}

func TestHolds(t *testing.T) {
	for _, test := range []struct {
		Span
		want string
	}{
		{Span{}, "4.18 4.19 4.20 4.21 4.22 main newest"},
		{Span{Since: "4.20"}, "4.20 4.21 4.22 main newest"},
		{Span{Until: "4.20"}, "4.18 4.19 4.20"},
		{Span{Since: "4.19", Until: "4.21"}, "4.19 4.20 4.21"},
		{Span{Since: "4.21", Until: "4.21"}, "4.21"},
		{Span{Since: "main"}, "main newest"},
	} {
		var got []string
		for _, release := range Releases {
			if test.Holds(release) {
				got = append(got, release)
			}
		}
		if test.Holds("") {
			got = append(got, "newest")
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: holds for %v, want %s", test.Range(), got, test.want)
		}
	}
}

// TestReleaseOfVariant: a variable may stand for a release.
func TestReleaseOfVariant(t *testing.T) {
	all, err := Parse("x.yaml", []byte(`
kind: Scenario
name: x
shows: x
cluster: two-pools
variants: {a: {first: 4.20}, b: {first: main}}
since: $(first)
steps: [x: {wait: 1s}]
`))
	if err != nil || len(all) != 2 || all[0].Since != "4.20" || all[1].Since != "main" {
		t.Errorf("got %+v, %v", all, err)
	}
}
