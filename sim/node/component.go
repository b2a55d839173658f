package node

import (
	"context"
	"slices"

	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
)

// Names of the components.
const (
	KubeletName = "kubelet"
	DaemonName  = "machine-config-daemon"
)

// ComponentOptions say what a cluster has that agents can be woken by.
type ComponentOptions struct {
	// Machines: the cluster serves Machines (machine.openshift.io/v1beta1). A change of a Machine then wakes the agents
	// of the host that has the Machine's name or its nodeRef's.
	Machines bool
}

// Components returns the agents of all machines: kubelet and machine-config-daemon. Requests without namespace are
// nodes, the kubelet's others are pods.
func (f *Fleet) Components(o ComponentOptions) []component.Component {
	kubeletWatches := []component.Watch{
		{Object: &corev1.Node{}, When: kubeletCares},
		{Object: &corev1.Pod{}, Map: f.podRequests, When: podMatters},
	}
	daemonWatches := []component.Watch{{Object: &corev1.Node{}, When: daemonCares}}
	wake := []component.Watch{{Object: &mcfgv1.ControllerConfig{}, Map: f.everyHost, When: appears}}
	if o.Machines {
		wake = append(wake, component.Watch{Object: &machinev1beta1.Machine{}, Map: f.hostOf})
	}
	return []component.Component{
		{Name: KubeletName, Watches: append(kubeletWatches, wake...), New: func(env component.Env) (reconcile.Reconciler, error) {
			return &kubelet{fleet: f, env: env}, nil
		}},
		{Name: DaemonName, Watches: append(daemonWatches, slices.Clone(wake)...), New: func(env component.Env) (reconcile.Reconciler, error) {
			return &daemon{fleet: f, env: env, sessions: map[string]*session{}}, nil
		}},
	}
}

func request(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
}

// appears keeps only the first sight of an object: at the start of a component all machines are looked at once.
func appears(before, after client.Object) bool { return before == nil && after != nil }

func (f *Fleet) everyHost(context.Context, client.Reader, client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, h := range f.Hosts() {
		requests = append(requests, request(h.spec.Name))
	}
	return requests
}

func (f *Fleet) hostOf(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
	names := []string{o.GetName()}
	if m, ok := o.(*machinev1beta1.Machine); ok && m.Status.NodeRef != nil && m.Status.NodeRef.Name != m.Name {
		names = append(names, m.Status.NodeRef.Name)
	}
	var requests []reconcile.Request
	for _, name := range names {
		if f.Host(name) != nil {
			requests = append(requests, request(name))
		}
	}
	return requests
}

// daemonCares drops what other agents, and the daemon itself, write all the time.
func daemonCares(before, after client.Object) bool {
	if before == nil || after == nil {
		return true
	}
	a, b := before.GetAnnotations(), after.GetAnnotations()
	for _, key := range [...]string{layering.DesiredConfig, layering.DesiredImage, layering.LastAppliedDrain,
		layering.CurrentConfig, layering.CurrentImage, layering.ControlPlaneTopo} {
		if a[key] != b[key] {
			return true
		}
	}
	return false
}

// kubeletCares keeps what tells of a reboot, and a Ready condition that somebody else changed.
func kubeletCares(before, after client.Object) bool {
	old, isNode := before.(*corev1.Node)
	node, stillNode := after.(*corev1.Node)
	if !isNode || !stillNode || old == nil || node == nil {
		return true
	}
	return old.Annotations[layering.PostConfigAction] != node.Annotations[layering.PostConfigAction] ||
		readyStatus(old) != readyStatus(node)
}

func readyStatus(node *corev1.Node) corev1.ConditionStatus {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return ""
}

// podMatters keeps the binding, the deletion and the end of a pod that a kubelet runs.
func podMatters(before, after client.Object) bool {
	old, _ := before.(*corev1.Pod)
	pod, _ := after.(*corev1.Pod)
	switch {
	case pod == nil:
		return old != nil && old.Spec.NodeName != ""
	case pod.Spec.NodeName == "" || builds(pod):
		return false
	case old == nil:
		return true
	}
	return old.Spec.NodeName == "" || old.UID != pod.UID || (old.DeletionTimestamp == nil) != (pod.DeletionTimestamp == nil)
}

// builds says whether a pod is a build pod, whose containers package builder runs.
func builds(pod *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == "image-build" {
				return true
			}
		}
	}
	return false
}

func (f *Fleet) podRequests(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(o)}}
}
