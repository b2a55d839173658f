package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/history"
)

// Limits of a drawing.
const (
	mostNodes  = 12 // lanes of nodes; more are drawn as one area
	mostFaults = 6
	mostBuilds = 12
)

// span is a stretch of a lane in which something was in one state.
type span struct {
	from, to time.Duration
	state    string // names the colour
	label    string
	seq      int64 // of the record that began it
	revision int64
	open     bool // lasted beyond the end
}

// mark is an instant on a lane.
type mark struct {
	at       time.Duration
	state    string
	label    string
	seq      int64
	revision int64
}

// lane is one line of a drawing.
type lane struct {
	group string // steps, pools, builds, pods, nodes, ...
	name  string
	spans []span
	marks []mark
}

// turn begins another state, which ends the one before. An empty state is nothing at all. What lasts for no time is left
// out, unless it is a step.
func (l *lane) turn(r *history.Record, at time.Duration, state, label string) {
	if n := len(l.spans); n > 0 && l.spans[n-1].open {
		last := &l.spans[n-1]
		if last.state == state && last.label == label {
			return
		}
		last.to, last.open = at, false
		if last.from == at && l.group != "steps" {
			l.spans = l.spans[:n-1]
			if n > 1 && l.spans[n-2].to == at && l.spans[n-2].state == state && l.spans[n-2].label == label {
				l.spans[n-2].open = true
				return
			}
		}
	}
	if state != "" {
		l.spans = append(l.spans, span{from: at, state: state, label: label, seq: r.Seq, revision: r.Revision, open: true})
	}
}

// close ends what is open at the end, and drops what ended before the first step.
func (l *lane) close(end time.Duration) {
	kept := l.spans[:0]
	for _, s := range l.spans {
		if s.open {
			s.to = end
		}
		if s.to <= 0 && s.from < 0 {
			continue
		}
		s.from = max(s.from, 0)
		kept = append(kept, s)
	}
	l.spans = kept
	l.marks = slices.DeleteFunc(l.marks, func(m mark) bool { return m.at < 0 })
}

// lively says whether anything happened on a lane after the first step's begin.
func (l *lane) lively() bool {
	return len(l.marks) > 0 || len(l.spans) > 1 || len(l.spans) == 1 && (l.spans[0].from > 0 || !l.spans[0].open)
}

// drawing is what a history looks like: lanes over virtual time since the first step.
type drawing struct {
	end    time.Duration
	steps  lane
	faults []*lane
	parts  lane // components
	images lane // registry
	pools  []*lane
	builds []*lane // each followed by the lane of its pods
	nodes  []*lane
	quiet  []string // nodes that nothing happened to
}

// draw makes the drawing of a history that lasted until end at least. failed names the steps, by index, that were not met.
func draw(h *history.History, end time.Duration, entries []Entry, failed map[int]bool) *drawing {
	p := &painter{
		drawing: &drawing{end: end}, origin: origin(h), faults: map[string]*lane{}, pools: map[string]*lane{}, builds: map[string]*lane{},
		pods: map[string]*lane{}, running: map[string]span{}, of: map[string]*lane{}, nodes: map[string]*host{}, failed: failed,
	}
	p.steps = lane{group: "steps", name: "scenario"}
	p.parts = lane{group: "components", name: "components"}
	p.images = lane{group: "registry", name: "registry"}
	for n := range h.Records {
		p.record(&h.Records[n])
	}
	for _, e := range entries {
		m := mark{at: e.Time, state: string(e.Tone), label: e.Subject + " " + e.Text, seq: e.Seq, revision: e.Revision}
		switch {
		case e.Detail:
		case e.Kind == KindRegistry:
			p.images.marks = append(p.images.marks, m)
		case e.Kind == KindComponent:
			p.parts.marks = append(p.parts.marks, m)
		}
	}
	p.finish()
	return p.drawing
}

type painter struct {
	*drawing
	origin  time.Duration
	failed  map[int]bool
	faults  map[string]*lane
	pools   map[string]*lane
	builds  map[string]*lane
	pods    map[string]*lane // by build
	running map[string]span  // pods that have not ended
	of      map[string]*lane // the lanes of those pods
	nodes   map[string]*host
}

// host is a node while it is drawn.
type host struct {
	lane
	node     *unstructured.Unstructured
	layered  bool
	down     bool // from shutdown to boot
	gone     bool // for good
	rebooted bool // since the update began
	rebasing bool
}

func (p *painter) record(r *history.Record) {
	at := r.Time - p.origin
	p.end = max(p.end, at)
	switch {
	case r.Step != nil:
		p.step(r, at)
	case r.Fault != nil:
		p.fault(r, at)
	case r.Node != nil:
		p.machine(r, at)
	case r.Change != nil:
		switch r.Change.GVK.Kind {
		case "MachineConfigPool":
			p.pool(r, at)
		case "MachineOSBuild":
			p.build(r, at)
		case "Pod":
			p.pod(r, at)
		case "Node":
			x := p.host(r.Change.Name)
			x.node = r.Change.New
			x.look(r, at)
		}
	}
}

func (p *painter) step(r *history.Record, at time.Duration) {
	s := r.Step
	switch s.Event {
	case "begin":
		state := "met"
		if p.failed[s.Index] {
			state = "failed"
		}
		p.steps.turn(r, at, state, fmt.Sprintf("%d %s", s.Index+1, s.Name))
	case "end":
		p.steps.turn(r, at, "", "")
	case "did":
		p.steps.marks = append(p.steps.marks, mark{at, "did", s.Message, r.Seq, r.Revision})
	}
}

func (p *painter) fault(r *history.Record, at time.Duration) {
	l := p.faults[r.Fault.Name]
	if l == nil {
		l = &lane{group: "faults", name: r.Fault.Name}
		p.faults[r.Fault.Name] = l
		p.drawing.faults = append(p.drawing.faults, l)
	}
	switch r.Fault.Event {
	case "armed":
		l.turn(r, at, "fault", join("armed", r.Fault.Message))
	case "healed":
		l.turn(r, at, "", "")
	default:
		l.marks = append(l.marks, mark{at, "fired", join(r.Fault.Event, r.Fault.Message), r.Seq, r.Revision})
	}
}

func (p *painter) pool(r *history.Record, at time.Duration) {
	name := r.Change.Name
	l := p.pools[name]
	if l == nil {
		l = &lane{group: "pools", name: "pool " + name}
		p.pools[name] = l
	}
	if r.Change.New == nil {
		l.turn(r, at, "", "")
		return
	}
	is := truths(r.Change.New)
	paused, _ := history.Field(r.Change.New, "spec", "paused").(bool)
	state, label := "unknown", "neither updated nor updating"
	switch {
	case is["Degraded"] || is["NodeDegraded"] || is["RenderDegraded"]:
		state, label = "degraded", "Degraded"
	case is["ImageBuildDegraded"]:
		state, label = "degraded", "ImageBuildDegraded"
	case paused:
		state, label = "paused", "paused"
	case is["Updated"]:
		state, label = "updated", "Updated"
	case is["Updating"]:
		state, label = "updating", "Updating"
	}
	l.turn(r, at, state, label)
}

// truths are the conditions that are true.
func truths(o *unstructured.Unstructured) map[string]bool {
	is := map[string]bool{}
	for _, c := range history.Items(o, "status", "conditions") {
		if kind, ok := c["type"].(string); ok && c["status"] == "True" {
			is[kind] = true
		}
	}
	return is
}

func (p *painter) build(r *history.Record, at time.Duration) {
	name := r.Change.Name
	l := p.builds[name]
	if l == nil {
		l = &lane{group: "builds", name: "build " + name}
		p.builds[name] = l
		p.drawing.builds = append(p.drawing.builds, l)
	}
	if r.Change.New == nil {
		l.turn(r, at, "", "")
		return
	}
	is := truths(r.Change.New)
	state := "new"
	for _, kind := range []string{"Succeeded", "Failed", "Interrupted", "Building", "Prepared"} {
		if is[kind] {
			state = strings.ToLower(kind)
			break
		}
	}
	l.turn(r, at, state, state)
}

func (p *painter) pod(r *history.Record, at time.Duration) {
	c := r.Change
	if !isBuildPod(either(c)) {
		return
	}
	build := strings.TrimPrefix(either(c).GetLabels()[jobName], layering.JobName(""))
	l := p.pods[build]
	if l == nil {
		l = &lane{group: "pods", name: "attempts"}
		p.pods[build] = l
	}
	p.of[c.Name] = l
	phase := history.Text(c.New, "status", "phase")
	run, isRunning := p.running[c.Name]
	end := func(state string) {
		if isRunning {
			run.to, run.state, run.open = at, state, false
			run.label = c.Name + " " + state
			l.spans = append(l.spans, run)
			delete(p.running, c.Name)
		}
	}
	switch {
	case c.New == nil:
		end("killed")
	case phase == "Failed":
		end("failed")
	case phase == "Succeeded":
		end("succeeded")
	case !isRunning && c.Old == nil:
		p.running[c.Name] = span{from: at, state: "pending", label: c.Name + " pending", seq: r.Seq, revision: r.Revision, open: true}
	case isRunning && phase == "Running" && run.state == "pending":
		end("pending")
		p.running[c.Name] = span{from: at, state: "running", label: c.Name + " running", seq: r.Seq, revision: r.Revision, open: true}
	}
}

func (p *painter) host(name string) *host {
	x := p.nodes[name]
	if x == nil {
		x = &host{lane: lane{group: "nodes", name: name}}
		p.nodes[name] = x
	}
	return x
}

func (p *painter) machine(r *history.Record, at time.Duration) {
	n := r.Node
	x := p.host(n.Node)
	switch n.Event {
	case "boot":
		x.down, x.gone, x.rebasing, x.rebooted, x.layered = false, false, false, true, n.Layered
		state, what := "bootbase", "base image"
		if n.Layered {
			state, what = "bootlayered", "layered image"
		}
		x.marks = append(x.marks, mark{at, state, fmt.Sprintf("boot %d: %s %s", n.Boot, what, imageName(n.Image, n.Digest)), r.Seq, r.Revision})
	case "shutdown":
		x.down = true
		x.gone = strings.Contains(n.Message, "removed")
	case "rebase":
		x.rebasing = true
	case "stage":
		x.rebasing = false
	case "drift":
		x.marks = append(x.marks, mark{at, "warn", join("drift", n.Message), r.Seq, r.Revision})
	default:
		return
	}
	x.look(r, at)
}

// look sees in which phase a node is.
func (x *host) look(r *history.Record, at time.Duration) {
	a := annotations(x.node)
	drain, drained := a[layering.DesiredDrain], a[layering.LastAppliedDrain]
	behind := a[layering.DesiredConfig] != a[layering.CurrentConfig] || a[layering.DesiredImage] != a[layering.CurrentImage]
	if a[layering.State] == layering.StateDone {
		x.rebooted = false
	}
	state, label := "", ""
	switch s := a[layering.State]; {
	case x.node == nil && r.Node != nil && !x.gone:
		state, label = "rebooting", "first boot"
	case x.node == nil:
	case s == layering.StateDegraded || s == layering.StateUnreconcilable:
		state, label = "degraded", s
	case x.down || a[layering.PostConfigAction] == layering.Rebooting:
		state, label = "rebooting", "rebooting"
	case ready(x.node) != "True":
		state, label = "rebooting", "not ready"
	case x.rebasing:
		state, label = "rebasing", "rebasing"
	case strings.HasPrefix(drain, layering.DrainVerb+"-") && drain != drained:
		state, label = "draining", "draining"
	case s == layering.StateWorking && (x.rebooted || strings.HasPrefix(drain, layering.UncordonVerb+"-")):
		state, label = "finishing", "uncordoning"
	case s == layering.StateWorking:
		state, label = "rebasing", "applying"
	case behind:
		state, label = "targeted", "targeted"
	case x.layered:
		state, label = "layered", "layered"
	default:
		state, label = "base", "base image"
	}
	x.turn(r, at, state, label)
}

// finish puts the lanes in order.
func (p *painter) finish() {
	d := p.drawing
	p.steps.close(p.end)
	p.parts.close(p.end)
	p.images.close(p.end)
	for _, l := range d.faults {
		l.close(p.end)
	}
	for _, name := range slices.Sorted(maps.Keys(p.pools)) {
		l := p.pools[name]
		l.close(p.end)
		if l.lively() || name != layering.MasterPool && name != layering.WorkerPool {
			d.pools = append(d.pools, l)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.running)) {
		run := p.running[name]
		run.to = p.end
		p.of[name].spans = append(p.of[name].spans, run)
	}
	builds := d.builds
	d.builds = nil
	for _, l := range builds {
		l.close(p.end)
		if len(l.spans) == 0 {
			continue
		}
		d.builds = append(d.builds, l)
		if pods := p.pods[strings.TrimPrefix(l.name, "build ")]; pods != nil {
			pods.close(p.end)
			slices.SortStableFunc(pods.spans, func(a, b span) int { return cmp.Compare(a.seq, b.seq) })
			if len(pods.spans) > 0 {
				d.builds = append(d.builds, pods)
			}
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(p.nodes), natural) {
		x := p.nodes[name]
		x.close(p.end)
		switch {
		case x.lively():
			d.nodes = append(d.nodes, &x.lane)
		case len(x.spans) > 0:
			d.quiet = append(d.quiet, name)
		}
	}
}

// natural orders names that end in numbers by the numbers: node-2 before node-10.
func natural(a, b string) int {
	stem := func(s string) (string, int) {
		t := strings.TrimRight(s, "0123456789")
		return t, len(s)
	}
	sa, na := stem(a)
	sb, nb := stem(b)
	return cmp.Or(strings.Compare(sa, sb), cmp.Compare(na, nb), strings.Compare(a, b))
}

// scale maps virtual time to a position. Stretches in which nothing happens are compressed: what exceeds limit grows by
// its logarithm only.
type scale struct {
	limit time.Duration
	at    []time.Duration // ascending
	x     []float64
}

func newScale(times []time.Duration, end time.Duration, left, right float64) *scale {
	times = append(slices.Clone(times), 0, end)
	slices.Sort(times)
	times = slices.Compact(times)
	for len(times) > 1 && times[0] < 0 {
		times = times[1:]
	}
	s := &scale{limit: max(end/60, 15*time.Second), at: times, x: make([]float64, len(times))}
	for n := 1; n < len(times); n++ {
		s.x[n] = s.x[n-1] + s.weight(times[n]-times[n-1])
	}
	total := s.x[len(s.x)-1]
	for n := range s.x {
		if total > 0 {
			s.x[n] = left + s.x[n]/total*(right-left)
		} else {
			s.x[n] = left
		}
	}
	return s
}

func (s *scale) weight(gap time.Duration) float64 {
	w := gap.Seconds() / s.limit.Seconds()
	if w > 1 {
		w = 1 + math.Log(w)
	}
	return w
}

// pos is where a time is drawn.
func (s *scale) pos(t time.Duration) float64 {
	n, found := slices.BinarySearch(s.at, t)
	switch {
	case found:
		return s.x[n]
	case n == 0:
		return s.x[0]
	case n == len(s.at):
		return s.x[n-1]
	}
	part := float64(t-s.at[n-1]) / float64(s.at[n]-s.at[n-1])
	return s.x[n-1] + part*(s.x[n]-s.x[n-1])
}

// idle are the stretches that are compressed so much that a reader should know.
func (s *scale) idle() []span {
	var out []span
	for n := 1; n < len(s.at); n++ {
		if s.at[n]-s.at[n-1] > 3*s.limit {
			out = append(out, span{from: s.at[n-1], to: s.at[n]})
		}
	}
	return out
}

// ticks are round times, at least apart from each other and from the ends.
func (s *scale) ticks(apart float64) []time.Duration {
	end := s.at[len(s.at)-1]
	first, last := s.x[0], s.x[len(s.x)-1]
	var ticks []time.Duration
	var taken []float64
	add := func(t time.Duration) {
		x := s.pos(t)
		for _, other := range taken {
			if math.Abs(other-x) < apart {
				return
			}
		}
		if t > 0 && (x-first < apart || last-x < apart/2) {
			return
		}
		ticks, taken = append(ticks, t), append(taken, x)
	}
	add(0)
	for _, unit := range []time.Duration{24 * time.Hour, 6 * time.Hour, time.Hour, 30 * time.Minute, 10 * time.Minute, 5 * time.Minute,
		time.Minute, 30 * time.Second, 10 * time.Second} {
		if end/unit > 5000 {
			break
		}
		for t := unit; t < end; t += unit {
			add(t)
		}
	}
	slices.Sort(ticks)
	return ticks
}
