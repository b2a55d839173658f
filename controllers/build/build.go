// Package build is the build controller: it turns a MachineOSConfig into an image in a registry.
//
//	MachineOSConfig -> MachineOSBuild <config>-<hash> -> ConfigMaps, Secrets and Job build-<machineosbuild>
//	  -> ConfigMap digest-<machineosbuild> -> MachineOSBuild status -> MachineOSConfig status
//
// It follows machine-os-builder of the newest upstream release in names, labels, objects, conditions and decisions, and
// is level-driven where upstream reacts to single events: each reconcile looks at one MachineOSConfig with all that
// belongs to it, and does what is missing. So it doesn't matter what happened while it was down.
//
// # Which build
//
// The wanted build is the one with the name that [Name] computes. If it is missing it is created, after every other
// unfinished build of the MachineOSConfig was deleted: two builds that are neither finished nor being deleted never
// exist together. If it is there and Succeeded, its image is used again once the registry was asked whether it still
// holds it; an image that is gone is built anew. Failed and Interrupted are final until the inputs change, the
// annotation machineconfiguration.openshift.io/rebuild is set, or the MachineOSBuild is deleted.
//
// A new rendered config that differs only in what the machine-config-daemon applies itself ([RequiresRebuild] is false)
// needs no image of its own: its MachineOSBuild takes over the image of the build in use, without a Job, provided the
// MachineOSConfig's spec is the one that that image was built from. If such a build is still running it is left to
// finish first.
//
// # What holds a build back
//
// Missing and malformed inputs, a degraded pool and an unreachable registry never fail a build. They are written to the
// MachineOSConfig as condition [BuildHeld] with the cause, and as an event; the build goes on when the cause is
// gone, without polling, except for the registry, which is asked again with a growing delay.
//
// # Images
//
// What a build pushes is noted in the ConfigMap pushed-images-<config> before the Job starts. An image is deleted from
// the registry when its MachineOSBuild is gone, no other MachineOSBuild or MachineOSConfig refers to it, and no node of
// any pool has it as current or desired image; until then it stays noted, across restarts and after the
// MachineOSConfig is deleted.
//
// # What it does not do
//
// It knows no pre-built images (seeding), deletes images through the registry's own protocol and not as
// ImageStreamTags, and reads no mirror configuration.
package build

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
)

// Delay is how long a change waits before it is acted on, as upstream's does.
const Delay = 5 * time.Second

// Annotations and labels that upstream doesn't have.
const (
	// RebuildOf notes on a MachineOSConfig, while a rebuild is asked for, the UID of the MachineOSBuild to replace, so
	// that a restart in between doesn't rebuild twice. Empty if there was none.
	RebuildOf = layering.Prefix + "rebuild-of"
	// SpecHash notes on a MachineOSBuild the hash of the MachineOSConfig's spec that it builds.
	SpecHash = layering.Prefix + "machine-os-config-spec"
	// FailureCause notes on a MachineOSBuild why it failed; its conditions have no room for that.
	FailureCause = layering.Prefix + "failure-cause"
	// BuildUID ties a digest ConfigMap to one MachineOSBuild among those of the same name.
	BuildUID = layering.Prefix + "machine-os-build-uid"
	// PushedImages is the label, with the MachineOSConfig's name, of the ConfigMap that notes pushed images.
	PushedImages = layering.Prefix + "pushed-images"
)

// BuildHeld is the type of the MachineOSConfig's condition that says what keeps a build from going on. It is absent
// from a MachineOSConfig that was never held.
const BuildHeld = "BuildHeld"

// Options configures the build controller.
type Options struct {
	// Namespace is where Jobs run and Secrets are looked for. Default layering.Namespace.
	Namespace string
	// Transport reaches the registries. Nil is HTTP that trusts what the system and the ControllerConfig's
	// additionalTrustBundle trust and uses the ControllerConfig's proxy.
	Transport http.RoundTripper
	// Metrics, where not nil, is told about builds.
	Metrics Metrics
}

// Metrics is told once about each change of a build's state.
type Metrics interface {
	// State is called after a build of a pool was written as being in a state. In a final state took is the time since
	// the build's start, zero if it never started.
	State(pool, build string, state mcfgv1.BuildProgress, took time.Duration)
	// Gone is called for a build that was deleted before it was finished.
	Gone(pool, build string)
}

// New returns the build controller. Its requests are names of MachineOSConfigs.
func New(options Options) component.Component {
	if options.Namespace == "" {
		options.Namespace = layering.Namespace
	}
	ns := options.Namespace
	return component.Component{
		Name:  "machine-os-builder",
		Delay: Delay,
		Watches: []component.Watch{
			{Object: &mcfgv1.MachineOSConfig{}},
			{Object: &mcfgv1.MachineOSBuild{}, Map: mapBuild},
			{Object: &batchv1.Job{}, Map: mapOwned(ns)},
			{Object: &corev1.ConfigMap{}, Map: mapConfigMap(ns)},
			{Object: &corev1.Secret{}, Map: mapSecret(ns)},
			{Object: &mcfgv1.MachineConfigPool{}, Map: mapPool, When: poolMatters},
			{Object: &mcfgv1.MachineConfig{}, Map: mapRendered, When: appears},
			{Object: &mcfgv1.ControllerConfig{}, Map: mapAll, When: specChanges},
			{Object: &corev1.Node{}, Map: mapNode(ns), When: imagesChange},
		},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			return &reconciler{
				options:  options,
				client:   env.Client,
				live:     env.Live,
				clock:    env.Clock,
				recorder: env.Recorder,
				verified: map[string]int64{},
				refused:  map[string]string{},
			}, nil
		},
	}
}

// mapBuild leads from a MachineOSBuild to its MachineOSConfig.
func mapBuild(_ context.Context, _ client.Reader, object client.Object) []reconcile.Request {
	if build, ok := object.(*mcfgv1.MachineOSBuild); ok && build.Spec.MachineOSConfig.Name != "" {
		return requests(build.Spec.MachineOSConfig.Name)
	}
	return requests(object.GetLabels()[layering.OSConfig])
}

// mapOwned leads from what a build needs to its MachineOSConfig.
func mapOwned(namespace string) func(context.Context, client.Reader, client.Object) []reconcile.Request {
	return func(_ context.Context, _ client.Reader, object client.Object) []reconcile.Request {
		if object.GetNamespace() != namespace {
			return nil
		}
		return requests(object.GetLabels()[layering.OSConfig])
	}
}

// mapConfigMap leads from a build's ConfigMaps and from the note of pushed images to their MachineOSConfig, and from
// the operator's images to all.
func mapConfigMap(namespace string) func(context.Context, client.Reader, client.Object) []reconcile.Request {
	return func(ctx context.Context, reader client.Reader, object client.Object) []reconcile.Request {
		switch {
		case object.GetNamespace() != namespace:
			return nil
		case object.GetName() == layering.ImagesConfigMap:
			return mapAll(ctx, reader, object)
		default:
			return requests(object.GetLabels()[layering.OSConfig], object.GetLabels()[PushedImages])
		}
	}
}

// mapSecret leads from a Secret to the MachineOSConfigs that name it and to those with images that it can delete.
func mapSecret(namespace string) func(context.Context, client.Reader, client.Object) []reconcile.Request {
	return func(ctx context.Context, reader client.Reader, object client.Object) []reconcile.Request {
		if object.GetNamespace() != namespace {
			return nil
		}
		names := []string{object.GetLabels()[layering.OSConfig]}
		configs := &mcfgv1.MachineOSConfigList{}
		if err := reader.List(ctx, configs); err == nil { // an unreadable view is delivered again when it is readable
			for i := range configs.Items {
				spec := &configs.Items[i].Spec
				if object.GetName() == spec.RenderedImagePushSecret.Name || object.GetName() == baseSecretName(spec) {
					names = append(names, configs.Items[i].Name)
				}
			}
		}
		for _, l := range ledgersIn(ctx, reader, namespace) {
			for _, image := range l.images {
				if image.Waiting && image.Secret == object.GetName() {
					names = append(names, l.config)
				}
			}
		}
		return requests(names...)
	}
}

// mapPool leads from a pool to the MachineOSConfigs that refer to it, and to the one of its name, which may be gone.
func mapPool(ctx context.Context, reader client.Reader, object client.Object) []reconcile.Request {
	names := []string{object.GetName()}
	configs := &mcfgv1.MachineOSConfigList{}
	if err := reader.List(ctx, configs); err == nil {
		for i := range configs.Items {
			if configs.Items[i].Spec.MachineConfigPool.Name == object.GetName() {
				names = append(names, configs.Items[i].Name)
			}
		}
	}
	return requests(names...)
}

// mapRendered leads from a rendered MachineConfig to the MachineOSConfigs of the pools that want it.
func mapRendered(ctx context.Context, reader client.Reader, object client.Object) []reconcile.Request {
	pools := &mcfgv1.MachineConfigPoolList{}
	if err := reader.List(ctx, pools); err != nil {
		return nil
	}
	var out []reconcile.Request
	for i := range pools.Items {
		if pools.Items[i].Spec.Configuration.Name == object.GetName() {
			out = append(out, mapPool(ctx, reader, &pools.Items[i])...)
		}
	}
	return out
}

// mapAll leads to all MachineOSConfigs.
func mapAll(ctx context.Context, reader client.Reader, _ client.Object) []reconcile.Request {
	configs := &mcfgv1.MachineOSConfigList{}
	if err := reader.List(ctx, configs); err != nil {
		return nil
	}
	var names []string
	for i := range configs.Items {
		names = append(names, configs.Items[i].Name)
	}
	return requests(names...)
}

// mapNode leads from a node to the MachineOSConfigs that wait for it to let go of an image.
func mapNode(namespace string) func(context.Context, client.Reader, client.Object) []reconcile.Request {
	return func(ctx context.Context, reader client.Reader, object client.Object) []reconcile.Request {
		var names []string
		for _, l := range ledgersIn(ctx, reader, namespace) {
			for _, image := range l.images {
				if image.Waiting && image.Digest != "" && nodeUses(object, image.Digest) {
					names = append(names, l.config)
				}
			}
		}
		return requests(names...)
	}
}

// requests returns one request for each distinct name.
func requests(names ...string) []reconcile.Request {
	set := map[string]bool{}
	for _, n := range names {
		if n != "" {
			set[n] = true
		}
	}
	var out []reconcile.Request
	for _, n := range slices.Sorted(maps.Keys(set)) {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: n}})
	}
	return out
}

// poolMatters drops the changes of a pool that no build depends on: counts above all.
func poolMatters(before, after client.Object) bool {
	a, okA := before.(*mcfgv1.MachineConfigPool)
	b, okB := after.(*mcfgv1.MachineConfigPool)
	if !okA || !okB || a == nil || b == nil {
		return true
	}
	for _, kind := range append(blocking(), mcfgv1.MachineConfigPoolImageBuildDegraded) {
		x, y := poolCondition(a, kind), poolCondition(b, kind)
		if (x == nil) != (y == nil) || x != nil && (x.Status != y.Status || x.Reason != y.Reason || x.Message != y.Message) {
			return true
		}
	}
	return a.Generation != b.Generation || !equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

// appears keeps the creation of a rendered MachineConfig; afterwards it doesn't change.
func appears(before, after client.Object) bool {
	return before == nil && after != nil && strings.HasPrefix(after.GetName(), "rendered-")
}

// specChanges drops changes of status and metadata.
func specChanges(before, after client.Object) bool {
	return before == nil || after == nil || before.GetGeneration() != after.GetGeneration()
}

// imagesChange keeps those changes of a node that may free an image.
func imagesChange(before, after client.Object) bool {
	if before == nil {
		return false
	}
	if after == nil {
		return true
	}
	a, b := before.GetAnnotations(), after.GetAnnotations()
	return a[layering.CurrentImage] != b[layering.CurrentImage] || a[layering.DesiredImage] != b[layering.DesiredImage]
}

// nodeUses says whether a node runs or wants an image, whatever name it is pulled by.
func nodeUses(node client.Object, digest string) bool {
	for _, key := range []string{layering.CurrentImage, layering.DesiredImage} {
		if strings.HasSuffix(node.GetAnnotations()[key], "@"+digest) {
			return true
		}
	}
	return false
}

// specHash returns a hash of a MachineOSConfig's spec.
func specHash(config *mcfgv1.MachineOSConfig) (string, error) {
	text, err := json.Marshal(config.Spec)
	if err != nil {
		return "", err
	}
	return shortHash(text), nil
}
