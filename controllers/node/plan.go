package node

import (
	"cmp"
	"fmt"
	"slices"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/layersim/layersim/controllers/layering"
)

// plan is what a sync wants to write to nodes.
type plan struct {
	upkeep  []*corev1.Node // taint or topology annotation differ
	targets []*corev1.Node // to be told the target now
	err     error          // maxUnavailable can't be understood: targets is empty
}

func (p plan) acts() bool { return len(p.upkeep) > 0 || len(p.targets) > 0 }

// plan decides what to write to nodes. It is a function of what was observed, nothing else.
func (s *observed) plan() plan {
	if s.pool.Spec.Paused || s.pool.DeletionTimestamp != nil || !s.mayRollOut() {
		return plan{}
	}
	var p plan
	for _, n := range s.nodes {
		if layering.Managed(n) && !s.keptUp(n) {
			p.upkeep = append(p.upkeep, n)
		}
	}
	limit, err := maxUnavailable(s.pool, len(s.nodes))
	if err != nil {
		p.err = err
		return p
	}
	p.targets = candidates(s.nodes, s.target, limit)
	return p
}

// mayRollOut tells whether the target is one that nodes may be told. In a layered pool the build, the MachineOSConfig
// and the pool must agree; none of them may be on its way out.
func (s *observed) mayRollOut() bool {
	if s.config == nil {
		return s.target.Config != ""
	}
	return s.config.DeletionTimestamp == nil && s.build != nil && s.build.DeletionTimestamp == nil && s.agreed()
}

// agreed tells whether the pool's build has Succeeded with the image that its MachineOSConfig offers. That the build was
// made for the pool's config is how it was found.
func (s *observed) agreed() bool {
	return s.target.Config != "" && s.target.Image != "" && s.build != nil &&
		layering.Progress(s.build) == mcfgv1.MachineOSBuildSucceeded &&
		s.build.Spec.MachineConfig.Name == s.target.Config &&
		string(s.build.Status.DigestedImagePushSpec) == s.target.Image
}

// keptUp tells whether a node's taint and topology annotation are as they should be.
func (s *observed) keptUp(n *corev1.Node) bool {
	return hasTaint(n) != layering.Targeted(n, s.target) &&
		(s.topology() == "" || n.Annotations[layering.ControlPlaneTopo] == string(s.topology()))
}

// keepUp makes it so.
func (s *observed) keepUp(n *corev1.Node) {
	if layering.Targeted(n, s.target) {
		n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, isUpdateTaint)
	} else if !hasTaint(n) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{
			Key: layering.UpdateInProgressTaint, Effect: corev1.TaintEffectPreferNoSchedule})
	}
	if t := s.topology(); t != "" {
		if n.Annotations == nil {
			n.Annotations = map[string]string{}
		}
		n.Annotations[layering.ControlPlaneTopo] = string(t)
	}
}

func isUpdateTaint(t corev1.Taint) bool {
	return t.Key == layering.UpdateInProgressTaint && t.Effect == corev1.TaintEffectPreferNoSchedule
}

func hasTaint(n *corev1.Node) bool { return slices.ContainsFunc(n.Spec.Taints, isUpdateTaint) }

// maxUnavailable is how many of a pool's nodes may be unavailable: a number, or a percentage of the nodes rounded down,
// one by default, and never less than one, for then nothing would ever be updated.
func maxUnavailable(pool *mcfgv1.MachineConfigPool, nodes int) (int, error) {
	if pool.Spec.MaxUnavailable == nil {
		return 1, nil
	}
	limit, err := intstr.GetScaledValueFromIntOrPercent(pool.Spec.MaxUnavailable, nodes, false)
	if err != nil {
		return 0, fmt.Errorf("maxUnavailable of machineconfigpool %s: %w", pool.Name, err)
	}
	return max(limit, 1), nil
}

// candidates are the nodes to be told the target now, so that no more than limit nodes are unavailable.
func candidates(nodes []*corev1.Node, target layering.Target, limit int) []*corev1.Node {
	capacity := limit
	var stuck, waiting []*corev1.Node
	for _, n := range nodes {
		available := layering.Available(n)
		if !available {
			capacity--
		}
		switch {
		case layering.Targeted(n, target), !layering.Managed(n), n.DeletionTimestamp != nil:
		case available:
			waiting = append(waiting, n)
		case layering.Degraded(n):
			// It is unavailable as it is, so a new target costs nothing, and may be what it takes to get out.
			stuck = append(stuck, n)
		}
	}
	if capacity <= 0 {
		return stuck
	}
	slices.SortFunc(waiting, byZoneAndAge)
	return append(stuck, waiting[:min(len(waiting), capacity)]...)
}

// byZoneAndAge is the order in which nodes are updated.
func byZoneAndAge(a, b *corev1.Node) int {
	zoneA, zoneB := a.Labels[corev1.LabelTopologyZone], b.Labels[corev1.LabelTopologyZone]
	if (zoneA == "") != (zoneB == "") {
		if zoneA == "" {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(zoneA, zoneB),
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}
