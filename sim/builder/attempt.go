package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	corev1 "k8s.io/api/core/v1"

	"github.com/layersim/layersim/sim/registry"
)

// Attempt is one run of the container image-build, from its Containerfile to an image in a registry: Pull, Make and Push, in
// that order, until one gives an exit code that is not 0. Each says how long it would take and doesn't wait. It serves the
// simulated build pods and, within real ones, layersim's agent.
type Attempt struct {
	// Env returns a variable of the container's environment, "" when it is not set.
	Env func(key string) string
	// File returns a file that is mounted into the container.
	File func(name string) ([]byte, bool)
	// Transport is the way to the registries.
	Transport http.RoundTripper
	// Repositories are the package repositories.
	Repositories *Repositories
	// Durations say how long things take.
	Durations Durations

	// Log is what the container prints.
	Log bytes.Buffer
	// Digest is the image's, after Make.
	Digest string

	plan     *plan
	images   map[string]v1.Image
	image    v1.Image
	pushTime time.Duration
}

// fail logs an error of buildah's and returns its exit code.
func (a *Attempt) fail(err error) int {
	fmt.Fprintf(&a.Log, "Error: %v\n", err)
	return 1
}

// Pull reads the Containerfile and pulls the images that it needs, with the credentials in the file BASE_IMAGE_PULL_CREDS.
func (a *Attempt) Pull(ctx context.Context) (took time.Duration, code int) {
	text, ok := a.File(containerfilePath)
	if !ok {
		return 0, a.fail(fmt.Errorf("stat %s: no such file or directory", containerfilePath))
	}
	var err error
	if a.plan, err = parseContainerfile(string(text)); err != nil {
		return 0, a.fail(err)
	}
	keys, err := a.keychain("BASE_IMAGE_PULL_CREDS")
	if err != nil {
		return 0, a.fail(err)
	}
	a.images = map[string]v1.Image{}
	var size int64
	for _, ref := range a.plan.images {
		fmt.Fprintf(&a.Log, "Trying to pull %s...\n", ref)
		img, err := a.pull(ctx, ref, keys)
		if err != nil {
			return 0, a.fail(fmt.Errorf("creating build container: %w", err))
		}
		fmt.Fprintln(&a.Log, "Getting image source signatures\nWriting manifest to image destination")
		a.images[ref] = img
		if l, err := Inspect(img); err == nil {
			size += l.Size
		}
	}
	return transfer(size, a.Durations.PullBandwidth), 0
}

// Make interprets the Containerfile and makes the image. It is interpreted at the beginning, as package metadata is fetched
// then; a repository that comes back during a build doesn't save it. A build that fails takes its time, too.
func (a *Attempt) Make(begin time.Time) (took time.Duration, code int) {
	e := &execution{plan: a.plan, images: a.images, context: a.contextFile, repositories: a.Repositories, log: &a.Log}
	got, err := e.run()
	if err != nil {
		return a.Durations.Fail, a.fail(err)
	}
	took = a.Durations.Base + time.Duration(got.changes)*a.Durations.PerPackage
	tag := a.Env("TAG")
	fmt.Fprintf(&a.Log, "COMMIT %s\n", tag)
	if err := a.commit(got.stage, begin.Add(took).Truncate(time.Second)); err != nil {
		a.fail(fmt.Errorf("committing container: %w", err))
		return took, 125
	}
	fmt.Fprintf(&a.Log, "Successfully tagged %s\n", tag)
	return took, 0
}

func (a *Attempt) commit(s *stage, created time.Time) (err error) {
	if a.image, err = s.commit(created); err != nil {
		return err
	}
	digest, err := a.image.Digest()
	if err != nil {
		return err
	}
	labels, err := Inspect(a.image)
	if err != nil {
		return err
	}
	a.Digest, a.pushTime = digest.String(), transfer(labels.Size, a.Durations.PushBandwidth)
	return nil
}

// PushTime is how long the push takes, which Push ends.
func (a *Attempt) PushTime() time.Duration { return a.pushTime }

// Push pushes the image as TAG, with the credentials in the file FINAL_IMAGE_PUSH_CREDS.
func (a *Attempt) Push(ctx context.Context) (code int) {
	tag := a.Env("TAG")
	refused := func(err error) int {
		return a.fail(fmt.Errorf("pushing image %q to \"docker://%s\": %w", tag, tag, err))
	}
	ref, err := name.ParseReference(tag)
	if err != nil {
		return refused(fmt.Errorf("invalid reference format: %q", tag))
	}
	keys, err := a.keychain("FINAL_IMAGE_PUSH_CREDS")
	if err != nil {
		return refused(err)
	}
	fmt.Fprintln(&a.Log, "Getting image source signatures")
	if err := remote.Write(ref, a.image, a.remoteOptions(ctx, keys)...); err != nil {
		return refused(registryError(ref, err))
	}
	fmt.Fprintln(&a.Log, "Copying config\nWriting manifest to image destination")
	fmt.Fprintln(&a.Log, a.Digest)
	return 0
}

func transfer(bytes, perSecond int64) time.Duration {
	return time.Duration(float64(bytes) / float64(perSecond) * float64(time.Second)).Truncate(time.Millisecond)
}

// contextFile looks a file of the build context up: the build script copies into it what is mounted below /tmp, under
// the same name, and the trust bundle. It never copies credentials.
func (a *Attempt) contextFile(src string) ([]byte, bool) {
	src = strings.TrimPrefix(path.Join("/", src), "/")
	name := "/tmp/" + src
	if name == path.Clean(a.Env("BASE_IMAGE_PULL_CREDS")) || name == path.Clean(a.Env("FINAL_IMAGE_PUSH_CREDS")) {
		return nil, false
	}
	if data, ok := a.File(name); ok {
		return data, true
	}
	return a.File("/etc/pki/ca-trust/source/anchors/" + src)
}

// keychain reads the credentials in the file that an environment variable names.
func (a *Attempt) keychain(variable string) (authn.Keychain, error) {
	file := a.Env(variable)
	data, ok := a.File(file)
	if !ok {
		return nil, fmt.Errorf("credential file is not accessible: faccessat %s: no such file or directory", file)
	}
	k, err := registry.Keychain(corev1.SecretTypeDockerConfigJson, map[string][]byte{corev1.DockerConfigJsonKey: data})
	if err != nil {
		return nil, fmt.Errorf("reading JSON file %q: %w", file, err)
	}
	return k, nil
}

// remoteOptions try once, in one order, through the attempt's transport.
func (a *Attempt) remoteOptions(ctx context.Context, k authn.Keychain) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(a.Transport),
		remote.WithAuthFromKeychain(k),
		remote.WithJobs(1),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
		remote.WithRetryPredicate(func(error) bool { return false }),
		remote.WithRetryStatusCodes(),
	}
}

// pull reads an image whole, so that later changes in the registry don't matter.
func (a *Attempt) pull(ctx context.Context, ref string, keys authn.Keychain) (v1.Image, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("invalid reference format: %q", ref)
	}
	img, err := remote.Image(parsed, a.remoteOptions(ctx, keys)...)
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
