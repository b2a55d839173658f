package build

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
)

// firstLook is how long to wait for something that has no event of its own.
const firstLook = time.Second

// states are the conditions of a MachineOSBuild in the order in which upstream writes them, with their fixed texts.
var states = []struct {
	state           mcfgv1.BuildProgress
	reason, message string
}{
	{mcfgv1.MachineOSBuildPrepared, "Prepared", "Build Prepared and Pending"},
	{mcfgv1.MachineOSBuilding, "Building", "Image Build In Progress"},
	{mcfgv1.MachineOSBuildFailed, "Failed", "Build Failed"},
	{mcfgv1.MachineOSBuildInterrupted, "Interrupted", "Build Interrupted"},
	{mcfgv1.MachineOSBuildSucceeded, "Ready", "Build Ready"},
}

func is(build *mcfgv1.MachineOSBuild, state mcfgv1.BuildProgress) bool {
	return meta.IsStatusConditionTrue(build.Status.Conditions, string(state))
}

// final says whether a state is never left.
func final(s mcfgv1.BuildProgress) bool {
	return s == mcfgv1.MachineOSBuildSucceeded || s == mcfgv1.MachineOSBuildFailed || s == mcfgv1.MachineOSBuildInterrupted
}

// started says whether a build has a Job or a state.
func started(build *mcfgv1.MachineOSBuild) bool {
	return build.Annotations[layering.JobUID] != "" || layering.Progress(build) != ""
}

// setState makes one of the five conditions true and the others false.
func setState(build *mcfgv1.MachineOSBuild, to mcfgv1.BuildProgress, now time.Time) {
	for _, s := range states {
		status := metav1.ConditionFalse
		if s.state == to {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&build.Status.Conditions, metav1.Condition{
			Type: string(s.state), Status: status, Reason: s.reason, Message: s.message, LastTransitionTime: metav1.NewTime(now),
		})
	}
}

// allowed says whether a build may go from one state to another: from none to any, from Prepared to Building, and from
// both to a final one.
func allowed(from, to mcfgv1.BuildProgress) bool {
	switch from {
	case "":
		return to != ""
	case mcfgv1.MachineOSBuildPrepared:
		return to == mcfgv1.MachineOSBuilding || final(to)
	case mcfgv1.MachineOSBuilding:
		return final(to)
	}
	return false
}

// progress derives a build's state from its Job. known says that the image's digest is there already, which the build
// pod writes last.
func progress(job *batchv1.Job, known bool) mcfgv1.BuildProgress {
	var complete, failed bool
	for _, c := range job.Status.Conditions {
		complete = complete || c.Type == batchv1.JobComplete && c.Status == corev1.ConditionTrue
		failed = failed || c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue
	}
	s := job.Status
	switch {
	case s.Failed > retries || failed:
		return mcfgv1.MachineOSBuildFailed
	case complete || s.Succeeded > 0 && len(s.Conditions) == 0:
		return mcfgv1.MachineOSBuildSucceeded
	case !job.DeletionTimestamp.IsZero() && (s.Succeeded > 0 || known):
		return mcfgv1.MachineOSBuildSucceeded // the image is in the registry, whoever deletes the Job now
	case !job.DeletionTimestamp.IsZero():
		return mcfgv1.MachineOSBuildInterrupted
	case s.Active == 0 && s.Succeeded == 0 && s.Failed == 0 && s.UncountedTerminatedPods == nil:
		return mcfgv1.MachineOSBuildPrepared
	default:
		return mcfgv1.MachineOSBuilding
	}
}

// track brings the status of every build that runs up to date with its Job, wanted or not.
func (p *pass) track(ctx context.Context) error {
	var errs []error
	for _, build := range p.builds {
		if !p.ours(build) || !build.DeletionTimestamp.IsZero() || layering.Terminal(build) || !started(build) {
			continue
		}
		job := &batchv1.Job{}
		key := client.ObjectKey{Namespace: p.options.Namespace, Name: layering.JobName(build.Name)}
		err := p.live.Get(ctx, key, job)
		switch {
		case apierrors.IsNotFound(err):
			errs = append(errs, p.jobLost(ctx, build))
		case err != nil:
			errs = append(errs, fmt.Errorf("get job %s: %w", key.Name, err))
		case string(job.UID) == build.Annotations[layering.JobUID]:
			errs = append(errs, p.follow(ctx, build, job))
		case build.Annotations[layering.JobUID] == "" && metav1.IsControlledBy(job, build):
			errs = append(errs, p.launched(ctx, build, job))
		default: // someone else's Job of the same name: ours is gone
			errs = append(errs, p.jobLost(ctx, build))
		}
	}
	return errors.Join(errs...)
}

// jobLost ends a build whose Job is gone. If the digest is there the Job had done its work and was cleared away while
// we were down.
func (p *pass) jobLost(ctx context.Context, build *mcfgv1.MachineOSBuild) error {
	digest, err := p.digest(ctx, build)
	if err != nil {
		return err
	}
	if digest != "" {
		return p.succeed(ctx, build, nil, digest)
	}
	moved, err := p.move(ctx, build, nil, mcfgv1.MachineOSBuildInterrupted, "")
	if moved {
		p.event(build, corev1.EventTypeWarning, "BuildInterrupted", "Job %s was deleted", layering.JobName(build.Name))
	}
	return err
}

// follow brings a build's status up to date with its Job.
func (p *pass) follow(ctx context.Context, build *mcfgv1.MachineOSBuild, job *batchv1.Job) error {
	digest, err := p.digest(ctx, build)
	if err != nil {
		return err
	}
	switch to := progress(job, digest != ""); to {
	case mcfgv1.MachineOSBuildSucceeded:
		if digest == "" {
			// The build pod writes the digest before it ends, so someone deleted it. The tag still leads to it.
			if digest, err = p.resolve(ctx, build); err != nil {
				p.hold(reasonDigestUnknown, "ConfigMap %s is missing, and the registry does not tell the digest of %s: %v",
					layering.DigestName(build.Name), build.Spec.RenderedImagePushSpec, err)
				return fmt.Errorf("find digest of machineosbuild %s: %w", build.Name, err)
			}
		}
		return p.succeed(ctx, build, job, digest)
	case mcfgv1.MachineOSBuildFailed:
		cause, err := p.cause(ctx, job)
		if err != nil {
			return err
		}
		return p.fail(ctx, build, job, cause)
	default:
		moved, err := p.move(ctx, build, job, to, "")
		if !moved {
			return err
		}
		switch to {
		case mcfgv1.MachineOSBuilding:
			p.event(build, corev1.EventTypeNormal, "JobStarted", "Job %s started", job.Name)
			p.event(build, corev1.EventTypeNormal, "BuildBuilding", "Image of MachineOSBuild %s is being built", build.Name)
		case mcfgv1.MachineOSBuildInterrupted:
			p.event(build, corev1.EventTypeWarning, "BuildInterrupted", "Job %s was deleted", job.Name)
		default:
			p.event(build, corev1.EventTypeNormal, "BuildPreparing", "MachineOSBuild %s is prepared", build.Name)
		}
		return nil
	}
}

// succeed records a build's image.
func (p *pass) succeed(ctx context.Context, build *mcfgv1.MachineOSBuild, job *batchv1.Job, digest string) error {
	repo, err := repository(build.Spec.RenderedImagePushSpec)
	if err != nil {
		return err
	}
	if err := p.noteDigest(ctx, build, digest); err != nil {
		return err
	}
	image := repo + "@" + digest
	moved, err := p.move(ctx, build, job, mcfgv1.MachineOSBuildSucceeded, image)
	if moved {
		if job != nil {
			p.event(build, corev1.EventTypeNormal, "JobCompleted", "Job %s completed", job.Name)
		}
		p.event(build, corev1.EventTypeNormal, "BuildCompleted", "MachineOSBuild %s completed, image: %s", build.Name, image)
	}
	return err
}

// fail records that a build failed, and why. job is nil if it never got one.
func (p *pass) fail(ctx context.Context, build *mcfgv1.MachineOSBuild, job *batchv1.Job, cause string) error {
	if cause != "" && build.Annotations[FailureCause] == "" {
		if err := p.patch(ctx, build, func() { metav1.SetMetaDataAnnotation(&build.ObjectMeta, FailureCause, cause) }); err != nil {
			return err
		}
	}
	moved, err := p.move(ctx, build, job, mcfgv1.MachineOSBuildFailed, "")
	if moved {
		if job != nil {
			p.event(build, corev1.EventTypeWarning, "JobFailed", "Job %s failed", job.Name)
		}
		p.event(build, corev1.EventTypeWarning, "BuildFailed", "MachineOSBuild %s failed: %s", build.Name, cause)
		if p.config != nil {
			p.event(p.config, corev1.EventTypeWarning, "BuildDegraded", "MachineOSBuild %s failed: %s", build.Name, cause)
		}
	}
	return err
}

// move writes a build's state if it may be reached from the present one. A build without a Job gets no times. The API
// wants the end after the start in whole seconds: where both fall into one second the write waits for the next.
func (p *pass) move(ctx context.Context, build *mcfgv1.MachineOSBuild, job *batchv1.Job, to mcfgv1.BuildProgress,
	image string) (bool, error) {
	from, now := layering.Progress(build), p.clock.Now()
	if !allowed(from, to) {
		return false, nil
	}
	start := build.Status.BuildStart
	if start == nil && job != nil {
		begin := metav1.NewTime(now)
		if final(to) {
			begin = job.CreationTimestamp
		}
		start = &begin
	}
	var took time.Duration
	if final(to) && start != nil {
		if took = now.Sub(start.Time); now.Unix() <= start.Unix() {
			p.again(time.Unix(start.Unix()+1, 0).Sub(now))
			return false, nil
		}
	}
	err := p.patchStatus(ctx, build, func() {
		setState(build, to, now)
		build.Status.BuildStart = start
		if start != nil && final(to) {
			end := metav1.NewTime(now)
			build.Status.BuildEnd = &end
		}
		if image != "" {
			build.Status.DigestedImagePushSpec = mcfgv1.ImageDigestFormat(image)
		}
		if job != nil {
			build.Status.Builder = &mcfgv1.MachineOSBuilderReference{
				ImageBuilderType: mcfgv1.JobBuilder,
				Job: &mcfgv1.ObjectReference{
					Group: batchv1.GroupName, Resource: "jobs", Namespace: job.Namespace, Name: job.Name,
				},
			}
		}
	})
	if err != nil {
		return false, err
	}
	if p.options.Metrics != nil {
		p.options.Metrics.State(build.Labels[layering.TargetPool], build.Name, to, took)
	}
	return true, nil
}

// validDigest is what a registry's digest looks like.
var validDigest = regexp.MustCompile(`^sha256:[a-f0-9]{64}$`)

// digest returns the digest that the build's pod wrote, "" if there is none yet.
func (p *pass) digest(ctx context.Context, build *mcfgv1.MachineOSBuild) (string, error) {
	object := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: p.options.Namespace, Name: layering.DigestName(build.Name)}
	if err := p.live.Get(ctx, key, object); apierrors.IsNotFound(err) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("get configmap %s: %w", key.Name, err)
	}
	if uid, labelled := object.Labels[BuildUID]; labelled && uid != string(build.UID) {
		return "", nil // of an earlier build of this name
	}
	digest := strings.TrimSpace(object.Data["digest"])
	if !validDigest.MatchString(digest) {
		return "", nil
	}
	return digest, nil
}

// longestCause is how much of a pod's last words is kept.
const longestCause = 200

// cause tells why a Job failed: the last words of its last failed container, else what the Job says.
func (p *pass) cause(ctx context.Context, job *batchv1.Job) (string, error) {
	pods := &corev1.PodList{}
	if err := p.live.List(ctx, pods, client.InNamespace(job.Namespace), client.MatchingLabels{batchv1.JobNameLabel: job.Name}); err != nil {
		return "", fmt.Errorf("list pods of job %s: %w", job.Name, err)
	}
	var words, at string
	for i := range pods.Items {
		pod := &pods.Items[i]
		if !metav1.IsControlledBy(pod, job) {
			continue
		}
		for _, c := range pod.Status.ContainerStatuses {
			end := c.State.Terminated
			if end == nil || end.ExitCode == 0 || c.Name != imageBuild {
				continue
			}
			if when := end.FinishedAt.UTC().Format(time.RFC3339) + pod.Name; when > at {
				at = when
				words = fmt.Sprintf("pod %s: container %s exited with %d", pod.Name, c.Name, end.ExitCode)
				if last := lastLine(end.Message); last != "" {
					words += ": " + last
				}
			}
		}
	}
	for _, c := range job.Status.Conditions {
		if words == "" && c.Type == batchv1.JobFailed && c.Message != "" {
			words = c.Message
		}
	}
	if words == "" {
		words = fmt.Sprintf("%d build pods failed", job.Status.Failed)
	}
	return words, nil
}

// lastLine returns the last line of a log that isn't empty, shortened.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if runes := []rune(last); len(runes) > longestCause {
		last = string(runes[:longestCause]) + "..."
	}
	return last
}

// sweep removes what builds no longer need: all but the digest of builds that succeeded or were interrupted, and what is
// left without an owner of builds that are gone. What belongs to a failed build stays until that is superseded.
func (p *pass) sweep(ctx context.Context) error {
	var errs []error
	mine := []client.ListOption{client.InNamespace(p.options.Namespace), client.MatchingLabels{layering.OSConfig: p.name}}
	jobs, maps, secrets := &batchv1.JobList{}, &corev1.ConfigMapList{}, &corev1.SecretList{}
	for _, list := range []client.ObjectList{jobs, maps, secrets} {
		if err := p.client.List(ctx, list, mine...); err != nil {
			return fmt.Errorf("list %T of machineosconfig %s: %w", list, p.name, err)
		}
	}
	for i := range jobs.Items {
		job := &jobs.Items[i]
		build := p.find(job.Labels[layering.OSBuild])
		switch {
		case !job.DeletionTimestamp.IsZero():
		case build == nil && metav1.GetControllerOf(job) == nil,
			build != nil && is(build, mcfgv1.MachineOSBuildSucceeded) && metav1.IsControlledBy(job, build):
			errs = append(errs, p.removeObject(ctx, job))
		}
	}
	for i := range maps.Items {
		errs = append(errs, p.sweepObject(ctx, &maps.Items[i]))
	}
	for i := range secrets.Items {
		errs = append(errs, p.sweepObject(ctx, &secrets.Items[i]))
	}
	return errors.Join(errs...)
}

func (p *pass) sweepObject(ctx context.Context, object client.Object) error {
	name := object.GetLabels()[layering.OSBuild]
	if name == "" || !object.GetDeletionTimestamp().IsZero() {
		return nil
	}
	build, digest := p.find(name), object.GetName() == layering.DigestName(name)
	switch {
	case build == nil:
		if len(object.GetOwnerReferences()) == 0 {
			return p.removeObject(ctx, object)
		}
	case !build.DeletionTimestamp.IsZero():
	case digest:
		if uid, labelled := object.GetLabels()[BuildUID]; labelled && uid != string(build.UID) {
			return p.removeObject(ctx, object)
		}
		if len(object.GetOwnerReferences()) == 0 && is(build, mcfgv1.MachineOSBuildSucceeded) {
			return p.patch(ctx, object, func() {
				object.SetOwnerReferences([]metav1.OwnerReference{{
					APIVersion: mcfgv1.GroupVersion.String(), Kind: "MachineOSBuild", Name: build.Name, UID: build.UID,
				}})
			})
		}
	case is(build, mcfgv1.MachineOSBuildSucceeded), is(build, mcfgv1.MachineOSBuildInterrupted):
		return p.removeObject(ctx, object)
	case !layering.Terminal(build) && build.Annotations[layering.JobUID] != "":
		return p.handToJob(ctx, object, build, build.Annotations[layering.JobUID])
	}
	return nil
}

// removeObject deletes this very object: Jobs with their pods first, all else at once.
func (p *pass) removeObject(ctx context.Context, object client.Object) error {
	uid := object.GetUID()
	options := []client.DeleteOption{client.Preconditions{UID: &uid}}
	if _, ok := object.(*batchv1.Job); ok {
		options = append(options, client.PropagationPolicy(metav1.DeletePropagationForeground))
	}
	err := p.client.Delete(ctx, object, options...)
	// A conflict says that another object has taken the name.
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete %T %s: %w", object, object.GetName(), err)
	}
	return nil
}
