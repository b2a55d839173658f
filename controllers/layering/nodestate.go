package layering

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Target is what the nodes of a pool are to run: the name of a rendered MachineConfig and, in a layered pool, an image
// by digest. They belong together and are always written together. An empty Image means the base image of the config.
type Target struct {
	Config string
	Image  string
}

// String is the target as events spell it.
func (t Target) String() string {
	if t.Image == "" {
		return "MachineConfig: " + t.Config
	}
	return "MachineConfig: " + t.Config + " / Image: " + t.Image
}

// Managed tells whether a machine-config-daemon has reported on the node yet.
func Managed(node *corev1.Node) bool { return node.Annotations[CurrentConfig] != "" }

// Desired is what the node has been told to run, Current what it runs.
func Desired(node *corev1.Node) Target {
	return Target{node.Annotations[DesiredConfig], node.Annotations[DesiredImage]}
}

// Current is what the node's daemon says it runs.
func Current(node *corev1.Node) Target {
	return Target{node.Annotations[CurrentConfig], node.Annotations[CurrentImage]}
}

// Ready returns nil if pods may be scheduled to the node and run there, else an error that says why not. A condition
// that the node doesn't have counts as good.
func Ready(node *corev1.Node) error {
	for _, c := range node.Status.Conditions {
		switch c.Type {
		case corev1.NodeReady:
			if c.Status != corev1.ConditionTrue {
				return fmt.Errorf("node %s is reporting NotReady=%s", node.Name, c.Status)
			}
		case corev1.NodeDiskPressure:
			if c.Status != corev1.ConditionFalse {
				return fmt.Errorf("node %s is reporting OutOfDisk=%s", node.Name, c.Status)
			}
		case corev1.NodeNetworkUnavailable:
			if c.Status != corev1.ConditionFalse {
				return fmt.Errorf("node %s is reporting NetworkUnavailable=%s", node.Name, c.Status)
			}
		}
	}
	if node.Spec.Unschedulable {
		return fmt.Errorf("node %s is reporting Unschedulable", node.Name)
	}
	return nil
}

// Done tells whether the node runs what it was told to run, image and config, and its daemon is at rest. It says
// nothing about whether that is what its pool wants now.
func Done(node *corev1.Node) bool {
	return node.Annotations[State] == StateDone && Managed(node) && Current(node) == Desired(node)
}

// Degraded tells whether the daemon gave up on an update, or found the disk different from what it wrote.
func Degraded(node *corev1.Node) bool {
	state := node.Annotations[State]
	return state == StateDegraded || state == StateUnreconcilable
}

// Failing tells whether the node is degraded on the way to another config. As upstream does it, a node that fails to
// take a new image of the same config isn't failing, but unavailable.
func Failing(node *corev1.Node) bool {
	return Degraded(node) && node.Annotations[CurrentConfig] != node.Annotations[DesiredConfig]
}

// Available tells whether nothing is being done to the node and it can serve: Done and Ready. Its contrary is what
// maxUnavailable limits.
func Available(node *corev1.Node) bool { return Done(node) && Ready(node) == nil }

// CountsUnavailable tells whether the node is one of a pool's unavailableMachineCount. That is upstream's number, and
// it is lower than the number of nodes that aren't Available by those that fail without being cordoned.
func CountsUnavailable(node *corev1.Node) bool {
	return Ready(node) != nil || !Done(node) && !Failing(node)
}

// Targeted tells whether the node has been told to run the target, be it there yet or not.
func Targeted(node *corev1.Node, target Target) bool { return Desired(node) == target }

// Updated tells whether the node has arrived at the target.
func Updated(node *corev1.Node, target Target) bool { return Done(node) && Targeted(node, target) }
