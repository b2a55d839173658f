package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
)

// notYetSet stands for a pool or config that isn't known.
const notYetSet = "not-yet-set"

// phases are the conditions that the daemon keeps, in the order in which an update sets them.
var phases = [...]mcfgv1.StateProgress{
	mcfgv1.MachineConfigNodeUpdatePrepared, mcfgv1.MachineConfigNodeUpdateExecuted,
	mcfgv1.MachineConfigNodeUpdateCordoned, mcfgv1.MachineConfigNodeUpdateDrained,
	mcfgv1.MachineConfigNodeUpdateFilesAndOS, mcfgv1.MachineConfigNodeUpdateRebooted,
	mcfgv1.MachineConfigNodeResumed, mcfgv1.MachineConfigNodeUpdateComplete,
	mcfgv1.MachineConfigNodeUpdateUncordoned, mcfgv1.MachineConfigNodeUpdated, mcfgv1.MachineConfigNodeNodeDegraded,
}

type mark struct {
	kind    mcfgv1.StateProgress
	status  metav1.ConditionStatus
	reason  string
	message string
}

// tell writes what a phase changes in the node's MachineConfigNode, once for each process and phase.
func (d *daemon) tell(ctx context.Context, v *visit, phase string, desired string, marks ...mark) error {
	if v.s.told == phase {
		return nil
	}
	if d.fleet.options.NoMachineConfigNodes {
		v.s.told = phase
		return nil
	}
	mcn, served, err := d.machineConfigNode(ctx, v, desired, phase == "started" || phase == "prepared")
	if err != nil {
		return err
	}
	if !served {
		v.s.told = phase
		return nil
	}
	before := mcn.Status.DeepCopy()
	now := metav1.NewTime(v.now)
	set := func(m mark) {
		c := metav1.Condition{Type: string(m.kind), Status: m.status, Reason: m.reason, Message: m.message, LastTransitionTime: now}
		meta.SetStatusCondition(&mcn.Status.Conditions, c)
	}
	for _, kind := range phases {
		if meta.FindStatusCondition(mcn.Status.Conditions, string(kind)) == nil {
			set(mark{kind, metav1.ConditionFalse, "NotYetOccurred", fmt.Sprintf("This node has not yet entered the %s phase", kind)})
		}
	}
	for _, m := range marks {
		set(m)
		if m.kind == mcfgv1.MachineConfigNodeUpdated && m.status == metav1.ConditionTrue && before.ConfigVersion != nil {
			for i := range mcn.Status.Conditions {
				c := &mcn.Status.Conditions[i]
				if c.Type != string(m.kind) && c.Status != metav1.ConditionFalse {
					c.Status, c.LastTransitionTime = metav1.ConditionFalse, now
					c.Message = "Action during update to " + cmp.Or(v.look.image, v.look.config) + ": " + c.Message
				}
			}
		}
	}
	mcn.Status.ObservedGeneration = max(mcn.Status.ObservedGeneration, mcn.Generation, 1)
	mcn.Status.ConfigVersion = &mcfgv1.MachineConfigNodeStatusMachineConfigVersion{
		Current: layering.Current(v.node).Config, Desired: cmp.Or(desired, notYetSet)}
	if !equality.Semantic.DeepEqual(before, &mcn.Status) {
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"resourceVersion": mcn.ResourceVersion}, // the drain controller may write here too
			"status": map[string]any{"conditions": mcn.Status.Conditions, "configVersion": mcn.Status.ConfigVersion,
				"observedGeneration": mcn.Status.ObservedGeneration},
		})
		if err == nil {
			err = d.env.Client.Status().Patch(ctx, mcn, client.RawPatch(types.MergePatchType, patch))
		}
		if err != nil {
			return fmt.Errorf("update status of machineconfignode %s: %w", mcn.Name, err)
		}
	}
	v.s.told = phase
	return nil
}

// machineConfigNode returns the node's MachineConfigNode, created where there is none, and where asked for with the right
// spec. It reports false in a cluster that doesn't serve the kind.
func (d *daemon) machineConfigNode(ctx context.Context, v *visit, desired string, respec bool) (*mcfgv1.MachineConfigNode, bool, error) {
	name := v.node.Name
	mcn := &mcfgv1.MachineConfigNode{}
	err := d.env.Live.Get(ctx, client.ObjectKey{Name: name}, mcn)
	switch {
	case meta.IsNoMatchError(err):
		return nil, false, nil
	case err == nil && !respec:
		return mcn, true, nil
	case client.IgnoreNotFound(err) != nil:
		return nil, false, fmt.Errorf("get machineconfignode %s: %w", name, err)
	}
	spec := mcfgv1.MachineConfigNodeSpec{
		Node: mcfgv1.MCOObjectReference{Name: name}, Pool: mcfgv1.MCOObjectReference{Name: notYetSet},
		ConfigVersion: mcfgv1.MachineConfigNodeSpecMachineConfigVersion{Desired: cmp.Or(desired, notYetSet)},
		ConfigImage:   mcn.Spec.ConfigImage,
	}
	pool, poolErr := d.pool(ctx, v.node)
	if poolErr != nil {
		return nil, false, poolErr
	}
	if pool != nil {
		spec.Pool.Name = pool.Name
	}
	if err != nil {
		mcn = &mcfgv1.MachineConfigNode{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: name, UID: v.node.UID}}}, Spec: spec}
		err := d.env.Client.Create(ctx, mcn)
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) { // the kind itself isn't there
			return nil, false, nil
		}
		return mcn, true, wrap(err, "create machineconfignode %s", name)
	}
	if mcn.Spec != spec {
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"pool": spec.Pool, "configVersion": spec.ConfigVersion}})
		if err == nil {
			err = d.env.Client.Patch(ctx, mcn, client.RawPatch(types.MergePatchType, patch))
		}
		if err != nil {
			return nil, false, fmt.Errorf("update machineconfignode %s: %w", name, err)
		}
	}
	return mcn, true, nil
}

const (
	yes     = metav1.ConditionTrue
	no      = metav1.ConditionFalse
	unknown = metav1.ConditionUnknown
)

// tellStarted is the daemon's first sync in a process.
func (d *daemon) tellStarted(ctx context.Context, v *visit) error {
	desired := layering.Desired(v.node).Config
	if !layering.Done(v.node) {
		return d.tell(ctx, v, "started", desired)
	}
	return d.tell(ctx, v, "started", desired,
		mark{mcfgv1.MachineConfigNodeUpdated, yes, "Updated", "Node " + v.node.Name + " Updated"})
}

func (d *daemon) tellPrepared(ctx context.Context, v *visit, t layering.Target) error {
	v.s.told = "started"
	return d.tell(ctx, v, "prepared", t.Config,
		mark{mcfgv1.MachineConfigNodeUpdated, no, "Updated", "Node " + v.node.Name + " needs an update"},
		mark{mcfgv1.MachineConfigNodeUpdatePrepared, yes, "UpdatePrepared", "Update Compatible. Target: " + described(t)})
}

func (d *daemon) tellDrained(ctx context.Context, v *visit, t layering.Target, drain bool) error {
	marks := []mark{
		{mcfgv1.MachineConfigNodeUpdateExecuted, unknown, "AppliedFilesAndOS", "Updating the Files and OS on disk as a part of the in progress phase"},
		{mcfgv1.MachineConfigNodeUpdateFilesAndOS, unknown, "UpdateExecutedAppliedFilesAndOS", "Applying files and new OS config to node."},
	}
	if drain {
		marks = append(marks, mark{mcfgv1.MachineConfigNodeUpdateCordoned, yes, "UpdateExecutedCordoned", "Cordoned node."},
			mark{mcfgv1.MachineConfigNodeUpdateDrained, yes, "UpdateExecutedDrained", "Drained node."})
	} else {
		marks = append(marks, mark{mcfgv1.MachineConfigNodeUpdateDrained, no, "UpdateExecutedDrained",
			"Node Drain Not required for this update."})
	}
	return d.tell(ctx, v, "drained", t.Config, marks...)
}

func (d *daemon) tellApplied(ctx context.Context, v *visit, t layering.Target, reboot bool) error {
	marks := []mark{
		{mcfgv1.MachineConfigNodeUpdateExecuted, yes, "UpdateExecuted", "Updated the Files and OS on disk as a part of the in progress phase"},
		{mcfgv1.MachineConfigNodeUpdateFilesAndOS, yes, "UpdateExecutedAppliedFilesAndOS", "Applied files and new OS config to node."},
		{mcfgv1.MachineConfigNodeNodeDegraded, no, "NodeDegraded", "Node " + v.node.Name + " upgrade succeeded"},
	}
	if reboot {
		marks = append(marks, mark{mcfgv1.MachineConfigNodeUpdateRebooted, unknown, "RebootedNode", "Upgrade requires a reboot."})
	}
	return d.tell(ctx, v, "applied", t.Config, marks...)
}

func (d *daemon) tellRebooted(ctx context.Context, v *visit) error {
	return d.tell(ctx, v, "rebooted", layering.Desired(v.node).Config,
		mark{mcfgv1.MachineConfigNodeUpdateRebooted, yes, "RebootedNode", "Node has rebooted"},
		mark{mcfgv1.MachineConfigNodeResumed, yes, "Resumed", "In desired config. Resumed normal operations."})
}

func (d *daemon) tellDone(ctx context.Context, v *visit, t layering.Target) error {
	return d.tell(ctx, v, "done", layering.Desired(v.node).Config,
		mark{mcfgv1.MachineConfigNodeNodeDegraded, no, "NodeDegraded", "Node " + v.node.Name + " upgrade succeeded"},
		mark{mcfgv1.MachineConfigNodeUpdateComplete, yes, "Uncordoned", "Update completed."},
		mark{mcfgv1.MachineConfigNodeUpdateUncordoned, yes, "UpdateCompleteUncordoned", "UnCordoned node."},
		mark{mcfgv1.MachineConfigNodeUpdated, yes, "Updated", "Node " + v.node.Name + " Updated"})
}

func (d *daemon) tellDegraded(ctx context.Context, v *visit, reason string) error {
	return d.tell(ctx, v, "degraded: "+reason, layering.Desired(v.node).Config,
		mark{mcfgv1.MachineConfigNodeNodeDegraded, yes, "NodeDegraded", "Node " + v.node.Name + " upgrade failure. " + reason})
}
