package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/history"
)

// The phases of a build, in order, as [Options].Before gets them.
const (
	PhasePull   = "pull"
	PhaseBuild  = "build"
	PhasePush   = "push"
	PhaseDigest = "digest"
)

// phase is where a process stands.
type phase int

const (
	creating phase = iota // volumes are not there yet
	starting              // containers are being created
	pulling
	building
	pushing
	following // image-build was an init container and has ended well, the container after it has not started
	digesting // image-build has ended, the container that writes the digest has not
	ended
	hung
)

// process is what runs in a pod. It belongs to one pod and is touched by one reconcile at a time.
type process struct {
	phase   phase
	due     time.Time // when the phase ends
	created time.Time // status.startTime
	started time.Time // of image-build, and of the containers beside it

	followed time.Time // of the containers after it

	mounts   map[string]map[string][]byte // volume -> key -> content, as last seen
	attempt  Attempt                      // of image-build
	waitLog  bytes.Buffer                 // of the container that writes the digest
	exit     map[string]exit
	hostIP   string
	observed map[string]bool // containers whose log was observed
	failing  *exit           // what the build phase will end with
}

// exit is how a container ended.
type exit struct {
	code   int
	reason string
	at     time.Time
}

// ExitError, returned by [Options].Before, lets the container end in another way than with exit code 1.
type ExitError struct {
	Code    int
	Reason  string // default "Error"; "OOMKilled"
	Message string // the log's last line
}

func (e *ExitError) Error() string { return e.Message }

// ErrHang, returned by [Options].Before, lets the build hang until its pod is deleted.
var ErrHang = errors.New("the build hangs")

// pod is a pod with what its process needs of the world.
type podRun struct {
	*process
	pod    *corev1.Pod
	opts   *Options
	client client.Client // writes as the pod
	live   client.Reader
	caller string
}

// containers are all of the pod, init containers first.
func (r *podRun) containers() []corev1.Container {
	return slices.Concat(r.pod.Spec.InitContainers, r.pod.Spec.Containers)
}

// fileAt returns the content of a file that a volume provides to the container image-build.
func (r *podRun) fileAt(name string) ([]byte, bool) {
	for _, f := range r.mountedFiles() {
		if f.path == name {
			return f.data, true
		}
	}
	return nil, false
}

type mountedFile struct {
	path string
	data []byte
}

// mountedFiles lists the files of all volumes as the container image-build sees them, in the order of its mounts.
func (r *podRun) mountedFiles() []mountedFile {
	var files []mountedFile
	for _, c := range r.containers() {
		if c.Name != ContainerBuild {
			continue
		}
		for _, m := range c.VolumeMounts {
			i := slices.IndexFunc(r.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
			if i < 0 {
				continue
			}
			v := r.pod.Spec.Volumes[i]
			var items []corev1.KeyToPath
			switch {
			case v.ConfigMap != nil:
				items = v.ConfigMap.Items
			case v.Secret != nil:
				items = v.Secret.Items
			default:
				continue
			}
			content := r.mounts[v.Name]
			if len(items) == 0 {
				for _, k := range sortedKeys(content) {
					items = append(items, corev1.KeyToPath{Key: k, Path: k})
				}
			}
			for _, item := range items {
				data, ok := content[item.Key]
				switch {
				case !ok:
				case m.SubPath == "":
					files = append(files, mountedFile{path.Join(m.MountPath, item.Path), data})
				case m.SubPath == item.Path:
					files = append(files, mountedFile{path.Clean(m.MountPath), data})
				}
			}
		}
	}
	return files
}

// env returns an environment variable of the container image-build, or else of another one.
func (r *podRun) env(key string) string {
	value := ""
	for _, c := range r.containers() {
		for _, e := range c.Env {
			if e.Name == key && (value == "" || c.Name == ContainerBuild) {
				value = e.Value
			}
		}
	}
	return value
}

// mount reads the pod's volumes. It returns what is missing, as FailedMount events word it. Volumes that were mounted
// before keep their content when the object is gone.
func (r *podRun) mount(ctx context.Context) (string, error) {
	if r.mounts == nil {
		r.mounts = map[string]map[string][]byte{}
	}
	for _, v := range r.pod.Spec.Volumes {
		content := map[string][]byte{}
		var what, object string
		var optional *bool
		var err error
		switch {
		case v.ConfigMap != nil:
			var cm corev1.ConfigMap
			what, object, optional = "configmap", v.ConfigMap.Name, v.ConfigMap.Optional
			err = r.live.Get(ctx, types.NamespacedName{Namespace: r.pod.Namespace, Name: object}, &cm)
			for k, d := range cm.Data {
				content[k] = []byte(d)
			}
			for k, d := range cm.BinaryData {
				content[k] = d
			}
		case v.Secret != nil:
			var s corev1.Secret
			what, object, optional = "secret", v.Secret.SecretName, v.Secret.Optional
			err = r.live.Get(ctx, types.NamespacedName{Namespace: r.pod.Namespace, Name: object}, &s)
			content = s.Data
		default:
			continue
		}
		switch {
		case err == nil:
			r.mounts[v.Name] = content
		case !apierrors.IsNotFound(err):
			return "", fmt.Errorf("mount volume %s of pod %s: %w", v.Name, r.pod.Name, err)
		case r.mounts[v.Name] != nil || optional != nil && *optional:
		default:
			return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %s %q not found", v.Name, what, object), nil
		}
	}
	return "", nil
}

// advance does what is due and returns when the next thing is. A zero time means never.
func (r *podRun) advance(ctx context.Context, now time.Time) (time.Time, error) {
	for {
		if r.phase == ended || r.phase == hung || r.phase == creating {
			return time.Time{}, nil
		}
		if now.Before(r.due) {
			return r.due, nil
		}
		switch r.phase {
		case starting:
			if r.started.IsZero() {
				r.started = r.due
			}
			r.pull(ctx)
		case pulling:
			r.build()
		case building:
			if r.failing != nil {
				r.end(ContainerBuild, *r.failing)
				continue
			}
			r.phase, r.due = pushing, r.due.Add(r.attempt.PushTime())
		case pushing:
			if _, err := r.mount(ctx); err != nil {
				return time.Time{}, err
			}
			r.push(ctx)
		case following:
			if r.followed.IsZero() { // otherwise another process saw them start
				r.followed = r.due
			}
			r.phase, r.due = digesting, r.due.Add(time.Second)
		case digesting:
			if err := r.finish(ctx); err != nil {
				return time.Time{}, err
			}
		}
	}
}

// seam asks Options.Before. It returns false when the phase must not begin.
func (r *podRun) seam(phase string) bool {
	if r.opts.Before == nil {
		return true
	}
	err := r.opts.Before(r.pod, phase)
	var e *ExitError
	switch {
	case err == nil:
		return true
	case errors.Is(err, ErrHang):
		r.phase = hung
	case errors.As(err, &e):
		if e.Message != "" {
			fmt.Fprintln(&r.attempt.Log, e.Message)
		}
		r.end(ContainerBuild, exit{e.Code, e.Reason, r.due})
	default:
		r.end(ContainerBuild, exit{code: r.attempt.fail(err), at: r.due})
	}
	return false
}

// end ends a container. When it is image-build, the others see it within a second, or start then.
func (r *podRun) end(container string, e exit) {
	if e.at.IsZero() {
		e.at = r.due
	}
	if e.reason == "" {
		e.reason = "Error"
		if e.code == 0 {
			e.reason = "Completed"
		}
	}
	if r.exit == nil {
		r.exit = map[string]exit{}
	}
	r.exit[container] = e
	if container == ContainerBuild {
		r.phase, r.due = digesting, e.at.Add(time.Second)
		if inTurn(r.pod) {
			r.phase = following
			if e.code != 0 {
				r.phase = ended // what would have followed never starts
			}
		}
	}
}

// pull begins the pull.
func (r *podRun) pull(ctx context.Context) {
	r.phase = pulling
	if !r.seam(PhasePull) {
		return
	}
	took, code := r.attempt.Pull(ctx)
	if code != 0 {
		r.end(ContainerBuild, exit{code: code, at: r.due})
		return
	}
	r.due = r.due.Add(took)
}

// build begins the build.
func (r *podRun) build() {
	r.phase = building
	if !r.seam(PhaseBuild) {
		return
	}
	took, code := r.attempt.Make(r.due)
	r.due = r.due.Add(took)
	if code != 0 {
		r.failing = &exit{code: code, at: r.due}
	}
}

// push ends the push, which began with the end of the build.
func (r *podRun) push(ctx context.Context) {
	if r.seam(PhasePush) {
		r.end(ContainerBuild, exit{code: r.attempt.Push(ctx)})
	}
}

// finish is the part of the containers that wait for image-build: they write the digest, and end as it did.
func (r *podRun) finish(ctx context.Context) error {
	e := exit{code: 0, at: r.due}
	if r.exit[ContainerBuild].code != 0 {
		e.code = 1
	} else if err := r.handOver(ctx); err != nil {
		var end *ExitError
		switch {
		case errors.Is(err, ErrHang):
			r.phase = hung
			return nil
		case errors.As(err, &end):
			fmt.Fprintln(&r.waitLog, end.Message)
			e.code, e.reason = end.Code, end.Reason
		case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
			return fmt.Errorf("write digest of pod %s: %w", r.pod.Name, err) // oc tries again
		default:
			fmt.Fprintf(&r.waitLog, "Error from server: %v\n", err)
			e.code = 1
		}
	}
	for _, c := range r.pod.Spec.Containers {
		if _, done := r.exit[c.Name]; !done {
			r.end(c.Name, e)
		}
	}
	r.phase = ended
	return nil
}

// creates tells whether the pod's script writes the ConfigMap by `oc create configmap`, which fails when there is one: so
// do the releases up to 4.19. Later ones update it.
func (r *podRun) creates() bool {
	return slices.ContainsFunc(r.pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(slices.Concat(c.Command, c.Args), func(text string) bool {
			return strings.Contains(text, "oc create configmap")
		})
	})
}

// handOver writes the ConfigMap with the digest.
func (r *podRun) handOver(ctx context.Context) error {
	r.waitLog.Reset() // an attempt that a crash cut off may have written to it
	if r.opts.Before != nil {
		if err := r.opts.Before(r.pod, PhaseDigest); err != nil {
			return err
		}
	}
	object := r.env("DIGEST_CONFIGMAP_NAME")
	if object == "" {
		return nil
	}
	labels := map[string]string{}
	separator := func(c rune) bool { return c == ' ' || c == ',' || c == '\n' } // releases differ
	for _, kv := range strings.FieldsFunc(r.env("DIGEST_CONFIGMAP_LABELS"), separator) {
		k, v, _ := strings.Cut(kv, "=")
		labels[k] = v
	}
	cm := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.pod.Namespace, Name: object, Labels: labels}}
	cm.Data = map[string]string{"digest": r.attempt.Digest}
	err := r.client.Create(ctx, &cm)
	verb := "created"
	if apierrors.IsAlreadyExists(err) && r.creates() {
		return &ExitError{Code: 1, Message: fmt.Sprintf("error: failed to create configmap: %v", err)}
	}
	if apierrors.IsAlreadyExists(err) {
		var old corev1.ConfigMap
		if err := r.live.Get(ctx, client.ObjectKeyFromObject(&cm), &old); err != nil {
			if apierrors.IsNotFound(err) {
				return apierrors.NewConflict(corev1.Resource("configmaps"), object, err) // it went away in between
			}
			return err
		}
		if old.Labels == nil {
			old.Labels = map[string]string{}
		}
		for k, v := range labels {
			old.Labels[k] = v
		}
		old.Data = cm.Data
		err, verb = r.client.Update(ctx, &old), "configured"
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(&r.waitLog, "configmap/%s %s\n", object, verb)
	return nil
}

// kill ends what still runs, as SIGTERM does.
func (r *podRun) kill(now time.Time) {
	for _, c := range r.containers() {
		if inTurn(r.pod) && c.Name != ContainerBuild && r.followed.IsZero() {
			continue // it never started
		}
		if _, done := r.exit[c.Name]; !done {
			r.due = now
			r.end(c.Name, exit{code: 143, at: now})
		}
	}
	r.phase = ended
}

// observe reports the logs of containers that have ended, each once.
func (r *podRun) observe() {
	if r.observed == nil {
		r.observed = map[string]bool{}
	}
	for _, c := range r.containers() {
		e, done := r.exit[c.Name]
		if !done || r.observed[c.Name] || r.started.IsZero() {
			continue
		}
		r.observed[c.Name] = true
		if r.opts.Observe != nil {
			r.opts.Observe(history.Pod{
				Namespace: r.pod.Namespace, Name: r.pod.Name, Container: c.Name, ExitCode: e.code, Log: r.logOf(c.Name),
			})
		}
	}
}

func (r *podRun) logOf(container string) string {
	if container == ContainerBuild {
		return r.attempt.Log.String()
	}
	return r.waitLog.String()
}
