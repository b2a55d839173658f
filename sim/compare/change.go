package compare

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/history"
)

// jobName is the label by which pods name their Job.
const jobName = "batch.kubernetes.io/job-name"

// change tells an object revision.
func (r *reader) change(c *history.Change) {
	key := object{c.GVK.Kind, c.Namespace, c.Name}
	if r.begun {
		switch c.GVK.Kind {
		case "MachineOSConfig":
			r.osConfig(c)
		case "MachineOSBuild":
			r.osBuild(c)
		case "Job":
			r.job(c)
		case "Pod":
			r.pod(c)
		case "ConfigMap", "Secret":
			r.buildObject(c)
		case "MachineConfigPool":
			r.pool(c)
		case "Node":
			r.node(c)
		case "Machine":
			r.infrastructure(c)
		}
	} else if c.GVK.Kind == "MachineOSBuild" && c.New != nil {
		r.osBuildImage(c)
	}
	switch {
	case c.New == nil:
		delete(r.objects, key)
	case slices.Contains([]string{"MachineConfigPool", "MachineOSConfig", "Node"}, c.GVK.Kind):
		r.objects[key] = c.New
	}
	if r.begun && c.GVK.Kind == "Node" {
		r.underWay(c)
	}
}

func (r *reader) osConfig(c *history.Change) {
	m := Milestone{Subject: "machineosconfig " + c.Name, Object: c.Name, Track: "life", on: link{pool: c.Name}}
	if text := life(c); text != "" {
		m.Text = text
		if text == "created" {
			m.what = configEdited
		}
		r.add(m)
	}
	if c.New == nil {
		return
	}
	if c.Old != nil && c.Old.GetGeneration() != c.New.GetGeneration() && c.New.GetDeletionTimestamp() == nil {
		m.Text, m.what = "spec changed", configEdited
		r.add(m)
	}
	m.what = ""
	// That the annotation is there asks for a rebuild. It is empty more often than not.
	was, had := annotation(c.Old, layering.Rebuild)
	if is, has := annotation(c.New, layering.Rebuild); is != was || has != had {
		m.Text = "rebuild asked for"
		if !has {
			m.Text = "rebuild no longer asked for"
		} else {
			m.what = configEdited
		}
		r.add(m)
	}
	m.what = ""
	was, _ = annotation(c.Old, layering.CurrentBuild)
	if is, _ := annotation(c.New, layering.CurrentBuild); is != was {
		m.Track, m.Text = "current build", "none"
		if is != "" {
			m.Text = r.build(is)
		}
		r.add(m)
	}
	if image := history.Text(c.New, "status", "currentImagePullSpec"); image != history.Text(c.Old, "status", "currentImagePullSpec") {
		m.Track, m.Text, m.what = "image for nodes", r.image(image), configImage
		if image != "" {
			m.on.image = m.Text
		}
		r.add(m)
	}
	r.conditions(m.Subject, c.New)
}

// conditions adds the status of each condition as a level. A condition that is missing is false.
func (r *reader) conditions(subject string, o *unstructured.Unstructured) {
	for _, c := range history.Items(o, "status", "conditions") {
		kind, _ := c["type"].(string)
		status, _ := c["status"].(string)
		if _, had := r.last[track{subject, kind}]; !had && !r.beginning {
			r.level(subject, kind, "False", o.GetName(), "", link{})
		}
		r.level(subject, kind, status, o.GetName(), "", link{})
	}
}

func (r *reader) osBuild(c *history.Change) {
	if c.Old == nil {
		delete(r.builds, c.Name) // a name that comes again is another build
	}
	build := r.build(c.Name)
	subject, on := "machineosbuild "+build, link{build: build, pool: label(either(c), layering.TargetPool)}
	if text := life(c); text != "" {
		m := Milestone{Subject: subject, Track: "life", Text: text, Object: c.Name, on: on}
		if text == "created" {
			m.what = buildCreated
		}
		if text != "deletion asked for" { // whether there are finalizers to wait for is up to the cluster
			r.add(m)
		}
	}
	if c.New == nil {
		return
	}
	var holding []string
	for _, condition := range history.Items(c.New, "status", "conditions") {
		if kind, _ := condition["type"].(string); condition["status"] == "True" {
			holding = append(holding, kind)
		}
	}
	slices.Sort(holding)
	text := strings.Join(holding, " and ")
	w := what("")
	switch text {
	case "":
		text = "none"
	case "Building":
		w = buildBuilding
	case "Succeeded":
		w = buildSucceeded
	case "Failed":
		w = buildFailed
	}
	on.image = "image of " + build
	if image := history.Text(c.New, "status", "digestedImagePushSpec"); image != "" {
		r.report(image, build)
		on.image = r.image(image)
	}
	r.level(subject, "conditions", text, c.Name, w, on)
	if image := history.Text(c.New, "status", "digestedImagePushSpec"); image != history.Text(c.Old, "status", "digestedImagePushSpec") {
		r.add(Milestone{Subject: subject, Track: "image", Text: r.image(image), Object: c.Name, on: on})
	}
}

func (r *reader) osBuildImage(c *history.Change) {
	if image := history.Text(c.New, "status", "digestedImagePushSpec"); image != "" {
		r.report(image, r.build(c.Name))
	}
}

func (r *reader) job(c *history.Change) {
	name, ok := strings.CutPrefix(c.Name, layering.JobName(""))
	if !ok || label(either(c), layering.OSBuild) == "" {
		return
	}
	build := r.build(name)
	m := Milestone{Subject: "job of " + build, Track: "life", Object: c.Name, on: link{build: build}}
	if m.Text = life(c); m.Text != "" {
		switch m.Text {
		case "created":
			m.what = jobCreated
		case "deletion asked for":
			m.what = jobDeleted
		}
		r.add(m)
	}
	if c.New == nil || c.New.GetDeletionTimestamp() != nil {
		return // whether a pod that is killed with its Job is counted before the Job is gone is a race
	}
	for _, field := range []string{"failed", "succeeded"} {
		was, is := history.Number(c.Old, "status", field), history.Number(c.New, "status", field)
		for n := was + 1; n <= is; n++ {
			m.Track, m.Text, m.what = "pods that "+field, strconv.FormatInt(n, 10), ""
			if field == "failed" {
				m.what = jobCountsFailure
			}
			r.add(m)
		}
	}
	for _, kind := range []string{"Complete", "Failed"} {
		if history.Condition(c.New, kind) && !history.Condition(c.Old, kind) {
			m.Track, m.Text, m.what = "end", kind, jobComplete
			if kind == "Failed" {
				m.what = jobFailed
			}
			r.add(m)
		}
	}
}

func (r *reader) pod(c *history.Change) {
	name, ok := strings.CutPrefix(label(either(c), jobName), layering.JobName(""))
	if !ok {
		return
	}
	build := r.build(name)
	if _, known := r.pods[c.Name]; !known {
		r.made["pod "+build]++
		r.pods[c.Name] = fmt.Sprintf("pod %d of %s", r.made["pod "+build], build)
	}
	m := Milestone{Subject: r.pods[c.Name], Track: "life", Object: c.Name, on: link{build: build}}
	if m.Text = life(c); m.Text == "created" || m.Text == "gone" {
		if m.Text == "created" {
			m.what = podCreated
		}
		r.add(m)
	}
	phase := history.Text(c.New, "status", "phase")
	if phase == "" || phase == "Pending" || phase == history.Text(c.Old, "status", "phase") {
		return
	}
	m.Text, m.what = phase, ""
	switch phase {
	case "Running":
		m.Level = true // a container that fails at once may never be seen running
	case "Succeeded":
		m.what = podSucceeded
	case "Failed":
		m.what = podFailed
	}
	r.add(m)
}

// prefixes of the names of what belongs to a build.
var prefixes = []string{layering.ContainerfileName(""), layering.MachineConfigName(""), layering.TrustBundleName(""),
	layering.PolicyName(""), layering.RegistriesName(""), layering.BasePullSecretName(""), layering.PushSecretName(""),
	layering.DigestName("")}

// buildObject tells of ConfigMaps and Secrets that are made for one build.
func (r *reader) buildObject(c *history.Change) {
	o := either(c)
	name := label(o, layering.OSBuild)
	if name == "" {
		name = history.Text(o, "metadata", "annotations", layering.OSBuild)
	}
	n := slices.IndexFunc(prefixes, func(p string) bool { return c.Name == p+name })
	if n < 0 || name == "" {
		return
	}
	build := r.build(name)
	m := Milestone{Subject: strings.ToLower(c.GVK.Kind) + " " + prefixes[n] + build, Track: "life", Object: c.Name, on: link{build: build}}
	digest := prefixes[n] == layering.DigestName("")
	switch m.Text = life(c); {
	case m.Text == "created" && digest:
		m.what = digestCreated
	case m.Text == "created":
		m.what = inputCreated
	case m.Text == "gone" && !digest:
		m.what = inputDeleted
	case m.Text == "gone":
	default:
		return
	}
	r.add(m)
	if digest && m.Text == "created" {
		r.report(history.Text(c.New, "data", "digest"), build)
	}
}

// counts of a pool.
var counts = []string{"machineCount", "updatedMachineCount", "readyMachineCount", "unavailableMachineCount", "degradedMachineCount"}

func (r *reader) pool(c *history.Change) {
	m := Milestone{Subject: "machineconfigpool " + c.Name, Object: c.Name, Track: "life", on: link{pool: c.Name}}
	if m.Text = life(c); m.Text == "created" || m.Text == "gone" {
		r.add(m)
	}
	if c.New == nil {
		return
	}
	was, is := flag(c.Old, "spec", "paused"), flag(c.New, "spec", "paused")
	if was != is {
		m.Track, m.Text, m.what = "pauses", "paused", poolPaused
		if !is {
			m.Text, m.what = "unpaused", poolUnpaused
		}
		r.add(m)
	}
	r.poolLevels(c.New)
}

func (r *reader) poolLevels(o *unstructured.Unstructured) {
	subject, name := "machineconfigpool "+o.GetName(), o.GetName()
	for _, side := range []string{"spec", "status"} {
		config := history.Text(o, side, "configuration", "name")
		w := what("")
		if side == "spec" {
			w = poolConfig
		}
		r.level(subject, "configuration in "+side, r.config(config), name, w, link{pool: name})
	}
	for _, field := range counts {
		r.level(subject, field, strconv.FormatInt(history.Number(o, "status", field), 10), name, "", link{})
	}
	r.conditions(subject, o)
}

func (r *reader) node(c *history.Change) {
	m := Milestone{Object: c.Name, Track: "life", on: link{node: c.Name}}
	known := r.nodes[c.Name]
	if known == nil || known.group == "" && c.New != nil {
		if known == nil {
			known = &node{}
			r.nodes[c.Name] = known
		}
		known.group = group(either(c))
	}
	if m.Text = life(c); m.Text == "created" || m.Text == "gone" {
		r.add(m)
	}
	if c.New == nil {
		return
	}
	if c.Old != nil {
		if before, after := roles(c.Old), roles(c.New); before != after {
			m.Track, m.Text, m.what = "roles", after, nodeRoles
			r.add(m)
			m.what = ""
		}
	}
	written := func(key string) (string, bool) {
		is := history.Text(c.New, "metadata", "annotations", key)
		return is, is != history.Text(c.Old, "metadata", "annotations", key)
	}
	config, newConfig := written(layering.DesiredConfig)
	image, newImage := written(layering.DesiredImage)
	if newConfig || newImage {
		if known.targeted == 0 && c.Old != nil {
			known.targeted = r.seq
		}
		m.Track, m.Text, m.what = "targets", r.config(config)+", "+r.image(image), nodeTargeted
		m.on.pool = group(c.New)
		if image != "" {
			m.on.image = r.image(image)
		}
		r.add(m)
		m.on = link{node: c.Name}
	}
	for _, side := range []struct {
		key, drain, uncordon      string
		whatDrain, whatUncordoned what
	}{
		{layering.DesiredDrain, "asks for drain", "asks for uncordon", nodeAsksDrain, nodeAsksUncordon},
		{layering.LastAppliedDrain, "drained", "uncordoned", nodeDrained, nodeUncordoned},
	} {
		v, changed := written(side.key)
		if !changed || v == "" {
			continue
		}
		m.Track, m.Text, m.what = "drain", side.drain, side.whatDrain
		if strings.HasPrefix(v, layering.UncordonVerb) {
			m.Text, m.what = side.uncordon, side.whatUncordoned
		}
		r.add(m)
	}
	if was, is := flag(c.Old, "spec", "unschedulable"), flag(c.New, "spec", "unschedulable"); was != is {
		m.Track, m.Text, m.what = "cordon", "cordoned", nodeCordoned
		if !is {
			m.Text, m.what = "uncordoned", nodeSchedulable
		}
		r.add(m)
	}
	if v, changed := written(layering.State); changed {
		m.Track, m.Text, m.what = "state", v, ""
		switch v {
		case layering.StateWorking:
			m.what = nodeWorking
		case layering.StateDone:
			m.what = nodeDone
		}
		r.add(m)
	}
	m.what = ""
	config, newConfig = written(layering.CurrentConfig)
	image, newImage = written(layering.CurrentImage)
	if newConfig || newImage {
		m.Track, m.Text = "has", r.config(config)+", "+r.image(image)
		r.add(m)
	}
}

// underWay counts the nodes of a pool that were told to change and have not done so.
func (r *reader) underWay(c *history.Change) {
	for pool := range r.away {
		delete(r.away[pool], c.Name)
	}
	if c.New == nil {
		return
	}
	a := c.New.GetAnnotations()
	if a[layering.CurrentConfig] == "" { // a new machine is not an update's doing
		return
	}
	if a[layering.DesiredConfig] == a[layering.CurrentConfig] && a[layering.DesiredImage] == a[layering.CurrentImage] {
		return
	}
	pool := group(c.New)
	if r.away[pool] == nil {
		r.away[pool] = map[string]bool{}
	}
	r.away[pool][c.Name] = true
	r.most[pool] = max(r.most[pool], len(r.away[pool]))
}

func (r *reader) infrastructure(c *history.Change) {
	if _, known := r.machines[c.Name]; !known {
		r.made["machine"]++
		r.machines[c.Name] = fmt.Sprintf("machine-M%d", r.made["machine"])
	}
	m := Milestone{Subject: "machine " + r.machines[c.Name], Object: c.Name, Track: "life"}
	if m.Text = life(c); m.Text == "created" || m.Text == "gone" {
		r.add(m)
	}
	if phase := history.Text(c.New, "status", "phase"); phase != "" {
		r.level(m.Subject, "phase", phase, c.Name, "", link{})
	}
}

// life tells creation, the request for deletion, and the end.
func life(c *history.Change) string {
	switch {
	case c.New == nil:
		return "gone"
	case c.Old == nil:
		return "created"
	case c.New.GetDeletionTimestamp() != nil && c.Old.GetDeletionTimestamp() == nil:
		return "deletion asked for"
	}
	return ""
}

func either(c *history.Change) *unstructured.Unstructured {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

func roles(o *unstructured.Unstructured) string {
	var list []string
	for key := range o.GetLabels() {
		if role, ok := strings.CutPrefix(key, layering.NodeRolePrefix); ok {
			list = append(list, role)
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func label(o *unstructured.Unstructured, key string) string {
	return history.Text(o, "metadata", "labels", key)
}

// annotation returns an annotation's value, and whether there is the annotation.
func annotation(o *unstructured.Unstructured, key string) (string, bool) {
	value, has := history.Field(o, "metadata", "annotations", key).(string)
	return value, has
}

func flag(o *unstructured.Unstructured, path ...string) bool {
	b, _ := history.Field(o, path...).(bool)
	return b
}
