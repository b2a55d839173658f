// Package node rolls a pool's configuration and image out to the pool's nodes and reports on it.
//
// The controller looks at one MachineConfigPool at a time. It decides which nodes are the pool's, what they are to run,
// which of them may be told so now, tells them by the annotations desiredConfig and desiredImage, and writes the pool's
// status. What happens on a node then is the business of the node's machine-config-daemon.
//
// # What the nodes are to run
//
// In a pool without a MachineOSConfig: the rendered MachineConfig in the pool's spec.configuration, and no image. In a
// layered pool: that config together with the image in the MachineOSConfig's status, but only if a MachineOSBuild made
// for exactly that config has Succeeded with exactly that image. Until then no node is touched. Both annotations are
// written by one patch, so a node never sees a config with another config's image. When a MachineOSConfig goes away its
// pool is plain at once, and the nodes lose the image one after the other.
//
// # Which nodes
//
// At most maxUnavailable nodes of a pool (a number, or a percentage rounded down; at least one; one by default) are
// unavailable because of it: not Ready, cordoned, not Done, or with a current config or image that differs from the
// desired. Nodes that are unavailable for any other reason use up the same allowance. A node that isn't Ready or is
// cordoned is left alone, except if its daemon is Degraded: being unavailable already, it gets a newer target as soon as
// there is one, so that a bad config or image can be repaired by a good one. Nodes are taken zone by zone
// (label topology.kubernetes.io/zone, in alphabetical order, those without a zone last), oldest first. In pool master
// the node that the machine-config-operator runs on is not taken together with others, but after them.
//
// Before it tells a node anything the controller reads the pool, its configuration, its build and its nodes from the
// server again, decides anew, and writes each node only as it was read. An old cache, a restart or a second replica
// therefore can't exceed maxUnavailable or mix up targets.
//
// Nodes that wait for their turn carry the taint UpdateInProgress:PreferNoSchedule, so that evicted pods rather go to
// nodes that are done.
//
// # Status
//
// All counts and the conditions Updated, Updating, NodeDegraded and Degraded are computed anew each time from what is
// observed, and written only if anything changed. RenderDegraded belongs to the render controller and ImageBuildDegraded
// to the build controller; they are rolled up into Degraded here, and never written. A paused pool gets its status and
// nothing else.
//
// # Not done
//
// The labels and taints of master nodes (they follow the Scheduler object), the topology with an arbiter, labelling
// nodes that booted straight into a custom pool, pinned image sets, MachineConfigNodes and OSImageStreams.
package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	configv1 "github.com/openshift/api/config/v1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
)

// Name is the component's name.
const Name = "node-controller"

// Delay is the time between an event and the sync that it leads to: node events come in bursts, and a sync looks at all
// nodes of a pool.
const Delay = 5 * time.Second

// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineconfigpools,verbs=get;list;watch
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineconfigpools/status,verbs=update
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineosconfigs;machineosbuilds;controllerconfigs,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups="",namespace=openshift-machine-config-operator,resources=pods,verbs=list
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,namespace=default,verbs=create;patch

// Metrics receives what the controller counts. Implementations must not block.
type Metrics interface {
	// Pool is called after each sync with the pool's status as it is on the server.
	Pool(pool string, status *mcfgv1.MachineConfigPoolStatus)
}

// Options are the controller's settings. The zero value is good.
type Options struct {
	// Metrics may be nil.
	Metrics Metrics
}

// New declares the node controller. Its requests are the names of pools.
func New(o Options) component.Component {
	return component.Component{
		Name:  Name,
		Delay: Delay,
		Watches: []component.Watch{
			{Object: &mcfgv1.MachineConfigPool{}, When: poolChanged},
			// A pool that comes, goes or selects other nodes may take them from, or leave them to, any other pool.
			{Object: &mcfgv1.MachineConfigPool{}, When: poolSelectsAnew, Map: allPools},
			{Object: &mcfgv1.ControllerConfig{}, When: controllerConfigChanged, Map: allPools},
			{Object: &mcfgv1.MachineOSConfig{}, When: configChanged, Map: poolOfConfig},
			{Object: &mcfgv1.MachineOSBuild{}, When: buildChanged, Map: poolOfBuild},
			{Object: &corev1.Node{}, When: nodeChanged, Map: poolsOfNode},
		},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			return &reconciler{env: env, options: o, reported: map[string]string{}}, nil
		},
	}
}

type reconciler struct {
	env     component.Env
	options Options
	// reported remembers what a pool or node was last warned about, so that a lasting mistake leads to one event and not
	// to one a sync. Losing it costs one more event.
	reported map[string]string
}

// Reconcile syncs one pool.
func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	seen, err := observe(ctx, r.env.Client, request.Name)
	if err != nil || seen == nil {
		return reconcile.Result{}, err
	}
	if s := seen.pool.Spec.NodeSelector; s != nil && layering.SelectsNothing(s) {
		r.warn("pool/"+request.Name, seen.pool, "SelectingAll", "SelectNodes",
			"This machine-config pool selects all nodes. A non-empty selector is required.")
		return reconcile.Result{}, nil
	}
	r.reportAmbiguous(seen)
	if seen.pool.Spec.Configuration.Name == "" {
		return reconcile.Result{}, nil // the render controller hasn't been here yet; its write leads back to us
	}
	var failed error
	p := seen.plan()
	if p.acts() {
		// The view may be behind, and so would tell a node twice, or one too many.
		if seen, err = observe(ctx, r.env.Live, request.Name); err != nil || seen == nil {
			return reconcile.Result{}, err
		}
		p = seen.plan()
		failed = r.act(ctx, seen, p)
	}
	if p.err != nil {
		r.warn("pool/"+request.Name, seen.pool, "InvalidMaxUnavailable", "Rollout", p.err.Error())
	} else {
		delete(r.reported, "pool/"+request.Name)
	}
	return reconcile.Result{}, errors.Join(failed, r.report(ctx, seen))
}

// act carries a plan out. A node that can't be written doesn't keep the others from being written.
func (r *reconciler) act(ctx context.Context, seen *observed, p plan) error {
	if len(p.targets) > 1 && seen.pool.Name == layering.MasterPool {
		if err := r.deferOperatorNode(ctx, seen, &p); err != nil {
			return err
		}
	}
	var failed []error
	for _, n := range p.upkeep {
		failed = append(failed, r.patchNode(ctx, n, func(n *corev1.Node) { seen.keepUp(n) }))
	}
	var told []string
	for _, n := range p.targets {
		err := r.patchNode(ctx, n, func(n *corev1.Node) {
			if n.Annotations == nil {
				n.Annotations = map[string]string{}
			}
			n.Annotations[layering.DesiredConfig] = seen.target.Config
			if seen.target.Image != "" {
				n.Annotations[layering.DesiredImage] = seen.target.Image
			} else {
				delete(n.Annotations, layering.DesiredImage)
			}
		})
		if err == nil {
			told = append(told, n.Name)
		}
		failed = append(failed, err)
	}
	reason := "SetDesiredConfig"
	if seen.target.Image != "" {
		reason = "SetDesiredConfigAndOSImage"
	}
	switch len(told) {
	case 0:
	case 1:
		r.event(seen.pool, corev1.EventTypeNormal, reason, "Rollout", "Targeted node %s to %s", told[0], seen.target)
	default:
		r.event(seen.pool, corev1.EventTypeNormal, reason, "Rollout", "Set target for %d nodes to %s", len(told), seen.target)
	}
	return errors.Join(failed...)
}

// patchNode changes a node as it was read, and puts the result in its place.
func (r *reconciler) patchNode(ctx context.Context, n *corev1.Node, change func(*corev1.Node)) error {
	changed := n.DeepCopy()
	change(changed)
	if equality.Semantic.DeepEqual(n, changed) {
		return nil
	}
	err := r.env.Client.Patch(ctx, changed, client.MergeFromWithOptions(n, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("patch node %s: %w", n.Name, err)
	}
	*n = *changed
	return nil
}

// deferOperatorNode takes the node that the machine-config-operator runs on out of the targets, as long as there are
// others: updating it last saves the operator a move.
func (r *reconciler) deferOperatorNode(ctx context.Context, seen *observed, p *plan) error {
	pods := &corev1.PodList{}
	if err := r.env.Live.List(ctx, pods, client.InNamespace(layering.Namespace),
		client.MatchingLabels{"k8s-app": "machine-config-operator"}); err != nil {
		return fmt.Errorf("list pods of the machine-config-operator: %w", err)
	}
	if len(pods.Items) != 1 {
		return nil
	}
	host := pods.Items[0].Spec.NodeName
	rest := slices.DeleteFunc(slices.Clone(p.targets), func(n *corev1.Node) bool { return n.Name == host })
	if len(rest) < len(p.targets) {
		p.targets = rest
		r.event(seen.pool, corev1.EventTypeNormal, "DeferringOperatorNodeUpdate", "Rollout",
			"Deferring update of machine config operator node %s", host)
	}
	return nil
}

// report writes the pool's status if it changed.
func (r *reconciler) report(ctx context.Context, seen *observed) error {
	now := r.env.Clock.Now()
	if want := seen.status(now); equality.Semantic.DeepEqual(*want, seen.pool.Status) {
		r.count(seen.pool)
		return nil
	}
	// Other controllers keep conditions in the same list. Start from the list as it is now, and let the server refuse the
	// write if it moved meanwhile.
	pool := &mcfgv1.MachineConfigPool{}
	if err := r.env.Live.Get(ctx, client.ObjectKeyFromObject(seen.pool), pool); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("get machineconfigpool %s: %w", seen.pool.Name, err))
	}
	if pool.UID != seen.pool.UID || pool.Generation != seen.pool.Generation {
		return nil // what was observed belongs to another spec; the event of its change is on its way
	}
	old := pool.DeepCopy()
	seen.pool = pool
	pool.Status = *seen.status(now)
	if equality.Semantic.DeepEqual(pool.Status, old.Status) {
		r.count(pool)
		return nil
	}
	// An update and not a patch, so that counts of zero are written too: `oc get` prints nothing for an absent one.
	if err := r.env.Client.Status().Update(ctx, pool); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("update status of machineconfigpool %s: %w", pool.Name, err))
	}
	if pool.Status.Configuration.Name != old.Status.Configuration.Name {
		r.event(pool, corev1.EventTypeNormal, "Completed", "Rollout",
			"Pool %s has completed update to %s", pool.Name, seen.line())
	}
	r.count(pool)
	return nil
}

func (r *reconciler) count(pool *mcfgv1.MachineConfigPool) {
	if r.options.Metrics != nil {
		r.options.Metrics.Pool(pool.Name, &pool.Status)
	}
}

// reportAmbiguous warns on each node that is in several custom pools. The first of them does it for all.
func (r *reconciler) reportAmbiguous(seen *observed) {
	if len(r.reported) > 0 {
		for _, n := range seen.nodes {
			delete(r.reported, "node/"+n.Name)
		}
	}
	for _, a := range seen.ambiguous {
		if a.Pools[0] != seen.pool.Name {
			continue
		}
		node := &corev1.Node{}
		node.Name, node.UID = a.Node, seen.uids[a.Node]
		r.warn("node/"+a.Node, node, "MultipleCustomPools", "SelectPool", a.Error())
	}
}

// warn writes a warning, unless it was the last one about the same thing.
func (r *reconciler) warn(about string, object client.Object, reason, action, note string) {
	if r.reported[about] == note {
		return
	}
	r.reported[about] = note
	r.event(object, corev1.EventTypeWarning, reason, action, "%s", note)
}

func (r *reconciler) event(object client.Object, kind, reason, action, note string, args ...any) {
	if r.env.Recorder != nil {
		r.env.Recorder.Eventf(object, nil, kind, reason, action, note, args...)
	}
}

// observed is all that a sync of a pool depends on.
type observed struct {
	pool       *mcfgv1.MachineConfigPool
	nodes      []*corev1.Node // whose primary pool it is, by name; never changed in place, but replaced
	ambiguous  []*layering.AmbiguousError
	uids       map[string]types.UID // of the ambiguous nodes
	config     *mcfgv1.MachineOSConfig
	build      *mcfgv1.MachineOSBuild
	controller *mcfgv1.ControllerConfig // nil if there is none
	target     layering.Target          // what the nodes are to run; Image is set in layered pools that have one
}

// observe reads a pool and everything about it. It returns nil if there is no such pool.
func observe(ctx context.Context, reader client.Reader, name string) (*observed, error) {
	pools := &mcfgv1.MachineConfigPoolList{}
	if err := reader.List(ctx, pools); err != nil {
		return nil, fmt.Errorf("list machineconfigpools: %w", err)
	}
	at := slices.IndexFunc(pools.Items, func(p mcfgv1.MachineConfigPool) bool { return p.Name == name })
	if at < 0 {
		return nil, nil
	}
	seen := &observed{pool: &pools.Items[at]}
	rendered := seen.pool.Spec.Configuration.Name

	configs := &mcfgv1.MachineOSConfigList{}
	if err := reader.List(ctx, configs); err != nil {
		return nil, fmt.Errorf("list machineosconfigs: %w", err)
	}
	seen.target.Config = rendered
	if seen.config = layering.ConfigOfPool(name, configs.Items); seen.config != nil {
		builds := &mcfgv1.MachineOSBuildList{}
		if err := reader.List(ctx, builds); err != nil {
			return nil, fmt.Errorf("list machineosbuilds: %w", err)
		}
		seen.build = layering.CurrentBuildOf(seen.config, builds.Items, rendered)
		seen.target.Image = string(seen.config.Status.CurrentImagePullSpec)
	}

	controller := &mcfgv1.ControllerConfig{}
	switch err := reader.Get(ctx, client.ObjectKey{Name: layering.ControllerConfigName}, controller); {
	case err == nil:
		seen.controller = controller
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("get controllerconfig %s: %w", layering.ControllerConfigName, err)
	}

	nodes := &corev1.NodeList{}
	// The nodes are only looked at; patchNode works on copies.
	if err := reader.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	seen.nodes, seen.ambiguous = layering.NewMembership(pools.Items).Members(name, nodes.Items)
	if len(seen.ambiguous) > 0 {
		seen.uids = make(map[string]types.UID, len(seen.ambiguous))
		for i := range nodes.Items {
			seen.uids[nodes.Items[i].Name] = nodes.Items[i].UID
		}
	}
	return seen, nil
}

// topology is the cluster's control plane topology as the daemons want to know it, "" if unknown.
func (s *observed) topology() configv1.TopologyMode {
	if s.controller == nil || s.controller.Spec.Infra == nil {
		return ""
	}
	return s.controller.Spec.Infra.Status.ControlPlaneTopology
}
