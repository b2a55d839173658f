package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/history"
)

// Kinds of timeline entries, in the order in which a reader is offered them.
const (
	KindStep      = "step"      // steps of the scenario and what they did
	KindConfig    = "config"    // MachineOSConfigs, MachineConfigs, Secrets and whatever a scenario changes
	KindBuild     = "build"     // MachineOSBuilds, their Jobs and pods, what build containers said
	KindRegistry  = "registry"  // images pushed and deleted, requests refused
	KindPool      = "pool"      // MachineConfigPools
	KindNode      = "node"      // targets, drains, cordons and states of Nodes
	KindMachine   = "machine"   // boots, rebases and drifts of machines; MachineSets and Machines
	KindFault     = "fault"     // faults armed, fired, healed
	KindComponent = "component" // components crashed, restarted, failed
	KindRequest   = "request"   // requests that the API server refused
	KindEvent     = "event"     // Kubernetes events of type Warning
)

// kinds lists the kinds of entries in the order of the constants.
var kinds = []string{KindStep, KindConfig, KindBuild, KindRegistry, KindPool, KindNode, KindMachine, KindFault,
	KindComponent, KindRequest, KindEvent}

// Tone of an entry: what it means to somebody who looks for the cause of a failure.
type Tone string

// The tones. Plain entries have none.
const (
	Good Tone = "good" // something was accomplished
	Warn Tone = "warn" // something is out of the ordinary, often on purpose
	Bad  Tone = "bad"  // something failed
)

// Entry is one line of a timeline: what a record of the history means to a reader.
type Entry struct {
	// Seq and Revision are the record's.
	Seq      int64
	Revision int64
	// Time counts from the first step's begin.
	Time time.Duration
	// Actor is who did it: a component, a machine, or the scenario.
	Actor string
	// Kind is one of the constants above.
	Kind string
	// Subject is what it is about: "machineosbuild/layered-1a2b", "node/layered-1", "step 2".
	Subject string
	Text    string
	Tone    Tone
	// Detail marks what matters on a close look only; text output leaves it out.
	Detail bool
	// Count is how many records the entry stands for, 1 or more; Until is the time of the last.
	Count int
	Until time.Duration
	// again allows the entry to absorb a later one that says the same, with others between them.
	again bool
}

// collapseWithin is how far apart repetitions may lie and still be one entry.
const collapseWithin = 20 * time.Minute

// Timeline tells a history as a person would: milestones only, repetitions collapsed. It begins with the first step; what
// it took to bring up the cluster is left out unless the history has no step at all.
func Timeline(h *history.History) []Entry {
	if h == nil {
		return nil
	}
	start := begin(h)
	t := &teller{origin: origin(h), seen: map[string]int{}}
	for n := start; n < len(h.Records); n++ {
		t.tell(&h.Records[n])
	}
	return t.entries
}

// begin is the index of the first step's first record; 0 if there is none.
func begin(h *history.History) int {
	for n := range h.Records {
		if h.Records[n].Step != nil {
			return n
		}
	}
	return 0
}

// origin is the time from which entries count.
func origin(h *history.History) time.Duration {
	if n := begin(h); n < len(h.Records) && h.Records[n].Step != nil {
		return h.Records[n].Time
	}
	return 0
}

type teller struct {
	origin  time.Duration
	entries []Entry
	seen    map[string]int // the last entry that says this
	begun   time.Duration  // of the present step
}

// tell adds what a record means, if anything.
func (t *teller) tell(r *history.Record) {
	e := Entry{Seq: r.Seq, Time: r.Time - t.origin, Revision: r.Revision, Count: 1}
	switch {
	case r.Step != nil:
		t.step(&e, r.Step)
	case r.Change != nil:
		change(&e, r.Change)
	case r.Request != nil:
		request(&e, r.Request)
	case r.Registry != nil:
		registry(&e, r.Registry)
	case r.Node != nil:
		machine(&e, r.Node)
	case r.Fault != nil:
		fault(&e, r.Fault)
	case r.Component != nil:
		component(&e, r.Component)
	case r.Pod != nil:
		log(&e, r.Pod)
	}
	if e.Text == "" {
		return
	}
	e.Until = e.Time
	e.Text = oneLine(e.Text)
	key := e.Actor + "\x00" + e.Kind + "\x00" + e.Subject + "\x00" + digitless(e.Text)
	if n, ok := t.seen[key]; ok {
		last := &t.entries[n]
		if (e.again || n == len(t.entries)-1) && e.Time-last.Until < collapseWithin {
			last.Count++
			last.Until = e.Time
			return
		}
	}
	if e.Kind == KindStep {
		clear(t.seen) // what happens again in another step is worth telling again
	} else {
		t.seen[key] = len(t.entries)
	}
	t.entries = append(t.entries, e)
}

// oneLine makes a text one line.
func oneLine(s string) string {
	if strings.ContainsAny(s, "\n\t\r") || strings.Contains(s, "  ") {
		return strings.Join(strings.Fields(s), " ")
	}
	return s
}

// digitless is a text with its decimal numbers made alike, so that "attempt 3" repeats "attempt 2".
func digitless(s string) string {
	var out strings.Builder
	for n := 0; n < len(s); n++ {
		if c := s[n]; c >= '0' && c <= '9' {
			if n == 0 || s[n-1] < '0' || s[n-1] > '9' {
				out.WriteByte('#')
			}
			continue
		}
		out.WriteByte(s[n])
	}
	return out.String()
}

func (t *teller) step(e *Entry, s *history.Step) {
	e.Actor, e.Kind, e.Subject = "scenario", KindStep, fmt.Sprintf("step %d", s.Index+1)
	switch s.Event {
	case "begin":
		t.begun = e.Time
		e.Text = "begins: " + s.Name
	case "did":
		e.Text = s.Message
	case "met":
		e.Text, e.Tone = join("met", s.Message), Good
	case "missed":
		e.Text, e.Tone = join("missed", s.Message), Bad
	case "rest":
		e.Text = "the cluster is at rest"
	case "deadline":
		e.Text, e.Tone = "its time is over after "+duration(e.Time-t.begun), Bad
	case "dead end":
		e.Text, e.Tone = "nothing can happen any more", Bad
	case "end":
		e.Text = "ends after " + duration(e.Time-t.begun)
	case "acted": // expectations are looked at from now on; nothing to see
	default:
		e.Text = join(s.Event, s.Message)
	}
}

func join(what, more string) string {
	if more == "" {
		return what
	}
	return what + ": " + more
}

func machine(e *Entry, n *history.Node) {
	e.Actor, e.Kind, e.Subject = "machine", KindMachine, "machine/"+n.Node
	image := "base image"
	if n.Layered {
		image = "layered image"
	}
	if ref := imageName(n.Image, n.Digest); ref != "" {
		image += " " + ref
	}
	if n.Version != "" {
		image += " (" + n.Version + ")"
	}
	switch n.Event {
	case "boot":
		e.Text, e.Tone = fmt.Sprintf("boot %d: %s", n.Boot, image), Good
	case "rebase":
		e.Text = "rebases to " + join(image, n.Message)
	case "stage":
		e.Text = "staged " + image
	case "shutdown":
		e.Text = join("shuts down", n.Message)
	case "drift":
		e.Text, e.Tone = join("configuration drift", n.Message), Warn
	case "ready":
		e.Text = join("kubelet is ready", n.Message)
		e.Detail = true
	case "notready":
		e.Text = join("kubelet is not ready", n.Message)
		e.Detail = true
	default:
		e.Text = join(n.Event, n.Message)
	}
}

// imageName names an image by its repository's last part and its digest.
func imageName(image, digest string) string {
	name, _, _ := strings.Cut(image, "@")
	if n := strings.LastIndexByte(name, '/'); n >= 0 {
		name = name[n+1:]
	}
	if _, d, ok := strings.Cut(image, "@"); ok {
		digest = d
	}
	if digest == "" {
		return name
	}
	return name + "@" + digest
}

func fault(e *Entry, f *history.Fault) {
	e.Actor, e.Kind, e.Subject = "fault", KindFault, "fault/"+f.Name
	e.Text, e.Tone, e.again = join(f.Event, f.Message), Warn, f.Event == "fired"
	if f.Event == "healed" {
		e.Tone = Good
	}
}

func component(e *Entry, c *history.Component) {
	e.Actor, e.Kind, e.Subject = c.Name, KindComponent, "component/"+c.Name
	e.Text = join(c.Event, c.Message)
	switch c.Event {
	case "crashed":
		e.Tone = Warn
	case "exited":
		e.Tone = Bad
	case "panic":
		e.Tone, e.again = Bad, true
		e.Text = join("panic in "+c.Key, c.Message)
	case "error":
		e.Tone, e.again = Warn, true
		e.Text = join("reconcile of "+c.Key+" failed", c.Message)
		e.Detail = strings.Contains(c.Message, "the object has been modified") || strings.Contains(c.Message, "already exists")
	}
}

func log(e *Entry, p *history.Pod) {
	e.Actor, e.Kind, e.Subject = "kubelet", KindBuild, "pod/"+p.Name
	e.Text = fmt.Sprintf("container %s ended with %d", p.Container, p.ExitCode)
	if p.ExitCode == 0 {
		e.Detail = true
		return
	}
	e.Tone = Bad
	lines := strings.Split(strings.TrimSpace(p.Log), "\n")
	e.Text = join(e.Text, strings.TrimSpace(lines[len(lines)-1]))
}

func request(e *Entry, r *history.Request) {
	e.Actor, e.Kind, e.Subject = r.Author, KindRequest, subject(r.GVK.Kind, r.Name)
	what := r.Verb
	if r.Subresource != "" {
		what += " of " + r.Subresource
	}
	e.Text, e.Tone, e.again = join(fmt.Sprintf("%s refused, %d %s", what, r.Code, r.Reason), r.Message), Warn, true
	// Conflicts and races are how controllers live together.
	e.Detail = r.Code == 409 || r.Code == 404
}

func registry(e *Entry, r *history.Registry) {
	path := strings.TrimPrefix(r.Path, "/v2/")
	repository, reference, manifest := strings.Cut(path, "/manifests/")
	e.Actor, e.Kind = r.Caller, KindRegistry
	if !manifest {
		repository = beforeAny(path, "/blobs/", "/tags/")
	}
	e.Subject = "registry/" + repository
	as := ""
	if r.Account != "" {
		as = " as account " + r.Account
	}
	switch {
	case path == "" || path == "/v2": // the ping before each session, without credentials
	case r.Status == 404 && (!manifest || r.Method == "HEAD"): // looks whether it is there already
	case r.Status >= 400:
		e.Text = fmt.Sprintf("%s %s: %d%s", r.Method, strings.TrimPrefix(path, repository+"/"), r.Status, as)
		e.Tone, e.again = Bad, true
		if r.Status == 404 {
			e.Tone, e.Detail = Warn, true
		}
	case !manifest:
	case r.Method == "PUT":
		e.Text, e.Tone = "image pushed: "+reference+as, Good
	case r.Method == "DELETE":
		e.Text, e.Tone = "image deleted: "+reference+as, Warn
	case r.Method == "GET":
		e.Text, e.Detail, e.again = "image pulled: "+reference+as, true, true
	}
}

func beforeAny(s string, separators ...string) string {
	for _, sep := range separators {
		s, _, _ = strings.Cut(s, sep)
	}
	return s
}

func subject(kind, name string) string { return strings.ToLower(kind) + "/" + name }

// change tells an object revision by what differs.
func change(e *Entry, c *history.Change) {
	e.Actor, e.Subject = c.Author, subject(c.GVK.Kind, c.Name)
	var facts []string
	switch c.GVK.Kind {
	case "MachineOSConfig":
		e.Kind = KindConfig
		facts = config(e, c)
	case "MachineOSBuild":
		e.Kind = KindBuild
		facts = build(e, c)
	case "Job":
		e.Kind = KindBuild
		facts = job(e, c)
	case "Pod":
		e.Kind = KindBuild
		facts = pod(e, c)
	case "MachineConfigPool":
		e.Kind = KindPool
		facts = pool(e, c)
	case "Node":
		e.Kind = KindNode
		facts = node(e, c)
	case "MachineSet":
		e.Kind = KindMachine
		facts = life(c)
		before, after := history.Number(c.Old, "spec", "replicas"), history.Number(c.New, "spec", "replicas")
		if c.Old != nil && c.New != nil && before != after {
			facts = append(facts, fmt.Sprintf("scaled from %d to %d", before, after))
		}
	case "Machine":
		e.Kind = KindMachine
		facts = life(c)
		if phase := history.Text(c.New, "status", "phase"); phase != history.Text(c.Old, "status", "phase") {
			facts = append(facts, "phase "+phase)
		}
	case "MachineConfig":
		e.Kind = KindConfig
		facts = life(c)
	case "Secret", "ConfigMap":
		e.Kind = KindConfig
		facts = data(e, c)
	case "Event":
		warning(e, c)
		return
	default:
		if c.Author == "scenario" {
			e.Kind = KindConfig
			if facts = life(c); len(facts) == 0 {
				facts = []string{"changed"}
			}
		}
	}
	e.Text = strings.Join(facts, "; ")
}

// life tells creation, the request for deletion, and the end.
func life(c *history.Change) []string {
	switch {
	case c.New == nil:
		return []string{"deleted"}
	case c.Old == nil:
		return []string{"created"}
	case c.New.GetDeletionTimestamp() != nil && c.Old.GetDeletionTimestamp() == nil:
		return []string{"deletion requested"}
	}
	return nil
}

func config(e *Entry, c *history.Change) []string {
	facts := life(c)
	if c.New == nil {
		return facts
	}
	if c.Old != nil {
		if fields := differing(object(c.Old, "spec"), object(c.New, "spec")); len(fields) > 0 {
			facts = append(facts, "spec changed: "+strings.Join(fields, ", "))
		}
	}
	old, after := annotations(c.Old), c.New.GetAnnotations()
	if _, was := old[layering.Rebuild]; !was {
		if _, is := after[layering.Rebuild]; is {
			facts = append(facts, "rebuild requested")
		}
	}
	if b := after[layering.CurrentBuild]; b != old[layering.CurrentBuild] {
		facts = append(facts, or("current build "+b, "no current build", b))
	}
	if image := history.Text(c.New, "status", "currentImagePullSpec"); image != history.Text(c.Old, "status", "currentImagePullSpec") {
		facts = append(facts, or("image for nodes "+imageName(image, ""), "no image for nodes", image))
		e.Tone = Good
	}
	return append(facts, flips(e, c)...)
}

// or is yes if value isn't empty, else no.
func or(yes, no, value string) string {
	if value != "" {
		return yes
	}
	return no
}

func build(e *Entry, c *history.Change) []string {
	facts := append(life(c), flips(e, c)...)
	if image := history.Text(c.New, "status", "digestedImagePushSpec"); image != history.Text(c.Old, "status", "digestedImagePushSpec") && image != "" {
		facts = append(facts, "image "+imageName(image, ""))
	}
	return facts
}

func job(e *Entry, c *history.Change) []string {
	facts := life(c)
	var counts []string
	moved := false
	for _, name := range []string{"active", "succeeded", "failed"} {
		n := history.Number(c.New, "status", name)
		moved = moved || n != history.Number(c.Old, "status", name)
		if n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, name))
		}
	}
	if moved && c.New != nil {
		facts = append(facts, "pods: "+or(strings.Join(counts, ", "), "none", strings.Join(counts, "")))
	}
	return append(facts, flips(e, c)...)
}

// jobName is the label by which pods name their Job.
const jobName = "batch.kubernetes.io/job-name"

// either is the newest state of a change's object.
func either(c *history.Change) *unstructured.Unstructured {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// isBuildPod says whether a pod belongs to a build's Job.
func isBuildPod(o *unstructured.Unstructured) bool {
	return o != nil && strings.HasPrefix(o.GetLabels()[jobName], layering.JobName(""))
}

func pod(e *Entry, c *history.Change) []string {
	if !isBuildPod(either(c)) {
		if c.Subresource != "eviction" {
			return nil
		}
		e.Kind = KindNode
		e.Subject = "node/" + history.Text(either(c), "spec", "nodeName")
		e.again = true
		return []string{"pod " + c.Name + " evicted"}
	}
	facts := life(c)
	phase := history.Text(c.New, "status", "phase")
	if phase != "" && phase != history.Text(c.Old, "status", "phase") {
		facts = append(facts, phase)
		switch phase {
		case "Failed":
			e.Tone = Bad
		case "Succeeded":
			e.Tone = Good
		}
	}
	if node := history.Text(c.New, "spec", "nodeName"); node != history.Text(c.Old, "spec", "nodeName") && node != "" {
		facts = append(facts, "on node "+node)
	}
	if n, of := readyContainers(c.New); of > 0 {
		if before, _ := readyContainers(c.Old); n != before {
			facts = append(facts, fmt.Sprintf("%d/%d ready", n, of))
		}
	}
	if reason := history.Text(c.New, "status", "reason"); reason != "" && reason != history.Text(c.Old, "status", "reason") {
		facts = append(facts, join(reason, history.Text(c.New, "status", "message")))
	}
	return facts
}

func readyContainers(o *unstructured.Unstructured) (n, of int) {
	for _, s := range history.Items(o, "status", "containerStatuses") {
		of++
		if ready, _ := s["ready"].(bool); ready {
			n++
		}
	}
	return n, of
}

func pool(e *Entry, c *history.Change) []string {
	facts := life(c)
	if c.New == nil {
		return facts
	}
	was, _ := history.Field(c.Old, "spec", "paused").(bool)
	is, _ := history.Field(c.New, "spec", "paused").(bool)
	switch {
	case is && !was:
		facts, e.Tone = append(facts, "paused"), Warn
	case was && !is:
		facts, e.Tone = append(facts, "unpaused"), Good
	}
	if name := history.Text(c.New, "spec", "configuration", "name"); name != history.Text(c.Old, "spec", "configuration", "name") {
		facts = append(facts, "wants "+name)
	}
	if name := history.Text(c.New, "status", "configuration", "name"); name != history.Text(c.Old, "status", "configuration", "name") {
		facts = append(facts, "has "+name)
	}
	facts = append(facts, flips(e, c)...)
	moved := false
	for _, name := range []string{"machineCount", "updatedMachineCount", "readyMachineCount", "unavailableMachineCount", "degradedMachineCount"} {
		moved = moved || history.Number(c.Old, "status", name) != history.Number(c.New, "status", name)
	}
	if moved {
		counts := fmt.Sprintf("%d of %d updated, %d ready", history.Number(c.New, "status", "updatedMachineCount"),
			history.Number(c.New, "status", "machineCount"), history.Number(c.New, "status", "readyMachineCount"))
		if n := history.Number(c.New, "status", "unavailableMachineCount"); n > 0 {
			counts += fmt.Sprintf(", %d unavailable", n)
		}
		if n := history.Number(c.New, "status", "degradedMachineCount"); n > 0 {
			counts += fmt.Sprintf(", %d degraded", n)
		}
		facts = append(facts, counts)
	}
	return facts
}

func node(e *Entry, c *history.Change) []string {
	facts := life(c)
	if c.New == nil {
		return facts
	}
	old, now := annotations(c.Old), c.New.GetAnnotations()
	changed := func(key string) (string, bool) { return now[key], now[key] != old[key] }

	var target []string
	if v, ok := changed(layering.DesiredConfig); ok {
		target = append(target, "config "+v)
	}
	if v, ok := changed(layering.DesiredImage); ok {
		target = append(target, or("image "+imageName(v, ""), "no image", v))
	}
	if len(target) > 0 {
		facts = append(facts, "target: "+strings.Join(target, ", "))
	}
	if v, ok := changed(layering.DesiredDrain); ok && v != "" {
		verb, _, _ := strings.Cut(v, "-")
		facts = append(facts, "asks for "+verb)
	}
	if v, ok := changed(layering.LastAppliedDrain); ok && v != "" {
		verb, _, _ := strings.Cut(v, "-")
		facts = append(facts, or("drained", "uncordon done", strings.TrimPrefix(verb, layering.UncordonVerb)))
	}
	was, _ := history.Field(c.Old, "spec", "unschedulable").(bool)
	is, _ := history.Field(c.New, "spec", "unschedulable").(bool)
	switch {
	case is && !was:
		facts = append(facts, "cordoned")
	case was && !is:
		facts = append(facts, "uncordoned")
	}
	if v, ok := changed(layering.PostConfigAction); ok && v != "" {
		facts = append(facts, v)
	}
	if v, ok := changed(layering.State); ok {
		facts = append(facts, join(v, now[layering.Reason]))
		switch v {
		case layering.StateDone:
			e.Tone = Good
		case layering.StateDegraded, layering.StateUnreconcilable:
			e.Tone = Bad
		}
	} else if v, ok := changed(layering.Reason); ok && v != "" {
		facts, e.Tone = append(facts, "reason: "+v), Bad
	}
	if v, ok := changed(layering.CurrentConfig); ok && v != "" {
		facts = append(facts, "has config "+v)
	}
	if v, ok := changed(layering.CurrentImage); ok {
		facts = append(facts, or("has image "+imageName(v, ""), "has the base image", v))
	}
	if c.Old != nil {
		facts = append(facts, roles(c.Old.GetLabels(), c.New.GetLabels())...)
	}
	if before, after := ready(c.Old), ready(c.New); before != after && after != "" && (c.Old != nil || after == "True") {
		facts = append(facts, or("Ready", "not ready", strings.TrimPrefix(after, "False")))
	}
	if len(facts) == 0 {
		if before, after := taints(c.Old), taints(c.New); before != after {
			facts, e.Detail = append(facts, "taints: "+or(after, "none", after)), true
		}
	}
	return facts
}

// roles tells which roles a node lost and got.
func roles(before, after map[string]string) []string {
	var facts []string
	for _, side := range []struct {
		sign     string
		from, to map[string]string
	}{{"role removed: ", before, after}, {"role added: ", after, before}} {
		for _, label := range slices.Sorted(maps.Keys(side.from)) {
			role, ok := strings.CutPrefix(label, layering.NodeRolePrefix)
			if _, both := side.to[label]; ok && !both {
				facts = append(facts, side.sign+role)
			}
		}
	}
	return facts
}

func annotations(o *unstructured.Unstructured) map[string]string {
	if o == nil {
		return nil
	}
	return o.GetAnnotations()
}

// ready is the status of a node's condition Ready; empty if it has none.
func ready(o *unstructured.Unstructured) string {
	for _, c := range history.Items(o, "status", "conditions") {
		if c["type"] == "Ready" {
			s, _ := c["status"].(string)
			if s != "True" {
				return "False"
			}
			return s
		}
	}
	return ""
}

func taints(o *unstructured.Unstructured) string {
	var list []string
	for _, t := range history.Items(o, "spec", "taints") {
		list = append(list, fmt.Sprintf("%v:%v", t["key"], t["effect"]))
	}
	return strings.Join(list, ", ")
}

// data tells changes of Secrets and ConfigMaps: those that somebody made on purpose, and the objects of builds.
func data(e *Entry, c *history.Change) []string {
	labels := either(c).GetLabels()
	_, ephemeral := labels[layering.EphemeralBuild]
	_, ofBuild := labels[layering.OSBuild]
	if ephemeral || ofBuild {
		e.Kind, e.Detail = KindBuild, true
		return life(c)
	}
	facts := life(c)
	if c.Old != nil && c.New != nil {
		before, after := object(c.Old, "data"), object(c.New, "data")
		if fields := differing(before, after); len(fields) > 0 {
			facts = append(facts, "content changed: "+strings.Join(fields, ", "))
		}
	}
	e.Detail = c.GVK.Kind == "ConfigMap" && c.Author != "scenario"
	return facts
}

// warning tells a Kubernetes event of type Warning.
func warning(e *Entry, c *history.Change) {
	if c.New == nil || history.Text(c.New, "type") != "Warning" {
		return
	}
	about := func(field string) string {
		if kind := history.Text(c.New, field, "kind"); kind != "" {
			return subject(kind, history.Text(c.New, field, "name"))
		}
		return ""
	}
	e.Kind, e.Tone, e.again = KindEvent, Warn, true
	e.Subject = about("regarding") + about("involvedObject")
	e.Text = join("Warning "+history.Text(c.New, "reason"), history.Text(c.New, "note")+history.Text(c.New, "message"))
}

// condition of an object.
type condition struct{ kind, status, reason, message string }

func conditions(o *unstructured.Unstructured) []condition {
	var list []condition
	for _, c := range history.Items(o, "status", "conditions") {
		s := func(field string) string { v, _ := c[field].(string); return v }
		list = append(list, condition{s("type"), s("status"), s("reason"), s("message")})
	}
	return list
}

// bad and good are conditions that tell of failure and success when they are true.
var (
	badConditions = map[string]bool{"Failed": true, "FailureTarget": true, "Degraded": true, "NodeDegraded": true,
		"RenderDegraded": true, "ImageBuildDegraded": true, "Interrupted": true}
	goodConditions = map[string]bool{"Succeeded": true, "Complete": true, "Updated": true}
)

// flips tells which conditions changed: those that became true first, and those that are true for another reason.
// Conditions that are born false are not news.
func flips(e *Entry, c *history.Change) []string {
	if c.New == nil {
		return nil
	}
	before := map[string]condition{}
	for _, old := range conditions(c.Old) {
		before[old.kind] = old
	}
	var yes, no []string
	for _, now := range conditions(c.New) {
		old, had := before[now.kind]
		if now == old || now.status == "False" && (!had || old.status == "False") {
			continue
		}
		why := now.message
		if now.reason != "" && now.reason != now.kind && now.reason != now.kind+"d" {
			why = now.reason + or(", "+why, "", why)
		}
		if now.status == "False" {
			no = append(no, now.kind+"=False")
			continue
		}
		if why != "" {
			why = " (" + why + ")"
		}
		yes = append(yes, now.kind+"="+now.status+why)
		switch {
		case now.status == "True" && badConditions[now.kind]:
			e.Tone = Bad
		case now.status == "True" && goodConditions[now.kind] && e.Tone == "":
			e.Tone = Good
		}
	}
	return append(yes, no...)
}

func object(o *unstructured.Unstructured, path ...string) map[string]any {
	m, _ := history.Field(o, path...).(map[string]any)
	return m
}

// differing names the fields in which two maps differ, sorted.
func differing(before, after map[string]any) []string {
	var fields []string
	for name, v := range after {
		if old, ok := before[name]; !ok || fmt.Sprint(old) != fmt.Sprint(v) {
			fields = append(fields, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields
}
