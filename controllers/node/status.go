package node

import (
	"fmt"
	"strings"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/layersim/layersim/controllers/layering"
)

// status is the pool's status as it should be: a function of what was observed and of the conditions that were there.
func (s *observed) status(now time.Time) *mcfgv1.MachineConfigPoolStatus {
	status := s.pool.Status.DeepCopy()
	status.ObservedGeneration = s.pool.Generation
	status.MachineCount = int32(len(s.nodes))
	status.UpdatedMachineCount, status.ReadyMachineCount = 0, 0
	status.UnavailableMachineCount, status.DegradedMachineCount = 0, 0
	var degraded []string
	for _, n := range s.nodes {
		if s.updated(n) {
			status.UpdatedMachineCount++
			if layering.Ready(n) == nil {
				status.ReadyMachineCount++
			}
		}
		if layering.CountsUnavailable(n) {
			status.UnavailableMachineCount++
		}
		if layering.Degraded(n) {
			status.DegradedMachineCount++
			degraded = append(degraded, fmt.Sprintf("Node %s is reporting: %q", n.Name, n.Annotations[layering.Reason]))
		}
	}
	s.expirys(status)

	set := func(kind mcfgv1.MachineConfigPoolConditionType, on bool, reason, message string) {
		c := mcfgv1.MachineConfigPoolCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
		if on {
			c.Status = corev1.ConditionTrue
		}
		layering.SetPoolCondition(&status.Conditions, c, now)
	}

	all := s.settled() && status.UpdatedMachineCount == status.MachineCount &&
		status.ReadyMachineCount == status.MachineCount && status.UnavailableMachineCount == 0
	if all {
		status.Configuration = *s.pool.Spec.Configuration.DeepCopy()
		set(mcfgv1.MachineConfigPoolUpdated, true, "", "All nodes are updated with "+s.line())
	} else {
		set(mcfgv1.MachineConfigPoolUpdated, false, "", "")
	}

	if len(degraded) > 0 {
		set(mcfgv1.MachineConfigPoolNodeDegraded, true,
			fmt.Sprintf("%d nodes are reporting degraded status on sync", len(degraded)), strings.Join(degraded, ", "))
	} else {
		set(mcfgv1.MachineConfigPoolNodeDegraded, false, "", "")
	}
	updating, message := s.updating(all, status)
	set(mcfgv1.MachineConfigPoolUpdating, updating, "", message)

	// A pool that isn't layered has no image that could be missing, whatever an earlier build left behind.
	render := layering.PoolCondition(status.Conditions, mcfgv1.MachineConfigPoolRenderDegraded)
	switch {
	case len(degraded) > 0:
		set(mcfgv1.MachineConfigPoolDegraded, true, "", strings.Join(degraded, ", "))
	case s.config != nil && layering.PoolConditionTrue(status.Conditions, mcfgv1.MachineConfigPoolImageBuildDegraded):
		set(mcfgv1.MachineConfigPoolDegraded, true, "", "Custom OS image build failed")
	case render != nil && render.Status == corev1.ConditionTrue:
		set(mcfgv1.MachineConfigPoolDegraded, true, "", render.Message)
	default:
		set(mcfgv1.MachineConfigPoolDegraded, false, "", "")
	}
	return status
}

// updated tells whether a node has what the pool offers. In a layered pool nothing is offered as long as there is no
// build for the pool's config; while a build for the same config replaces an image, that image is.
func (s *observed) updated(n *corev1.Node) bool {
	if s.config != nil && (s.build == nil || s.target.Image == "") {
		return false
	}
	return layering.Updated(n, s.target)
}

// settled tells whether what the pool offers is what it was asked for, so that arriving there is being updated.
func (s *observed) settled() bool { return s.config == nil || s.agreed() }

// line names the pool's config and image.
func (s *observed) line() string {
	if s.target.Image == "" {
		return "MachineConfig " + s.target.Config
	}
	return "MachineConfig " + s.target.Config + " / Image " + s.target.Image
}

// updating is status and message of the condition Updating. The texts are upstream's; scripts know them.
func (s *observed) updating(all bool, status *mcfgv1.MachineConfigPoolStatus) (bool, string) {
	if s.config != nil && s.pool.Spec.Paused {
		return s.updatingPaused()
	}
	if s.config != nil {
		return s.updatingLayered(all, status)
	}
	switch {
	case all:
		return false, ""
	case s.pool.Spec.Paused:
		return false, "Pool is paused; will not update to " + s.line()
	}
	return true, "All nodes are updating to " + s.line()
}

func (s *observed) updatingLayered(all bool, status *mcfgv1.MachineConfigPoolStatus) (bool, string) {
	for _, c := range []mcfgv1.MachineConfigPoolConditionType{mcfgv1.MachineConfigPoolRenderDegraded,
		mcfgv1.MachineConfigPoolNodeDegraded, mcfgv1.MachineConfigPoolPinnedImageSetsDegraded} {
		if layering.PoolConditionTrue(status.Conditions, c) {
			return false, "Pool update paused due to degraded condition"
		}
	}
	if s.build == nil {
		return true, fmt.Sprintf("Pool is waiting for a new OS image build to start (mosc: %s)", s.config.Name)
	}
	switch layering.Progress(s.build) {
	case mcfgv1.MachineOSBuilding:
		return true, fmt.Sprintf("Pool is waiting for OS image build to complete (mosb: %s)", s.build.Name)
	case mcfgv1.MachineOSBuildFailed:
		return false, fmt.Sprintf("Pool update stopped due to OS image build failure (mosb: %s)", s.build.Name)
	case mcfgv1.MachineOSBuildInterrupted:
		return false, fmt.Sprintf("Pool update stopped due to OS image build being interrupted (mosb: %s)", s.build.Name)
	case mcfgv1.MachineOSBuildSucceeded:
		if all {
			return false, ""
		}
		return true, fmt.Sprintf("Pool is waiting for nodes to apply OS image (mosb: %s)", s.build.Name)
	}
	return true, fmt.Sprintf("Pool is waiting for OS image build to start (mosb: %s)", s.build.Name)
}

func (s *observed) updatingPaused() (bool, string) {
	if s.build == nil {
		return true, fmt.Sprintf("Pool is paused; waiting for a new OS image build to start (mosc: %s)", s.config.Name)
	}
	text := func(what string) string {
		return fmt.Sprintf("Pool is paused; OS image build %s (mosb: %s)", what, s.build.Name)
	}
	switch layering.Progress(s.build) {
	case mcfgv1.MachineOSBuildPrepared:
		return true, text("has been prepared but will not rollout")
	case mcfgv1.MachineOSBuilding:
		return true, text("in progress")
	case mcfgv1.MachineOSBuildSucceeded:
		return false, text("completed successfully")
	case mcfgv1.MachineOSBuildFailed:
		return false, text("failed")
	case mcfgv1.MachineOSBuildInterrupted:
		return false, text("was interrupted")
	}
	return true, text("has been created but not yet started")
}

// expirys copies when the API server's serving certificates end from the ControllerConfig.
func (s *observed) expirys(status *mcfgv1.MachineConfigPoolStatus) {
	if s.controller == nil {
		return
	}
	status.CertExpirys = nil
	for _, c := range s.controller.Status.ControllerCertificates {
		if c.BundleFile == "KubeAPIServerServingCAData" {
			status.CertExpirys = append(status.CertExpirys,
				mcfgv1.CertExpiry{Bundle: c.BundleFile, Subject: c.Subject, Expiry: c.NotAfter})
		}
	}
}
