package run_test

import (
	"context"
	"strings"
	"testing"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/run/mutant"
	"github.com/layersim/layersim/sim/scenario"
)

// unpaused lets a component take paused pools for others.
func unpaused(o client.Object) {
	if pool, ok := o.(*mcfgv1.MachineConfigPool); ok {
		pool.Spec.Paused = false
	}
}

// reads changes what a component reads.
func reads(name string, change func(client.Object)) mutant.Mutant {
	return mutant.Requests(name, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, o, opts...)
			if err == nil {
				change(o)
			}
			return err
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			err := c.List(ctx, l, opts...)
			switch l := l.(type) {
			case *mcfgv1.MachineConfigPoolList:
				for n := range l.Items {
					change(&l.Items[n])
				}
			case *mcfgv1.MachineOSConfigList:
				for n := range l.Items {
					change(&l.Items[n])
				}
			}
			return err
		},
	})
}

// deaf lets a component's patches of a kind get lost.
func deaf(name string, drop func(client.Object, string) bool) mutant.Mutant {
	return mutant.Requests(name, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			data, err := p.Data(o)
			if err == nil && drop(o, string(data)) {
				return nil
			}
			return c.Patch(ctx, o, p, opts...)
		},
	})
}

// mutants break one place for each scenario. The first whose pattern matches a scenario's name is its mutant.
var mutants = []struct {
	scenario, what string
	mutate         mutant.Mutant
}{
	{"build-failure-three-retries", "one retry less", mutant.Retries(2)},
	{"build-failure-then-success/*", "no retry", mutant.Retries(0)},
	{"happy-path", "the drain controller acknowledges without cordoning", mutant.NotCordoned()},
	{"paused-pool*", "the node controller doesn't see that a pool is paused", reads(mutant.Nodes, unpaused)},
	{"machine-set-scale-up", "new nodes are never targeted", deaf(mutant.Nodes, func(o client.Object, data string) bool {
		_, old := o.GetAnnotations()[layering.CurrentImage]
		return !old && strings.Contains(data, layering.DesiredImage) && strings.Contains(o.GetName(), "layered-") && o.GetLabels()["mutant"] == ""
	})},
	{"label-revert*", "a node that leaves a pool keeps its desired image", deaf(mutant.Nodes, func(_ client.Object, data string) bool {
		return strings.Contains(data, layering.DesiredImage+`":null`)
	})},
	{"secret-name/*", "the builder overlooks that another Secret is named", reads(mutant.Builder, func(o client.Object) {
		if config, ok := o.(*mcfgv1.MachineOSConfig); ok {
			config.Spec.RenderedImagePushSecret.Name = "builder-dockercfg-7lzwl"
			config.Spec.BaseImagePullSecret = &mcfgv1.ImageSecretObjectReference{Name: layering.GlobalPullSecretCopy}
		}
	})},
	{"secret-missing*", "the builder takes any Secret for one that it has", mutant.Requests(mutant.Builder, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if _, ok := o.(*corev1.Secret); ok {
				key.Name = layering.GlobalPullSecretCopy
			}
			return c.Get(ctx, key, o, opts...)
		},
	})},
	{"node-secret*", "the operator doesn't hand the nodes' new Secret on", deaf("machine-config-operator", func(o client.Object, _ string) bool {
		config, ok := o.(*mcfgv1.ControllerConfig)
		return ok && config.Generation > 3
	})},
	{"secret-rotation/*", "the builder rebuilds when a Secret changes", mutant.RebuildForSecret()},
	{"build-secret-revoked*", "one attempt only", mutant.Retries(0)},
}

// For each scenario one place of the code or the world is broken, and the scenario must fail, not on an error of its own
// but on one of its checks.
func TestScenariosFindMutants(t *testing.T) {
	for _, s := range library(t) {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			for _, m := range mutants {
				if !scenario.Match(m.scenario, s.Name) {
					continue
				}
				r := run.Scenario(t.Context(), s, run.Options{Seed: 1, Break: m.mutate}, nil)
				if r.Verdict != report.Failed {
					t.Errorf("%s: not found; verdict %s: %v", m.what, r.Verdict, r.Err)
				}
				for _, f := range r.Failures {
					t.Logf("%s: %s: %s", m.what, f.Check, f.Message)
				}
				return
			}
			t.Error("there is no mutant for this scenario: break something that it should notice")
		})
	}
}
