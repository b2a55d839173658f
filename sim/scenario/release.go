package scenario

import (
	"fmt"
	"slices"
	"strings"
)

// Releases are the releases that since and until can name, oldest first.
var Releases = []string{"4.18", "4.19", "4.20", "4.21", "4.22", "main"}

// Span says for which releases something holds: from Since to Until, both included. "" is open.
type Span struct{ Since, Until string }

// Holds reports whether the span includes a release. "" is the newest; so is what is none of [Releases].
func (s Span) Holds(release string) bool {
	i := slices.Index(Releases, release)
	if i < 0 {
		i = len(Releases) - 1
	}
	w := s.window()
	return w.first <= i && i <= w.last
}

// Range is the span in words: "since 4.20", "until 4.19", "since 4.19 until 4.20", or "for all releases".
func (s Span) Range() string {
	var words []string
	if s.Since != "" {
		words = append(words, "since "+s.Since)
	}
	if s.Until != "" {
		words = append(words, "until "+s.Until)
	}
	if words == nil {
		return "for all releases"
	}
	return strings.Join(words, " ")
}

func (s Span) window() window {
	w := allReleases()
	if s.Since != "" {
		w.first = slices.Index(Releases, s.Since)
	}
	if s.Until != "" {
		w.last = slices.Index(Releases, s.Until)
	}
	return w
}

// For returns the scenario as it is for a release ("": the newest), without the steps, expectations and rules that hold
// only for others, and without steps that have nothing left by that. It shares actions and the cluster with the original.
// Ask [Span.Holds] first whether the scenario itself holds for the release.
func (s *Scenario) For(release string) *Scenario {
	out := *s
	out.Never, out.Always = only(s.Never, release), only(s.Always, release)
	out.Steps = nil
	for _, step := range only(s.Steps, release) {
		idle := step.idle()
		step.Expect, step.InOrder = only(step.Expect, release), only(step.InOrder, release)
		step.Settles, step.Ever = only(step.Settles, release), only(step.Ever, release)
		step.Never, step.Always = only(step.Never, release), only(step.Always, release)
		if idle || !step.idle() {
			out.Steps = append(out.Steps, step)
		}
	}
	return &out
}

// idle steps end where they begin and show nothing.
func (s *Step) idle() bool {
	return len(s.Actions)+len(s.Expect)+len(s.InOrder)+len(s.Settles)+len(s.Ever) == 0 && s.For == 0
}

func only[T interface{ Holds(string) bool }](list []T, release string) []T {
	return slices.DeleteFunc(slices.Clone(list), func(x T) bool { return !x.Holds(release) })
}

// Fields that limit what stands beside them to some releases.
const (
	inSince = "since"
	inUntil = "until"
)

// window is a span as places in Releases.
type window struct{ first, last int }

func allReleases() window { return window{0, len(Releases) - 1} }

// set has a bit for each release.
func (w window) set() uint { return 1<<(w.last+1) - 1<<w.first }

// namesOf names the releases of a set.
func namesOf(set uint) string {
	var names []string
	for i, name := range Releases {
		if set>>i&1 == 1 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// span reads since and until of a mapping that holds at most for the releases of outer.
func (r *reading) span(n *node, outer window) (Span, window) {
	var s Span
	w := outer
	since, until := n.get(inSince), n.get(inUntil)
	if i, ok := r.release(inSince, since); ok {
		switch {
		case i > outer.last:
			r.fail(since, inSince, since.show(), "is after "+Releases[outer.last]+", the last release here", "an earlier one, or take this out")
		case i <= outer.first:
			r.fail(since, inSince, since.show(), "says nothing", "leave it out: "+Releases[outer.first]+" is the first release here")
		default:
			s.Since, w.first = Releases[i], i
		}
	}
	if i, ok := r.release(inUntil, until); ok {
		switch {
		case i < outer.first:
			r.fail(until, inUntil, until.show(), "is before "+Releases[outer.first]+", the first release here", "a later one, or take this out")
		case i >= outer.last:
			r.fail(until, inUntil, until.show(), "says nothing", "leave it out: "+Releases[outer.last]+" is the last release here")
		case i < w.first:
			r.fail(until, inUntil, until.show(), "is before since: "+since.show()+", so no release is left", Releases[w.first]+" or a later one")
		default:
			s.Until, w.last = Releases[i], i
		}
	}
	return s, w
}

// release reads the name of a release, where there is one. A number is taken as it is written: 4.20 is not 4.2.
func (r *reading) release(field string, n *node) (int, bool) {
	if n == nil {
		return 0, false
	}
	if i := slices.Index(Releases, n.text); i >= 0 && n.kind == scalarNode {
		return i, true
	}
	instead := "one of " + strings.Join(Releases, ", ")
	for _, name := range Releases {
		// 4.2, release-4.20, 4.20.3
		if n.text+"0" == name || strings.Contains(n.text, name) {
			instead = fmt.Sprintf("did you mean %q?", name)
		}
	}
	r.fail(n, field, n.show(), "is not a release", instead)
	return 0, false
}
