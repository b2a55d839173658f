package compare

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

// How long a value of a level track must last in one run for the other run to have to show it. Both are well above the
// pause of 5 s that controllers make to let a burst of events pass.
const (
	// Lasting holds for the slower one of two runs, and for both if they are equally fast.
	Lasting = time.Minute
	// LeastLasting is the least for the faster one, in which all but these pauses goes by faster.
	LeastLasting = 20 * time.Second
)

// Forever is how long the last milestone of a track lasts.
const Forever = time.Duration(math.MaxInt64)

// Milestone is one step of one track.
type Milestone struct {
	// Subject is the normalised name of what it is about: "machineosbuild layered-H1", "node worker-N2".
	Subject string
	// Track is the aspect of the subject: "conditions", "targets", "boots".
	Track string
	// Text says what happened, with normalised names: "image of layered-H1".
	Text string
	// Object is the subject's name in the run.
	Object string
	// Seq is the record in the history. Time counts from the first step's begin.
	Seq  int64
	Time time.Duration
	// Held is how long it lasted until the track's next one; Forever for the last one.
	Held time.Duration
	// Level marks a milestone that may be missing in another run if it did not last.
	Level bool

	what what
	on   link
}

// String is the milestone without its time.
func (m Milestone) String() string { return m.Subject + ", " + m.Track + ": " + m.Text }

// what is a milestone's part in rules; most play none.
type what string

// link is what ties the milestones of a rule together. Nodes are named as in the run.
type link struct{ build, image, node, pool string }

// Milestones returns a history's milestones in the order in which they happened. A history without a step has none.
func Milestones(h *history.History) []Milestone {
	r := read(h)
	names := map[string]string{}
	for group, nodes := range r.groups() {
		for n, node := range nodes {
			names[node] = alias(group, n)
		}
	}
	return r.named(names)
}

func alias(group string, n int) string { return fmt.Sprintf("%s-N%d", group, n+1) }

// reader turns records into milestones.
type reader struct {
	list  []Milestone
	begun bool
	// beginning tells that what was there before is being noted.
	beginning bool
	start     time.Duration
	seq       int64
	now       time.Duration
	last      map[track]int // the last milestone of each track

	objects  map[object]*unstructured.Unstructured // as they were before the first step, then as they are
	builds   map[string]string                     // alias by name
	made     map[string]int                        // builds by MachineOSConfig, pods by build, and so on
	images   map[string]string                     // alias by digest
	rendered map[string]string
	pods     map[string]string
	machines map[string]string
	nodes    map[string]*node
	away     map[string]map[string]bool // by pool: nodes that were told to change and have not done so
	most     map[string]int
	panicked map[string]bool
}

type track struct{ subject, track string }

type object struct{ kind, namespace, name string }

// node is what tells nodes apart.
type node struct {
	group string
	// targeted is the record of the first change of its target after the begin, or none.
	targeted int64
	boots    int
}

func read(h *history.History) *reader {
	r := &reader{last: map[track]int{}, objects: map[object]*unstructured.Unstructured{}, builds: map[string]string{},
		made: map[string]int{}, images: map[string]string{}, rendered: map[string]string{}, pods: map[string]string{},
		machines: map[string]string{}, nodes: map[string]*node{}, away: map[string]map[string]bool{}, most: map[string]int{},
		panicked: map[string]bool{}}
	if h == nil {
		return r
	}
	for n := range h.Records {
		rec := &h.Records[n]
		r.seq, r.now = rec.Seq, rec.Time
		if !r.begun && rec.Step != nil {
			r.begin()
		}
		if rec.Change != nil && !ofWorld(rec.Change) {
			r.change(rec.Change)
		}
		if !r.begun {
			continue
		}
		switch {
		case rec.Step != nil:
			r.step(rec.Step)
		case rec.Registry != nil:
			r.registry(rec.Registry)
		case rec.Node != nil:
			r.machine(rec.Node)
		case rec.Component != nil:
			if c := rec.Component; c.Event == "panic" && !r.panicked[c.Name] {
				r.panicked[c.Name] = true
				r.add(Milestone{Subject: "component " + c.Name, Track: "panics", Text: "panics", Object: c.Name})
			}
		}
	}
	for _, pool := range slices.Sorted(maps.Keys(r.most)) {
		r.add(Milestone{Subject: "machineconfigpool " + pool, Track: "nodes under way", Object: pool,
			Text: fmt.Sprintf("%d at most", r.most[pool])})
	}
	return r
}

// ofWorld tells the node of a real cluster from the simulated ones: its kubelet writes to it every five minutes.
func ofWorld(c *history.Change) bool {
	return c.GVK.Kind == "Node" && either(c).GetLabels()[history.World] != ""
}

// begin notes what is there when the first step begins.
func (r *reader) begin() {
	r.begun, r.start, r.beginning = true, r.now, true
	defer func() { r.beginning = false }()
	for _, key := range slices.SortedFunc(maps.Keys(r.objects), compareObjects) {
		o := r.objects[key]
		switch key.kind {
		case "MachineConfigPool":
			r.poolLevels(o)
		case "Node":
			r.nodes[key.name] = &node{group: group(o)}
			r.config(history.Text(o, "metadata", "annotations", layering.CurrentConfig))
		case "MachineOSConfig":
			r.conditions("machineosconfig "+key.name, o)
		}
	}
}

func compareObjects(a, b object) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
}

// add adds a milestone that happens now.
func (r *reader) add(m Milestone) {
	m.Seq, m.Time, m.Held = r.seq, r.now-r.start, Forever
	key := track{m.Subject, m.Track}
	if n, ok := r.last[key]; ok {
		r.list[n].Held = m.Time - r.list[n].Time
	}
	r.last[key] = len(r.list)
	r.list = append(r.list, m)
}

// level adds a value of a level track where it differs from the track's last one.
func (r *reader) level(subject, name, text, object string, w what, on link) {
	if n, ok := r.last[track{subject, name}]; ok && r.list[n].Text == text {
		return
	}
	r.add(Milestone{Subject: subject, Track: name, Text: text, Object: object, Level: true, what: w, on: on})
}

// groups lists the nodes of each group in the order in which they were first told to change; those that never were
// follow by name.
func (r *reader) groups() map[string][]string {
	groups := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(r.nodes)) {
		groups[r.nodes[name].group] = append(groups[r.nodes[name].group], name)
	}
	order := func(name string) int64 {
		if seq := r.nodes[name].targeted; seq > 0 {
			return seq
		}
		return math.MaxInt64
	}
	for _, list := range groups {
		slices.SortStableFunc(list, func(a, b string) int { return cmp.Compare(order(a), order(b)) })
	}
	return groups
}

// named returns the milestones with nodes' aliases.
func (r *reader) named(names map[string]string) []Milestone {
	list := slices.Clone(r.list)
	for n := range list {
		if m := &list[n]; m.Subject == "" {
			m.Subject = "node " + names[m.on.node]
		}
	}
	return list
}

// group names the roles of a node, the most special one first: "layered", "master", "infra+layered".
func group(o *unstructured.Unstructured) string {
	var custom, general []string
	for label := range o.GetLabels() {
		switch role, ok := strings.CutPrefix(label, layering.NodeRolePrefix); {
		case !ok:
		case role == layering.WorkerPool || role == layering.MasterPool || role == "control-plane":
			general = append(general, role)
		default:
			custom = append(custom, role)
		}
	}
	slices.Sort(custom)
	slices.Sort(general)
	switch {
	case len(custom) > 0:
		return strings.Join(custom, "+")
	case slices.Contains(general, layering.MasterPool):
		return layering.MasterPool
	case len(general) > 0:
		return general[0]
	}
	return "node"
}

func (r *reader) step(s *history.Step) {
	text := ""
	switch s.Event {
	case "begin":
		text = "begins"
	case "end":
		text = "ends"
	case "deadline":
		text = "its time is over"
	case "dead end":
		text = "nothing can happen any more"
	default:
		return
	}
	r.add(Milestone{Subject: "scenario", Track: "steps", Text: fmt.Sprintf("step %d %s", s.Index+1, text), Object: s.Name})
}

func (r *reader) registry(q *history.Registry) {
	repository, reference, ok := strings.Cut(strings.TrimPrefix(q.Path, "/v2/"), "/manifests/")
	if !ok || q.Status >= 300 {
		return
	}
	switch q.Method {
	case "PUT":
		if strings.HasPrefix(reference, "sha256:") {
			return // part of an index, or pushed once more without its name
		}
		build := r.build(reference)
		r.add(Milestone{Subject: "registry " + repository, Track: "image of " + build, Text: "pushed", Object: reference,
			what: imagePushed, on: link{build: build}})
	case "DELETE":
		image := ""
		if strings.HasPrefix(reference, "sha256:") {
			image = r.image("@" + reference)
		} else {
			image = "image of " + r.build(reference)
		}
		text := "deleted"
		if r.used(image) {
			text = "deleted while a node has or wants it"
		}
		r.add(Milestone{Subject: "registry " + repository, Track: image, Text: text, Object: reference})
	}
}

// used tells whether a node has or wants an image.
func (r *reader) used(image string) bool {
	for key, o := range r.objects {
		if key.kind != "Node" {
			continue
		}
		for _, annotation := range []string{layering.CurrentImage, layering.DesiredImage} {
			if ref := history.Text(o, "metadata", "annotations", annotation); ref != "" && r.image(ref) == image {
				return true
			}
		}
	}
	return false
}

func (r *reader) machine(n *history.Node) {
	m := Milestone{Object: n.Node, on: link{node: n.Node}}
	known := r.nodes[n.Node]
	if known == nil { // a machine boots before there is a Node
		known = &node{}
		r.nodes[n.Node] = known
	}
	switch n.Event {
	case "boot":
		known.boots++
		image := "the base image"
		if n.Layered {
			image = r.image(n.Image + "@" + n.Digest)
		}
		m.Track, m.Text, m.what = "boots", fmt.Sprintf("boot %d into %s", known.boots, image), nodeBoots
	case "drift":
		m.Track, m.Text = "drift", "configuration drift"
	default:
		return
	}
	r.add(m)
}

// build returns the alias of a MachineOSBuild.
func (r *reader) build(name string) string {
	if a, ok := r.builds[name]; ok {
		return a
	}
	config, _ := cutHash(name)
	r.made["build "+config]++
	r.builds[name] = fmt.Sprintf("%s-H%d", config, r.made["build "+config])
	return r.builds[name]
}

// cutHash cuts the hash off a name.
func cutHash(name string) (string, bool) {
	n := strings.LastIndexByte(name, '-')
	if n < 0 || len(name)-n-1 < 16 {
		return name, false
	}
	return name[:n], true
}

// config returns the alias of a rendered MachineConfig; other names are left as they are.
func (r *reader) config(name string) string {
	if a, ok := r.rendered[name]; ok {
		return a
	}
	pool, ok := cutHash(name)
	if !ok || !strings.HasPrefix(name, "rendered-") {
		return name
	}
	r.made[pool]++
	r.rendered[name] = fmt.Sprintf("%s-H%d", pool, r.made[pool])
	return r.rendered[name]
}

// image returns the alias of an image that is named by digest.
func (r *reader) image(ref string) string {
	if ref == "" {
		return "no image"
	}
	if _, digest, ok := strings.Cut(ref, "@"); ok {
		digest, _, _ = strings.Cut(digest, "@")
		if a, ok := r.images[digest]; ok {
			return a
		}
		return "an image that no build reported"
	}
	return "an image without digest"
}

// report ties a digest to the build that made it.
func (r *reader) report(ref, build string) {
	_, digest, ok := strings.Cut(ref, "@")
	if !ok {
		digest = ref
	}
	if _, known := r.images[digest]; !known && digest != "" {
		r.images[digest] = "image of " + build
	}
}
