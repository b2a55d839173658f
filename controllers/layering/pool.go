package layering

import (
	"fmt"
	"slices"
	"strings"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// SelectsNothing tells whether a pool's selector is one that the controllers refuse to act on: nil or empty. An empty
// selector would match every object of the cluster, which nobody can have meant.
func SelectsNothing(selector *metav1.LabelSelector) bool {
	return selector == nil || len(selector.MatchLabels) == 0 && len(selector.MatchExpressions) == 0
}

// Membership answers which pools a node belongs to. It compiles the selectors of all pools once, so that asking for
// many nodes is cheap. The rules are upstream's:
//
//   - a Windows node belongs to no pool;
//   - a pool with a nil, empty or invalid node selector matches nothing;
//   - master comes first: a node of pool master is a master whatever else matches;
//   - a custom pool (any name but master and worker) comes before worker; the node then belongs to both, but only the
//     first, its primary pool, updates and counts it;
//   - a node that matches two or more custom pools belongs to none, until one of them lets go of it.
type Membership struct {
	pools []poolSelector // in the order of their names
}

type poolSelector struct {
	name     string
	selector labels.Selector
}

// AmbiguousError says that a node matches several custom pools.
type AmbiguousError struct {
	Node  string
	Pools []string // names of the custom pools, sorted
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("node %s belongs to %d custom roles (%s), cannot proceed with this Node",
		e.Node, len(e.Pools), strings.Join(e.Pools, ", "))
}

// NewMembership compiles the node selectors of pools. A pool whose selector doesn't compile matches nothing.
func NewMembership(pools []mcfgv1.MachineConfigPool) *Membership {
	m := &Membership{}
	for i := range pools {
		if SelectsNothing(pools[i].Spec.NodeSelector) {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(pools[i].Spec.NodeSelector)
		if err != nil {
			continue
		}
		m.pools = append(m.pools, poolSelector{pools[i].Name, selector})
	}
	slices.SortFunc(m.pools, func(a, b poolSelector) int { return strings.Compare(a.name, b.name) })
	return m
}

// Matching names all pools whose selectors match the node, sorted, before any rule of precedence.
func (m *Membership) Matching(node *corev1.Node) []string {
	if node.Labels[corev1.LabelOSStable] == "windows" {
		return nil
	}
	var names []string
	for _, p := range m.pools {
		if p.selector.Matches(labels.Set(node.Labels)) {
			names = append(names, p.name)
		}
	}
	return names
}

// Of names the pools that a node belongs to, its primary pool first. The error is an *AmbiguousError.
func (m *Membership) Of(node *corev1.Node) ([]string, error) {
	var master, worker bool
	var custom []string
	for _, name := range m.Matching(node) {
		switch name {
		case MasterPool:
			master = true
		case WorkerPool:
			worker = true
		default:
			custom = append(custom, name)
		}
	}
	switch {
	case len(custom) > 1:
		return nil, &AmbiguousError{Node: node.Name, Pools: custom}
	case master && len(custom) == 1 && worker:
		return []string{MasterPool, WorkerPool}, nil
	case master:
		return []string{MasterPool}, nil
	case len(custom) == 1 && worker:
		return []string{custom[0], WorkerPool}, nil
	case len(custom) == 1:
		return custom, nil
	case worker:
		return []string{WorkerPool}, nil
	}
	return nil, nil
}

// Primary names the pool that updates and counts the node; "" when there is none or when it is ambiguous.
func (m *Membership) Primary(node *corev1.Node) string {
	names, err := m.Of(node)
	if err != nil || len(names) == 0 {
		return ""
	}
	return names[0]
}

// Members returns the nodes whose primary pool is the named one, sorted by name, and the errors of the nodes that would
// be in it if they weren't in another custom pool too. The nodes are those of the list, not copies.
func (m *Membership) Members(pool string, nodes []corev1.Node) ([]*corev1.Node, []*AmbiguousError) {
	var members []*corev1.Node
	var ambiguous []*AmbiguousError
	for i := range nodes {
		names, err := m.Of(&nodes[i])
		if a, ok := err.(*AmbiguousError); ok {
			if slices.Contains(a.Pools, pool) {
				ambiguous = append(ambiguous, a)
			}
			continue
		}
		if len(names) > 0 && names[0] == pool {
			members = append(members, &nodes[i])
		}
	}
	slices.SortFunc(members, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(ambiguous, func(a, b *AmbiguousError) int { return strings.Compare(a.Node, b.Node) })
	return members, ambiguous
}

// PoolCondition returns the condition of the given type, nil where there is none.
func PoolCondition(conditions []mcfgv1.MachineConfigPoolCondition,
	kind mcfgv1.MachineConfigPoolConditionType) *mcfgv1.MachineConfigPoolCondition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
}

// PoolConditionTrue tells whether the condition exists and is True.
func PoolConditionTrue(conditions []mcfgv1.MachineConfigPoolCondition, kind mcfgv1.MachineConfigPoolConditionType) bool {
	c := PoolCondition(conditions, kind)
	return c != nil && c.Status == corev1.ConditionTrue
}

// SetPoolCondition puts a condition into the list, in its place if the type is there already, and tells whether
// anything changed. LastTransitionTime becomes now, in whole seconds as the API stores them, only if the status
// changes; the one that the caller gives is ignored.
func SetPoolCondition(conditions *[]mcfgv1.MachineConfigPoolCondition, c mcfgv1.MachineConfigPoolCondition,
	now time.Time) bool {
	c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
	old := PoolCondition(*conditions, c.Type)
	if old == nil {
		*conditions = append(*conditions, c)
		return true
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	if *old == c {
		return false
	}
	*old = c
	return true
}
