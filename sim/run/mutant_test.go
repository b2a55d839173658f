package run_test

import (
	"context"
	"strings"
	"testing"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/run/mutant"
	"github.com/layersim/layersim/sim/scenario"
)

const header = `
kind: Scenario
name: base
area: test
shows: what the mutants break
`

// steps that the mutants are run on.
const (
	rollOut = `
  - ask for an image:
      apply: fixtures/layered.yaml
      within: 3h
      in order:
        - machineosbuild layered-*: {condition: Succeeded}
        - machineconfigpool layered: {condition: Updated, updated: 3}
`
	askAndEdit = `
  - ask for an image:
      apply: fixtures/layered.yaml
      expect: {machineosbuild layered-*: {condition: Building}}
  - edit it mid-build:
      patch: {machineosconfig layered: {spec: {containerFile: [{content: "FROM configs AS final\nRUN ostree container commit\n"}]}}}
      within: 3h
      settles: {machineosbuild layered-*: {condition: Succeeded}}
`
	removeAgain = rollOut + `
  - remove the MachineOSConfig while the nodes run its image:
      pause: layered
      delete: machineosconfig layered
      settles: {machineosbuild *: {exists: false}}
`
)

func base(t *testing.T, steps string) *scenario.Scenario {
	t.Helper()
	text := header + "cluster: {like: two-pools, nodes: {layered: {count: 3}}}\nsteps:" + steps
	list, err := scenario.Parse("../../scenarios/base.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// isDesired tells whether a patch writes a node's target.
func isDesired(o client.Object, p client.Patch) (string, bool) {
	if _, ok := o.(*corev1.Node); !ok {
		return "", false
	}
	data, err := p.Data(o)
	return string(data), err == nil && (strings.Contains(string(data), layering.DesiredImage) || strings.Contains(string(data), layering.DesiredConfig))
}

// For each invariant one place of the code or the world is broken, and the invariant must say so; unbroken, the same
// scenario passes.
func TestInvariantsFindMutants(t *testing.T) {
	mutants := []struct {
		invariant, what string
		steps           string
		mutate          mutant.Mutant
	}{
		{"I1", "the builder sees no other builds after an edit", askAndEdit, mutant.Requests(mutant.Builder, interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
				err := c.List(ctx, l, opts...)
				if builds, ok := l.(*mcfgv1.MachineOSBuildList); ok {
					var config mcfgv1.MachineOSConfig
					if c.Get(ctx, client.ObjectKey{Name: "layered"}, &config) == nil && config.Generation > 1 {
						builds.Items = nil
					}
				}
				return err
			},
		})},
		{"I2", "the node controller targets all nodes when it targets one", rollOut, mutant.Requests(mutant.Nodes, interceptor.Funcs{
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
				_, ok := isDesired(o, p)
				if err := c.Patch(ctx, o, p, opts...); err != nil || !ok {
					return err
				}
				var nodes corev1.NodeList
				if err := c.List(ctx, &nodes, client.HasLabels{layering.NodeRolePrefix + "layered"}); err != nil {
					return err
				}
				for _, n := range nodes.Items {
					before := n.DeepCopy()
					for _, key := range []string{layering.DesiredConfig, layering.DesiredImage} {
						metav1.SetMetaDataAnnotation(&n.ObjectMeta, key, o.GetAnnotations()[key])
					}
					if err := c.Patch(ctx, &n, client.MergeFrom(before)); err != nil {
						return err
					}
				}
				return nil
			},
		})},
		{"I3", "the node controller writes an image that no build made", rollOut, mutant.Requests(mutant.Nodes, interceptor.Funcs{
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
				if _, ok := isDesired(o, p); ok {
					before := o.DeepCopyObject().(client.Object)
					if err := c.Get(ctx, client.ObjectKeyFromObject(o), before); err != nil {
						return err
					}
					wrong := before.DeepCopyObject().(client.Object)
					annotations := wrong.GetAnnotations()
					annotations[layering.DesiredImage] = strings.Replace(o.GetAnnotations()[layering.DesiredImage], "@sha256:", "@sha256:00", 1)
					wrong.SetAnnotations(annotations)
					return c.Patch(ctx, wrong, client.MergeFrom(before))
				}
				return c.Patch(ctx, o, p, opts...)
			},
		})},
		{"I4", "the builder sees no nodes when it deletes images", removeAgain, mutant.NoNodes()},
		{"I5", "the builder doesn't clean up, and nothing is owned", rollOut, mutant.Requests(mutant.Builder, interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
				if _, ok := o.(*corev1.ConfigMap); ok {
					o.SetOwnerReferences(nil)
				}
				return c.Create(ctx, o, opts...)
			},
			Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
				if _, ok := o.(*corev1.ConfigMap); ok {
					return nil
				}
				return c.Update(ctx, o, opts...)
			},
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
				if _, ok := o.(*corev1.ConfigMap); ok {
					return nil
				}
				return c.Patch(ctx, o, p, opts...)
			},
			Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
				if _, ok := o.(*corev1.ConfigMap); ok {
					return nil
				}
				return c.Delete(ctx, o, opts...)
			},
		})},
		{"I6", "the builder writes Prepared and Building at once", rollOut, mutant.PreparedAndBuilding()},
		{"I7", "the builder gives no image to the nodes", askAndEdit, mutant.Statuses(mutant.Builder, notGiven)},
		{"I8", "the builder says of each build that it failed", askAndEdit, mutant.Statuses(mutant.Builder, buildFailed)},
		{"I9", "the node controller counts all machines as updated", rollOut, mutant.AllUpdated()},
		{"I11", "the drain controller panics when it cordons", rollOut, mutant.Requests(mutant.Drains, interceptor.Funcs{
			Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
				panic("nil pointer dereference")
			},
		})},
	}
	for _, m := range mutants {
		t.Run(m.invariant, func(t *testing.T) {
			t.Parallel()
			s := base(t, m.steps)
			if r := run.Scenario(t.Context(), s, run.Options{Seed: 1}, nil); r.Verdict != report.Passed {
				t.Fatalf("without the mutant: %s: %v %+v", r.Verdict, r.Err, r.Failures)
			}
			r := run.Scenario(t.Context(), s, run.Options{Seed: 1, Break: m.mutate}, nil)
			for _, f := range r.Failures {
				if f.Check == "invariant "+m.invariant {
					t.Logf("%s: %s", m.what, f.Message)
					return
				}
			}
			t.Errorf("%s: not found; verdict %s: %v %+v", m.what, r.Verdict, r.Err, r.Failures)
		})
	}
}

func notGiven(o client.Object) {
	if config, ok := o.(*mcfgv1.MachineOSConfig); ok {
		config.Status.CurrentImagePullSpec = ""
	}
}

func buildFailed(o client.Object) {
	pool, ok := o.(*mcfgv1.MachineConfigPool)
	if !ok {
		return
	}
	for n := range pool.Status.Conditions {
		if c := &pool.Status.Conditions[n]; c.Type == mcfgv1.MachineConfigPoolImageBuildDegraded {
			c.Status = corev1.ConditionTrue
		}
	}
}
