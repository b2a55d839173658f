package node

import (
	"context"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/layering"
)

// poolChanged drops what this controller writes itself: only the spec and others' conditions matter.
func poolChanged(before, after client.Object) bool {
	old, ok := before.(*mcfgv1.MachineConfigPool)
	if !ok || old == nil {
		return true
	}
	pool, ok := after.(*mcfgv1.MachineConfigPool)
	if !ok || pool == nil {
		return true
	}
	if old.UID != pool.UID || old.Generation != pool.Generation || gone(old) != gone(pool) {
		return true
	}
	for _, kind := range []mcfgv1.MachineConfigPoolConditionType{mcfgv1.MachineConfigPoolRenderDegraded,
		mcfgv1.MachineConfigPoolImageBuildDegraded, mcfgv1.MachineConfigPoolPinnedImageSetsDegraded} {
		if layering.PoolConditionTrue(old.Status.Conditions, kind) !=
			layering.PoolConditionTrue(pool.Status.Conditions, kind) {
			return true
		}
	}
	return renderMessage(old) != renderMessage(pool)
}

// renderMessage is what Degraded repeats of RenderDegraded.
func renderMessage(pool *mcfgv1.MachineConfigPool) string {
	c := layering.PoolCondition(pool.Status.Conditions, mcfgv1.MachineConfigPoolRenderDegraded)
	if c == nil || c.Status != corev1.ConditionTrue {
		return ""
	}
	return c.Message
}

func poolSelectsAnew(before, after client.Object) bool {
	old, _ := before.(*mcfgv1.MachineConfigPool)
	pool, _ := after.(*mcfgv1.MachineConfigPool)
	return old == nil || pool == nil || !equality.Semantic.DeepEqual(old.Spec.NodeSelector, pool.Spec.NodeSelector)
}

func controllerConfigChanged(before, after client.Object) bool {
	old, _ := before.(*mcfgv1.ControllerConfig)
	config, _ := after.(*mcfgv1.ControllerConfig)
	return old == nil || config == nil || old.Generation != config.Generation ||
		!equality.Semantic.DeepEqual(old.Status.ControllerCertificates, config.Status.ControllerCertificates)
}

func configChanged(before, after client.Object) bool {
	old, _ := before.(*mcfgv1.MachineOSConfig)
	config, _ := after.(*mcfgv1.MachineOSConfig)
	return old == nil || config == nil || old.Generation != config.Generation || gone(old) != gone(config) ||
		old.Annotations[layering.CurrentBuild] != config.Annotations[layering.CurrentBuild] ||
		!equality.Semantic.DeepEqual(old.Status, config.Status)
}

func buildChanged(before, after client.Object) bool {
	old, _ := before.(*mcfgv1.MachineOSBuild)
	build, _ := after.(*mcfgv1.MachineOSBuild)
	return old == nil || build == nil || old.UID != build.UID || gone(old) != gone(build) ||
		layering.Progress(old) != layering.Progress(build) ||
		old.Status.DigestedImagePushSpec != build.Status.DigestedImagePushSpec
}

// nodeChanged drops heartbeats, the annotations that daemon and drain controller talk by, and what happens to a node on
// its way: that a node which is unavailable already is cordoned, or reboots, changes neither a count nor a decision. In a
// large pool these are most of all events.
func nodeChanged(before, after client.Object) bool {
	old, _ := before.(*corev1.Node)
	node, _ := after.(*corev1.Node)
	if old == nil || node == nil || old.UID != node.UID || gone(old) != gone(node) {
		return true
	}
	return layering.Desired(old) != layering.Desired(node) || layering.Current(old) != layering.Current(node) ||
		layering.Done(old) != layering.Done(node) || layering.Available(old) != layering.Available(node) ||
		layering.CountsUnavailable(old) != layering.CountsUnavailable(node) ||
		layering.Degraded(old) != layering.Degraded(node) ||
		old.Annotations[layering.Reason] != node.Annotations[layering.Reason] ||
		old.Annotations[layering.ControlPlaneTopo] != node.Annotations[layering.ControlPlaneTopo] ||
		hasTaint(old) != hasTaint(node) || !equality.Semantic.DeepEqual(old.Labels, node.Labels)
}

func gone(object client.Object) bool { return object.GetDeletionTimestamp() != nil }

func request(pool string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: pool}}
}

func poolOfConfig(_ context.Context, _ client.Reader, object client.Object) []reconcile.Request {
	config, ok := object.(*mcfgv1.MachineOSConfig)
	if !ok {
		return nil
	}
	return []reconcile.Request{request(config.Spec.MachineConfigPool.Name)}
}

// poolOfBuild finds the pool by the build's label, and failing that by its MachineOSConfig, which is named like the pool.
func poolOfBuild(_ context.Context, _ client.Reader, object client.Object) []reconcile.Request {
	build, ok := object.(*mcfgv1.MachineOSBuild)
	if !ok {
		return nil
	}
	if pool := build.Labels[layering.TargetPool]; pool != "" {
		return []reconcile.Request{request(pool)}
	}
	return []reconcile.Request{request(build.Spec.MachineOSConfig.Name)}
}

func allPools(ctx context.Context, reader client.Reader, _ client.Object) []reconcile.Request {
	pools := &mcfgv1.MachineConfigPoolList{}
	if err := reader.List(ctx, pools, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "list machineconfigpools")
		return nil
	}
	requests := make([]reconcile.Request, 0, len(pools.Items))
	for i := range pools.Items {
		requests = append(requests, request(pools.Items[i].Name))
	}
	return requests
}

// poolsOfNode names every pool that matches the node, and not only its primary pool: all of them count differently when
// one of them changes hands.
func poolsOfNode(ctx context.Context, reader client.Reader, object client.Object) []reconcile.Request {
	node, ok := object.(*corev1.Node)
	if !ok {
		return nil
	}
	pools := &mcfgv1.MachineConfigPoolList{}
	if err := reader.List(ctx, pools, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "list machineconfigpools")
		return nil
	}
	names := layering.NewMembership(pools.Items).Matching(node)
	requests := make([]reconcile.Request, 0, len(names))
	for _, name := range names {
		requests = append(requests, request(name))
	}
	return requests
}
