// Package render merges the MachineConfigs of a pool into the one that its nodes run.
//
// The controller looks at one MachineConfigPool at a time. It takes the MachineConfigs that the pool's
// machineConfigSelector matches, merges them (see [Merge]), creates the result as MachineConfig
// rendered-<pool>-<hash>, owned by the pool, and names it in the pool's spec.configuration together with its sources. The
// name is a function of the merged spec, so the same sources always lead to the same name, and going back to earlier
// sources leads back to the MachineConfig that was made of them. Rendered MachineConfigs are never removed; one that
// somebody removes comes back as long as its pool uses it.
//
// Whether the pool is paused makes no difference here: pausing holds back nodes, not decisions.
//
// Sources that can't be merged, or that would change what can't be changed on a running cluster (fips), leave
// spec.configuration as it was and set the pool's condition RenderDegraded, with the reason in its message; the
// condition goes as soon as the sources are good. Nothing else writes that condition. Nothing is rendered before the
// ControllerConfig exists and, if its status has conditions, the template controller is done with its current
// generation.
//
// Before spec.configuration moves everything is read from the server again and merged anew, so that an old cache, after
// a restart or in a second replica, can't take a pool back.
//
// # Not done
//
// Waiting for KubeletConfigs and ContainerRuntimeConfigs, OSImageStreams, checks of versions between controllers,
// Ignition 2, and irreconcilable changes other than fips; the machine-config-daemon refuses those on the node.
package render

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
)

// ComponentName is the component's name.
const ComponentName = "render-controller"

// Delay is the time between an event and the sync that it leads to, so that MachineConfigs which are applied together
// are rendered together.
const Delay = 5 * time.Second

// OSImageURLOverridden marks a rendered MachineConfig whose OS image a user's MachineConfig set.
const OSImageURLOverridden = layering.Prefix + "os-image-url-overridden"

// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineconfigpools,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineconfigpools/status,verbs=patch
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineconfigs,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=controllerconfigs,verbs=get;list;watch
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineconfigpools/finalizers,verbs=update
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,namespace=default,verbs=create;patch

// Options are the controller's settings. The zero value is good.
type Options struct {
	// Version goes into the annotation generated-by-controller-version of what the controller renders. Default: "layersim".
	Version string
}

// New declares the render controller. Its requests are the names of pools.
func New(o Options) component.Component {
	if o.Version == "" {
		o.Version = "layersim"
	}
	return component.Component{
		Name:  ComponentName,
		Delay: Delay,
		Watches: []component.Watch{
			{Object: &mcfgv1.MachineConfigPool{}, When: poolChanged},
			{Object: &mcfgv1.MachineConfig{}, Map: poolsOfMachineConfig, When: machineConfigChanged},
			{Object: &mcfgv1.ControllerConfig{}, Map: allPools, When: controllerConfigChanged},
		},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			return &reconciler{env: env, options: o, reported: map[string]bool{}}, nil
		},
	}
}

type reconciler struct {
	env      component.Env
	options  Options
	reported map[string]bool // pools that were warned about selecting everything; losing it costs one more event
}

// Reconcile renders one pool.
func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	seen, err := observe(ctx, r.env.Client, request.Name)
	if err != nil || seen == nil || seen.pool.DeletionTimestamp != nil {
		return reconcile.Result{}, err
	}
	if s := seen.pool.Spec.MachineConfigSelector; s != nil && layering.SelectsNothing(s) {
		if !r.reported[request.Name] {
			r.reported[request.Name] = true
			r.event(seen.pool, corev1.EventTypeWarning, "SelectingAll", "SelectConfigs",
				"This machineconfig pool selects all machineconfigs. A non-empty selector is required.")
		}
		return reconcile.Result{}, nil
	}
	delete(r.reported, request.Name)
	if why := notReady(seen.controller); why != "" {
		log.FromContext(ctx).Info("not rendering", "pool", request.Name, "because", why)
		return reconcile.Result{}, nil // its next event leads back here
	}
	rendered, refused := r.render(seen)
	if refused == nil && !seen.is(rendered) {
		if seen, err = observe(ctx, r.env.Live, request.Name); err != nil || seen == nil {
			return reconcile.Result{}, err
		}
		if seen.pool.DeletionTimestamp != nil || notReady(seen.controller) != "" ||
			layering.SelectsNothing(seen.pool.Spec.MachineConfigSelector) {
			return reconcile.Result{}, nil
		}
		if rendered, refused = r.render(seen); refused == nil {
			if err := r.write(ctx, seen, rendered); err != nil {
				return reconcile.Result{}, err
			}
		}
	}
	return reconcile.Result{}, r.report(ctx, seen.pool, refused)
}

// render computes the pool's MachineConfig. An error means that the sources are to blame.
func (r *reconciler) render(seen *observed) (*mcfgv1.MachineConfig, error) {
	if seen.refused != nil {
		return nil, seen.refused
	}
	merged, err := Merge(seen.sources, seen.controller)
	if err != nil {
		return nil, err
	}
	if seen.current != nil && seen.current.Spec.FIPS != merged.Spec.FIPS {
		return nil, fmt.Errorf("detected change to FIPS flag; refusing to modify FIPS on a running cluster")
	}
	name, err := Name(seen.pool.Name, &merged.Spec)
	if err != nil {
		return nil, err
	}
	mc := &mcfgv1.MachineConfig{ObjectMeta: metav1.ObjectMeta{
		Name: name,
		Annotations: map[string]string{
			layering.GeneratedByController: r.options.Version,
			layering.ReleaseImageVersion:   seen.controller.Annotations[layering.ReleaseImageVersion],
		},
		OwnerReferences: []metav1.OwnerReference{
			*metav1.NewControllerRef(seen.pool, mcfgv1.GroupVersion.WithKind("MachineConfigPool"))},
	}, Spec: merged.Spec}
	if merged.Overridden {
		mc.Annotations[OSImageURLOverridden] = "true"
	}
	data, err := json.Marshal(mc)
	if err != nil {
		return nil, fmt.Errorf("encode machineconfig %s: %w", name, err)
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("machineconfig %s is too large: %d bytes, at most %d", name, len(data), MaxSize)
	}
	return mc, nil
}

// write creates the rendered MachineConfig and then, only then, points the pool to it.
func (r *reconciler) write(ctx context.Context, seen *observed, rendered *mcfgv1.MachineConfig) error {
	existing := &mcfgv1.MachineConfig{}
	err := r.env.Live.Get(ctx, client.ObjectKeyFromObject(rendered), existing)
	switch release := rendered.Annotations[layering.ReleaseImageVersion]; {
	case apierrors.IsNotFound(err):
		created := rendered.DeepCopy()
		if err := r.env.Client.Create(ctx, created); err != nil {
			return fmt.Errorf("create machineconfig %s: %w", rendered.Name, err)
		}
		r.event(seen.pool, corev1.EventTypeNormal, "RenderedConfigGenerated", "Render",
			"%s successfully generated (release version: %s, controller version: %s)", rendered.Name, release, r.options.Version)
		if url := rendered.Spec.OSImageURL; rendered.Annotations[OSImageURLOverridden] != "" {
			r.event(created, corev1.EventTypeNormal, "OSImageURLOverridden", "Render",
				"OSImageURL was overridden via machineconfig in %s (was: %s is: %s)",
				rendered.Name, seen.controller.Spec.BaseOSContainerImage, url)
		}
	case err != nil:
		return fmt.Errorf("get machineconfig %s: %w", rendered.Name, err)
	case existing.Annotations[layering.ReleaseImageVersion] == "" && release != "":
		// Rendered before the ControllerConfig had it. Nothing is built from a MachineConfig without it.
		old := existing.DeepCopy()
		metav1.SetMetaDataAnnotation(&existing.ObjectMeta, layering.ReleaseImageVersion, release)
		if err := r.env.Client.Patch(ctx, existing, client.MergeFrom(old)); err != nil {
			return fmt.Errorf("patch machineconfig %s: %w", rendered.Name, err)
		}
	}
	want := seen.configuration(rendered.Name)
	if equality.Semantic.DeepEqual(want, seen.pool.Spec.Configuration) {
		return nil
	}
	old := seen.pool.DeepCopy()
	seen.pool.Spec.Configuration = want
	patch := client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{})
	if err := r.env.Client.Patch(ctx, seen.pool, patch); err != nil {
		return fmt.Errorf("patch machineconfigpool %s: %w", old.Name, err)
	}
	return nil
}

// report keeps the pool's condition RenderDegraded.
func (r *reconciler) report(ctx context.Context, pool *mcfgv1.MachineConfigPool, refused error) error {
	condition := mcfgv1.MachineConfigPoolCondition{Type: mcfgv1.MachineConfigPoolRenderDegraded, Status: corev1.ConditionFalse}
	if refused != nil {
		condition.Status = corev1.ConditionTrue
		condition.Message = fmt.Sprintf("Failed to render configuration for pool %s: %v", pool.Name, refused)
	}
	now := r.env.Clock.Now()
	if !layering.SetPoolCondition(&pool.DeepCopy().Status.Conditions, condition, now) {
		return nil
	}
	// Other controllers keep conditions in the same list. Change the list as it is now, and let the server refuse the
	// write if it moved meanwhile.
	live := &mcfgv1.MachineConfigPool{}
	if err := r.env.Live.Get(ctx, client.ObjectKeyFromObject(pool), live); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("get machineconfigpool %s: %w", pool.Name, err))
	}
	old := live.DeepCopy()
	if live.UID != pool.UID || !layering.SetPoolCondition(&live.Status.Conditions, condition, now) {
		return nil
	}
	patch := client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{})
	if err := r.env.Client.Status().Patch(ctx, live, patch); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("patch status of machineconfigpool %s: %w", pool.Name, err))
	}
	return nil
}

func (r *reconciler) event(object client.Object, kind, reason, action, note string, args ...any) {
	if r.env.Recorder != nil {
		r.env.Recorder.Eventf(object, nil, kind, reason, action, note, args...)
	}
}

// observed is all that rendering a pool depends on.
type observed struct {
	pool       *mcfgv1.MachineConfigPool
	sources    []mcfgv1.MachineConfig // by name
	current    *mcfgv1.MachineConfig  // what spec.configuration names; nil if there is none
	controller *mcfgv1.ControllerConfig
	refused    error // the pool's selector is invalid
}

// observe reads a pool and everything about it. It returns nil if there is no such pool.
func observe(ctx context.Context, reader client.Reader, name string) (*observed, error) {
	seen := &observed{pool: &mcfgv1.MachineConfigPool{}}
	if err := reader.Get(ctx, client.ObjectKey{Name: name}, seen.pool); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("get machineconfigpool %s: %w", name, err)
	}
	controller := &mcfgv1.ControllerConfig{}
	switch err := reader.Get(ctx, client.ObjectKey{Name: layering.ControllerConfigName}, controller); {
	case err == nil:
		seen.controller = controller
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("get controllerconfig %s: %w", layering.ControllerConfigName, err)
	}
	if current := seen.pool.Spec.Configuration.Name; current != "" {
		mc := &mcfgv1.MachineConfig{}
		switch err := reader.Get(ctx, client.ObjectKey{Name: current}, mc); {
		case err == nil:
			seen.current = mc
		case !apierrors.IsNotFound(err):
			return nil, fmt.Errorf("get machineconfig %s: %w", current, err)
		}
	}
	if seen.pool.Spec.MachineConfigSelector == nil {
		return seen, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(seen.pool.Spec.MachineConfigSelector)
	if err != nil {
		seen.refused = fmt.Errorf("invalid machineConfigSelector: %w", err)
		return seen, nil
	}
	sources := &mcfgv1.MachineConfigList{}
	if err := reader.List(ctx, sources, client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("list machineconfigs of pool %s: %w", name, err)
	}
	// A selector like "role != master" matches what was rendered, which has no labels, too.
	seen.sources = slices.DeleteFunc(sources.Items, func(mc mcfgv1.MachineConfig) bool {
		return mc.DeletionTimestamp != nil || renderedFor(&mc) != ""
	})
	slices.SortFunc(seen.sources, func(a, b mcfgv1.MachineConfig) int { return strings.Compare(a.Name, b.Name) })
	return seen, nil
}

// configuration is the pool's spec.configuration for a rendered MachineConfig.
func (s *observed) configuration(rendered string) mcfgv1.MachineConfigPoolStatusConfiguration {
	c := mcfgv1.MachineConfigPoolStatusConfiguration{ObjectReference: corev1.ObjectReference{Name: rendered}}
	for i := range s.sources {
		c.Source = append(c.Source, corev1.ObjectReference{
			APIVersion: mcfgv1.GroupVersion.String(), Kind: "MachineConfig", Name: s.sources[i].Name})
	}
	return c
}

// is tells whether the rendered MachineConfig is there, complete, and what the pool names.
func (s *observed) is(rendered *mcfgv1.MachineConfig) bool {
	return s.current != nil && s.current.DeletionTimestamp == nil &&
		(s.current.Annotations[layering.ReleaseImageVersion] != "" || rendered.Annotations[layering.ReleaseImageVersion] == "") &&
		equality.Semantic.DeepEqual(s.pool.Spec.Configuration, s.configuration(rendered.Name))
}

// notReady says why a ControllerConfig can't be rendered from yet, "" if it can. One without conditions isn't kept by a
// template controller, and is taken as it is.
func notReady(c *mcfgv1.ControllerConfig) string {
	if c == nil {
		return "there is no ControllerConfig"
	}
	if len(c.Status.Conditions) == 0 {
		return ""
	}
	if c.Status.ObservedGeneration != c.Generation {
		return "the template controller hasn't seen the ControllerConfig's generation"
	}
	is := map[mcfgv1.ControllerConfigStatusConditionType]bool{}
	for _, condition := range c.Status.Conditions {
		is[condition.Type] = condition.Status == corev1.ConditionTrue
	}
	switch {
	case is[mcfgv1.TemplateControllerFailing]:
		return "the template controller fails"
	case is[mcfgv1.TemplateControllerRunning], !is[mcfgv1.TemplateControllerCompleted]:
		return "the template controller isn't done"
	}
	return ""
}

// renderedFor names the pool that a MachineConfig was rendered for, "" if it is a source.
func renderedFor(mc *mcfgv1.MachineConfig) string {
	owner := metav1.GetControllerOf(mc)
	if owner == nil || owner.Kind != "MachineConfigPool" || !strings.HasPrefix(mc.Name, "rendered-") {
		return ""
	}
	return owner.Name
}

func poolChanged(before, after client.Object) bool {
	old, _ := before.(*mcfgv1.MachineConfigPool)
	pool, _ := after.(*mcfgv1.MachineConfigPool)
	return old == nil || pool == nil || old.UID != pool.UID || old.Generation != pool.Generation ||
		layering.PoolCondition(pool.Status.Conditions, mcfgv1.MachineConfigPoolRenderDegraded) == nil
}

func machineConfigChanged(before, after client.Object) bool {
	old, _ := before.(*mcfgv1.MachineConfig)
	mc, _ := after.(*mcfgv1.MachineConfig)
	if old == nil && mc != nil {
		return renderedFor(mc) == "" // what we create ourselves is no news
	}
	return old == nil || mc == nil || old.Generation != mc.Generation ||
		!equality.Semantic.DeepEqual(old.Labels, mc.Labels) ||
		(old.DeletionTimestamp == nil) != (mc.DeletionTimestamp == nil)
}

func controllerConfigChanged(before, after client.Object) bool {
	old, _ := before.(*mcfgv1.ControllerConfig)
	c, _ := after.(*mcfgv1.ControllerConfig)
	return old == nil || c == nil || old.Generation != c.Generation || notReady(old) != notReady(c) ||
		old.Annotations[layering.ReleaseImageVersion] != c.Annotations[layering.ReleaseImageVersion]
}

func allPools(ctx context.Context, reader client.Reader, _ client.Object) []reconcile.Request {
	return poolsThat(ctx, reader, func(*mcfgv1.MachineConfigPool) bool { return true })
}

// poolsOfMachineConfig names the pools that select a MachineConfig, or the one that it was rendered for.
func poolsOfMachineConfig(ctx context.Context, reader client.Reader, object client.Object) []reconcile.Request {
	mc, ok := object.(*mcfgv1.MachineConfig)
	if !ok {
		return nil
	}
	if pool := renderedFor(mc); pool != "" {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: pool}}}
	}
	return poolsThat(ctx, reader, func(p *mcfgv1.MachineConfigPool) bool {
		selector, err := metav1.LabelSelectorAsSelector(p.Spec.MachineConfigSelector)
		return err == nil && selector.Matches(labels.Set(mc.Labels))
	})
}

func poolsThat(ctx context.Context, reader client.Reader, want func(*mcfgv1.MachineConfigPool) bool) []reconcile.Request {
	pools := &mcfgv1.MachineConfigPoolList{}
	if err := reader.List(ctx, pools, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "list machineconfigpools")
		return nil
	}
	var requests []reconcile.Request
	for i := range pools.Items {
		if want(&pools.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: pools.Items[i].Name}})
		}
	}
	return requests
}
