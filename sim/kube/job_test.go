package kube_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/sim/kube"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

func conditions(j *batchv1.Job) []string {
	var out []string
	for _, c := range j.Status.Conditions {
		out = append(out, fmt.Sprintf("%s=%s [%s] %s", c.Type, c.Status, c.Reason, c.Message))
	}
	return out
}

func fails(after time.Duration) func(*corev1.Pod) (time.Duration, corev1.PodPhase) {
	return func(*corev1.Pod) (time.Duration, corev1.PodPhase) { return after, corev1.PodFailed }
}

func succeeds(after time.Duration) func(*corev1.Pod) (time.Duration, corev1.PodPhase) {
	return func(*corev1.Pod) (time.Duration, corev1.PodPhase) { return after, corev1.PodSucceeded }
}

func jobCluster(t *testing.T, lag world.Lag, run func(*corev1.Pod) (time.Duration, corev1.PodPhase)) *cluster {
	c := newCluster(t, 1, lag, kube.JobController(), kube.GarbageCollector(kube.Options{}), kube.Scheduler(), kubelet(run))
	c.create(node("n1"))
	return c
}

// The recording of a failing build: attempts 10, 20 and 40 s after the failure before, Failed after the fourth.
func TestJobBackOff(t *testing.T) {
	c := jobCluster(t, world.Lag{}, fails(2*time.Second))
	c.create(job("build"))
	c.rest(time.Hour)
	var at []time.Duration
	names := map[string]bool{}
	for _, p := range c.pods() {
		at = append(at, p.CreationTimestamp.Sub(epoch))
		names[p.Name] = true
		if len(p.Finalizers) > 0 {
			t.Errorf("pod %s keeps finalizers %v", p.Name, p.Finalizers)
		}
	}
	if diff := cmp.Diff([]time.Duration{0, 12 * time.Second, 34 * time.Second, 76 * time.Second}, at); diff != "" {
		t.Errorf("times of attempts (-want +got):\n%s", diff)
	}
	if len(names) != 4 {
		t.Errorf("%d different names, want 4", len(names))
	}
	j, _ := get[batchv1.Job](c, "build")
	if diff := cmp.Diff([]string{
		"FailureTarget=True [BackoffLimitExceeded] Job has reached the specified backoff limit",
		"Failed=True [BackoffLimitExceeded] Job has reached the specified backoff limit",
	}, conditions(j)); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if j.Status.Failed != 4 || j.Status.Succeeded != 0 || j.Status.Active != 0 || *j.Status.Ready != 0 || *j.Status.Terminating != 0 {
		t.Errorf("status %+v", j.Status)
	}
	// One second after the last pod's end, as the original batches the changes of pods.
	if got := j.Status.Conditions[0].LastTransitionTime.Sub(epoch); got != 79*time.Second {
		t.Errorf("FailureTarget at %v, want 79s", got)
	}
}

func TestJobBackOffIsCapped(t *testing.T) {
	c := jobCluster(t, world.Lag{}, fails(0))
	c.create(job("build", func(j *batchv1.Job) { j.Spec.BackoffLimit = ptr.To[int32](8) }))
	c.rest(3 * time.Hour)
	var gaps []time.Duration
	pods := c.pods()
	for i := 1; i < len(pods); i++ {
		gaps = append(gaps, pods[i].CreationTimestamp.Sub(pods[i-1].CreationTimestamp.Time)/time.Second)
	}
	if diff := cmp.Diff([]time.Duration{10, 20, 40, 80, 160, 320, 360, 360}, gaps); diff != "" {
		t.Errorf("seconds between attempts (-want +got):\n%s", diff)
	}
}

func TestJobCompletes(t *testing.T) {
	c := jobCluster(t, world.Lag{}, succeeds(5*time.Second))
	lines := c.trace()
	c.create(job("build"))
	c.rest(time.Hour)
	j, _ := get[batchv1.Job](c, "build")
	if diff := cmp.Diff([]string{
		"SuccessCriteriaMet=True [CompletionsReached] Reached expected number of succeeded pods",
		"Complete=True [CompletionsReached] Reached expected number of succeeded pods",
	}, conditions(j)); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if j.Status.Succeeded != 1 || j.Status.Failed != 0 || j.Status.CompletionTime == nil || j.Status.StartTime == nil {
		t.Errorf("status %+v", j.Status)
	}
	var mine []string
	for _, l := range *lines {
		if len(l) > 0 && slices.Contains([]string{"job-controller"}, field(l, 1)) {
			mine = append(mine, l)
		}
	}
	if diff := cmp.Diff([]string{
		"0s job-controller create pod", // then the status says active=1
		"0s job-controller update job",
		"1s job-controller update job", // ready=1
		"6s job-controller update job", // uncounted, SuccessCriteriaMet
		"6s job-controller patch pod",  // the finalizer goes
		"6s job-controller update job", // counted, Complete
	}, mine); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	p := c.pods()[0]
	owner := metav1.GetControllerOf(&p)
	if owner == nil || owner.UID != j.UID || !*owner.BlockOwnerDeletion {
		t.Errorf("owner %+v", owner)
	}
	for _, key := range []string{"job-name", "batch.kubernetes.io/job-name"} {
		if p.Labels[key] != "build" {
			t.Errorf("label %s is %q", key, p.Labels[key])
		}
	}
	for _, key := range []string{"controller-uid", "batch.kubernetes.io/controller-uid"} {
		if p.Labels[key] != string(j.UID) {
			t.Errorf("label %s is %q", key, p.Labels[key])
		}
	}
}

func field(line string, n int) string {
	var fields []string
	start := 0
	for i := range line + " " {
		if i == len(line) || line[i] == ' ' {
			fields = append(fields, line[start:i])
			start = i + 1
		}
	}
	return fields[n]
}

// A deleted pod is a failed attempt, whether its kubelet gets to say so or not.
func TestJobPodDeletedCounts(t *testing.T) {
	for _, grace := range []int64{0, 30} {
		c := jobCluster(t, world.Lag{}, func(p *corev1.Pod) (time.Duration, corev1.PodPhase) {
			if p.CreationTimestamp.Sub(epoch) < 20*time.Second {
				return 0, ""
			}
			return 3 * time.Second, corev1.PodSucceeded
		})
		c.create(job("build"))
		c.rest(10 * time.Second)
		p := c.pods()[0]
		if err := c.Delete(c.ctx, &p, client.GracePeriodSeconds(grace)); err != nil {
			t.Fatal(err)
		}
		c.rest(15 * time.Second)
		if j, _ := get[batchv1.Job](c, "build"); j.Status.Failed != 1 || j.Status.Active != 0 || len(c.pods()) != 0 {
			t.Errorf("grace %d: after the deletion: %d pods, status %+v", grace, len(c.pods()), j.Status)
		}
		c.rest(time.Hour)
		j, _ := get[batchv1.Job](c, "build")
		if j.Status.Failed != 1 || j.Status.Succeeded != 1 {
			t.Errorf("grace %d: at the end: status %+v", grace, j.Status)
		}
		if at := c.pods()[0].CreationTimestamp.Sub(epoch); at != 20*time.Second {
			t.Errorf("grace %d: next attempt at %v, want 20s", grace, at)
		}
	}
}

// A pod whose kubelet never answers counts from its deletion on; unless the job wants to wait for the kubelet's word.
func TestJobPodDeletedOnDeadNode(t *testing.T) {
	for _, policy := range []batchv1.PodReplacementPolicy{batchv1.TerminatingOrFailed, batchv1.Failed} {
		c := newCluster(t, 1, world.Lag{}, kube.JobController(), kube.Scheduler()) // no kubelet
		c.create(node("n1"), job("build", func(j *batchv1.Job) { j.Spec.PodReplacementPolicy = &policy }))
		c.rest(10 * time.Second)
		p := c.pods()[0]
		if err := c.Delete(c.ctx, &p); err != nil {
			t.Fatal(err)
		}
		c.rest(5 * time.Minute)
		j, _ := get[batchv1.Job](c, "build")
		want := []int32{1, 1, 1} // failed, active, terminating
		if policy == batchv1.Failed {
			want = []int32{0, 0, 1}
		}
		if diff := cmp.Diff(want, []int32{j.Status.Failed, j.Status.Active, *j.Status.Terminating}); diff != "" {
			t.Errorf("%s: failed, active, terminating (-want +got):\n%s", policy, diff)
		}
	}
}

// Wherever the controller dies, and however late its cache is: no pod too many, none counted twice.
func TestJobSurvivesCrashes(t *testing.T) {
	for _, tc := range []struct {
		name              string
		run               func(*corev1.Pod) (time.Duration, corev1.PodPhase)
		pods              int
		failed, succeeded int32
	}{
		{"fails", fails(2 * time.Second), 4, 4, 0},
		{"succeeds", succeeds(2 * time.Second), 1, 0, 1},
	} {
		for _, after := range []bool{false, true} {
			for write := 1; ; write++ {
				c := jobCluster(t, world.Lag{OneIn: 3, Most: 5 * time.Second}, tc.run)
				pods, fired := c.created(), false
				c.world.Process("job-controller").CrashAt(world.Crash{
					Write: write, After: after, Fired: func(string) { fired = true },
				})
				c.create(job("build"))
				c.rest(time.Hour)
				j, _ := get[batchv1.Job](c, "build")
				if *pods != tc.pods || j.Status.Failed != tc.failed || j.Status.Succeeded != tc.succeeded || len(conditions(j)) != 2 {
					t.Errorf("%s, crash after=%v write %d: %d pods, failed=%d succeeded=%d conditions %q",
						tc.name, after, write, *pods, j.Status.Failed, j.Status.Succeeded, conditions(j))
				}
				if !fired {
					if write < 5 {
						t.Errorf("%s: only %d writes", tc.name, write-1)
					}
					break
				}
			}
		}
	}
}

func TestJobParallelism(t *testing.T) {
	c := jobCluster(t, world.Lag{OneIn: 2, Most: 3 * time.Second}, succeeds(5*time.Second))
	pods := c.created()
	most := 0
	c.store.OnChange(func(*store.Change) {
		if j, ok := get[batchv1.Job](c, "many"); ok {
			most = max(most, int(j.Status.Active))
		}
	})
	c.create(job("many", func(j *batchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism = ptr.To[int32](5), ptr.To[int32](2)
	}))
	c.rest(time.Hour)
	j, _ := get[batchv1.Job](c, "many")
	if *pods != 5 || j.Status.Succeeded != 5 || most != 2 {
		t.Errorf("%d pods, at most %d active, status %+v", *pods, most, j.Status)
	}
}

func TestJobDeadline(t *testing.T) {
	c := jobCluster(t, world.Lag{}, forever)
	c.create(job("slow", func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](30) }))
	c.rest(time.Hour)
	j, _ := get[batchv1.Job](c, "slow")
	if diff := cmp.Diff([]string{
		"FailureTarget=True [DeadlineExceeded] Job was active longer than specified deadline",
		"Failed=True [DeadlineExceeded] Job was active longer than specified deadline",
	}, conditions(j)); diff != "" || j.Status.Failed != 1 || len(c.pods()) != 0 {
		t.Errorf("%d pods, status %+v, conditions (-want +got):\n%s", len(c.pods()), j.Status, diff)
	}
	if at := j.Status.Conditions[0].LastTransitionTime.Sub(epoch); at != 30*time.Second {
		t.Errorf("failed at %v, want 30s", at)
	}
}

func TestJobSuspend(t *testing.T) {
	c := jobCluster(t, world.Lag{}, succeeds(20*time.Second))
	c.create(job("build"))
	c.rest(10 * time.Second)
	change(c, "build", func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(true) })
	c.rest(5 * time.Minute)
	j, _ := get[batchv1.Job](c, "build")
	if j.Status.Active != 0 || j.Status.Failed != 0 || j.Status.StartTime != nil || len(c.pods()) != 0 {
		t.Errorf("suspended: %d pods, status %+v", len(c.pods()), j.Status)
	}
	change(c, "build", func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(false) })
	c.rest(time.Hour)
	j, _ = get[batchv1.Job](c, "build")
	if j.Status.Succeeded != 1 || j.Status.Failed != 0 || conditions(j)[0] != "Suspended=False [JobResumed] Job resumed" {
		t.Errorf("resumed: status %+v", j.Status)
	}
}

// A finished job expires in the foreground; a running one takes its pods along when it is deleted.
func TestJobDeletion(t *testing.T) {
	c := jobCluster(t, world.Lag{}, succeeds(5*time.Second))
	c.create(job("build", func(j *batchv1.Job) { j.Spec.TTLSecondsAfterFinished = ptr.To[int32](60) }))
	c.rest(65 * time.Second)
	if _, ok := get[batchv1.Job](c, "build"); !ok || len(c.pods()) != 1 {
		t.Error("expired too early")
	}
	c.rest(time.Hour)
	if _, ok := get[batchv1.Job](c, "build"); ok || len(c.pods()) != 0 {
		t.Errorf("after its time to live: job %v, %d pods", ok, len(c.pods()))
	}

	// One that is held by somebody's finalizer lets its pods go all the same.
	c = jobCluster(t, world.Lag{}, forever)
	c.create(job("held", func(j *batchv1.Job) { j.Finalizers = []string{"example.com/hold"} }))
	c.rest(10 * time.Second)
	held, _ := get[batchv1.Job](c, "held")
	if err := c.Delete(c.ctx, held, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		t.Fatal(err)
	}
	c.rest(time.Minute)
	if p := c.pods(); len(p) != 1 || len(p[0].Finalizers) > 0 {
		t.Errorf("pods of the deleted, held job: %d, finalizers %v", len(p), p[0].Finalizers)
	}

	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationForeground, metav1.DeletePropagationBackground} {
		c = jobCluster(t, world.Lag{}, forever)
		c.create(job("build"))
		c.rest(10 * time.Second)
		j, _ := get[batchv1.Job](c, "build")
		if err := c.Delete(c.ctx, j, client.PropagationPolicy(policy)); err != nil {
			t.Fatal(err)
		}
		c.rest(time.Hour)
		if _, ok := get[batchv1.Job](c, "build"); ok || len(c.pods()) != 0 {
			t.Errorf("%s: job %v, %d pods", policy, ok, len(c.pods()))
		}
	}
}

// A job of the same name as a former one, whose pods aren't gone yet, neither counts nor keeps those.
func TestJobOfTheSameName(t *testing.T) {
	var components []component.Component
	components = append(components, kube.JobController(), kube.Scheduler(), kubelet(forever)) // no garbage collector
	c := newCluster(t, 1, world.Lag{}, components...)
	c.create(node("n1"), job("build"))
	c.rest(10 * time.Second)
	old, _ := get[batchv1.Job](c, "build")
	if err := c.Delete(c.ctx, old, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		t.Fatal(err)
	}
	c.create(job("build"))
	c.rest(time.Minute)
	j, _ := get[batchv1.Job](c, "build")
	if j.Status.Active != 1 || j.Status.Failed != 0 || len(c.pods()) != 2 {
		t.Errorf("%d pods, status %+v", len(c.pods()), j.Status)
	}
	for _, p := range c.pods() {
		if metav1.IsControlledBy(&p, old) && len(p.Finalizers) > 0 {
			t.Errorf("the former job's pod keeps %v", p.Finalizers)
		}
	}
}
