package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/registry"
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
	plan     *plan
	images   map[string]v1.Image
	image    v1.Image
	digest   string
	log      bytes.Buffer // of image-build
	waitLog  bytes.Buffer // of the container that writes the digest
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

// contextFile looks a file of the build context up: the build script copies into it what is mounted below /tmp, under
// the same name, and the trust bundle. It never copies credentials.
func (r *podRun) contextFile(src string) ([]byte, bool) {
	src = strings.TrimPrefix(path.Join("/", src), "/")
	name := "/tmp/" + src
	if name == path.Clean(r.env("BASE_IMAGE_PULL_CREDS")) || name == path.Clean(r.env("FINAL_IMAGE_PUSH_CREDS")) {
		return nil, false
	}
	if data, ok := r.fileAt(name); ok {
		return data, true
	}
	return r.fileAt("/etc/pki/ca-trust/source/anchors/" + src)
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

// keychain reads the credentials in the file that an environment variable names.
func (r *podRun) keychain(variable string) (authn.Keychain, error) {
	file := r.env(variable)
	data, ok := r.fileAt(file)
	if !ok {
		return nil, fmt.Errorf("credential file is not accessible: faccessat %s: no such file or directory", file)
	}
	k, err := registry.Keychain(corev1.SecretTypeDockerConfigJson, map[string][]byte{corev1.DockerConfigJsonKey: data})
	if err != nil {
		return nil, fmt.Errorf("reading JSON file %q: %w", file, err)
	}
	return k, nil
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

// remoteOptions make one attempt, in one order, through the pod's transport.
func (r *podRun) remoteOptions(ctx context.Context, k authn.Keychain) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(r.opts.Transport(r.caller)),
		remote.WithAuthFromKeychain(k),
		remote.WithJobs(1),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
		remote.WithRetryPredicate(func(error) bool { return false }),
		remote.WithRetryStatusCodes(),
	}
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
			r.begin(ctx)
		case pulling:
			r.build()
		case building:
			if r.failing != nil {
				r.end(ContainerBuild, *r.failing)
				continue
			}
			r.commit()
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
			fmt.Fprintln(&r.log, e.Message)
		}
		r.end(ContainerBuild, exit{e.Code, e.Reason, r.due})
	default:
		r.fail(err)
	}
	return false
}

// fail ends image-build with an error of buildah's.
func (r *podRun) fail(err error) {
	fmt.Fprintf(&r.log, "Error: %v\n", err)
	r.end(ContainerBuild, exit{code: 1, at: r.due})
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

// begin reads the Containerfile and pulls.
func (r *podRun) begin(ctx context.Context) {
	r.phase = pulling
	if !r.seam(PhasePull) {
		return
	}
	text, ok := r.fileAt(containerfilePath)
	if !ok {
		r.fail(fmt.Errorf("stat %s: no such file or directory", containerfilePath))
		return
	}
	var err error
	if r.plan, err = parseContainerfile(string(text)); err != nil {
		r.fail(err)
		return
	}
	keys, err := r.keychain("BASE_IMAGE_PULL_CREDS")
	if err != nil {
		r.fail(err)
		return
	}
	r.images = map[string]v1.Image{}
	var size int64
	for _, ref := range r.plan.images {
		fmt.Fprintf(&r.log, "Trying to pull %s...\n", ref)
		img, err := r.pull(ctx, ref, keys)
		if err != nil {
			r.fail(fmt.Errorf("creating build container: %w", err))
			return
		}
		fmt.Fprintln(&r.log, "Getting image source signatures\nWriting manifest to image destination")
		r.images[ref] = img
		if l, err := Inspect(img); err == nil {
			size += l.Size
		}
	}
	r.due = r.due.Add(transfer(size, r.opts.Durations.PullBandwidth))
}

func transfer(bytes, perSecond int64) time.Duration {
	return time.Duration(float64(bytes) / float64(perSecond) * float64(time.Second)).Truncate(time.Millisecond)
}

// pull reads an image whole, so that later changes in the registry don't matter.
func (r *podRun) pull(ctx context.Context, ref string, keys authn.Keychain) (v1.Image, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("invalid reference format: %q", ref)
	}
	img, err := remote.Image(parsed, r.remoteOptions(ctx, keys)...)
	if err == nil {
		img, err = registry.Copy(img)
	}
	if err != nil {
		return nil, fmt.Errorf("initializing source docker://%s: %w", ref, registryError(parsed, err))
	}
	return img, nil
}

// registryError words an error of the registry as containers/image does.
func registryError(ref name.Reference, err error) error {
	where := ref.Context().Name()
	var t *transport.Error
	if !errors.As(err, &t) {
		return fmt.Errorf("pinging container registry %s: %w", ref.Context().RegistryStr(), err)
	}
	cause := strings.ToLower(http.StatusText(t.StatusCode))
	switch {
	case len(t.Errors) > 0 && t.Errors[0].Code == transport.UnauthorizedErrorCode, t.StatusCode == http.StatusUnauthorized:
		cause = "unauthorized: authentication required"
	case len(t.Errors) > 0:
		cause = strings.ToLower(strings.ReplaceAll(string(t.Errors[0].Code), "_", " ")) + ": " + t.Errors[0].Message
	case t.StatusCode == http.StatusForbidden:
		cause = "denied: requested access to the resource is denied"
	case t.StatusCode >= 500 || t.StatusCode == http.StatusTooManyRequests:
		cause = fmt.Sprintf("received unexpected HTTP status: %d %s", t.StatusCode, http.StatusText(t.StatusCode))
	}
	var target, method string
	if t.Request != nil {
		target, method = t.Request.URL.Path, t.Request.Method
	}
	switch {
	case strings.Contains(target, "/blobs/uploads") && method == http.MethodPost:
		return fmt.Errorf("writing blob: initiating layer upload to %s in %s: %s", target, ref.Context().RegistryStr(), cause)
	case strings.Contains(target, "/blobs/uploads"):
		return fmt.Errorf("writing blob: uploading layer to %s: %s", where, cause)
	case strings.Contains(target, "/blobs/") && method == http.MethodHead:
		return fmt.Errorf("trying to reuse blob %s at destination: checking whether a blob exists in %s: %s",
			path.Base(target), where, cause)
	case strings.Contains(target, "/manifests/") && method == http.MethodPut:
		return fmt.Errorf("writing manifest: uploading manifest %s to %s: %s", ref.Identifier(), where, cause)
	case strings.Contains(target, "/manifests/"):
		return fmt.Errorf("reading manifest %s in %s: %s", ref.Identifier(), where, cause)
	case strings.Contains(target, "/blobs/"):
		return fmt.Errorf("reading blob %s: %s", path.Base(target), cause)
	}
	return fmt.Errorf("pinging container registry %s: %s", ref.Context().RegistryStr(), cause)
}

// build interprets the Containerfile and sets when that is done. It is interpreted at the beginning, as package
// metadata is fetched then; a repository that comes back during a build doesn't save it.
func (r *podRun) build() {
	r.phase = building
	if !r.seam(PhaseBuild) {
		return
	}
	e := &execution{
		plan: r.plan, images: r.images, context: r.contextFile, repositories: r.opts.Repositories, log: &r.log,
	}
	got, err := e.run()
	if err != nil {
		fmt.Fprintf(&r.log, "Error: %v\n", err)
		r.due = r.due.Add(r.opts.Durations.Fail)
		r.failing = &exit{code: 1, at: r.due}
		return
	}
	r.due = r.due.Add(r.opts.Durations.Base + time.Duration(got.changes)*r.opts.Durations.PerPackage)
	tag := r.env("TAG")
	fmt.Fprintf(&r.log, "COMMIT %s\n", tag)
	if r.image, err = got.stage.commit(r.due.Truncate(time.Second)); err == nil {
		var h v1.Hash
		h, err = r.image.Digest()
		r.digest = h.String()
	}
	if err != nil {
		fmt.Fprintf(&r.log, "Error: committing container: %v\n", err)
		r.failing = &exit{code: 125, at: r.due}
		return
	}
	fmt.Fprintf(&r.log, "Successfully tagged %s\n", tag)
}

// commit ends the build and sets when the push is done.
func (r *podRun) commit() {
	l, err := Inspect(r.image)
	if err != nil {
		r.fail(fmt.Errorf("committing container: %w", err))
		return
	}
	r.phase = pushing
	r.due = r.due.Add(transfer(l.Size, r.opts.Durations.PushBandwidth))
}

// push pushes the image under TAG.
func (r *podRun) push(ctx context.Context) {
	if !r.seam(PhasePush) {
		return
	}
	tag := r.env("TAG")
	refused := func(err error) { r.fail(fmt.Errorf("pushing image %q to \"docker://%s\": %w", tag, tag, err)) }
	ref, err := name.ParseReference(tag)
	if err != nil {
		refused(fmt.Errorf("invalid reference format: %q", tag))
		return
	}
	keys, err := r.keychain("FINAL_IMAGE_PUSH_CREDS")
	if err != nil {
		refused(err)
		return
	}
	fmt.Fprintln(&r.log, "Getting image source signatures")
	if err := remote.Write(ref, r.image, r.remoteOptions(ctx, keys)...); err != nil {
		refused(registryError(ref, err))
		return
	}
	fmt.Fprintln(&r.log, "Copying config\nWriting manifest to image destination")
	fmt.Fprintln(&r.log, r.digest)
	r.end(ContainerBuild, exit{code: 0})
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
	cm.Data = map[string]string{"digest": r.digest}
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
		return r.log.String()
	}
	return r.waitLog.String()
}
