package check

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/history"
)

var (
	mcoGroup   = "machineconfiguration.openshift.io"
	osConfigs  = schema.GroupKind{Group: mcoGroup, Kind: "MachineOSConfig"}
	osBuilds   = schema.GroupKind{Group: mcoGroup, Kind: "MachineOSBuild"}
	pools      = schema.GroupKind{Group: mcoGroup, Kind: "MachineConfigPool"}
	nodes      = schema.GroupKind{Kind: "Node"}
	configMaps = schema.GroupKind{Kind: "ConfigMap"}
	secrets    = schema.GroupKind{Kind: "Secret"}
	jobs       = schema.GroupKind{Group: "batch", Kind: "Job"}
)

// Invariant is a rule that holds in each run.
type Invariant struct {
	ID, Text string
}

// invariant is an Invariant at work: observe looks at each record, rest at the cluster whenever it has come to rest with
// all programs running, and finish at the end of the run.
type invariant struct {
	Invariant
	observe      func(*State, *history.Record) []string
	rest, finish func(*State) []string
	broken       bool
}

// Invariants lists the rules that are judged in each run. Their numbers are those of the list of invariants that
// upstream's tests and bugs led to.
func Invariants() []Invariant {
	var list []Invariant
	for _, i := range newInvariants() {
		list = append(list, i.Invariant)
	}
	return list
}

func newInvariants() []*invariant {
	return []*invariant{
		{Invariant: Invariant{"I1", "a MachineOSConfig has at most one unfinished MachineOSBuild"}, observe: oneBuild},
		{Invariant: Invariant{"I2", "an update never takes more nodes of a pool than maxUnavailable"}, observe: maxUnavailable},
		{Invariant: Invariant{"I3", "a node's desired config and image belong to one succeeded build"}, observe: pairs},
		{Invariant: Invariant{"I4", "no image is deleted that a node or a build refers to"}, observe: imagesKept},
		{Invariant: Invariant{"I5", "what a finished build needed is cleaned up"}, finish: cleanedUp},
		{Invariant: Invariant{"I6", "a MachineOSBuild's conditions only move forward"}, observe: forward},
		{Invariant: Invariant{"I7", "at rest a MachineOSConfig, its current build and the image for its nodes agree"}, rest: agree},
		{Invariant: Invariant{"I8", "at rest a pool's conditions are those of its current build"}, rest: told},
		{Invariant: Invariant{"I9", "updatedMachineCount counts only nodes with the pool's config and image"}, observe: newCounts().observe},
		{Invariant: Invariant{"I11", "no component panics, exits or fails without end"}, observe: newErrors().observe},
		{Invariant: Invariant{"I14", "the layering controllers ask for nothing that their roles don't allow"}, observe: allowed},
	}
}

func changed(r *history.Record, gk schema.GroupKind) (*history.Change, bool) {
	if r.Change == nil || r.Change.GVK.GroupKind() != gk {
		return nil, false
	}
	return r.Change, true
}

func text(o *unstructured.Unstructured, path ...string) string {
	if o == nil {
		return ""
	}
	s, _, _ := unstructured.NestedString(o.Object, path...)
	return s
}

func number(o *unstructured.Unstructured, path ...string) int64 {
	if o == nil {
		return 0
	}
	n, _, _ := unstructured.NestedInt64(o.Object, path...)
	return n
}

// annotation reads an annotation without copying the map, as GetAnnotations does.
func annotation(o *unstructured.Unstructured, key string) string {
	return text(o, "metadata", "annotations", key)
}

func label(o *unstructured.Unstructured, key string) string {
	return text(o, "metadata", "labels", key)
}

func conditionTrue(o *unstructured.Unstructured, name string) bool {
	status, _, _, _ := conditionOf(o, name)
	return status == "True"
}

func conditionOf(o *unstructured.Unstructured, name string) (status, reason, message string, found bool) {
	if o == nil {
		return "", "", "", false
	}
	list, _, _ := unstructured.NestedFieldNoCopy(o.Object, "status", "conditions")
	conditions, _ := list.([]any)
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == name {
			status, _ := m["status"].(string)
			reason, _ := m["reason"].(string)
			message, _ := m["message"].(string)
			return status, reason, message, true
		}
	}
	return "", "", "", false
}

func terminal(build *unstructured.Unstructured) string {
	for _, t := range []string{"Succeeded", "Failed", "Interrupted"} {
		if conditionTrue(build, t) {
			return t
		}
	}
	return ""
}

// oneBuild is I1. A build that is being deleted is on its way out and doesn't count.
func oneBuild(s *State, r *history.Record) []string {
	c, ok := changed(r, osBuilds)
	if !ok || c.New == nil {
		return nil
	}
	config := text(c.New, "spec", "machineOSConfig", "name")
	var unfinished []string
	s.Each(osBuilds, func(b *unstructured.Unstructured) bool {
		if text(b, "spec", "machineOSConfig", "name") == config && b.GetDeletionTimestamp() == nil && terminal(b) == "" {
			unfinished = append(unfinished, b.GetName())
		}
		return true
	})
	if len(unfinished) > 1 {
		return []string{fmt.Sprintf("%s has %s", config, strings.Join(unfinished, " and "))}
	}
	return nil
}

// target is what a node has or shall have.
type target struct{ config, image string }

func desired(n *unstructured.Unstructured) target {
	return target{annotation(n, layering.DesiredConfig), annotation(n, layering.DesiredImage)}
}

func current(n *unstructured.Unstructured) target {
	return target{annotation(n, layering.CurrentConfig), annotation(n, layering.CurrentImage)}
}

// settled says that a node is done with what it was told.
func settled(n *unstructured.Unstructured) bool {
	return current(n) == desired(n) && current(n).config != "" && annotation(n, layering.State) == layering.StateDone
}

func available(n *unstructured.Unstructured) bool {
	unschedulable, _, _ := unstructured.NestedBool(n.Object, "spec", "unschedulable")
	return settled(n) && !unschedulable && conditionTrue(n, "Ready")
}

// membership keeps which nodes a pool has and which of them are unavailable, so that judging one node's change costs
// nothing for the others.
type membership struct {
	selectors map[string]labels.Selector // by pool
	pool      map[string]string          // by node
	members   map[string]int             // by pool
	out       map[string]map[string]bool // by pool: the unavailable nodes
}

func newMembership() *membership {
	return &membership{selectors: map[string]labels.Selector{}, pool: map[string]string{}, members: map[string]int{},
		out: map[string]map[string]bool{}}
}

func (m *membership) apply(s *State, c *history.Change) {
	switch c.GVK.GroupKind() {
	case nodes:
		m.node(c.Name, c.New)
	case pools:
		if c.New == nil {
			delete(m.selectors, c.Name)
		} else {
			selector := poolSelector(c.New)
			if old, ok := m.selectors[c.Name]; ok && selectorText(old) == selectorText(selector) {
				return
			}
			m.selectors[c.Name] = selector
		}
		s.Each(nodes, func(n *unstructured.Unstructured) bool {
			m.node(n.GetName(), n)
			return true
		})
	}
}

func selectorText(s labels.Selector) string {
	if s == nil {
		return "nothing"
	}
	return s.String()
}

func (m *membership) node(name string, n *unstructured.Unstructured) {
	if pool, ok := m.pool[name]; ok {
		m.members[pool]--
		delete(m.out[pool], name)
		delete(m.pool, name)
	}
	if n == nil {
		return
	}
	pool := m.primary(n)
	m.pool[name] = pool
	m.members[pool]++
	if !available(n) {
		if m.out[pool] == nil {
			m.out[pool] = map[string]bool{}
		}
		m.out[pool][name] = true
	}
}

// primary returns a node's primary pool: master before all, then a custom pool, then worker; "" when it has none or two
// custom ones.
func (m *membership) primary(n *unstructured.Unstructured) string {
	have := labels.Set{}
	raw, _, _ := unstructured.NestedFieldNoCopy(n.Object, "metadata", "labels")
	if list, ok := raw.(map[string]any); ok {
		for k, v := range list {
			have[k], _ = v.(string)
		}
	}
	var custom []string
	for pool, selector := range m.selectors {
		if pool != layering.MasterPool && pool != layering.WorkerPool && selector != nil && selector.Matches(have) {
			custom = append(custom, pool)
		}
	}
	slices.Sort(custom)
	matches := func(pool string) bool {
		selector := m.selectors[pool]
		return selector != nil && selector.Matches(have)
	}
	switch {
	case len(custom) > 1:
		return ""
	case matches(layering.MasterPool):
		return layering.MasterPool
	case len(custom) == 1:
		return custom[0]
	case matches(layering.WorkerPool):
		return layering.WorkerPool
	}
	return ""
}

// poolSelector returns a pool's node selector; nil selects nothing.
func poolSelector(p *unstructured.Unstructured) labels.Selector {
	raw, found, _ := unstructured.NestedMap(p.Object, "spec", "nodeSelector")
	if !found || len(raw) == 0 {
		return nil
	}
	var ls metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &ls); err != nil {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(&ls)
	if err != nil || selector.Empty() {
		return nil
	}
	return selector
}

// limit is a pool's maxUnavailable for that many nodes: a number, or a percentage rounded down; at least 1.
func limit(pool *unstructured.Unstructured, nodes int) int {
	value, found, _ := unstructured.NestedFieldNoCopy(pool.Object, "spec", "maxUnavailable")
	if !found {
		return 1
	}
	switch v := value.(type) {
	case int64:
		return max(1, int(v))
	case string:
		if percent, ok := strings.CutSuffix(v, "%"); ok {
			if p, err := strconv.Atoi(percent); err == nil {
				return max(1, int(math.Floor(float64(nodes)*float64(p)/100)))
			}
		}
	}
	return 1
}

// maxUnavailable is I2. It looks at the moments in which an available node is told to change, since only those are an
// update's doing: nodes that break down or are cordoned by people may make more unavailable at any time.
func maxUnavailable(s *State, r *history.Record) []string {
	c, ok := changed(r, nodes)
	if !ok || c.Old == nil || c.New == nil || desired(c.Old) == desired(c.New) || !available(c.Old) || settled(c.New) {
		return nil
	}
	name := s.membership.pool[c.Name]
	pool := s.Object(pools, "", name)
	if pool == nil {
		return nil
	}
	members, out := s.membership.members[name], s.membership.out[name]
	if most := limit(pool, members); len(out) > most {
		return []string{fmt.Sprintf("%s was told to change; %d of %d nodes of pool %s are unavailable (%s), at most %d may be",
			c.Name, len(out), members, name, strings.Join(slices.Sorted(maps.Keys(out)), ", "), most)}
	}
	return nil
}

// pairs is I3. Creation is left out: a new machine brings what its first boot was given.
func pairs(s *State, r *history.Record) []string {
	c, ok := changed(r, nodes)
	if !ok || c.Old == nil || c.New == nil || desired(c.Old) == desired(c.New) || desired(c.Old).config == "" {
		return nil
	}
	want := desired(c.New)
	if want == current(c.New) {
		return nil // the daemon's own write at the end of an update
	}
	if want.image == "" {
		pool := s.membership.pool[c.Name]
		var layered string
		s.Each(osConfigs, func(o *unstructured.Unstructured) bool {
			if text(o, "spec", "machineConfigPool", "name") == pool && o.GetDeletionTimestamp() == nil {
				layered = o.GetName()
			}
			return true
		})
		if layered != "" {
			return []string{fmt.Sprintf("%s was told config %s and no image, but MachineOSConfig %s layers its pool %s",
				c.Name, want.config, layered, pool)}
		}
		return nil
	}
	found := false
	s.Each(osBuilds, func(b *unstructured.Unstructured) bool {
		found = terminal(b) == "Succeeded" && text(b, "status", "digestedImagePushSpec") == want.image &&
			text(b, "spec", "machineConfig", "name") == want.config
		return !found
	})
	if !found {
		return []string{fmt.Sprintf("%s was told config %s and image %s, which are of no succeeded build", c.Name, want.config, want.image)}
	}
	return nil
}

// imagesKept is I4.
func imagesKept(s *State, r *history.Record) []string {
	q := r.Registry
	if q == nil || q.Method != "DELETE" || q.Status >= 300 {
		return nil
	}
	repository, reference, ok := strings.Cut(strings.TrimPrefix(q.Path, "/v2/"), "/manifests/")
	if !ok {
		return nil
	}
	digest := reference
	var tag string
	if !strings.HasPrefix(reference, "sha256:") {
		tag = q.Host + "/" + repository + ":" + reference
		digest = ""
	}
	var found []string
	s.Each(osBuilds, func(b *unstructured.Unstructured) bool {
		pushed := text(b, "status", "digestedImagePushSpec")
		if tag != "" && text(b, "spec", "renderedImagePushSpec") == tag && pushed != "" {
			_, digest, _ = strings.Cut(pushed, "@")
		}
		return true
	})
	if digest == "" {
		return nil
	}
	image := q.Host + "/" + repository + "@" + digest
	s.Each(nodes, func(n *unstructured.Unstructured) bool {
		if current(n).image == image || desired(n).image == image {
			found = append(found, "node "+n.GetName())
		}
		return true
	})
	s.Each(osBuilds, func(b *unstructured.Unstructured) bool {
		if b.GetDeletionTimestamp() == nil && text(b, "status", "digestedImagePushSpec") == image {
			found = append(found, "MachineOSBuild "+b.GetName())
		}
		return true
	})
	if len(found) > 0 {
		return []string{fmt.Sprintf("%s was deleted, which %s refers to", image, strings.Join(found, ", "))}
	}
	return nil
}

// cleanedUp is I5, judged at the end of the run: what belongs to a build that succeeded, was interrupted or is gone must
// be gone. What a failed build needed stays for diagnosis, and the digest's ConfigMap stays with its build.
func cleanedUp(s *State) []string {
	var left []string
	for _, gk := range []schema.GroupKind{configMaps, secrets, jobs} {
		s.Each(gk, func(o *unstructured.Unstructured) bool {
			build := label(o, layering.OSBuild)
			if build == "" || o.GetName() == layering.DigestName(build) {
				return true
			}
			b := s.Object(osBuilds, "", build)
			if b == nil || terminal(b) == "Succeeded" && finishedBefore(b, s.Now().Add(-time.Minute)) {
				left = append(left, strings.ToLower(gk.Kind)+" "+o.GetName())
			}
			return true
		})
	}
	return left
}

func finishedBefore(b *unstructured.Unstructured, t time.Time) bool {
	end, err := time.Parse(time.RFC3339, text(b, "status", "buildEnd"))
	return err == nil && end.Before(t)
}

// forward is I6.
func forward(_ *State, r *history.Record) []string {
	c, ok := changed(r, osBuilds)
	if !ok || c.New == nil {
		return nil
	}
	var found []string
	if c.Old != nil && c.Old.GetUID() == c.New.GetUID() {
		was, is := phaseOf(c.Old), phaseOf(c.New)
		switch {
		case was == is, was == "":
		case terminal(c.Old) != "":
			found = append(found, fmt.Sprintf("%s went from %s to %s", c.Name, was, orNone(is)))
		case is == "" || was == "Building" && is == "Prepared":
			found = append(found, fmt.Sprintf("%s went back from %s to %s", c.Name, was, orNone(is)))
		}
	}
	var holding []string
	for _, t := range []string{"Prepared", "Building", "Succeeded", "Failed", "Interrupted"} {
		if conditionTrue(c.New, t) {
			holding = append(holding, t)
		}
	}
	if len(holding) > 1 {
		found = append(found, fmt.Sprintf("%s is %s at the same time", c.Name, strings.Join(holding, " and ")))
	}
	start, end := text(c.New, "status", "buildStart"), text(c.New, "status", "buildEnd")
	if end != "" && start > end { // both RFC 3339 in UTC, so text compares like time
		found = append(found, fmt.Sprintf("%s ended at %s, before it started at %s", c.Name, end, start))
	}
	return found
}

// currentBuilds calls fn with each MachineOSConfig that stays and the build that its annotation names, nil if there is none.
func currentBuilds(s *State, fn func(config *unstructured.Unstructured, name string, build *unstructured.Unstructured)) {
	s.Each(osConfigs, func(config *unstructured.Unstructured) bool {
		if name := annotation(config, layering.CurrentBuild); name != "" && config.GetDeletionTimestamp() == nil {
			fn(config, name, s.Object(osBuilds, "", name))
		}
		return true
	})
}

// agree is I7. Releases that don't write a field are not judged by it.
func agree(s *State) []string {
	var found []string
	currentBuilds(s, func(config *unstructured.Unstructured, name string, build *unstructured.Unstructured) {
		say := func(format string, a ...any) {
			found = append(found, fmt.Sprintf("%s has current build %s, ", config.GetName(), name)+fmt.Sprintf(format, a...))
		}
		if build == nil {
			say("which isn't there")
			return
		}
		if of := text(build, "spec", "machineOSConfig", "name"); of != config.GetName() {
			say("which is of MachineOSConfig %s", of)
		}
		if terminal(build) != "Succeeded" {
			return // the status is about the last one that did
		}
		if other := text(config, "status", "machineOSBuild", "name"); other != "" && other != name {
			say("which succeeded, and status.machineOSBuild is %s", other)
		}
		made, given := text(build, "status", "digestedImagePushSpec"), text(config, "status", "currentImagePullSpec")
		if made != given {
			say("which made %s, and status.currentImagePullSpec is %s", made, orNone(given))
		}
	})
	return found
}

// told is I8. Releases before 4.20 have no condition ImageBuildDegraded.
func told(s *State) []string {
	var found []string
	currentBuilds(s, func(config *unstructured.Unstructured, name string, build *unstructured.Unstructured) {
		pool := s.Object(pools, "", text(config, "spec", "machineConfigPool", "name"))
		if pool == nil || build == nil {
			return
		}
		failed := terminal(build) == "Failed"
		degraded, reason, _, written := conditionOf(pool, layering.ImageBuildDegraded)
		if written && terminal(build) != "Interrupted" && (degraded == "True") != failed {
			found = append(found, fmt.Sprintf("pool %s has %s=%s (%s), and build %s is %s",
				pool.GetName(), layering.ImageBuildDegraded, degraded, reason, name, orNone(phaseOf(build))))
		}
		if terminal(build) == "" && conditionTrue(pool, "Updated") {
			found = append(found, fmt.Sprintf("pool %s is Updated, and build %s is %s", pool.GetName(), name, orNone(phaseOf(build))))
		}
	})
	return found
}

func phaseOf(b *unstructured.Unstructured) string {
	for _, t := range []string{"Succeeded", "Failed", "Interrupted", "Building", "Prepared"} {
		if conditionTrue(b, t) {
			return t
		}
	}
	return ""
}

// slack is how long a status may lag behind the nodes that it counts: the node controller's own delay and its cache's.
const slack = 30 * time.Second

// counts is I9. A status is written from a cache, so it is compared with what the nodes were within the last [slack].
type counts struct {
	was     map[string][]seen   // by node
	targets map[string][]aimed  // by pool
	members map[string][]member // by node
}

type seen struct {
	until time.Duration // math.MaxInt64 while it is so
	target
}

type member struct {
	until time.Duration
	pool  string
}

type aimed struct {
	until time.Duration
	target
}

func newCounts() *counts {
	return &counts{was: map[string][]seen{}, targets: map[string][]aimed{}, members: map[string][]member{}}
}

func (c *counts) observe(s *State, r *history.Record) []string {
	if r.Change == nil {
		return nil
	}
	switch r.Change.GVK.GroupKind() {
	case nodes:
		c.node(s, r.Change)
	case osConfigs:
		c.aim(s, text(either(r.Change), "spec", "machineConfigPool", "name"))
	case pools:
		c.aim(s, r.Change.Name)
		if r.Change.Old == nil { // a new pool may take nodes over
			s.Each(nodes, func(n *unstructured.Unstructured) bool {
				c.node(s, &history.Change{Name: n.GetName(), New: n})
				return true
			})
		}
		return c.pool(s, r.Change)
	}
	return nil
}

func either(c *history.Change) *unstructured.Unstructured {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

func (c *counts) node(s *State, change *history.Change) {
	var now target
	var pool string
	if change.New != nil {
		pool = s.membership.pool[change.Name]
		if settled(change.New) {
			now = current(change.New)
		}
	}
	was := slices.DeleteFunc(c.was[change.Name], func(v seen) bool { return v.until < s.Time-slack })
	if n := len(was); n == 0 || was[n-1].target != now || was[n-1].until != math.MaxInt64 {
		if n > 0 && was[n-1].until == math.MaxInt64 {
			was[n-1].until = s.Time
		}
		was = append(was, seen{math.MaxInt64, now})
	}
	c.was[change.Name] = was
	members := slices.DeleteFunc(c.members[change.Name], func(v member) bool { return v.until < s.Time-slack })
	if n := len(members); n == 0 || members[n-1].pool != pool {
		if n > 0 && members[n-1].until == math.MaxInt64 {
			members[n-1].until = s.Time
		}
		members = append(members, member{math.MaxInt64, pool})
	}
	c.members[change.Name] = members
}

// aim notes what a pool's nodes shall have.
func (c *counts) aim(s *State, pool string) {
	p := s.Object(pools, "", pool)
	if p == nil {
		return
	}
	now := target{config: text(p, "spec", "configuration", "name")}
	s.Each(osConfigs, func(o *unstructured.Unstructured) bool {
		if text(o, "spec", "machineConfigPool", "name") == pool {
			now.image = text(o, "status", "currentImagePullSpec")
		}
		return true
	})
	list := slices.DeleteFunc(c.targets[pool], func(a aimed) bool { return a.until < s.Time-slack })
	if n := len(list); n == 0 || list[n-1].target != now {
		if n > 0 && list[n-1].until == math.MaxInt64 {
			list[n-1].until = s.Time
		}
		list = append(list, aimed{math.MaxInt64, now})
	}
	c.targets[pool] = list
}

// recounted tells whether the node controller wrote: whether a count changed, or a condition that only it writes.
func recounted(change *history.Change) bool {
	for _, field := range []string{"machineCount", "updatedMachineCount", "readyMachineCount", "unavailableMachineCount", "degradedMachineCount"} {
		if number(change.New, "status", field) != number(change.Old, "status", field) {
			return true
		}
	}
	for _, name := range []string{"Updated", "Updating"} {
		was, _, whyWas, _ := conditionOf(change.Old, name)
		is, _, why, _ := conditionOf(change.New, name)
		if was != is || whyWas != why {
			return true
		}
	}
	return false
}

func (c *counts) pool(s *State, change *history.Change) []string {
	if change.New == nil || !recounted(change) {
		return nil
	}
	claimed := int(number(change.New, "status", "updatedMachineCount"))
	most := 0
	for _, a := range c.targets[change.Name] {
		n := 0
		for node, list := range c.was {
			ofPool := slices.ContainsFunc(c.members[node], func(m member) bool {
				return m.pool == change.Name && m.until >= s.Time-slack
			})
			if ofPool && slices.ContainsFunc(list, func(v seen) bool { return v.target == a.target && v.until >= s.Time-slack }) {
				n++
			}
		}
		most = max(most, n)
	}
	if claimed > most {
		return []string{fmt.Sprintf("pool %s claims %d updated machines, %d are", change.Name, claimed, most)}
	}
	return nil
}

// errorLimit is how often one request of one component may fail within a minute: the back-off from 5 ms on alone makes 14.
const errorLimit = 40

// errors is I11.
type errors struct{ times map[string][]time.Duration }

func newErrors() *errors { return &errors{times: map[string][]time.Duration{}} }

func (e *errors) observe(s *State, r *history.Record) []string {
	if r.Component == nil {
		return nil
	}
	switch r.Component.Event {
	case "panic":
		return []string{r.Component.Name + " panicked: " + r.Component.Message}
	case "exited":
		return []string{r.Component.Name + " exited: " + r.Component.Message}
	case "error":
		key := r.Component.Name + " " + r.Component.Key
		times := append(slices.DeleteFunc(e.times[key], func(t time.Duration) bool { return t < s.Time-time.Minute }), s.Time)
		e.times[key] = times
		if len(times) > errorLimit {
			return []string{fmt.Sprintf("%s failed %d times in a minute, last: %s", key, len(times), r.Component.Message)}
		}
	}
	return nil
}

// controllers are the authors that have roles of their own where there is an authorizer: on real API servers.
var controllers = []string{"machine-config-controller", "machine-os-builder"}

// allowed is I14. Admission forbids, too, but only the authorizer says who cannot do what.
func allowed(_ *State, r *history.Record) []string {
	q := r.Request
	if q == nil || q.Code != http.StatusForbidden || !slices.Contains(controllers, q.Author) || !strings.Contains(q.Message, `" cannot `+q.Verb+" ") {
		return nil
	}
	return []string{fmt.Sprintf("%s may not %s %s: %s", q.Author, q.Verb, strings.ToLower(q.GVK.Kind), q.Message)}
}
