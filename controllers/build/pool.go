package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
)

// The reasons of the pool's condition ImageBuildDegraded, upstream's names.
const (
	reasonBuildPending     = "BuildPending"
	reasonBuilding         = "Building"
	reasonBuildSuccess     = "BuildSuccess"
	reasonBuildFailed      = "BuildFailed"
	reasonBuildInterrupted = "BuildInterrupted"
	reasonNoLayeredObjects = "NoLayeredObjects"
)

// poolCondition returns a pool's condition, or nil.
func poolCondition(pool *mcfgv1.MachineConfigPool, kind mcfgv1.MachineConfigPoolConditionType) *mcfgv1.MachineConfigPoolCondition {
	for i := range pool.Status.Conditions {
		if pool.Status.Conditions[i].Type == kind {
			return &pool.Status.Conditions[i]
		}
	}
	return nil
}

// degraded returns the pool's condition for the build that counts, which is the wanted one and never an older one.
func degraded(pool string, build *mcfgv1.MachineOSBuild) mcfgv1.MachineConfigPoolCondition {
	c := mcfgv1.MachineConfigPoolCondition{
		Type: mcfgv1.MachineConfigPoolImageBuildDegraded, Status: corev1.ConditionFalse,
		Reason: reasonBuildPending, Message: "Build not started for pool " + pool,
	}
	if build == nil || !build.DeletionTimestamp.IsZero() {
		return c
	}
	switch layering.Progress(build) {
	case mcfgv1.MachineOSBuildPrepared, mcfgv1.MachineOSBuilding:
		c.Reason, c.Message = reasonBuilding, "Build started for pool "+pool
	case mcfgv1.MachineOSBuildSucceeded:
		c.Reason, c.Message = reasonBuildSuccess, "Build succeeded for pool "+pool
	case mcfgv1.MachineOSBuildInterrupted:
		c.Reason = reasonBuildInterrupted
		c.Message = fmt.Sprintf("Build interrupted for pool %s (MachineOSBuild: %s)", pool, build.Name)
	case mcfgv1.MachineOSBuildFailed:
		c.Status, c.Reason = corev1.ConditionTrue, reasonBuildFailed
		c.Message = fmt.Sprintf("Failed to build OS image for pool %s (MachineOSBuild: %s): Failed: Build Failed", pool, build.Name)
		if cause := build.Annotations[FailureCause]; cause != "" {
			c.Message += ": " + cause
		}
	}
	return c
}

// reportPool writes the condition ImageBuildDegraded of the MachineOSConfig's pool. Nobody else writes it.
func (p *pass) reportPool(ctx context.Context) error {
	if p.pool == nil {
		return nil
	}
	want := degraded(p.pool.Name, p.shown)
	before := poolCondition(p.pool, want.Type)
	recovered := before != nil && before.Status == corev1.ConditionTrue && want.Reason == reasonBuildSuccess
	if err := p.setPoolCondition(ctx, p.pool, want); err != nil {
		return err
	}
	if recovered {
		p.event(p.config, corev1.EventTypeNormal, "BuildRecovered", "Image build of pool %s recovered", p.pool.Name)
	}
	return nil
}

// setPoolCondition writes a pool's condition if it says something new.
func (r *reconciler) setPoolCondition(ctx context.Context, pool *mcfgv1.MachineConfigPool, want mcfgv1.MachineConfigPoolCondition) error {
	before := poolCondition(pool, want.Type)
	if before != nil && before.Status == want.Status && before.Reason == want.Reason && before.Message == want.Message {
		return nil
	}
	return r.patchStatus(ctx, pool, func() {
		if before == nil {
			want.LastTransitionTime = metav1.NewTime(r.clock.Now())
			pool.Status.Conditions = append(pool.Status.Conditions, want)
			return
		}
		want.LastTransitionTime = before.LastTransitionTime
		if before.Status != want.Status {
			want.LastTransitionTime = metav1.NewTime(r.clock.Now())
		}
		*before = want
	})
}

// clearPools takes back ImageBuildDegraded of pools that no MachineOSConfig refers to any more.
func (p *pass) clearPools(ctx context.Context, pools map[string]bool) error {
	configs := &mcfgv1.MachineOSConfigList{}
	if err := p.live.List(ctx, configs); err != nil {
		return fmt.Errorf("list machineosconfigs: %w", err)
	}
	for i := range configs.Items {
		if configs.Items[i].DeletionTimestamp.IsZero() {
			delete(pools, configs.Items[i].Spec.MachineConfigPool.Name)
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		pool := &mcfgv1.MachineConfigPool{}
		if err := p.live.Get(ctx, client.ObjectKey{Name: name}, pool); err != nil {
			if client.IgnoreNotFound(err) != nil {
				errs = append(errs, fmt.Errorf("get machineconfigpool %s: %w", name, err))
			}
			continue
		}
		if poolCondition(pool, mcfgv1.MachineConfigPoolImageBuildDegraded) == nil {
			continue
		}
		errs = append(errs, p.setPoolCondition(ctx, pool, mcfgv1.MachineConfigPoolCondition{
			Type: mcfgv1.MachineConfigPoolImageBuildDegraded, Status: corev1.ConditionFalse,
			Reason: reasonNoLayeredObjects, Message: "No MachineOSConfig refers to pool " + name,
		}))
	}
	return errors.Join(errs...)
}
