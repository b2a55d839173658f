package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/layersim/layersim/sim/scenario"
)

//go:embed page.html
var pageSource string

// page is parsed anew for each report: it is cheap beside the rest, and package state is not.
func page() (*template.Template, error) {
	return template.New("page").Parse(pageSource)
}

// Sizes of the drawing, in pixels of its own coordinates.
const (
	width    = 1200.0
	labels   = 190.0 // left of it are the names of lanes
	margin   = 14.0
	thick    = 17.0 // of a lane
	pitch    = 22.0 // from lane to lane
	between  = 9.0  // groups
	areaHigh = 132.0
	letter   = 5.9 // the width of one in a label
)

// tableBudget bounds the bytes of a scenario's timeline table. What matters least is left out first, and the page says so.
const tableBudget = 180_000

// HTML writes the suite as one self-contained page: no script is needed to read it, no other file is loaded.
//
// For each scenario it shows what the scenario is about and where that comes from, its steps with their verdicts, a drawing
// of the run in virtual time, and the timeline as a table. Stretches of the drawing in which nothing happens are compressed
// and marked. More than 12 nodes are drawn as one area, by how many are in which phase. A long timeline is cut, what
// matters least first, and says how much is missing.
func HTML(w io.Writer, s *Suite) error {
	t, err := page()
	if err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	c := count(s)
	v := suiteView{Cluster: s.Cluster, Seed: s.Seed, Summary: Summary(s), Timings: timings(s)}
	for _, verdict := range []string{Failed, Errored, Known, Passed, Skipped} {
		if n := c[verdict]; n > 0 {
			v.Counts = append(v.Counts, countView{N: n, Verdict: verdict})
		}
	}
	few := len(s.Scenarios) <= 2
	for n, r := range s.Scenarios {
		x := scenarioOf(s, r, fmt.Sprintf("s%d", n+1))
		x.Alone = len(s.Scenarios) == 1
		x.Open = few || r.Verdict == Failed || r.Verdict == Errored
		v.Scenarios = append(v.Scenarios, x)
		v.Broken = v.Broken || len(x.Failures) > 0 || r.Verdict == Errored
	}
	if err := t.Execute(w, v); err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	return nil
}

type suiteView struct {
	Cluster, Summary string
	Seed             uint64
	Counts           []countView
	Timings          []string
	Broken           bool
	Scenarios        []*scenarioView
}

type countView struct {
	N       int
	Verdict string
}

type scenarioView struct {
	ID, Name, File, Verdict, Area, Shows string
	Open, Alone                          bool
	Virtual, Wall                        string
	Time                                 string // "virtual" or "real"
	Revisions                            int64
	Records                              int
	Reconciles                           int64
	Seed                                 uint64
	Error                                string
	Sources                              []sourceView
	Failures                             []failureView
	Steps                                []stepView
	Chart                                *chartView
	Rows                                 []rowView
	Kinds                                []kindView
	Left                                 int // entries that the table leaves out
	HasDetails                           bool
}

type sourceView struct{ Name, Text string }

type failureView struct {
	ID, Check, Message, At string
	Revision               int64
}

type stepView struct {
	Number                    int
	Name, Verdict, Took, From string
	Link                      string
	Did, Wants                []string
	Within                    string
	Open                      bool // shows what was expected
}

type kindView struct {
	Name string
	N    int
}

type rowView struct {
	ID, Class, Kind, Time, Actor, Subject, Text, Full, Again, X string
	Revision                                                    int64
}

func scenarioOf(s *Suite, r *Result, id string) *scenarioView {
	v := &scenarioView{ID: id, Name: r.Name, File: r.File, Verdict: r.Verdict, Area: area(r), Virtual: human(r.VirtualSeconds),
		Wall: fmt.Sprintf("%.0f ms", r.WallSeconds*1000), Revisions: r.Revisions, Reconciles: r.Reconciles, Seed: seed(s, r), Time: "virtual"}
	if r.Timing != "" {
		v.Time = "real"
	}
	if r.Verdict == Skipped || r.Verdict == Known || r.Verdict == Errored {
		v.Error = reason(r)
	} else if r.Err != nil {
		v.Error = r.Err.Error()
	}
	if r.Scenario != nil {
		v.Shows = r.Scenario.Shows
		for _, name := range slices.Sorted(maps.Keys(r.Scenario.Source)) {
			v.Sources = append(v.Sources, sourceView{name, strings.Join(r.Scenario.Source[name], "; ")})
		}
	}
	entries := Timeline(r.History)
	all := rows(entries, r.Failures)
	fails := 0
	for _, x := range all {
		if f := x.failure; f != nil {
			fails++
			v.Failures = append(v.Failures, failureView{ID: fmt.Sprintf("%s-f%d", id, fails), Check: short(f.Check), Message: short(f.Message),
				At: stamp(seconds(f.VirtualSeconds)), Revision: f.Revision})
		}
	}
	kept, left := choose(all)
	v.Left = left
	links := newLinker(id, kept)
	v.Steps = steps(r, links)
	if r.History == nil || len(r.History.Records) == 0 {
		return v
	}
	v.Records = len(r.History.Records)
	d := draw(r.History, seconds(r.VirtualSeconds), entries, missed(r))
	c := newChart(d, kept, links, v.Failures)
	v.Chart = c.view()
	v.Chart.Title = fmt.Sprintf("%s of %s time", duration(c.end), v.Time)
	v.table(kept, c.scale)
	return v
}

// missed names the steps that failed, by index.
func missed(r *Result) map[int]bool {
	m := map[int]bool{}
	for _, f := range r.Failures {
		var n int
		if _, err := fmt.Sscanf(f.Check, "step %d,", &n); err == nil {
			m[n-1] = true
		}
	}
	return m
}

// choose keeps as many rows as the budget allows: first what tells of the scenario and of failures, then the rest, nodes
// and details last. It returns how many it left out.
func choose(all []row) (kept []row, left int) {
	size := func(r row) int {
		return 190 + len(r.Subject) + len(r.Text) + 2*len(r.Actor)
	}
	near := make([]bool, len(all))
	for n, r := range all {
		if r.failure != nil {
			for i := max(0, n-40); i <= min(n+3, len(all)-1); i++ {
				near[i] = true
			}
		}
	}
	class := func(n int) int {
		r := all[n]
		switch {
		case r.failure != nil || r.cause || r.Kind == KindStep || r.Kind == KindFault:
			return 0
		case near[n] && !r.Detail:
			return 1
		case r.Tone == Bad:
			return 2
		case r.Kind == KindBuild || r.Kind == KindConfig || r.Kind == KindRegistry && !r.Detail:
			return 3
		case r.Kind == KindPool || r.Kind == KindComponent && !r.Detail:
			return 4
		case !r.Detail:
			return 5
		}
		return 6
	}
	keep := make([]bool, len(all))
	budget := tableBudget
	for c := 0; c <= 6; c++ {
		for n := range all {
			if class(n) != c || keep[n] {
				continue
			}
			if budget -= size(all[n]); budget < 0 && c > 0 {
				break
			}
			keep[n] = true
		}
	}
	for n := range all {
		if keep[n] {
			kept = append(kept, all[n])
		} else {
			left++
		}
	}
	return kept, left
}

// linker finds the row of the table that a record is told by.
type linker struct {
	id   string
	seqs []int64
}

func newLinker(id string, kept []row) linker {
	l := linker{id: id}
	for _, r := range kept {
		if r.failure == nil {
			l.seqs = append(l.seqs, r.Seq)
		}
	}
	return l
}

// row is the id of the row of a record, or of the last one before it.
func (l linker) row(seq int64) string {
	n, found := slices.BinarySearch(l.seqs, seq)
	if !found {
		n--
	}
	if n < 0 {
		return ""
	}
	return l.id + "-" + strconv.FormatInt(l.seqs[n], 10)
}

// steps tells how far each step came.
func steps(r *Result, links linker) []stepView {
	var list []stepView
	bad := missed(r)
	if r.Scenario != nil {
		for n := range r.Scenario.Steps {
			s := &r.Scenario.Steps[n]
			x := stepView{Number: n + 1, Name: s.Name, Verdict: "not reached", Wants: wants(s)}
			if s.Within > 0 && len(x.Wants) > 0 {
				x.Within = rough(s.Within)
			}
			list = append(list, x)
		}
	}
	if r.History == nil {
		return list
	}
	start := origin(r.History)
	begun := map[int]time.Duration{}
	for n := range r.History.Records {
		rec := &r.History.Records[n]
		s := rec.Step
		if s == nil || s.Index < 0 {
			continue
		}
		for len(list) <= s.Index { // a saved history comes without its scenario
			list = append(list, stepView{Number: len(list) + 1, Name: s.Name})
		}
		x := &list[s.Index]
		switch s.Event {
		case "begin":
			begun[s.Index] = rec.Time
			x.From, x.Link, x.Verdict = stamp(rec.Time-start), links.row(rec.Seq), "not ended"
		case "did":
			x.Did = append(x.Did, s.Message)
		case "end":
			x.Took, x.Verdict = duration(rec.Time-begun[s.Index]), Passed
		}
	}
	for n := range list {
		if bad[n] {
			list[n].Verdict, list[n].Open = Failed, true
		}
	}
	return list
}

// wants lists what a step expects, in words of the file.
func wants(s *scenario.Step) []string {
	var list []string
	for _, group := range []struct {
		word string
		of   []scenario.Expectation
	}{{"expect", s.Expect}, {"in order", s.InOrder}, {"settles", s.Settles}, {"ever", s.Ever}} {
		for _, x := range group.of {
			list = append(list, group.word+" "+oneLine(x.Text))
		}
	}
	for _, group := range []struct {
		word string
		of   []scenario.Rule
	}{{"never", s.Never}, {"always", s.Always}} {
		for _, x := range group.of {
			list = append(list, group.word+" "+oneLine(x.Name))
		}
	}
	if s.For > 0 {
		list = append(list, "for "+rough(s.For)+" more")
	}
	return list
}

// table fills the rows of the timeline.
func (v *scenarioView) table(kept []row, x *scale) {
	number := map[string]int{}
	fails := 0
	for _, r := range kept {
		row := rowView{ID: v.ID + "-" + strconv.FormatInt(r.Seq, 10), Kind: r.Kind, Time: stamp(r.Time), Revision: r.Revision, Actor: cut(short(r.Actor), 30),
			Subject: short(r.Subject), Text: short(r.Text), Class: string(r.Tone), X: strconv.Itoa(int(math.Round(x.pos(r.Time))))}
		if full := r.Subject + " " + r.Text; len(full) != len(row.Subject)+1+len(row.Text) {
			row.Full = full
		}
		if r.Count > 1 {
			row.Again = fmt.Sprintf("%d times until %s", r.Count, stamp(r.Until))
		}
		switch {
		case r.failure != nil:
			fails++
			row.ID, row.Kind, row.Class = fmt.Sprintf("%s-f%d", v.ID, fails), "failure", "fail"
		case r.cause:
			row.Class = "bad cause"
		case r.Kind == KindStep:
			row.Class = strings.TrimSpace(row.Class + " step")
		}
		if r.Detail && !r.cause {
			row.Class = strings.TrimSpace(row.Class + " d")
			v.HasDetails = true
		}
		number[row.Kind]++
		v.Rows = append(v.Rows, row)
	}
	for _, k := range kinds {
		if number[k] > 0 {
			v.Kinds = append(v.Kinds, kindView{k, number[k]})
		}
	}
}

type chartView struct {
	Width, Height, Right, Top, Bottom, Inner string
	Title                                    string
	Lanes                                    []laneView
	Areas                                    []areaView
	Strips                                   []barView
	AreaLabels                               []labelView
	Ticks                                    []tickView
	Idle                                     []idleView
	Steps                                    []string // x of step begins
	Failures                                 []failureMark
	Legend                                   []legendView
	Notes                                    []string
	Grid                                     []string // y of lines between groups
}

type laneView struct {
	Group, Name, Full, TextY string
	Bars                     []barView
	Marks                    []markView
}

type barView struct{ X, Y, W, H, State, Label, LabelX, LabelY, Tip, Link string }

type markView struct{ Path, State, Tip, Link string }

type tickView struct{ X, Label string }

type idleView struct{ X, W, Mid, Label string }

type failureMark struct{ X, Path, Tip, Link string }

type legendView struct{ State, Name string }

type areaView struct{ Path, State string }

type labelView struct{ X, Y, Text, Anchor string }

// chart lays out a drawing.
type chart struct {
	*drawing
	scale    *scale
	links    linker
	failures []failureView
	fails    []row
	used     map[string]bool
	out      chartView
	y        float64
}

func newChart(d *drawing, kept []row, links linker, failures []failureView) *chart {
	c := &chart{drawing: d, links: links, failures: failures, used: map[string]bool{}}
	var times []time.Duration
	for _, r := range kept {
		if r.failure != nil {
			c.fails = append(c.fails, r)
		}
		if !r.Detail || r.cause {
			times = append(times, r.Time)
		}
	}
	lanes := append([]*lane{&d.steps, &d.parts, &d.images}, slices.Concat(d.faults, d.pools, d.builds)...)
	if len(d.nodes) <= mostNodes {
		lanes = append(lanes, d.nodes...)
	}
	for _, l := range lanes {
		for _, s := range l.spans {
			times = append(times, s.from, s.to)
		}
		for _, m := range l.marks {
			times = append(times, m.at)
		}
	}
	c.scale = newScale(times, d.end, labels, width-margin)
	return c
}

func px(x float64) string { return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) }

func (c *chart) view() *chartView {
	const top = 34.0
	c.y = top
	c.group(&c.steps)
	c.group(c.some(c.faults, mostFaults, "faults")...)
	if len(c.parts.marks) > 0 {
		c.group(&c.parts)
	}
	c.group(c.pools...)
	c.group(c.some(c.builds, 2*mostBuilds, "lanes of builds")...)
	if len(c.images.marks) > 0 {
		c.group(&c.images)
	}
	if len(c.nodes) <= mostNodes {
		c.group(c.nodes...)
	} else {
		c.area()
	}
	v := &c.out
	bottom := c.y - between/2
	v.Width, v.Height = px(width), px(bottom+24)
	v.Right, v.Top, v.Bottom, v.Inner = px(width-margin), px(top-6), px(bottom), px(bottom-top+6)
	for _, t := range c.scale.ticks(66) {
		v.Ticks = append(v.Ticks, tickView{px(c.scale.pos(t)), rough(t)})
	}
	for _, s := range c.scale.idle() {
		a, b := c.scale.pos(s.from), c.scale.pos(s.to)
		i := idleView{X: px(a), W: px(b - a), Mid: px((a + b) / 2)}
		if b-a > 44 {
			i.Label = "⋯ " + rough((s.to - s.from).Round(time.Second))
		}
		v.Idle = append(v.Idle, i)
	}
	for _, s := range c.steps.spans {
		if s.from > 0 {
			v.Steps = append(v.Steps, px(c.scale.pos(s.from)))
		}
	}
	for n, r := range c.fails {
		if n >= len(c.failures) {
			break
		}
		x := c.scale.pos(r.Time)
		v.Failures = append(v.Failures, failureMark{X: px(x), Path: cross(x, top-12), Link: c.failures[n].ID,
			Tip: fmt.Sprintf("✗ %s: %s (%s, revision %d)", cut(c.failures[n].Check, 160), cut(c.failures[n].Message, 300), c.failures[n].At, r.Revision)})
	}
	for _, group := range legend {
		var names []string
		for n, state := range group.states {
			if c.used[state] {
				names = append(names, group.names[n])
			}
		}
		if len(names) > 0 {
			v.Legend = append(v.Legend, legendView{group.states[0], strings.Join(names, ", ")})
		}
	}
	if len(v.Idle) > 0 {
		v.Notes = append(v.Notes, "The time axis is compressed where nothing happens; the longest such stretches are hatched and say how long they last.")
	}
	if n := len(c.quiet); n > 0 {
		names := strings.Join(c.quiet[:min(n, 8)], ", ")
		if n > 8 {
			names += fmt.Sprintf(" and %d more", n-8)
		}
		v.Notes = append(v.Notes, "Nothing happened to "+names+".")
	}
	return v
}

// legend explains colours, in this order. States of a group look alike.
var legend = []struct{ states, names []string }{
	{[]string{"met"}, []string{"step"}},
	{[]string{"failed", "degraded"}, []string{"failed", "degraded"}},
	{[]string{"fault"}, []string{"fault armed"}},
	{[]string{"updated", "succeeded", "layered"}, []string{"updated", "succeeded", "on layered image"}},
	{[]string{"base", "new", "unknown"}, []string{"on base image", "new build", "unknown"}},
	{[]string{"building", "running", "updating", "rebasing"}, []string{"building", "pod running", "updating", "rebasing or applying"}},
	{[]string{"targeted", "paused", "interrupted"}, []string{"targeted", "paused", "interrupted"}},
	{[]string{"draining", "killed"}, []string{"draining", "pod gone"}},
	{[]string{"rebooting"}, []string{"rebooting or not ready"}},
	{[]string{"finishing", "prepared", "pending"}, []string{"uncordoning", "build prepared", "pod pending"}},
	{[]string{"bootbase"}, []string{"boot of the base image"}},
	{[]string{"bootlayered"}, []string{"boot of a layered image"}},
}

// some cuts a list of lanes and notes it. The newest are kept.
func (c *chart) some(lanes []*lane, most int, what string) []*lane {
	if left := len(lanes) - most; left > 0 {
		c.out.Notes = append(c.out.Notes, fmt.Sprintf("%d earlier %s are not drawn.", left, what))
		return lanes[left:]
	}
	return lanes
}

// group draws lanes that belong together.
func (c *chart) group(lanes ...*lane) {
	if len(lanes) == 0 {
		return
	}
	if len(c.out.Lanes) > 0 {
		c.out.Grid = append(c.out.Grid, px(c.y-between/2-(pitch-thick)/2+1))
	}
	for _, l := range lanes {
		c.lane(l)
	}
	c.y += between
}

func (c *chart) lane(l *lane) {
	high, y := thick, c.y
	if l.group == "pods" {
		high, y = thick-6, c.y-1
	}
	v := laneView{Group: l.group, Name: cut(short(l.name), 27), Full: l.name, TextY: px(y + high/2 + 4)}
	for n, s := range l.spans {
		a, b := c.scale.pos(s.from), c.scale.pos(s.to)
		w := max(b-a, 1.5)
		c.used[s.state] = true
		until := "the end"
		if !s.open {
			until = stamp(s.to)
		}
		bar := barView{X: px(a), Y: px(y), W: px(w), H: px(high), State: s.state, Link: c.links.row(s.seq),
			Tip: fmt.Sprintf("%s: %s\n%s, from %s to %s, revision %d", l.name, s.label, duration(s.to-s.from), stamp(s.from), until, s.revision)}
		label := s.label
		switch l.group {
		case "pods":
			label = s.state
			if s.state != "pending" {
				label = fmt.Sprintf("%d %s", attempt(l.spans[:n+1]), s.state)
			}
		case "faults":
			label = "armed"
		}
		// A label must not lie under marks.
		free := w - 8
		for _, m := range l.marks {
			if x := c.scale.pos(m.at); x >= a && x < a+free+8 && l.group != "steps" {
				free = x - a - 12
			}
		}
		if room := int(free / letter); room >= utf8.RuneCountInString(label) || l.group == "steps" && room >= 1 {
			if bar.Label = cut(label, room); l.group == "steps" && room < 4 {
				bar.Label = strings.Fields(label)[0]
			}
			bar.LabelX, bar.LabelY = px(a+5), px(y+high/2+3.8)
		}
		v.Bars = append(v.Bars, bar)
	}
	last := map[string]float64{}
	for _, m := range l.marks {
		x := c.scale.pos(m.at)
		if before, ok := last[m.state]; ok && x-before < 2 {
			continue
		}
		last[m.state] = x
		c.used[m.state] = true
		middle := y + high/2
		path := dot(x, middle)
		switch m.state {
		case "bootbase", "bootlayered":
			path = diamond(x, middle)
		case string(Bad):
			path = cross(x, middle)
		case "did":
			path = pin(x, y)
		}
		v.Marks = append(v.Marks, markView{Path: path, State: m.state, Link: c.links.row(m.seq),
			Tip: fmt.Sprintf("%s\n%s, revision %d", cut(oneLine(m.label), 300), stamp(m.at), m.revision)})
	}
	c.out.Lanes = append(c.out.Lanes, v)
	c.y += pitch
	if l.group == "pods" {
		c.y -= 5
	}
}

// attempt counts the pods in the spans of a lane.
func attempt(spans []span) int {
	n := 0
	for _, s := range spans {
		if s.state != "pending" {
			n++
		}
	}
	return n
}

func diamond(x, y float64) string {
	return fmt.Sprintf("M%s %sl5.5 5.5l-5.5 5.5l-5.5 -5.5z", px(x), px(y-5.5))
}

func dot(x, y float64) string {
	return fmt.Sprintf("M%s %sa3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z", px(x-3.5), px(y))
}

func cross(x, y float64) string {
	return fmt.Sprintf("M%s %sl8 8m0 -8l-8 8", px(x-4), px(y-4))
}

func pin(x, y float64) string {
	return fmt.Sprintf("M%s %sl3 -5h-6z", px(x), px(y+1))
}

// phases of nodes, from the bottom of an area up.
var phases = []string{"layered", "finishing", "rebooting", "rebasing", "draining", "targeted", "degraded", "base"}

// band is the path around what lies between two stepped lines.
func band(floor, ceiling []float64, left, step float64) string {
	var b strings.Builder
	last := len(floor) - 1
	fmt.Fprintf(&b, "M%s %s", px(left), px(ceiling[0]))
	for n := 1; n <= last; n++ {
		if ceiling[n] != ceiling[n-1] {
			fmt.Fprintf(&b, "H%sV%s", px(left+float64(n)*step), px(ceiling[n]))
		}
	}
	fmt.Fprintf(&b, "H%sV%s", px(left+float64(last+1)*step), px(floor[last]))
	for n := last - 1; n >= 0; n-- {
		if floor[n] != floor[n+1] {
			fmt.Fprintf(&b, "H%sV%s", px(left+float64(n+1)*step), px(floor[n]))
		}
	}
	fmt.Fprintf(&b, "H%sz", px(left))
	return b.String()
}

// area draws many nodes by how many are in which phase. Lanes of nodes that were degraded are drawn too.
func (c *chart) area() {
	const step = 4.0
	top, right := c.y, width-margin
	columns := int((right - labels) / step)
	counts := make([]map[string]int, columns)
	for n := range counts {
		counts[n] = map[string]int{}
	}
	for _, l := range c.nodes {
		for _, s := range l.spans {
			a := int(math.Ceil((c.scale.pos(s.from) - labels) / step))
			b := int(math.Ceil((c.scale.pos(s.to) - labels) / step))
			if s.open {
				b = columns
			}
			for n := max(a, 0); n < min(b, columns); n++ {
				counts[n][s.state]++
			}
		}
	}
	most := 1
	for _, m := range counts {
		total := 0
		for _, phase := range phases {
			total += m[phase]
		}
		most = max(most, total)
	}
	floor := make([]float64, columns) // y of what is drawn so far
	for n := range floor {
		floor[n] = top + areaHigh
	}
	for _, phase := range phases {
		ceiling := slices.Clone(floor)
		any := false
		for n := range columns {
			ceiling[n] -= float64(counts[n][phase]) / float64(most) * areaHigh
			any = any || counts[n][phase] > 0
		}
		if any {
			c.used[phase] = true
			c.out.Areas = append(c.out.Areas, areaView{Path: band(floor, ceiling, labels, step), State: phase})
		}
		floor = ceiling
	}
	// Strips of equal counts carry the tips.
	for n, from := 1, 0; n <= columns; n++ {
		if n < columns && maps.Equal(counts[n], counts[from]) {
			continue
		}
		var parts []string
		for _, phase := range phases {
			if k := counts[from][phase]; k > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", k, phase))
			}
		}
		c.out.Strips = append(c.out.Strips, barView{X: px(labels + float64(from)*step), Y: px(top), W: px(float64(n-from) * step), H: px(areaHigh),
			Tip: "nodes: " + strings.Join(parts, ", ")})
		from = n
	}
	c.out.Grid = append(c.out.Grid, px(c.y-between/2))
	c.out.AreaLabels = append(c.out.AreaLabels,
		labelView{px(labels - 8), px(top + 10), strconv.Itoa(most), "end"},
		labelView{px(labels - 8), px(top + areaHigh/2 + 4), fmt.Sprintf("%d nodes, by phase", len(c.nodes)), "end"},
		labelView{px(labels - 8), px(top + areaHigh), "0", "end"})
	c.y += areaHigh + between + 4
	var degraded []*lane
	for _, l := range c.nodes {
		if len(degraded) < 6 && slices.ContainsFunc(l.spans, func(s span) bool { return s.state == "degraded" }) {
			degraded = append(degraded, l)
		}
	}
	c.group(degraded...)
	c.out.Notes = append(c.out.Notes, fmt.Sprintf("The %d nodes that something happened to are drawn as one area by their phase; nodes that were degraded have lanes of their own (at most 6).", len(c.nodes)))
}
