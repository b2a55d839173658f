// Package mutant breaks components, for tests that show that a judgement can fail: those of the invariants, of the scenarios
// and of the comparison of runs. A [Mutant] goes into run.Options.Break, and changes what one component sees or writes; the
// component itself stays as it is.
//
// [Requests] breaks anything; [Patches], [Statuses], [Lists] and [Creates] are for one kind of request. The others are mutants
// that several tests have.
package mutant

import (
	"context"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
)

// The components that are broken, by name.
const (
	Builder = "machine-os-builder"
	Nodes   = "node-controller"
	Drains  = "drain-controller"
)

// Mutant breaks a component if it is the one that it is for.
type Mutant func(*component.Component)

// Requests makes all requests of the component called name go through f.
func Requests(name string, f interceptor.Funcs) Mutant {
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

// Patches lets f change or swallow a component's patches; f returns nil to swallow.
func Patches(name string, f func(c client.Client, o client.Object, data string) client.Object) Mutant {
	return Requests(name, interceptor.Funcs{
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

// Statuses lets f change what a component writes into statuses.
func Statuses(name string, f func(client.Object)) Mutant {
	return Requests(name, interceptor.Funcs{
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

// Lists lets f change what a component finds.
func Lists(name string, f func(client.ObjectList)) Mutant {
	return Requests(name, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			err := c.List(ctx, l, opts...)
			f(l)
			return err
		},
	})
}

// Creates lets f change what a component creates.
func Creates(name string, f func(client.Object)) Mutant {
	return Requests(name, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			f(o)
			return c.Create(ctx, o, opts...)
		},
	})
}

// Retries lets the builder write another number of retries into its Jobs.
func Retries(n int32) Mutant {
	return Creates(Builder, func(o client.Object) {
		if job, ok := o.(*batchv1.Job); ok {
			job.Spec.BackoffLimit = &n
		}
	})
}

// PreparedAndBuilding lets the builder write both conditions at once.
func PreparedAndBuilding() Mutant {
	return Statuses(Builder, func(o client.Object) {
		if build, ok := o.(*mcfgv1.MachineOSBuild); ok {
			for n := range build.Status.Conditions {
				if c := &build.Status.Conditions[n]; c.Type == string(mcfgv1.MachineOSBuildPrepared) {
					c.Status = metav1.ConditionTrue
				}
			}
		}
	})
}

// AllUpdated lets the node controller count all machines as updated.
func AllUpdated() Mutant {
	return Statuses(Nodes, func(o client.Object) {
		if pool, ok := o.(*mcfgv1.MachineConfigPool); ok {
			pool.Status.UpdatedMachineCount = pool.Status.MachineCount
		}
	})
}

// NoNodes lets the builder see no nodes when it deletes images.
func NoNodes() Mutant {
	return Lists(Builder, func(l client.ObjectList) {
		if list, ok := l.(*corev1.NodeList); ok {
			list.Items = nil
		}
	})
}

// NotCordoned lets the drain controller acknowledge without cordoning.
func NotCordoned() Mutant {
	return Patches(Drains, func(_ client.Client, o client.Object, _ string) client.Object {
		if n, ok := o.(*corev1.Node); ok && n.Spec.Unschedulable {
			changed := n.DeepCopy()
			changed.Spec.Unschedulable = false
			changed.Annotations[layering.LastAppliedDrain] = n.Annotations[layering.DesiredDrain]
			return changed
		}
		return o
	})
}

// RebuildForSecret lets the builder rebuild when a Secret changes: it reads another Containerfile then.
func RebuildForSecret() Mutant {
	return Requests(Builder, interceptor.Funcs{
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
	})
}
