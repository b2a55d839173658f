package compare_test

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
	"github.com/layersim/layersim/sim/compare"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/run/mutant"
)

func wants(data string) bool {
	return strings.Contains(data, layering.DesiredImage) || strings.Contains(data, layering.DesiredConfig)
}

// mutants break one place each. want is a part of what one of the differences must say.
var mutants = []struct {
	scenario, what string
	mutate         mutant.Mutant
	want           string
}{
	{"build-failure-three-retries", "one retry less", mutant.Retries(2), "job of layered-H1, pods that failed: 4"},
	{"build-failure-then-success/once", "no retry", mutant.Retries(0), "job of layered-H1, end: Failed"},
	{"happy-path", "the drain controller acknowledges without cordoning", mutant.NotCordoned(), "node worker-N1, cordon: cordoned"},
	{"paused-pool", "the node controller doesn't see that a pool is paused", mutant.Requests(mutant.Nodes, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, o, opts...)
			if pool, ok := o.(*mcfgv1.MachineConfigPool); ok {
				pool.Spec.Paused = false
			}
			return err
		},
	}), "scenario, steps: step 2 nothing can happen any more"},
	{"machine-set-scale-up", "all nodes are targeted at once", mutant.Patches(mutant.Nodes, func(c client.Client, o client.Object, data string) client.Object {
		if _, ok := o.(*corev1.Node); !ok || !wants(data) {
			return o
		}
		var list corev1.NodeList
		if c.List(context.Background(), &list, client.HasLabels{layering.NodeRolePrefix + "layered"}) != nil {
			return o
		}
		for _, n := range list.Items {
			before := n.DeepCopy()
			for _, key := range []string{layering.DesiredConfig, layering.DesiredImage} {
				metav1.SetMetaDataAnnotation(&n.ObjectMeta, key, o.GetAnnotations()[key])
			}
			if n.Name != o.GetName() && c.Patch(context.Background(), &n, client.MergeFrom(before)) != nil {
				return o
			}
		}
		return o
	}), "machineconfigpool layered, nodes under way: 1 at most"},
	{"label-revert", "a node that leaves a pool keeps its image", mutant.Patches(mutant.Nodes, func(_ client.Client, o client.Object, data string) client.Object {
		if strings.Contains(data, layering.DesiredImage+`":null`) {
			return nil
		}
		return o
	}), "node layered-N1, targets: rendered-worker-H2, no image"},
	{"happy-path", "the node controller writes an image that no build made", mutant.Patches(mutant.Nodes, func(_ client.Client, o client.Object, data string) client.Object {
		if n, ok := o.(*corev1.Node); ok && strings.Contains(data, layering.DesiredImage) {
			changed := n.DeepCopy()
			changed.Annotations[layering.DesiredImage] = strings.Replace(n.Annotations[layering.DesiredImage], "@sha256:", "@sha256:00", 1)
			return changed
		}
		return o
	}), "node worker-N1, targets: rendered-layered-H1, image of layered-H1"},
	{"happy-path", "the builder doesn't clean up", mutant.Requests(mutant.Builder, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if _, ok := o.(*corev1.ConfigMap); ok {
				o.SetOwnerReferences(nil)
			}
			return c.Create(ctx, o, opts...)
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
	}), "configmap containerfile-layered-H1, life: gone"},
	{"happy-path", "the builder writes Prepared and Building at once", mutant.PreparedAndBuilding(), "machineosbuild layered-H1, conditions: Building and Prepared"},
	{"happy-path", "the node controller counts all machines as updated", mutant.AllUpdated(), "machineconfigpool layered, updatedMachineCount: 2"},
	{"happy-path", "the drain controller panics", mutant.Patches(mutant.Drains, func(client.Client, client.Object, string) client.Object {
		panic("nil pointer dereference")
	}), "panics: panics"},
	{"paused-pool-replace", "the builder sees no nodes when it deletes images", mutant.NoNodes(), "deleted while a node has or wants it"},
	{"secret-rotation/push-idle", "the builder rebuilds when a Secret changes", mutant.RebuildForSecret(), "machineosbuild layered-H2, life: created"},
	{"happy-path", "the builder tells nodes of the image at another moment", mutant.Statuses(mutant.Builder, func(o client.Object) {
		if config, ok := o.(*mcfgv1.MachineOSConfig); ok && config.Status.CurrentImagePullSpec != "" {
			config.Status.CurrentImagePullSpec = "registry.example/other@sha256:" + mcfgv1.ImageDigestFormat(strings.Repeat("0", 64))
		}
	}), "machineosconfig layered, image for nodes"},
}

// Each mutant leaves a history that differs from that of the unbroken components.
func TestMutantsDiffer(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.what, func(t *testing.T) {
			t.Parallel()
			s := named(t, m.scenario)
			good := reference(t, s.Name)
			found := compare.Histories(good, perform(t, s, run.Options{Seed: 2, Break: m.mutate}))
			for _, d := range found {
				if strings.Contains(d.String(), m.want) {
					t.Log(d)
					return
				}
			}
			t.Errorf("no difference says %q; %d differences\n%s", m.want, len(found), printed(t, found))
		})
	}
}
