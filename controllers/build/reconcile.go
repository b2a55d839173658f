package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
)

// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineosconfigs,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineosconfigs/status,verbs=patch
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineosbuilds,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineosbuilds/status,verbs=patch
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineosbuilds/finalizers;machineosconfigs/finalizers,verbs=update
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineconfigpools,verbs=get;list;watch
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineconfigpools/status,verbs=patch
// +kubebuilder:rbac:groups=machineconfiguration.openshift.io,resources=machineconfigs;controllerconfigs,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups="",namespace=openshift-machine-config-operator,resources=configmaps;secrets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",namespace=openshift-machine-config-operator,resources=pods,verbs=list
// +kubebuilder:rbac:groups=batch,namespace=openshift-machine-config-operator,resources=jobs,verbs=get;list;watch;create;delete
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,namespace=default,verbs=create;patch

// reconciler reconciles one MachineOSConfig at a time. What it decides on (MachineOSConfig, MachineOSBuilds, pool,
// Jobs) it reads from the server: that at most one build runs must hold on every schedule of its caches. What only
// feeds a build, and what is merely swept up, it reads from its cache.
type reconciler struct {
	options  Options
	client   client.Client
	live     client.Reader
	clock    clock.PassiveClock
	recorder component.EventRecorder

	// verified remembers, for each MachineOSConfig, the pool's generation at which its image was last seen in the
	// registry. Forgetting it costs a look.
	verified map[string]int64
	// refused remembers, for each image that a registry refused to delete, the Secret's resourceVersion it was tried
	// with. Forgetting it costs a try.
	refused map[string]string
}

// Reconcile brings one MachineOSConfig's builds a step further.
func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	p := &pass{reconciler: r, name: request.Name}
	err := p.run(ctx)
	return reconcile.Result{RequeueAfter: p.after}, err
}

// pass is one reconcile.
type pass struct {
	*reconciler
	name string

	config *mcfgv1.MachineOSConfig // nil if gone or being deleted
	pool   *mcfgv1.MachineConfigPool
	every  []mcfgv1.MachineOSBuild  // of all MachineOSConfigs
	builds []*mcfgv1.MachineOSBuild // of this name, of whatever owner
	wanted string                   // name of the wanted build, "" as long as it can't be computed
	shown  *mcfgv1.MachineOSBuild   // the build that the pool's condition tells of
	seen   string                   // image that the registry was seen to hold in this pass
	held   *hold
	after  time.Duration
}

// hold is a reason why a build doesn't go on.
type hold struct{ reason, message string }

// The reasons of the condition BuildHeld.
const (
	reasonPoolNotFound     = "MachineConfigPoolNotFound"
	reasonPoolNotRendered  = "MachineConfigPoolNotRendered"
	reasonPoolDegraded     = "MachineConfigPoolDegraded"
	reasonConfigNotFound   = "MachineConfigNotFound"
	reasonConfigInvalid    = "MachineConfigInvalid"
	reasonPushSpecInvalid  = "PushSpecInvalid"
	reasonNameTooLong      = "NameTooLong"
	reasonSecretNotFound   = "SecretNotFound"
	reasonSecretInvalid    = "SecretInvalid"
	reasonControllerConfig = "ControllerConfigNotFound"
	reasonImagesInvalid    = "OperatorImagesInvalid"
	reasonRegistry         = "RegistryError"
	reasonDigestUnknown    = "DigestUnknown"
	reasonNotHeld          = "NotHeld"
)

func (p *pass) hold(reason, format string, args ...any) {
	if p.held == nil { // the first cause is the one to repair first
		p.held = &hold{reason, fmt.Sprintf(format, args...)}
	}
}

// again asks for another pass after a duration at the latest.
func (p *pass) again(d time.Duration) {
	if p.after == 0 || d < p.after {
		p.after = d
	}
}

// run is the whole reconcile. Its parts don't depend on each other's success: a registry that can't be reached must
// not keep a status from being written.
func (p *pass) run(ctx context.Context) error {
	if err := p.load(ctx); err != nil {
		return err
	}
	var errs []error
	if p.config == nil {
		errs = append(errs, p.gone(ctx))
	} else {
		errs = append(errs, p.dropStrangers(ctx), p.track(ctx), p.decide(ctx), p.reportHold(ctx))
		errs = append(errs, p.reportPool(ctx))
	}
	errs = append(errs, p.sweep(ctx), p.prune(ctx))
	return errors.Join(errs...)
}

// load reads the MachineOSConfig and the builds.
func (p *pass) load(ctx context.Context) error {
	config := &mcfgv1.MachineOSConfig{}
	err := p.live.Get(ctx, client.ObjectKey{Name: p.name}, config)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("get machineosconfig %s: %w", p.name, err)
	}
	if err == nil && config.DeletionTimestamp.IsZero() {
		p.config = config
	}
	list := &mcfgv1.MachineOSBuildList{}
	if err := p.live.List(ctx, list); err != nil {
		return fmt.Errorf("list machineosbuilds: %w", err)
	}
	p.every = list.Items
	for i := range p.every {
		if p.every[i].Spec.MachineOSConfig.Name == p.name {
			p.builds = append(p.builds, &p.every[i])
		}
	}
	slices.SortFunc(p.builds, func(a, b *mcfgv1.MachineOSBuild) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// ours says whether a build belongs to the MachineOSConfig and not to an earlier one of its name. A build without an
// owner, from a release that set none, is ours.
func (p *pass) ours(build *mcfgv1.MachineOSBuild) bool {
	owner := metav1.GetControllerOf(build)
	return owner == nil || owner.UID == p.config.UID
}

// find returns the build of a name, or nil.
func (p *pass) find(name string) *mcfgv1.MachineOSBuild {
	for _, build := range p.builds {
		if build.Name == name {
			return build
		}
	}
	return nil
}

// dropStrangers deletes the builds of an earlier MachineOSConfig of the same name.
func (p *pass) dropStrangers(ctx context.Context) error {
	var errs []error
	for _, build := range p.builds {
		if !p.ours(build) {
			errs = append(errs, p.remove(ctx, build, "its MachineOSConfig was deleted"))
		}
	}
	return errors.Join(errs...)
}

// gone cleans up after a MachineOSConfig that was deleted. The garbage collector does most of it; builds without
// owners and the pool's condition are left to us.
func (p *pass) gone(ctx context.Context) error {
	delete(p.verified, p.name)
	var errs []error
	pools := map[string]bool{p.name: true}
	for _, build := range p.builds {
		pools[build.Labels[layering.TargetPool]] = true
		errs = append(errs, p.remove(ctx, build, "its MachineOSConfig was deleted"))
	}
	errs = append(errs, p.clearPools(ctx, pools))
	return errors.Join(errs...)
}

// remove deletes a build. What belongs to it goes first, as its finalizer says.
func (p *pass) remove(ctx context.Context, build *mcfgv1.MachineOSBuild, why string) error {
	if !build.DeletionTimestamp.IsZero() {
		return nil
	}
	err := p.client.Delete(ctx, build, client.Preconditions{UID: &build.UID},
		client.PropagationPolicy(metav1.DeletePropagationForeground))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete machineosbuild %s: %w", build.Name, err)
	}
	now := metav1.NewTime(p.clock.Now())
	build.DeletionTimestamp = &now // for the rest of this pass
	p.event(build, corev1.EventTypeNormal, "BuildDeleted", "MachineOSBuild %s deleted: %s", build.Name, why)
	if p.options.Metrics != nil && !layering.Terminal(build) {
		p.options.Metrics.Gone(build.Labels[layering.TargetPool], build.Name)
	}
	return nil
}

// supersede deletes the MachineOSConfig's other builds that are unfinished or, with finished, came to nothing.
func (p *pass) supersede(ctx context.Context, finished bool) error {
	var errs []error
	for _, build := range p.builds {
		if build.Name == p.wanted || !p.ours(build) || is(build, mcfgv1.MachineOSBuildSucceeded) {
			continue
		}
		if !layering.Terminal(build) || finished {
			errs = append(errs, p.remove(ctx, build, "superseded by "+p.wanted))
		}
	}
	return errors.Join(errs...)
}

// decide finds out which build is wanted and brings it further.
func (p *pass) decide(ctx context.Context) error {
	rendered, err := p.inputs(ctx)
	if err != nil || rendered == nil {
		return err
	}
	build := p.find(p.wanted)
	if err := p.noteRebuild(ctx, build); err != nil {
		return err
	}
	requested, replaced := p.rebuild()
	switch {
	case build == nil:
		return p.create(ctx, rendered)
	case !build.DeletionTimestamp.IsZero() || !p.ours(build):
		return nil // its end wakes us
	case requested && string(build.UID) == replaced:
		return p.remove(ctx, build, "a rebuild was requested")
	}
	p.shown = build
	if metav1.GetControllerOf(build) == nil {
		if err := p.adopt(ctx, build); err != nil {
			return err
		}
	}
	return p.proceed(ctx, build, rendered)
}

// proceed starts a build that wasn't started, and puts a finished one to use.
func (p *pass) proceed(ctx context.Context, build *mcfgv1.MachineOSBuild, rendered *mcfgv1.MachineConfig) error {
	if !started(build) {
		if err := p.start(ctx, build, rendered); err != nil || !started(build) {
			return err
		}
	}
	if is(build, mcfgv1.MachineOSBuildSucceeded) {
		return p.publish(ctx, build)
	}
	return p.begun(ctx, build)
}

// inputs reads the pool and its rendered MachineConfig and computes the wanted name. It returns nil, and holds, if that
// can't be done.
func (p *pass) inputs(ctx context.Context) (*mcfgv1.MachineConfig, error) {
	poolName := p.config.Spec.MachineConfigPool.Name
	pool := &mcfgv1.MachineConfigPool{}
	if err := p.live.Get(ctx, client.ObjectKey{Name: poolName}, pool); apierrors.IsNotFound(err) {
		p.hold(reasonPoolNotFound, "MachineConfigPool %q does not exist", poolName)
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("get machineconfigpool %s: %w", poolName, err)
	}
	p.pool = pool
	configName := pool.Spec.Configuration.Name
	if configName == "" {
		p.hold(reasonPoolNotRendered, "MachineConfigPool %q has no rendered MachineConfig yet", poolName)
		return nil, nil
	}
	rendered := &mcfgv1.MachineConfig{}
	if err := p.get(ctx, client.ObjectKey{Name: configName}, rendered); apierrors.IsNotFound(err) {
		p.hold(reasonConfigNotFound, "MachineConfig %q, wanted by MachineConfigPool %q, does not exist", configName, poolName)
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("get machineconfig %s: %w", configName, err)
	}
	if err := validateRendered(rendered); err != nil {
		p.hold(reasonConfigInvalid, "%v", err)
		return nil, nil
	}
	repo, err := repository(p.config.Spec.RenderedImagePushSpec)
	if err != nil {
		p.hold(reasonPushSpecInvalid, "%v", err)
		return nil, nil
	}
	if !digestible.MatchString(repo) {
		p.hold(reasonPushSpecInvalid, "renderedImagePushSpec %q has more than one path segment before the image's name; "+
			"the image's digest could not be recorded in the MachineOSBuild", p.config.Spec.RenderedImagePushSpec)
		return nil, nil
	}
	name, err := Name(p.config, pool.Spec.Configuration, rendered)
	if err != nil {
		return nil, err
	}
	for _, label := range []string{layering.JobName(name), configName} {
		if len(label) > maxLabel {
			p.hold(reasonNameTooLong, "%q is longer than %d characters and can't label the build's objects", label, maxLabel)
			return nil, nil
		}
	}
	p.wanted = name
	return rendered, nil
}

// maxLabel is the longest value of a label; Jobs label their pods with their name.
const maxLabel = 63

// digestible is what the API accepts in front of a digest in status.digestedImagePushSpec and currentImagePullSpec. A
// push spec may have more path segments; a build of it could never be recorded as Succeeded.
var digestible = regexp.MustCompile(`^([a-zA-Z0-9-]+\.)+[a-zA-Z0-9-]+(:[0-9]{2,5})?/([a-zA-Z0-9-_]{0,61}/)?[a-zA-Z0-9-_.]*?$`)

// blocking are the pool's conditions that keep new builds from being created.
func blocking() []mcfgv1.MachineConfigPoolConditionType {
	return []mcfgv1.MachineConfigPoolConditionType{
		mcfgv1.MachineConfigPoolRenderDegraded, mcfgv1.MachineConfigPoolNodeDegraded,
		mcfgv1.MachineConfigPoolPinnedImageSetsDegraded, mcfgv1.MachineConfigPoolSynchronizerDegraded,
	}
}

// create makes the wanted MachineOSBuild, unless the pool is degraded or a running build will yield the image.
func (p *pass) create(ctx context.Context, rendered *mcfgv1.MachineConfig) error {
	for _, kind := range blocking() {
		if c := poolCondition(p.pool, kind); c != nil && c.Status == corev1.ConditionTrue {
			p.hold(reasonPoolDegraded, "MachineConfigPool %q is degraded (%s): %s", p.pool.Name, kind, c.Message)
			return nil
		}
	}
	base, running, err := p.sources(ctx, rendered)
	if err != nil {
		return err
	}
	if running != nil {
		p.shown = running
		return nil // its end wakes us
	}
	if err := p.supersede(ctx, false); err != nil {
		return err
	}
	build, err := p.newBuild()
	if err != nil {
		return err
	}
	if err := p.client.Create(ctx, build); err != nil {
		return fmt.Errorf("create machineosbuild %s: %w", build.Name, err)
	}
	p.builds = append(p.builds, build)
	p.shown = build
	if base == nil {
		return nil // the start waits like every reaction, so that a burst of edits starts one build
	}
	return p.proceed(ctx, build, rendered)
}

// newBuild returns the wanted MachineOSBuild as it is to be created.
func (p *pass) newBuild() (*mcfgv1.MachineOSBuild, error) {
	repo, err := repository(p.config.Spec.RenderedImagePushSpec)
	if err != nil {
		return nil, err
	}
	hash, err := specHash(p.config)
	if err != nil {
		return nil, fmt.Errorf("hash spec of machineosconfig %s: %w", p.name, err)
	}
	return &mcfgv1.MachineOSBuild{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.wanted,
			Labels: map[string]string{
				layering.TargetPool:     p.pool.Name,
				layering.RenderedConfig: p.pool.Spec.Configuration.Name,
				layering.OSConfig:       p.name,
			},
			Annotations: map[string]string{
				layering.RenderedPushSecret: p.config.Spec.RenderedImagePushSecret.Name,
				SpecHash:                    hash,
			},
			Finalizers:      []string{metav1.FinalizerDeleteDependents},
			OwnerReferences: []metav1.OwnerReference{p.configOwner()},
		},
		Spec: mcfgv1.MachineOSBuildSpec{
			MachineConfig:         mcfgv1.MachineConfigReference{Name: p.pool.Spec.Configuration.Name},
			MachineOSConfig:       mcfgv1.MachineOSConfigReference{Name: p.name},
			RenderedImagePushSpec: mcfgv1.ImageTagFormat(repo + ":" + p.wanted),
		},
	}, nil
}

func (p *pass) configOwner() metav1.OwnerReference {
	return *metav1.NewControllerRef(p.config, mcfgv1.GroupVersion.WithKind("MachineOSConfig"))
}

// adopt gives an ownerless build the owner, finalizer and labels that ours have.
func (p *pass) adopt(ctx context.Context, build *mcfgv1.MachineOSBuild) error {
	want, err := p.newBuild()
	if err != nil {
		return err
	}
	return p.patch(ctx, build, func() {
		build.OwnerReferences = append(build.OwnerReferences, want.OwnerReferences...)
		if !slices.Contains(build.Finalizers, metav1.FinalizerDeleteDependents) {
			build.Finalizers = append(build.Finalizers, metav1.FinalizerDeleteDependents)
		}
		for _, key := range slices.Sorted(maps.Keys(want.Labels)) {
			metav1.SetMetaDataLabel(&build.ObjectMeta, key, want.Labels[key])
		}
	})
}

// sources looks for an image that the wanted build can take over, because the MachineOSConfig's spec is the same and
// the rendered MachineConfig differs only in what nodes apply themselves: either a build that has one, or a running
// build that is going to.
func (p *pass) sources(ctx context.Context, rendered *mcfgv1.MachineConfig) (done, running *mcfgv1.MachineOSBuild, _ error) {
	if requested, _ := p.rebuild(); requested {
		return nil, nil, nil
	}
	hash, err := specHash(p.config)
	if err != nil {
		return nil, nil, fmt.Errorf("hash spec of machineosconfig %s: %w", p.name, err)
	}
	var newest *mcfgv1.MachineOSBuild
	for _, build := range p.builds {
		if build.Name == p.wanted || !p.ours(build) || !build.DeletionTimestamp.IsZero() {
			continue
		}
		candidate := !layering.Terminal(build) && started(build) || is(build, mcfgv1.MachineOSBuildSucceeded)
		if !candidate {
			continue
		}
		if same, err := p.serves(ctx, build, hash, rendered); err != nil {
			return nil, nil, err
		} else if !same {
			continue
		}
		switch {
		case !layering.Terminal(build):
			running = build
		case build.Status.DigestedImagePushSpec == p.config.Status.CurrentImagePullSpec:
			done = build
		}
	}
	for _, build := range p.builds {
		if build.Name != p.wanted && p.ours(build) && build.DeletionTimestamp.IsZero() &&
			(newest == nil || newest.CreationTimestamp.Before(&build.CreationTimestamp)) {
			newest = build
		}
	}
	switch {
	case running != nil:
		return nil, running, nil
	case done != nil:
		return done, nil, nil
	case newest != nil && is(newest, mcfgv1.MachineOSBuildSucceeded):
		// The last build finished after the pool had moved on, so that its image was never put to use.
		if same, err := p.serves(ctx, newest, hash, rendered); err != nil || !same {
			return nil, nil, err
		}
		return newest, nil, nil
	}
	return nil, nil, nil
}

// serves says whether a build's image is good for the wanted build as well.
func (p *pass) serves(ctx context.Context, build *mcfgv1.MachineOSBuild, hash string, rendered *mcfgv1.MachineConfig) (bool, error) {
	from := &mcfgv1.MachineConfig{}
	if err := p.get(ctx, client.ObjectKey{Name: build.Spec.MachineConfig.Name}, from); apierrors.IsNotFound(err) {
		return false, nil // it can't be told what the image holds
	} else if err != nil {
		return false, fmt.Errorf("get machineconfig %s: %w", build.Spec.MachineConfig.Name, err)
	}
	if RequiresRebuild(from, rendered) {
		return false, nil
	}
	if noted, ok := build.Annotations[SpecHash]; ok {
		return noted == hash, nil
	}
	// A build of another controller tells its spec only through its name.
	if p.pool.Status.Configuration.Name != from.Name {
		return false, nil
	}
	name, err := Name(p.config, p.pool.Status.Configuration, from)
	return name == build.Name, err
}

// rebuild says whether a rebuild is asked for, and of which MachineOSBuild by UID.
func (p *pass) rebuild() (requested bool, replaced string) {
	_, requested = p.config.Annotations[layering.Rebuild]
	replaced, noted := p.config.Annotations[RebuildOf]
	if !noted {
		replaced = "none"
	}
	return requested, replaced
}

// noteRebuild notes which build a new request for a rebuild is about, and forgets a request that was withdrawn.
func (p *pass) noteRebuild(ctx context.Context, build *mcfgv1.MachineOSBuild) error {
	_, requested := p.config.Annotations[layering.Rebuild]
	_, noted := p.config.Annotations[RebuildOf]
	switch {
	case requested && !noted:
		uid := ""
		if build != nil {
			uid = string(build.UID)
		}
		err := p.patch(ctx, p.config, func() { metav1.SetMetaDataAnnotation(&p.config.ObjectMeta, RebuildOf, uid) })
		if err == nil {
			p.event(p.config, corev1.EventTypeNormal, "RebuildRequested", "Rebuild of MachineOSBuild %s requested", p.wanted)
		}
		return err
	case !requested && noted:
		return p.patch(ctx, p.config, func() { delete(p.config.Annotations, RebuildOf) })
	}
	return nil
}

// begun tells that the wanted build has started or failed: the MachineOSConfig refers to it, the rebuild that was asked
// for is served, and builds that came to nothing before it go.
func (p *pass) begun(ctx context.Context, build *mcfgv1.MachineOSBuild) error {
	if err := p.refer(ctx, build); err != nil {
		return err
	}
	if err := p.patchStatus(ctx, p.config, func() { p.observe() }); err != nil {
		return err
	}
	return p.supersede(ctx, true)
}

// refer points the MachineOSConfig at a build and takes back a served request for a rebuild, in one write.
func (p *pass) refer(ctx context.Context, build *mcfgv1.MachineOSBuild) error {
	return p.patch(ctx, p.config, func() {
		metav1.SetMetaDataAnnotation(&p.config.ObjectMeta, layering.CurrentBuild, build.Name)
		if requested, replaced := p.rebuild(); requested && replaced != string(build.UID) {
			delete(p.config.Annotations, layering.Rebuild)
			delete(p.config.Annotations, RebuildOf)
		}
	})
}

// observe notes in the status which spec was acted on.
func (p *pass) observe() {
	if p.config.Status.ObservedGeneration < p.config.Generation {
		p.config.Status.ObservedGeneration = p.config.Generation
	}
}

// publish makes the wanted build's image the MachineOSConfig's. Before an image that isn't fresh is used again the
// registry is asked for it.
func (p *pass) publish(ctx context.Context, build *mcfgv1.MachineOSBuild) error {
	image := string(build.Status.DigestedImagePushSpec)
	reused := p.config.Annotations[layering.CurrentBuild] != build.Name
	known, remembered := p.verified[p.name]
	if reused || remembered && known != p.pool.Generation {
		there, err := p.inspect(ctx, image)
		switch {
		case err != nil && reused:
			p.hold(reasonRegistry, "the registry does not tell whether it holds %s: %v", image, err)
			return fmt.Errorf("inspect image of machineosbuild %s: %w", build.Name, err)
		case err == nil && !there:
			return p.remove(ctx, build, "the registry no longer holds its image")
		}
		// An image in use is looked after when the pool's spec changes; if the registry can't tell, the next change will do.
	}
	p.verified[p.name] = p.pool.Generation
	if err := p.supersede(ctx, true); err != nil {
		return err
	}
	if err := p.refer(ctx, build); err != nil {
		return err
	}
	changed := p.config.Status.CurrentImagePullSpec != build.Status.DigestedImagePushSpec
	err := p.patchStatus(ctx, p.config, func() {
		p.observe()
		p.config.Status.CurrentImagePullSpec = build.Status.DigestedImagePushSpec
		p.config.Status.MachineOSBuild = &mcfgv1.ObjectReference{
			Group: mcfgv1.GroupName, Resource: "machineosbuilds", Name: build.Name,
		}
	})
	if err == nil && (changed || reused) {
		p.event(p.config, corev1.EventTypeNormal, "ConfigReconciled", "Image %s of MachineOSBuild %s is current", image, build.Name)
	}
	return err
}

// reportHold writes what holds the build to the MachineOSConfig, and takes it back when nothing does.
func (p *pass) reportHold(ctx context.Context) error {
	before := meta.FindStatusCondition(p.config.Status.Conditions, BuildHeld)
	now := metav1.Condition{
		Type: BuildHeld, Status: metav1.ConditionFalse, Reason: reasonNotHeld, Message: "Nothing holds the build back",
		ObservedGeneration: p.config.Generation, LastTransitionTime: metav1.NewTime(p.clock.Now()),
	}
	if p.held != nil {
		now.Status, now.Reason, now.Message = metav1.ConditionTrue, p.held.reason, p.held.message
	}
	if before == nil && p.held == nil {
		return nil
	}
	if before != nil && before.Status == now.Status && before.Reason == now.Reason && before.Message == now.Message {
		return nil
	}
	err := p.patchStatus(ctx, p.config, func() { meta.SetStatusCondition(&p.config.Status.Conditions, now) })
	if err == nil && p.held != nil {
		p.event(p.config, corev1.EventTypeWarning, BuildHeld, "%s: %s", p.held.reason, p.held.message)
	}
	return err
}

// get reads from the cache, and from the server what the cache doesn't know yet.
func (p *pass) get(ctx context.Context, key client.ObjectKey, object client.Object) error {
	err := p.client.Get(ctx, key, object)
	if apierrors.IsNotFound(err) {
		return p.live.Get(ctx, key, object)
	}
	return err
}

// patch changes an object's metadata or spec, if change changes anything.
func (r *reconciler) patch(ctx context.Context, object client.Object, change func()) error {
	return r.write(ctx, object, change, func(patch client.Patch) error { return r.client.Patch(ctx, object, patch) })
}

// patchStatus changes an object's status, if change changes anything.
func (r *reconciler) patchStatus(ctx context.Context, object client.Object, change func()) error {
	return r.write(ctx, object, change, func(patch client.Patch) error { return r.client.Status().Patch(ctx, object, patch) })
}

// write sends a merge patch that holds only if nobody else wrote: lists are replaced whole by it.
func (r *reconciler) write(_ context.Context, object client.Object, change func(), send func(client.Patch) error) error {
	before, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("copy %T", object)
	}
	change()
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	data, err := client.MergeFrom(before).Data(object)
	if err != nil {
		return fmt.Errorf("compare %T %s: %w", object, object.GetName(), err)
	}
	if string(data) == "{}" {
		return nil
	}
	if err := send(patch); err != nil {
		return fmt.Errorf("patch %T %s: %w", object, object.GetName(), err)
	}
	return nil
}

// event records a Kubernetes event.
func (r *reconciler) event(object client.Object, kind, reason, note string, args ...any) {
	r.recorder.Eventf(object, nil, kind, reason, "Build", note, args...)
}

// shortHash returns 32 hexadecimal digits of a hash.
func shortHash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}
