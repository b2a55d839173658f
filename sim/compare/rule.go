package compare

import (
	"slices"
	"sort"
)

// What milestones are, as far as rules speak of them.
const (
	configEdited     what = "the MachineOSConfig is made, changed, or asked to rebuild"
	configImage      what = "the MachineOSConfig has the image for nodes"
	buildCreated     what = "the MachineOSBuild is created"
	buildBuilding    what = "the MachineOSBuild is Building"
	buildSucceeded   what = "the MachineOSBuild is Succeeded"
	buildFailed      what = "the MachineOSBuild is Failed"
	inputCreated     what = "a ConfigMap or Secret of the build is created"
	inputDeleted     what = "a ConfigMap or Secret of the build is gone"
	jobCreated       what = "the Job is created"
	jobCountsFailure what = "the Job counts a failed pod"
	jobComplete      what = "the Job is Complete"
	jobFailed        what = "the Job is Failed"
	jobDeleted       what = "the Job is to be deleted"
	podCreated       what = "a build pod is created"
	podSucceeded     what = "a build pod is Succeeded"
	podFailed        what = "a build pod is Failed"
	imagePushed      what = "the image is pushed"
	digestCreated    what = "the digest's ConfigMap is created"
	poolConfig       what = "the pool wants a configuration"
	poolPaused       what = "the pool is paused"
	poolUnpaused     what = "the pool is unpaused"
	nodeRoles        what = "the node's roles change"
	nodeTargeted     what = "the node is told to change"
	nodeWorking      what = "the node is Working"
	nodeDone         what = "the node is Done"
	nodeAsksDrain    what = "the node asks for drain"
	nodeCordoned     what = "the node is cordoned"
	nodeDrained      what = "the node is drained"
	nodeBoots        what = "the node boots"
	nodeAsksUncordon what = "the node asks for uncordon"
	nodeSchedulable  what = "the node is schedulable again"
	nodeUncordoned   what = "uncordon is acknowledged"
)

// by says which cause belongs to which effect.
type by string

const (
	sameBuild by = "build"
	sameImage by = "image"
	sameNode  by = "node"
	samePool  by = "pool"
)

// Rule says that one thing brings about another, or has to come before it.
type Rule struct {
	Cause, Effect what
	// Of is what both have in common: the build, the image, the node or the pool.
	Of by
}

func (r Rule) String() string { return string(r.Cause) + " -> " + string(r.Effect) }

// Rules returns the causal rules: the order between tracks that two runs must share.
func Rules() []Rule { return slices.Clone(rules) }

var rules = []Rule{
	{configEdited, buildCreated, samePool},
	{buildCreated, jobCreated, sameBuild},
	{inputCreated, jobCreated, sameBuild},
	{jobCreated, podCreated, sameBuild},
	{jobCreated, buildBuilding, sameBuild},
	{podFailed, podCreated, sameBuild},
	{podFailed, jobCountsFailure, sameBuild},
	{podFailed, jobFailed, sameBuild},
	{jobFailed, buildFailed, sameBuild},
	{imagePushed, digestCreated, sameBuild},
	{digestCreated, podSucceeded, sameBuild},
	{podSucceeded, jobComplete, sameBuild},
	{jobComplete, buildSucceeded, sameBuild},
	{digestCreated, buildSucceeded, sameBuild},
	{buildSucceeded, inputDeleted, sameBuild},
	{buildSucceeded, jobDeleted, sameBuild},
	{buildSucceeded, configImage, sameImage},
	{buildSucceeded, nodeTargeted, sameImage},
	{configImage, nodeTargeted, sameImage},
	{poolPaused, nodeTargeted, samePool},
	{poolUnpaused, nodeTargeted, samePool},
	{nodeRoles, nodeTargeted, sameNode},
	{nodeTargeted, nodeWorking, sameNode},
	{nodeWorking, nodeAsksDrain, sameNode},
	{nodeTargeted, nodeAsksDrain, sameNode},
	{nodeAsksDrain, nodeCordoned, sameNode},
	{nodeAsksDrain, nodeDrained, sameNode},
	{nodeCordoned, nodeDrained, sameNode},
	{nodeDrained, nodeBoots, sameNode},
	{nodeBoots, nodeAsksUncordon, sameNode},
	{nodeAsksUncordon, nodeSchedulable, sameNode},
	{nodeBoots, nodeSchedulable, sameNode},
	{nodeBoots, nodeDone, sameNode},
	{nodeUncordoned, nodeDone, sameNode},
}

// common is what a milestone contributes to a rule; empty if nothing.
func (r Rule) common(m *Milestone) string {
	switch r.Of {
	case sameBuild:
		return m.on.build
	case sameImage:
		return m.on.image
	case sameNode:
		return m.on.node
	case samePool:
		return m.on.pool
	}
	return ""
}

// causes finds the causes of a run's milestones.
type causes struct {
	list []Milestone
	at   map[rulePart][]int // ascending, in list
}

type rulePart struct {
	rule   Rule
	common string
}

func newCauses(list []Milestone) *causes {
	c := &causes{list: list, at: map[rulePart][]int{}}
	byCause := map[what][]Rule{}
	for _, r := range rules {
		byCause[r.Cause] = append(byCause[r.Cause], r)
	}
	for n := range list {
		for _, r := range byCause[list[n].what] {
			if common := r.common(&list[n]); common != "" {
				key := rulePart{r, common}
				c.at[key] = append(c.at[key], n)
			}
		}
	}
	return c
}

// before returns how many causes came before an effect or with it, and the nearest of them and the next one, where
// there are such.
func (c *causes) before(r Rule, effect *Milestone) (n int, last, next *Milestone) {
	common := r.common(effect)
	if common == "" {
		return 0, nil, nil
	}
	at := c.at[rulePart{r, common}]
	n = sort.Search(len(at), func(i int) bool { return c.list[at[i]].Seq > effect.Seq })
	if n > 0 {
		last = &c.list[at[n-1]]
	}
	if n < len(at) {
		next = &c.list[at[n]]
	}
	return n, last, next
}
