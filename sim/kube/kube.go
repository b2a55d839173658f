// Package kube models the controllers of Kubernetes itself that the layering controllers lean on: the ones that a
// kube-controller-manager and a kube-scheduler bring to a real cluster. On a real API server the real ones run instead.
//
// Each model is a [component.Component], written as a level-driven reconciler with no clock, randomness or goroutine of
// its own. [Components] returns all of them; each has a constructor too.
//
//	job-controller         Jobs to pods: back-off, accounting by finalizer, conditions, deadline, TTL     [JobController]
//	garbage-collector      owners and dependents: background, foreground, orphan                          [GarbageCollector]
//	deployment-controller  Deployments to ReplicaSets                                                     [DeploymentController]
//	replicaset-controller  ReplicaSets to pods                                                            [ReplicaSetController]
//	disruption-controller  the status of PodDisruptionBudgets, which evictions obey                       [DisruptionController]
//	node-lifecycle         taints of unschedulable and unhealthy nodes; Ready=Unknown                     [NodeLifecycle]
//	scheduler              binds pods to nodes                                                            [Scheduler]
//
// # How they keep count
//
// A controller that creates pods must never create one too many because its cache doesn't show the last one yet. The
// real ones remember what they expect to see ("expectations") and lose that in a restart, after which they wait for
// their caches. The models are stricter. The job controller decides on what the server holds ([component.Env].Live) and
// on nothing else. The others that count pods (replicaset-controller, scheduler, disruption-controller) hold a small
// record of each pod in memory, loaded from the server at the first reconcile after a start, then moved by one event at a
// time and by their own successful writes. So an event costs the same in a cluster of three nodes and of a thousand.
//
// # Timing
//
// As in the original the job controller looks at a pod's change one second later, so that several changes lead to one
// sync; a new pod after a failure waits 10 s, 20 s, 40 s and so on up to 6 min, counted from the time when the last failed
// pod finished (in whole seconds, as the API writes it). Everything else happens at once.
//
// # What it does not model
//
//   - Jobs: Indexed completion, podFailurePolicy, successPolicy, managedBy, adoption of orphaned pods, the limits on how many
//     pods are created in one sync, and the slow start of their creation.
//   - Garbage collection of kinds that are neither in the default list nor in [Options].Kinds; events about
//     owner references into another namespace; the absent-owner cache.
//   - Deployments: rolling update (a change of the template empties the old ReplicaSet first, as strategy Recreate does),
//     pause, rollback, revision history, progress deadline. ReplicaSets: adoption, minReadySeconds, pod deletion cost.
//   - PodDisruptionBudgets of pods of other controllers than ReplicaSets and Deployments: such a budget allows nothing
//     unless it is an absolute minAvailable. unhealthyPodEvictionPolicy is the API server's business.
//   - Nodes: eviction of pods by NoExecute taints, marking pods of an unhealthy node as not ready, zones and their
//     eviction rates, leases, pod garbage collection.
//   - Scheduling: resources, pod affinity, topology spread, volumes, host ports, priorities and pre-emption, scheduling gates
//     other than waiting for them to go, preferred node affinity.
//   - Quota, ServiceAccounts and their tokens, namespace deletion.
package kube

import (
	"fmt"
	"strings"
	"time"

	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
)

// Options are the choices that the models leave open. The zero value is usable.
type Options struct {
	// Kinds are empty objects of further kinds that the garbage collector looks at, as owners and as dependents. Their
	// group, version and kind come from their TypeMeta, else from Scheme.
	Kinds []client.Object

	// Scheme resolves the Go types of Kinds. Nil means Kubernetes' own types and those of OpenShift's machine and
	// machineconfiguration groups.
	Scheme *runtime.Scheme

	// Heartbeat says when the kubelet of a node was last heard of, and whether it is alive now (then the time doesn't
	// matter). It stands for the Leases of kube-node-lease, which would cost a revision per node and ten seconds. Nil
	// means that every kubelet is alive for ever.
	Heartbeat func(node string) (last time.Time, alive bool)

	// GracePeriod is how long a kubelet may be silent before its node becomes Ready=Unknown; zero means 40 s.
	GracePeriod time.Duration

	// MonitorPeriod is how often node-lifecycle asks Heartbeat for all nodes. Zero means that it asks only after a change
	// of the node object, which is enough where a kubelet reports its own shutdown, and leaves an idle cluster with no
	// timer. The original looks every 5 s; only that notices a machine that loses its power unannounced.
	MonitorPeriod time.Duration
}

// Components returns all models.
func Components(o Options) []component.Component {
	return []component.Component{
		JobController(),
		GarbageCollector(o),
		DeploymentController(),
		ReplicaSetController(),
		DisruptionController(),
		NodeLifecycle(o),
		Scheduler(),
	}
}

func defaultScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, mcfgv1.Install, machinev1beta1.Install,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("build scheme: %w", err)
		}
	}
	return scheme, nil
}

// Several models reconcile more than one kind of thing. The name in a request then starts with one of these.
const (
	podPrefix   = "pod/"
	nodePrefix  = "node/"
	scalePrefix = "scale/" // everything in the namespace that depends on some workload's replicas
)

func request(prefix string, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{
		Namespace: o.GetNamespace(), Name: prefix + o.GetName(),
	}}}
}

// cutName splits the prefix off a request's name.
func cutName(req reconcile.Request, prefix string) (types.NamespacedName, bool) {
	name, ok := strings.CutPrefix(req.Name, prefix)
	return types.NamespacedName{Namespace: req.Namespace, Name: name}, ok
}

func podFinished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func podReady(p *corev1.Pod) bool {
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func nodeReady(n *corev1.Node) corev1.ConditionStatus {
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}

// podMatters drops updates of pods that change nothing of what these models look at.
func podMatters(before, after client.Object) bool {
	a, ok1 := before.(*corev1.Pod)
	b, ok2 := after.(*corev1.Pod)
	if !ok1 || !ok2 || a == nil || b == nil {
		return true
	}
	return a.Status.Phase != b.Status.Phase || podReady(a) != podReady(b) || a.Spec.NodeName != b.Spec.NodeName ||
		a.DeletionTimestamp.IsZero() != b.DeletionTimestamp.IsZero() || len(a.Finalizers) != len(b.Finalizers) ||
		len(a.Spec.SchedulingGates) != len(b.Spec.SchedulingGates) ||
		!sameStrings(a.Labels, b.Labels) || !sameController(a, b)
}

// specMatters drops updates that only touch the status.
func specMatters(before, after client.Object) bool {
	if before == nil || after == nil {
		return true
	}
	return before.GetGeneration() != after.GetGeneration() || before.GetUID() != after.GetUID() ||
		before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero()
}

func sameStrings(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

func sameController(a, b client.Object) bool {
	x, y := metav1.GetControllerOfNoCopy(a), metav1.GetControllerOfNoCopy(b)
	return (x == nil) == (y == nil) && (x == nil || x.UID == y.UID)
}

// event records an event where somebody listens.
func event(env component.Env, about runtime.Object, kind, reason, action, format string, args ...any) {
	if env.Recorder != nil {
		env.Recorder.Eventf(about, nil, kind, reason, action, format, args...)
	}
}

// soonest combines two waiting times, of which zero means none.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}
