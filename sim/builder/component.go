package builder

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/sim/history"
)

// ContainerBuild is the name of the container that builds and pushes. It makes a pod a build pod.
const ContainerBuild = "image-build"

const containerfilePath = "/tmp/containerfile/Containerfile"

// Options say how build pods behave.
type Options struct {
	// Transport returns the way to the registries for a caller. Required.
	Transport func(caller string) http.RoundTripper
	// Client returns the client under whose name a pod writes its ConfigMap; nil uses the component's own.
	Client func(caller string) client.Client
	// Repositories are the package repositories; nil means [DefaultRepositories].
	Repositories *Repositories
	// Observe, where not nil, gets the log of each container that ended.
	Observe func(history.Pod)
	// Before, where not nil, is asked before each phase (PhasePull and so on). An error makes the phase fail with that
	// text in the log; see [ExitError] and [ErrHang] for other ends. It may be asked again for the phase "digest".
	Before func(pod *corev1.Pod, phase string) error
	// Durations say how long things take; zero fields mean the defaults.
	Durations Durations
}

// Durations say how long things take.
type Durations struct {
	Start      time.Duration // creating the containers; default 5 s
	Base       time.Duration // a build without any package; default 4 min
	PerPackage time.Duration // for each package put in or taken out; default 20 s
	Fail       time.Duration // a build that fails after the pull; default 30 s

	PullBandwidth int64 // bytes per second; default 50 MiB
	PushBandwidth int64 // bytes per second; default 25 MiB
}

func (d *Durations) complete() {
	set := func(v *time.Duration, to time.Duration) {
		if *v == 0 {
			*v = to
		}
	}
	set(&d.Start, 5*time.Second)
	set(&d.Base, 4*time.Minute)
	set(&d.PerPackage, 20*time.Second)
	set(&d.Fail, 30*time.Second)
	if d.PullBandwidth <= 0 {
		d.PullBandwidth = 50 << 20
	}
	if d.PushBandwidth <= 0 {
		d.PushBandwidth = 25 << 20
	}
}

// Scaled returns durations that pass speed times as fast.
func (d Durations) Scaled(speed float64) Durations {
	d.complete()
	for _, v := range []*time.Duration{&d.Start, &d.Base, &d.PerPackage, &d.Fail} {
		*v = time.Duration(float64(*v) / speed)
	}
	d.PullBandwidth = int64(float64(d.PullBandwidth) * speed)
	d.PushBandwidth = int64(float64(d.PushBandwidth) * speed)
	return d
}

// IsBuildPod tells whether this component runs a pod.
func IsBuildPod(pod *corev1.Pod) bool {
	return isBuild(pod.Spec.Containers) || isBuild(pod.Spec.InitContainers)
}

func isBuild(containers []corev1.Container) bool {
	return slices.ContainsFunc(containers, func(c corev1.Container) bool { return c.Name == ContainerBuild })
}

// inTurn tells whether image-build is an init container, so that the pod's containers start after it.
func inTurn(pod *corev1.Pod) bool { return isBuild(pod.Spec.InitContainers) }

// New declares the component "build-pod".
func New(o Options) component.Component {
	if o.Repositories == nil {
		o.Repositories = DefaultRepositories()
	}
	o.Durations.complete()
	table := &table{processes: map[types.UID]*process{}, names: map[types.NamespacedName]types.UID{}}
	return component.Component{
		Name: "build-pod",
		Watches: []component.Watch{{
			Object: &corev1.Pod{},
			When: func(before, after client.Object) bool {
				pod, ok := after.(*corev1.Pod)
				if after == nil {
					pod, ok = before.(*corev1.Pod)
				}
				return ok && IsBuildPod(pod) && pod.Spec.NodeName != ""
			},
		}},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			if o.Transport == nil {
				return nil, fmt.Errorf("build-pod: no transport to a registry")
			}
			return &reconciler{env: env, opts: &o, table: table}, nil
		},
	}
}

// table holds the processes that run in pods. It outlives reconcilers. Its lock is held for look-ups only, as a call
// to the API server may never return.
type table struct {
	mu        sync.Mutex
	processes map[types.UID]*process
	names     map[types.NamespacedName]types.UID
}

func (t *table) get(key types.NamespacedName, uid types.UID) *process {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.names[key]; ok && old != uid {
		delete(t.processes, old)
	}
	t.names[key] = uid
	p := t.processes[uid]
	if p == nil {
		p = &process{}
		t.processes[uid] = p
	}
	return p
}

func (t *table) forget(key types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.processes, t.names[key])
	delete(t.names, key)
}

type reconciler struct {
	env   component.Env
	opts  *Options
	table *table
}

// Reconcile brings a build pod forward to the present and writes its status.
func (k *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var pod corev1.Pod
	if err := k.env.Client.Get(ctx, request.NamespacedName, &pod); err != nil {
		if apierrors.IsNotFound(err) {
			k.table.forget(request.NamespacedName)
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, fmt.Errorf("get pod %s: %w", request.Name, err)
	}
	if !IsBuildPod(&pod) || pod.Spec.NodeName == "" {
		return reconcile.Result{}, nil
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		// Only here: while our view still shows it running, a forgotten build would start over.
		k.table.forget(request.NamespacedName)
		return reconcile.Result{}, k.remove(ctx, &pod)
	}

	now := k.env.Clock.Now()
	caller := "build-pod/" + pod.Name
	r := &podRun{
		process: k.table.get(request.NamespacedName, pod.UID), pod: &pod, opts: k.opts,
		client: k.env.Client, live: k.env.Live, caller: caller,
	}
	if k.opts.Client != nil {
		r.client = k.opts.Client(caller)
	}
	r.attempt.Env, r.attempt.File, r.attempt.Transport = r.env, r.fileAt, k.opts.Transport(caller)
	r.attempt.Repositories, r.attempt.Durations = k.opts.Repositories, k.opts.Durations
	var result reconcile.Result
	missing, err := k.resume(ctx, r, now)
	if err != nil {
		return result, err
	}
	switch {
	case pod.DeletionTimestamp != nil:
		r.kill(now)
	case missing != "":
		// The kubelet waits longer each time, up to two minutes.
		result.RequeueAfter = min(max(now.Sub(r.created), time.Second), 2*time.Minute+2*time.Second)
	default:
		due, err := r.advance(ctx, now)
		if err != nil {
			return result, err
		}
		if !due.IsZero() {
			result.RequeueAfter = due.Sub(now)
		}
	}
	r.observe()
	status := r.status()
	if !equality.Semantic.DeepEqual(pod.Status, status) {
		was := running(&pod.Status)
		pod.Status = status
		if err := k.env.Client.Status().Update(ctx, &pod); err != nil {
			if apierrors.IsNotFound(err) {
				return reconcile.Result{}, nil
			}
			return reconcile.Result{}, fmt.Errorf("update status of pod %s: %w", pod.Name, err)
		}
		for _, name := range running(&status) {
			if !slices.Contains(was, name) {
				k.env.Recorder.Eventf(&pod, nil, corev1.EventTypeNormal, "Started", "Starting", "Started container %s", name)
			}
		}
	}
	if missing != "" && pod.DeletionTimestamp == nil {
		k.env.Recorder.Eventf(&pod, nil, corev1.EventTypeWarning, "FailedMount", "Mounting", "%s", missing)
	}
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return reconcile.Result{}, k.remove(ctx, &pod)
	}
	return result, nil
}

// running lists the containers that a status shows running.
func running(s *corev1.PodStatus) []string {
	var names []string
	for _, cs := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
		if cs.State.Running != nil {
			names = append(names, cs.Name)
		}
	}
	return names
}

// resume finds out where a pod stands: a new one mounts its volumes, and one whose process was lost starts over. It
// returns what could not be mounted.
func (k *reconciler) resume(ctx context.Context, r *podRun, now time.Time) (string, error) {
	if r.created.IsZero() {
		r.created = now
		if t := r.pod.Status.StartTime; t != nil {
			r.created = t.Time
		}
		var node corev1.Node
		if err := r.live.Get(ctx, types.NamespacedName{Name: r.pod.Spec.NodeName}, &node); err == nil {
			for _, a := range node.Status.Addresses {
				if a.Type == corev1.NodeInternalIP {
					r.hostIP = a.Address
				}
			}
		} // a node that isn't known has no address to show
	}
	if r.phase != creating || r.pod.DeletionTimestamp != nil {
		return "", nil
	}
	missing, err := r.mount(ctx)
	if err != nil || missing != "" {
		return missing, err
	}
	r.phase, r.due = starting, now.Add(r.opts.Durations.Start)
	for _, c := range slices.Concat(r.pod.Status.ContainerStatuses, r.pod.Status.InitContainerStatuses) {
		switch {
		case c.State.Running != nil && inTurn(r.pod) && c.Name != ContainerBuild:
			r.due, r.followed = now, c.State.Running.StartedAt.Time
		case c.State.Running != nil:
			r.due, r.started = now, c.State.Running.StartedAt.Time
		case c.State.Terminated != nil && c.Name == ContainerBuild && inTurn(r.pod):
			r.due, r.started = now, c.State.Terminated.StartedAt.Time
		}
	}
	return "", nil
}

// remove deletes a pod that has ended and is to be deleted.
func (k *reconciler) remove(ctx context.Context, pod *corev1.Pod) error {
	if pod.DeletionTimestamp == nil || ptr.Deref(pod.DeletionGracePeriodSeconds, 1) == 0 {
		return nil
	}
	err := k.env.Client.Delete(ctx, pod, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete pod %s: %w", pod.Name, err)
	}
	return nil
}

// status is what the kubelet would report of the process.
func (r *podRun) status() corev1.PodStatus {
	s := *r.pod.Status.DeepCopy()
	stamp := func(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }
	s.StartTime = ptr.To(stamp(r.created))
	s.QOSClass = corev1.PodQOSBestEffort
	if r.hostIP != "" {
		s.HostIP, s.HostIPs = r.hostIP, []corev1.HostIP{{IP: r.hostIP}}
	}
	running, last, code := 0, time.Time{}, 0
	describe := func(c corev1.Container, started time.Time, waiting string) corev1.ContainerStatus {
		cs := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: ptr.To(false)}
		e, done := r.exit[c.Name]
		switch {
		case done:
			t := &corev1.ContainerStateTerminated{
				ExitCode: int32(e.code), Reason: e.reason, StartedAt: stamp(started), FinishedAt: stamp(e.at),
			}
			if started.IsZero() { // killed before it ran
				t.StartedAt, t.ExitCode, t.Reason = metav1.Time{}, 137, "ContainerStatusUnknown"
				t.Message = "The container could not be located when the pod was terminated"
			} else if e.code != 0 && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
				t.Message = tail(r.logOf(c.Name))
			}
			cs.State.Terminated = t
			code |= e.code
			if e.at.After(last) {
				last = e.at
			}
		case !started.IsZero():
			cs.State.Running = &corev1.ContainerStateRunning{StartedAt: stamp(started)}
			cs.Ready, cs.Started = true, ptr.To(true)
		default:
			cs.State.Waiting = &corev1.ContainerStateWaiting{Reason: waiting}
		}
		if !started.IsZero() {
			cs.ContainerID = "cri-o://" + identifier(string(r.pod.UID)+c.Name, 64)
			cs.ImageID = c.Image
		}
		return cs
	}
	started, waiting, initialized := r.started, "ContainerCreating", true
	if inTurn(r.pod) {
		started, waiting = r.followed, "PodInitializing"
		e, done := r.exit[ContainerBuild]
		initialized = done && e.code == 0
		s.InitContainerStatuses = nil
		for _, c := range r.pod.Spec.InitContainers {
			cs := describe(c, r.started, "PodInitializing")
			cs.Ready = initialized
			s.InitContainerStatuses = append(s.InitContainerStatuses, cs)
		}
	}
	s.ContainerStatuses = nil
	for _, c := range r.pod.Spec.Containers {
		cs := describe(c, started, waiting)
		if cs.State.Running != nil {
			running++
		}
		s.ContainerStatuses = append(s.ContainerStatuses, cs)
	}
	slices.SortFunc(s.ContainerStatuses, func(a, b corev1.ContainerStatus) int { return strings.Compare(a.Name, b.Name) })

	ready, reason, at := corev1.ConditionFalse, "ContainersNotReady", r.created
	switch {
	case r.phase == ended && code == 0:
		s.Phase, reason, at = corev1.PodSucceeded, "PodCompleted", last
	case r.phase == ended:
		s.Phase, reason, at = corev1.PodFailed, "PodFailed", last
	case started.IsZero():
		s.Phase = corev1.PodPending
	default:
		s.Phase, at = corev1.PodRunning, started
		if running == len(r.pod.Spec.Containers) {
			ready, reason = corev1.ConditionTrue, ""
		} else if len(r.exit) > 0 {
			at = last
		}
	}
	if !r.started.IsZero() && s.PodIP == "" {
		h := fnv.New32a()
		_, _ = h.Write([]byte(r.pod.Namespace + "/" + r.pod.Name)) // never fails
		sum := h.Sum32()
		s.PodIP = fmt.Sprintf("10.%d.%d.%d", 128+sum>>24%4, sum>>8&0xff, 1+sum%254)
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
	begun, why, since := corev1.ConditionTrue, "", r.created
	switch {
	case !initialized:
		begun, why = corev1.ConditionFalse, "ContainersNotInitialized"
	case s.Phase == corev1.PodSucceeded:
		why = "PodCompleted"
	}
	if inTurn(r.pod) && initialized {
		since = r.exit[ContainerBuild].at
	}
	sandbox := corev1.ConditionFalse
	if !r.started.IsZero() && r.phase != ended {
		sandbox = corev1.ConditionTrue
	}
	set := func(kind corev1.PodConditionType, status corev1.ConditionStatus, reason string, at time.Time) {
		c := corev1.PodCondition{Type: kind, Status: status, Reason: reason, LastTransitionTime: stamp(at)}
		if reason == "ContainersNotReady" {
			var names []string
			for _, cs := range s.ContainerStatuses {
				if !cs.Ready {
					names = append(names, cs.Name)
				}
			}
			c.Message = "containers with unready status: [" + strings.Join(names, " ") + "]"
		}
		if reason == "ContainersNotInitialized" {
			c.Message = "containers with incomplete status: [" + ContainerBuild + "]"
		}
		for i, old := range s.Conditions {
			if old.Type == kind {
				if old.Status == status {
					c.LastTransitionTime = old.LastTransitionTime
				}
				s.Conditions[i] = c
				return
			}
		}
		s.Conditions = append(s.Conditions, c)
	}
	set(corev1.PodReadyToStartContainers, sandbox, "", at)
	set(corev1.PodInitialized, begun, why, since)
	set(corev1.PodReady, ready, reason, at)
	set(corev1.ContainersReady, ready, reason, at)
	return s
}

// tail is the end of a log as the kubelet takes it for a termination message: 80 lines, 2048 bytes.
func tail(log string) string {
	lines := strings.SplitAfter(log, "\n")
	if n := len(lines); n > 81 {
		lines = lines[n-81:]
	}
	log = strings.Join(lines, "")
	if len(log) > 2048 {
		log = log[len(log)-2048:]
	}
	return log
}

// identifier makes hexadecimal digits of a text.
func identifier(text string, digits int) string {
	var b strings.Builder
	for i := 0; b.Len() < digits; i++ {
		h := fnv.New64a()
		_, _ = fmt.Fprintf(h, "%d %s", i, text) // never fails
		fmt.Fprintf(&b, "%016x", h.Sum64())
	}
	return b.String()[:digits]
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
