package compare

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/layersim/layersim/sim/history"
)

// Kind is how two runs differ.
type Kind string

// The kinds of differences.
const (
	OnlyA Kind = "only in the first"  // a milestone that the second run doesn't have
	OnlyB Kind = "only in the second" // and the other way round
	Order Kind = "order"              // both have it, in another causal order
)

// Difference is one difference between two runs.
type Difference struct {
	Kind Kind
	// Milestone is the one that is missing in the other run; for Order it is the effect, as in the first run.
	Milestone Milestone
	// Rule is the causal rule of a difference in order.
	Rule *Rule
	A, B Side
}

// Side is one run's side of a difference.
type Side struct {
	// Run names the run: its cluster, and its seed where the clusters are the same.
	Run string
	// Track is what the run has in the milestone's track near it; At is the milestone's index there, -1 if it isn't there.
	Track []Milestone
	At    int
	// Causes is how many of the rule's causes came before the effect; Last is the last of these, Next the first one
	// after it. They are nil where there is none and where there is no rule.
	Causes     int
	Last, Next *Milestone
}

// String tells a difference in one line, with normalised names. The entries of a file of explained differences match it.
func (d Difference) String() string {
	switch d.Kind {
	case OnlyA:
		return "only on " + d.A.Run + ": " + d.Milestone.String()
	case OnlyB:
		return "only on " + d.B.Run + ": " + d.Milestone.String()
	}
	return fmt.Sprintf("order: %s (%s): after %d on %s, after %d on %s",
		d.Milestone.String(), d.Rule, d.A.Causes, d.A.Run, d.B.Causes, d.B.Run)
}

// Histories compares two runs of a scenario. No difference means that they have the same milestones in the same causal
// order, as the package's documentation defines it.
func Histories(a, b *history.History) []Difference {
	first, second := read(a), read(b)
	namesA, namesB := pair(first, second)
	c := &comparison{a: first.named(namesA), b: second.named(namesB)}
	c.runA, c.runB = runs(a, b)
	c.lastingA, c.lastingB = lasting(first, second)
	c.tracks()
	c.order()
	slices.SortStableFunc(c.found, func(x, y Difference) int { return cmp.Compare(x.Milestone.Time, y.Milestone.Time) })
	return c.found
}

// runs names two runs.
func runs(a, b *history.History) (string, string) {
	if a == nil || b == nil {
		return "the first", "the second"
	}
	x, y := a.Header.Cluster, b.Header.Cluster
	switch {
	case x != y:
		return x, y
	case a.Header.Seed != b.Header.Seed:
		return fmt.Sprintf("%s seed %d", x, a.Header.Seed), fmt.Sprintf("%s seed %d", y, b.Header.Seed)
	}
	return x + " first", y + " second"
}

// pair gives the nodes of two runs their aliases: within each group, a node of the second run is the counterpart of one
// of the first run that went through the same, and the others are paired in the order in which they were told to change.
func pair(a, b *reader) (namesA, namesB map[string]string) {
	namesA, namesB = map[string]string{}, map[string]string{}
	storiesA, storiesB := a.stories(), b.stories()
	groupsA, groupsB := a.groups(), b.groups()
	for group, nodes := range groupsA {
		for n, node := range nodes {
			namesA[node] = alias(group, n)
		}
	}
	for group, nodes := range groupsB {
		alike := map[string][]int{}
		for n, node := range groupsA[group] {
			alike[storiesA[node]] = append(alike[storiesA[node]], n)
		}
		taken := map[int]bool{}
		var left []string
		for _, node := range nodes {
			if found := alike[storiesB[node]]; len(found) > 0 {
				alike[storiesB[node]] = found[1:]
				taken[found[0]] = true
				namesB[node] = alias(group, found[0])
			} else {
				left = append(left, node)
			}
		}
		n := 0
		for _, node := range left {
			for taken[n] {
				n++
			}
			namesB[node] = alias(group, n)
			n++
		}
	}
	return namesA, namesB
}

// lasting returns how long a value must last in each of two runs. Where the world of one goes by faster than that of the
// other, less time is enough, in proportion.
func lasting(a, b *reader) (time.Duration, time.Duration) {
	x, y := a.now-a.start, b.now-b.start
	scaled := func(mine, other time.Duration) time.Duration {
		if mine >= other {
			return Lasting
		}
		return max(LeastLasting, time.Duration(float64(Lasting)*mine.Seconds()/other.Seconds()))
	}
	return scaled(x, y), scaled(y, x)
}

// stories tells what each node went through, track by track.
func (r *reader) stories() map[string]string {
	tracks := map[string]map[string]*strings.Builder{}
	for n := range r.list {
		m := &r.list[n]
		if m.Subject != "" {
			continue
		}
		if tracks[m.on.node] == nil {
			tracks[m.on.node] = map[string]*strings.Builder{}
		}
		if tracks[m.on.node][m.Track] == nil {
			tracks[m.on.node][m.Track] = &strings.Builder{}
		}
		tracks[m.on.node][m.Track].WriteString(m.Text + "\n")
	}
	stories := map[string]string{}
	for node, list := range tracks {
		var parts []string
		for name, text := range list {
			parts = append(parts, name+"\n"+text.String())
		}
		slices.Sort(parts)
		stories[node] = strings.Join(parts, "\n")
	}
	return stories
}

// comparison compares the milestones of two runs.
type comparison struct {
	a, b       []Milestone
	runA, runB string
	// lastingA and lastingB are how long values of level tracks must last.
	lastingA, lastingB time.Duration
	both               [][2]int // milestones that both runs have, by index in a and in b
	found              []Difference
}

// tracks aligns each track of the two runs.
func (c *comparison) tracks() {
	var keys []track
	inA, inB := byTrack(c.a, &keys), byTrack(c.b, &keys)
	for _, key := range keys {
		x, y := inA[key], inB[key]
		matched := c.align(x, y)
		for _, m := range matched.pairs {
			c.both = append(c.both, [2]int{x[m[0]], y[m[1]]})
		}
		for _, n := range matched.onlyA {
			c.found = append(c.found, Difference{Kind: OnlyA, Milestone: c.a[x[n]],
				A: Side{Run: c.runA, Track: pick(c.a, x), At: n}, B: Side{Run: c.runB, Track: pick(c.b, y), At: -1}})
		}
		for _, n := range matched.onlyB {
			c.found = append(c.found, Difference{Kind: OnlyB, Milestone: c.b[y[n]],
				A: Side{Run: c.runA, Track: pick(c.a, x), At: -1}, B: Side{Run: c.runB, Track: pick(c.b, y), At: n}})
		}
	}
}

// byTrack sorts milestones into tracks and adds those that keys doesn't have yet.
func byTrack(list []Milestone, keys *[]track) map[track][]int {
	tracks := map[track][]int{}
	known := map[track]bool{}
	for _, k := range *keys {
		known[k] = true
	}
	for n := range list {
		key := track{list[n].Subject, list[n].Track}
		if !known[key] {
			known[key] = true
			*keys = append(*keys, key)
		}
		tracks[key] = append(tracks[key], n)
	}
	return tracks
}

func pick(list []Milestone, at []int) []Milestone {
	picked := make([]Milestone, len(at))
	for n, i := range at {
		picked[n] = list[i]
	}
	return picked
}

// order looks at the causes of each milestone that both runs have.
func (c *comparison) order() {
	causesA, causesB := newCauses(c.a), newCauses(c.b)
	byEffect := map[what][]*Rule{}
	for n := range rules {
		byEffect[rules[n].Effect] = append(byEffect[rules[n].Effect], &rules[n])
	}
	for _, m := range c.both {
		x, y := &c.a[m[0]], &c.b[m[1]]
		for _, rule := range byEffect[x.what] {
			a, b := Side{Run: c.runA, At: -1}, Side{Run: c.runB, At: -1}
			a.Causes, a.Last, a.Next = causesA.before(*rule, x)
			b.Causes, b.Last, b.Next = causesB.before(*rule, y)
			if a.Causes == b.Causes {
				continue
			}
			a.Track, a.At, b.Track, b.At = []Milestone{*x}, 0, []Milestone{*y}, 0
			c.found = append(c.found, Difference{Kind: Order, Milestone: *x, Rule: rule, A: a, B: b})
		}
	}
}

// alignment is what two tracks have in common, by index in each.
type alignment struct {
	pairs        [][2]int
	onlyA, onlyB []int
}

// align finds the alignment of two tracks that leaves out the fewest milestones. Values of a level track that did not
// last cost nothing to leave out, and neither does a value that follows itself once those between are left out.
func (c *comparison) align(a, b []int) alignment {
	listA, listB := c.a, c.b
	if same(listA, a, listB, b) {
		var all alignment
		for n := range a {
			all.pairs = append(all.pairs, [2]int{n, n})
		}
		return all
	}
	// Texts get numbers from 1; 0 stands for nothing, which is what was matched last at the start.
	numbers := map[string]int{}
	number := func(list []Milestone, at []int) []int {
		out := make([]int, len(at))
		for n, i := range at {
			if numbers[list[i].Text] == 0 {
				numbers[list[i].Text] = len(numbers) + 1
			}
			out[n] = numbers[list[i].Text]
		}
		return out
	}
	x, y := number(listA, a), number(listB, b)
	weight := func(m *Milestone, lasting time.Duration, last, n int) int {
		if m.Level && (m.Held < lasting || n == last) {
			return 0
		}
		return 1
	}
	type state struct{ i, j, last int }
	type choice struct {
		cost int
		step byte // what to do: m match, a leave out of a, b leave out of b
	}
	memo := map[state]choice{}
	var best func(s state) int
	best = func(s state) int {
		if known, ok := memo[s]; ok {
			return known.cost
		}
		found := choice{cost: math.MaxInt}
		if s.i == len(x) && s.j == len(y) {
			found = choice{}
		}
		if s.i < len(x) && s.j < len(y) && x[s.i] == y[s.j] {
			if n := best(state{s.i + 1, s.j + 1, x[s.i]}); n < found.cost {
				found = choice{n, 'm'}
			}
		}
		if s.i < len(x) {
			if n := best(state{s.i + 1, s.j, s.last}) + weight(&listA[a[s.i]], c.lastingA, s.last, x[s.i]); n < found.cost {
				found = choice{n, 'a'}
			}
		}
		if s.j < len(y) {
			if n := best(state{s.i, s.j + 1, s.last}) + weight(&listB[b[s.j]], c.lastingB, s.last, y[s.j]); n < found.cost {
				found = choice{n, 'b'}
			}
		}
		memo[s] = found
		return found.cost
	}
	best(state{})
	var out alignment
	for s := (state{}); s.i < len(x) || s.j < len(y); {
		switch memo[s].step {
		case 'm':
			out.pairs = append(out.pairs, [2]int{s.i, s.j})
			s = state{s.i + 1, s.j + 1, x[s.i]}
		case 'a':
			if weight(&listA[a[s.i]], c.lastingA, s.last, x[s.i]) > 0 {
				out.onlyA = append(out.onlyA, s.i)
			}
			s.i++
		case 'b':
			if weight(&listB[b[s.j]], c.lastingB, s.last, y[s.j]) > 0 {
				out.onlyB = append(out.onlyB, s.j)
			}
			s.j++
		}
	}
	return out
}

func same(listA []Milestone, a []int, listB []Milestone, b []int) bool {
	return slices.EqualFunc(a, b, func(i, j int) bool { return listA[i].Text == listB[j].Text })
}
