package compare_test

import (
	"context"
	"strings"
	"testing"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/compare"
	"github.com/layersim/layersim/sim/run"
)

// sabotage makes a component's requests go through f.
func sabotage(name string, f interceptor.Funcs) func(*component.Component) {
	return func(c *component.Component) {
		if c.Name != name {
			return
		}
		inner := c.New
		c.New = func(env component.Env) (reconcile.Reconciler, error) {
			if cached, ok := env.Client.(client.WithWatch); ok {
				env.Client = interceptor.NewClient(cached, f)
			}
			if live, ok := env.Live.(client.WithWatch); ok {
				env.Live = interceptor.NewClient(live, f)
			}
			return inner(env)
		}
	}
}

// patches lets f change or swallow a component's patches; f returns nil to swallow.
func patches(name string, f func(c client.Client, o client.Object, data string) client.Object) func(*component.Component) {
	return sabotage(name, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			data, err := p.Data(o)
			if err != nil {
				return err
			}
			before := o.DeepCopyObject().(client.Object)
			if err := c.Get(ctx, client.ObjectKeyFromObject(o), before); err != nil {
				return err
			}
			switch changed := f(c, o, string(data)); changed {
			case nil:
				return nil
			case o:
				return c.Patch(ctx, o, p, opts...)
			default:
				changed.SetResourceVersion(before.GetResourceVersion())
				return c.Patch(ctx, changed, client.MergeFrom(before), opts...)
			}
		},
	})
}

// statuses lets f change what a component writes into statuses.
func statuses(name string, f func(client.Object)) func(*component.Component) {
	return sabotage(name, interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			f(o)
			return c.SubResource(sub).Update(ctx, o, opts...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			f(o)
			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	})
}

// lists lets f change what a component finds.
func lists(name string, f func(client.ObjectList)) func(*component.Component) {
	return sabotage(name, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			err := c.List(ctx, l, opts...)
			f(l)
			return err
		},
	})
}

// creates lets f change what a component creates.
func creates(name string, f func(client.Object)) func(*component.Component) {
	return sabotage(name, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			f(o)
			return c.Create(ctx, o, opts...)
		},
	})
}

func retries(n int32) func(*component.Component) {
	return creates("machine-os-builder", func(o client.Object) {
		if job, ok := o.(*batchv1.Job); ok {
			job.Spec.BackoffLimit = &n
		}
	})
}

const (
	builder = "machine-os-builder"
	nodes   = "node-controller"
	drains  = "drain-controller"
)

func wants(data string) bool {
	return strings.Contains(data, layering.DesiredImage) || strings.Contains(data, layering.DesiredConfig)
}

// mutants break one place each. want is a part of what one of the differences must say.
var mutants = []struct {
	scenario, what string
	mutate         func(*component.Component)
	want           string
}{
	{"build-failure-three-retries", "one retry less", retries(2), "job of layered-H1, pods that failed: 4"},
	{"build-failure-then-success/once", "no retry", retries(0), "job of layered-H1, end: Failed"},
	{"happy-path", "the drain controller acknowledges without cordoning", patches(drains, func(_ client.Client, o client.Object, _ string) client.Object {
		if n, ok := o.(*corev1.Node); ok && n.Spec.Unschedulable {
			changed := n.DeepCopy()
			changed.Spec.Unschedulable = false
			changed.Annotations[layering.LastAppliedDrain] = n.Annotations[layering.DesiredDrain]
			return changed
		}
		return o
	}), "node worker-N1, cordon: cordoned"},
	{"paused-pool", "the node controller doesn't see that a pool is paused", sabotage(nodes, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, o, opts...)
			if pool, ok := o.(*mcfgv1.MachineConfigPool); ok {
				pool.Spec.Paused = false
			}
			return err
		},
	}), "scenario, steps: step 2 nothing can happen any more"},
	{"machine-set-scale-up", "all nodes are targeted at once", patches(nodes, func(c client.Client, o client.Object, data string) client.Object {
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
	{"label-revert", "a node that leaves a pool keeps its image", patches(nodes, func(_ client.Client, o client.Object, data string) client.Object {
		if strings.Contains(data, layering.DesiredImage+`":null`) {
			return nil
		}
		return o
	}), "node layered-N1, targets: rendered-worker-H2, no image"},
	{"happy-path", "the node controller writes an image that no build made", patches(nodes, func(_ client.Client, o client.Object, data string) client.Object {
		if n, ok := o.(*corev1.Node); ok && strings.Contains(data, layering.DesiredImage) {
			changed := n.DeepCopy()
			changed.Annotations[layering.DesiredImage] = strings.Replace(n.Annotations[layering.DesiredImage], "@sha256:", "@sha256:00", 1)
			return changed
		}
		return o
	}), "node worker-N1, targets: rendered-layered-H1, image of layered-H1"},
	{"happy-path", "the builder doesn't clean up", sabotage(builder, interceptor.Funcs{
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
	{"happy-path", "the builder writes Prepared and Building at once", statuses(builder, func(o client.Object) {
		if build, ok := o.(*mcfgv1.MachineOSBuild); ok {
			for n := range build.Status.Conditions {
				if c := &build.Status.Conditions[n]; c.Type == string(mcfgv1.MachineOSBuildPrepared) {
					c.Status = metav1.ConditionTrue
				}
			}
		}
	}), "machineosbuild layered-H1, conditions: Building and Prepared"},
	{"happy-path", "the node controller counts all machines as updated", statuses(nodes, func(o client.Object) {
		if pool, ok := o.(*mcfgv1.MachineConfigPool); ok {
			pool.Status.UpdatedMachineCount = pool.Status.MachineCount
		}
	}), "machineconfigpool layered, updatedMachineCount: 2"},
	{"happy-path", "the drain controller panics", patches(drains, func(client.Client, client.Object, string) client.Object {
		panic("nil pointer dereference")
	}), "panics: panics"},
	{"paused-pool-replace", "the builder sees no nodes when it deletes images", lists(builder, func(l client.ObjectList) {
		if list, ok := l.(*corev1.NodeList); ok {
			list.Items = nil
		}
	}), "deleted while a node has or wants it"},
	{"secret-rotation/push-idle", "the builder rebuilds when a Secret changes", sabotage(builder, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, o, opts...)
			if config, ok := o.(*mcfgv1.MachineOSConfig); ok && err == nil {
				var secret corev1.Secret
				if c.Get(ctx, client.ObjectKey{Namespace: layering.Namespace, Name: config.Spec.RenderedImagePushSecret.Name}, &secret) == nil {
					config.Spec.Containerfile = []mcfgv1.MachineOSContainerfile{{
						ContainerfileArch: mcfgv1.NoArch, Content: "FROM configs AS final\nRUN echo " + secret.ResourceVersion + "\n"}}
				}
			}
			return err
		},
	}), "machineosbuild layered-H2, life: created"},
	{"happy-path", "the builder tells nodes of the image at another moment", statuses(builder, func(o client.Object) {
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
