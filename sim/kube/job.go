package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
)

// The job controller's constants, those of pkg/controller/job.
const (
	jobBatchPeriod  = time.Second
	jobBackOff      = 10 * time.Second
	jobBackOffLimit = 6 * time.Minute
)

const (
	backoffExceededMessage  = "Job has reached the specified backoff limit"
	deadlineExceededMessage = "Job was active longer than specified deadline"
	completionsMessage      = "Reached expected number of succeeded pods"
)

// JobController models kube's job controller, and its TTL-after-finished controller, for NonIndexed Jobs.
//
// Pods carry the finalizer batch.kubernetes.io/job-tracking until they are accounted for: first their UIDs go to
// status.uncountedTerminatedPods, then the finalizer goes, then the counters move. Each step can be repeated, so no pod
// is counted twice or lost wherever the controller is interrupted. A pod that is being deleted counts as failed.
func JobController() component.Component {
	return component.Component{
		Name: "job-controller",
		Watches: []component.Watch{
			{Object: &batchv1.Job{}, When: specMatters},
			{Object: &corev1.Pod{}, Map: jobOfPod, When: podMatters},
		},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			return &jobs{
				env: env,
				due: map[types.NamespacedName]time.Time{}, lastFailure: map[types.UID]time.Time{},
			}, nil
		},
	}
}

func jobOfPod(_ context.Context, _ client.Reader, o client.Object) []reconcile.Request {
	owner := metav1.GetControllerOfNoCopy(o)
	if owner == nil || owner.Kind != "Job" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{
		Namespace: o.GetNamespace(), Name: podPrefix + owner.Name,
	}}}
}

// jobs is the reconciler. What it holds in memory only shortens or delays; losing it is harmless.
type jobs struct {
	env         component.Env
	due         map[types.NamespacedName]time.Time // when a job is looked at again because of its pods
	lastFailure map[types.UID]time.Time            // per job, for failed pods that no longer exist
}

func (r *jobs) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	name, batched := cutName(req, podPrefix)
	if batched {
		due, waiting := r.due[name]
		if batch := r.env.Clock.Now().Add(jobBatchPeriod); !waiting || due.After(batch) {
			due = batch // an event, ahead of the back-off's end if that is what is waited for
			r.due[name] = due
		}
		if wait := due.Sub(r.env.Clock.Now()); wait > 0 {
			return reconcile.Result{RequeueAfter: wait}, nil
		}
		// A sync that fails is repeated at once, by the queue's back-off: the mark stays.
	}
	wait, err := r.sync(ctx, name)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("sync job %s: %w", name, err)
	}
	if batched {
		delete(r.due, name)
		if wait > 0 {
			r.due[name] = r.env.Clock.Now().Add(wait)
		}
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// sync moves one job on, and says when to look again (0: only after an event).
func (r *jobs) sync(ctx context.Context, name types.NamespacedName) (time.Duration, error) {
	job := &batchv1.Job{}
	err := r.env.Live.Get(ctx, name, job)
	if client.IgnoreNotFound(err) != nil {
		return 0, fmt.Errorf("get job: %w", err)
	}
	pods, err := r.pods(ctx, name, job.UID)
	if err != nil || job.UID == "" {
		return 0, err
	}
	if jobCondition(job, batchv1.JobComplete) != nil || jobCondition(job, batchv1.JobFailed) != nil {
		for _, p := range pods {
			if err := r.release(ctx, p); err != nil {
				return 0, err
			}
		}
		delete(r.lastFailure, job.UID)
		return r.expire(ctx, job)
	}

	s := r.survey(job, pods)
	before := job.Status.DeepCopy()
	var wait time.Duration
	if job.DeletionTimestamp.IsZero() {
		wait = r.judge(job, s)
		var more time.Duration
		more, err = r.manage(ctx, job, s)
		wait = soonest(wait, more)
	}
	// What was done is written down even where something failed on the way.
	if err2 := r.account(ctx, job, before, pods, s); err2 != nil {
		err = errors.Join(err, err2)
	}
	return wait, err
}

// pods returns the job's pods, oldest first. Those of the same name's former jobs are let go.
func (r *jobs) pods(ctx context.Context, job types.NamespacedName, uid types.UID) ([]*corev1.Pod, error) {
	list := &corev1.PodList{}
	if err := r.env.Live.List(ctx, list, client.InNamespace(job.Namespace),
		client.MatchingLabels{batchv1.JobNameLabel: job.Name}); err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var mine []*corev1.Pod
	for i := range list.Items {
		p := &list.Items[i]
		owner := metav1.GetControllerOfNoCopy(p)
		if uid != "" && owner != nil && owner.UID == uid {
			mine = append(mine, p)
		} else if owner == nil || owner.Kind == "Job" {
			if err := r.release(ctx, p); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(mine, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return mine, nil
}

// survey is what a sync knows of a job's pods. The counts include what is not accounted for yet.
type survey struct {
	active                       []*corev1.Pod
	ready, terminating           int32
	succeeded, failed            int32
	newlySucceeded, newlyFailed  []types.UID
	failures                     int // since the last success
	lastFailure                  time.Time
	created, deleted, terminated int32 // in this sync
}

func (r *jobs) survey(job *batchv1.Job, pods []*corev1.Pod) *survey {
	s := &survey{}
	if job.Status.UncountedTerminatedPods == nil {
		job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	uncounted := job.Status.UncountedTerminatedPods
	var lastSuccess time.Time
	for _, p := range pods {
		if p.Status.Phase == corev1.PodSucceeded {
			lastSuccess = later(lastSuccess, finishedAt(p))
		}
	}
	s.lastFailure = r.lastFailure[job.UID]
	for _, p := range pods {
		tracked := controllerutil.ContainsFinalizer(p, batchv1.JobTrackingFinalizer)
		switch {
		case p.Status.Phase == corev1.PodSucceeded:
			if tracked && !slices.Contains(uncounted.Succeeded, p.UID) {
				s.newlySucceeded = append(s.newlySucceeded, p.UID)
			}
		case jobPodFailed(job, p):
			if at := finishedAt(p); at.After(lastSuccess) {
				s.failures++
				s.lastFailure = later(s.lastFailure, at)
			}
			if tracked && !slices.Contains(uncounted.Failed, p.UID) {
				s.newlyFailed = append(s.newlyFailed, p.UID)
			}
		case p.DeletionTimestamp.IsZero():
			s.active = append(s.active, p)
			if podReady(p) {
				s.ready++
			}
		}
		if !p.DeletionTimestamp.IsZero() && !podFinished(p) {
			s.terminating++
		}
	}
	s.succeeded = job.Status.Succeeded + int32(len(uncounted.Succeeded)+len(s.newlySucceeded))
	s.failed = job.Status.Failed + int32(len(uncounted.Failed)+len(s.newlyFailed))
	if s.succeeded == 0 {
		s.failures = int(s.failed) // failed pods may be gone, the counter isn't
	}
	if !s.lastFailure.IsZero() {
		r.lastFailure[job.UID] = s.lastFailure
	}
	return s
}

// jobPodFailed says whether a pod counts as failed. One that is being deleted does, as it may never get to say so,
// unless the job asks to wait for that.
func jobPodFailed(job *batchv1.Job, p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodFailed {
		return true
	}
	return !waitsForFailed(job) && !p.DeletionTimestamp.IsZero() && p.Status.Phase != corev1.PodSucceeded
}

func waitsForFailed(job *batchv1.Job) bool {
	return job.Spec.PodReplacementPolicy != nil && *job.Spec.PodReplacementPolicy == batchv1.Failed
}

// judge sets the start time and the condition that announces the end, FailureTarget or SuccessCriteriaMet.
func (r *jobs) judge(job *batchv1.Job, s *survey) time.Duration {
	now := r.env.Clock.Now()
	suspended := ptr.Deref(job.Spec.Suspend, false)
	if job.Status.StartTime == nil && !suspended {
		job.Status.StartTime = ptr.To(metav1.NewTime(now))
	}
	if jobCondition(job, batchv1.JobFailureTarget) != nil || jobCondition(job, batchv1.JobSuccessCriteriaMet) != nil {
		return 0
	}
	var wait time.Duration
	if limit := job.Spec.ActiveDeadlineSeconds; limit != nil && job.Status.StartTime != nil && !suspended {
		end := job.Status.StartTime.Add(time.Duration(*limit) * time.Second)
		if !end.After(now) {
			r.set(job, batchv1.JobFailureTarget, batchv1.JobReasonDeadlineExceeded, deadlineExceededMessage)
			return 0
		}
		wait = end.Sub(now)
	}
	switch {
	case s.failed > ptr.Deref(job.Spec.BackoffLimit, 6):
		r.set(job, batchv1.JobFailureTarget, batchv1.JobReasonBackoffLimitExceeded, backoffExceededMessage)
	case job.Spec.Completions == nil && s.succeeded > 0 && len(s.active) == 0,
		job.Spec.Completions != nil && s.succeeded >= *job.Spec.Completions:
		r.set(job, batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, completionsMessage)
	default:
		return wait
	}
	return 0
}

// manage creates and deletes pods.
func (r *jobs) manage(ctx context.Context, job *batchv1.Job, s *survey) (time.Duration, error) {
	if jobCondition(job, batchv1.JobFailureTarget) != nil || jobCondition(job, batchv1.JobSuccessCriteriaMet) != nil {
		// These keep their finalizer: they are accounted for once they are being deleted.
		for _, p := range s.active {
			if err := r.delete(ctx, job, p); err != nil {
				return 0, err
			}
			s.deleted++
			s.terminated++
		}
		return 0, nil
	}
	if ptr.Deref(job.Spec.Suspend, false) {
		r.suspended(job, corev1.ConditionTrue, "JobSuspended", "Job suspended")
		job.Status.StartTime = nil
		return 0, r.drop(ctx, job, s, len(s.active))
	}
	if c := jobCondition(job, batchv1.JobSuspended); c != nil && c.Status == corev1.ConditionTrue {
		r.suspended(job, corev1.ConditionFalse, "JobResumed", "Job resumed")
		job.Status.StartTime = ptr.To(metav1.NewTime(r.env.Clock.Now()))
	}

	active, parallelism := int32(len(s.active)), ptr.Deref(job.Spec.Parallelism, 1)
	want := parallelism
	if job.Spec.Completions != nil {
		want = max(0, min(*job.Spec.Completions-s.succeeded, parallelism))
	} else if s.succeeded > 0 {
		want = min(active, parallelism)
	}
	if active > want {
		return 0, r.drop(ctx, job, s, int(active-want))
	}
	missing := want - active
	if waitsForFailed(job) {
		missing -= s.terminating
	}
	if missing <= 0 {
		return 0, nil
	}
	if wait := r.backOff(s); wait > 0 {
		return wait, nil
	}
	for ; missing > 0; missing-- {
		p := jobPod(job)
		if err := r.env.Client.Create(ctx, p); err != nil {
			event(r.env, job, corev1.EventTypeWarning, "FailedCreate", "Create", "Error creating: %v", err)
			return 0, fmt.Errorf("create pod: %w", err)
		}
		s.created++
		event(r.env, job, corev1.EventTypeNormal, "SuccessfulCreate", "Create", "Created pod: %s", p.Name)
	}
	return 0, nil
}

// backOff is how long the next pod has to wait.
func (r *jobs) backOff(s *survey) time.Duration {
	if s.failures == 0 || s.lastFailure.IsZero() {
		return 0
	}
	d := jobBackOff
	for i := 1; i < s.failures && d < jobBackOffLimit; i++ {
		d *= 2
	}
	return max(0, s.lastFailure.Add(min(d, jobBackOffLimit)).Sub(r.env.Clock.Now()))
}

// drop deletes n active pods without counting them as failed; those that have got least far go first.
func (r *jobs) drop(ctx context.Context, job *batchv1.Job, s *survey, n int) error {
	victims := slices.Clone(s.active)
	rank := func(p *corev1.Pod) int {
		switch {
		case p.Spec.NodeName == "":
			return 0
		case p.Status.Phase == corev1.PodPending:
			return 1
		case !podReady(p):
			return 2
		}
		return 3
	}
	slices.Reverse(victims) // youngest first
	slices.SortStableFunc(victims, func(a, b *corev1.Pod) int { return cmp.Compare(rank(a), rank(b)) })
	for _, p := range victims[:n] {
		if err := r.release(ctx, p); err != nil {
			return err
		}
		if err := r.delete(ctx, job, p); err != nil {
			return err
		}
		s.deleted++
	}
	return nil
}

func (r *jobs) delete(ctx context.Context, job *batchv1.Job, p *corev1.Pod) error {
	if err := client.IgnoreNotFound(r.env.Client.Delete(ctx, p, client.Preconditions{UID: &p.UID})); err != nil {
		return fmt.Errorf("delete pod %s: %w", p.Name, err)
	}
	event(r.env, job, corev1.EventTypeNormal, "SuccessfulDelete", "Delete", "Deleted pod: %s", p.Name)
	return nil
}

// release takes the finalizer off a pod.
func (r *jobs) release(ctx context.Context, p *corev1.Pod) error {
	if !controllerutil.ContainsFinalizer(p, batchv1.JobTrackingFinalizer) {
		return nil
	}
	base := p.DeepCopy()
	controllerutil.RemoveFinalizer(p, batchv1.JobTrackingFinalizer)
	err := r.env.Client.Patch(ctx, p, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove finalizer of pod %s: %w", p.Name, err)
	}
	return nil
}

// account writes the status: the pods that ended go from new to uncounted, lose their finalizer, and are counted.
func (r *jobs) account(ctx context.Context, job *batchv1.Job, before *batchv1.JobStatus, pods []*corev1.Pod, s *survey) error {
	st := &job.Status
	st.Active = int32(len(s.active)) + s.created - s.deleted
	st.Ready, st.Terminating = ptr.To(s.ready), ptr.To(s.terminating+s.terminated)
	st.UncountedTerminatedPods.Succeeded = append(st.UncountedTerminatedPods.Succeeded, s.newlySucceeded...)
	st.UncountedTerminatedPods.Failed = append(st.UncountedTerminatedPods.Failed, s.newlyFailed...)

	if len(s.newlySucceeded)+len(s.newlyFailed) > 0 {
		if err := r.write(ctx, job, before); err != nil {
			return err
		}
		before = job.Status.DeepCopy()
	}
	uncounted := job.Status.UncountedTerminatedPods
	if uncounted == nil { // an empty struct may have got lost on its way through the API
		uncounted = &batchv1.UncountedTerminatedPods{}
		job.Status.UncountedTerminatedPods = uncounted
	}
	for _, p := range pods {
		listed := slices.Contains(uncounted.Succeeded, p.UID) || slices.Contains(uncounted.Failed, p.UID)
		if listed || !job.DeletionTimestamp.IsZero() {
			if err := r.release(ctx, p); err != nil {
				return err
			}
		}
	}
	// Now none of the uncounted pods has its finalizer any more, whether it still exists or not.
	job.Status.Succeeded += int32(len(uncounted.Succeeded))
	job.Status.Failed += int32(len(uncounted.Failed))
	job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	r.finish(job)
	return r.write(ctx, job, before)
}

// finish adds the final condition once the end was announced and no pod is left running.
func (r *jobs) finish(job *batchv1.Job) {
	if job.Status.Active > 0 || ptr.Deref(job.Status.Terminating, 0) > 0 || !job.DeletionTimestamp.IsZero() {
		return
	}
	if c := jobCondition(job, batchv1.JobFailureTarget); c != nil {
		r.set(job, batchv1.JobFailed, c.Reason, c.Message)
		event(r.env, job, corev1.EventTypeWarning, c.Reason, "Finish", "%s", c.Message)
	} else if c := jobCondition(job, batchv1.JobSuccessCriteriaMet); c != nil {
		r.set(job, batchv1.JobComplete, c.Reason, c.Message)
		job.Status.CompletionTime = ptr.To(metav1.NewTime(r.env.Clock.Now()))
		event(r.env, job, corev1.EventTypeNormal, "Completed", "Finish", "Job completed")
	}
}

func (r *jobs) write(ctx context.Context, job *batchv1.Job, before *batchv1.JobStatus) error {
	if equality.Semantic.DeepEqual(before, &job.Status) {
		return nil
	}
	if err := r.env.Client.Status().Update(ctx, job); err != nil {
		return fmt.Errorf("update status: %w", err)
	}
	return nil
}

// expire deletes a finished job after its time to live, in the foreground as the original does.
func (r *jobs) expire(ctx context.Context, job *batchv1.Job) (time.Duration, error) {
	if job.Spec.TTLSecondsAfterFinished == nil || !job.DeletionTimestamp.IsZero() {
		return 0, nil
	}
	c := jobCondition(job, batchv1.JobComplete)
	if c == nil {
		c = jobCondition(job, batchv1.JobFailed)
	}
	end := c.LastTransitionTime.Add(time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second)
	if wait := end.Sub(r.env.Clock.Now()); wait > 0 {
		return wait, nil
	}
	err := r.env.Client.Delete(ctx, job, client.Preconditions{UID: &job.UID},
		client.PropagationPolicy(metav1.DeletePropagationForeground))
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("delete expired job: %w", err)
	}
	return 0, nil
}

// set adds a true condition.
func (r *jobs) set(job *batchv1.Job, kind batchv1.JobConditionType, reason, message string) {
	now := metav1.NewTime(r.env.Clock.Now())
	job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		LastProbeTime: now, LastTransitionTime: now,
	})
}

func (r *jobs) suspended(job *batchv1.Job, status corev1.ConditionStatus, reason, message string) {
	for i := range job.Status.Conditions {
		c := &job.Status.Conditions[i]
		if c.Type != batchv1.JobSuspended {
			continue
		}
		if c.Status != status {
			now := metav1.NewTime(r.env.Clock.Now())
			c.Status, c.Reason, c.Message, c.LastProbeTime, c.LastTransitionTime = status, reason, message, now, now
		}
		return
	}
	if status == corev1.ConditionTrue {
		r.set(job, batchv1.JobSuspended, reason, message)
	}
}

// jobCondition returns the condition where it is true; Suspended is returned with any status.
func jobCondition(job *batchv1.Job, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		c := &job.Status.Conditions[i]
		if c.Type == kind && (c.Status == corev1.ConditionTrue || kind == batchv1.JobSuspended) {
			return c
		}
	}
	return nil
}

func jobPod(job *batchv1.Job) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: *job.Spec.Template.ObjectMeta.DeepCopy(),
		Spec:       *job.Spec.Template.Spec.DeepCopy(),
	}
	p.Name, p.Namespace, p.GenerateName = "", job.Namespace, job.Name+"-"
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	// The API server puts these into the template of a job that leaves its selector out.
	for key, value := range map[string]string{
		batchv1.JobNameLabel: job.Name, batchv1.ControllerUidLabel: string(job.UID),
		"job-name": job.Name, "controller-uid": string(job.UID),
	} {
		p.Labels[key] = value
	}
	p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
	p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))}
	return p
}

// finishedAt says when a pod ended: when its last container did, else when it stopped being ready, else when it was
// deleted, else, for want of anything better, when it was created.
func finishedAt(p *corev1.Pod) time.Time {
	var last time.Time
	for i := range p.Status.ContainerStatuses {
		t := p.Status.ContainerStatuses[i].State.Terminated
		if t == nil || t.FinishedAt.IsZero() {
			last = time.Time{}
			break
		}
		last = later(last, t.FinishedAt.Time)
	}
	if !last.IsZero() {
		return last
	}
	for i := range p.Status.Conditions {
		c := &p.Status.Conditions[i]
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Time
		}
	}
	if !p.DeletionTimestamp.IsZero() {
		return p.DeletionTimestamp.Add(-time.Duration(ptr.Deref(p.DeletionGracePeriodSeconds, 0)) * time.Second)
	}
	return p.CreationTimestamp.Time
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
