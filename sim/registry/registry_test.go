package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	corev1 "k8s.io/api/core/v1"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/registry"
)

const internal = "image-registry.openshift-image-registry.svc:5000"

var (
	pusher = registry.Account{Name: "builder", Password: "push-password", Push: []string{"openshift/*"}}
	puller = registry.Account{Name: "node", Password: "pull-password", Pull: []string{"*"}}
)

func newRegistry(t *testing.T) *registry.Registry {
	t.Helper()
	r := registry.New(registry.Options{Hosts: []string{internal, "quay.io"}})
	r.SetAccount(pusher)
	r.SetAccount(puller)
	return r
}

// image makes an image with layers of those contents; a layer "content:1000" claims to be of 1000 bytes.
func image(t *testing.T, layers ...string) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range layers {
		content, size, _ := strings.Cut(l, ":")
		add := mutate.Addendum{Layer: static.NewLayer([]byte(content), types.OCIUncompressedLayer)}
		if size != "" {
			add.Annotations = map[string]string{registry.SizeAnnotation: size}
		}
		var err error
		if img, err = mutate.Append(img, add); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

func reference(t *testing.T, ref string) name.Reference {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func options(r *registry.Registry, a registry.Account) []remote.Option {
	auth := authn.Anonymous
	if a.Name != "" {
		auth = &authn.Basic{Username: a.Name, Password: a.Password}
	}
	return []remote.Option{
		remote.WithTransport(r.Transport("test")), remote.WithAuth(auth), remote.WithJobs(1),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryPredicate(func(error) bool { return false }),
	}
}

// status is the HTTP status of an error, 200 for none, 0 for one that is no answer.
func status(err error) int {
	var e *transport.Error
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &e):
		return e.StatusCode
	}
	return 0
}

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func TestRights(t *testing.T) {
	const repo = internal + "/openshift/os-image"
	none := registry.Account{}
	wrong := registry.Account{Name: pusher.Name, Password: "wrong"}
	stranger := registry.Account{Name: "stranger", Password: "x"}
	hostOnly := registry.Account{Name: "quay", Password: "q", Push: []string{"quay.io/openshift/*"}}
	for _, tt := range []struct {
		name                     string
		account                  registry.Account
		repo                     string
		pull, push, list, delete int
	}{
		{"nobody", none, repo, 401, 401, 401, 401},
		{"wrong password", wrong, repo, 401, 401, 401, 401},
		{"unknown name", stranger, repo, 401, 401, 401, 401},
		{"may push", pusher, repo, 200, 200, 200, 200},
		{"may pull", puller, repo, 200, 403, 200, 403},
		{"pattern names the other host", hostOnly, repo, 403, 403, 403, 403},
		{"pattern names the host", hostOnly, "quay.io/openshift/os-image", 200, 200, 200, 200},
		{"pattern names other repositories", pusher, internal + "/other/os-image", 403, 403, 403, 403},
		{"prefix ends at the slash", pusher, internal + "/openshift-other/os-image", 403, 403, 403, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry(t)
			r.SetAccount(hostOnly)
			if _, err := r.PutImage(tt.repo+":base", image(t, "base")); err != nil {
				t.Fatal(err)
			}
			o := options(r, tt.account)
			_, pull := remote.Image(reference(t, tt.repo+":base"), o...)
			push := remote.Write(reference(t, tt.repo+":new"), image(t, "new"), o...)
			_, list := remote.List(reference(t, tt.repo).Context(), o...)
			del := remote.Delete(reference(t, tt.repo+":base"), o...)
			got := []int{status(pull), status(push), status(list), status(del)}
			if diff := cmp.Diff([]int{tt.pull, tt.push, tt.list, tt.delete}, got); diff != "" {
				t.Errorf("pull, push, list, delete (-want +got):\n%s\n%v\n%v", diff, pull, push)
			}
			if tt.push == 200 {
				img, err := r.Image(tt.repo + ":new")
				if err != nil {
					t.Fatal(err)
				}
				if digest(t, img) != digest(t, image(t, "new")) {
					t.Error("the image came back with another digest")
				}
			}
		})
	}
}

func TestChallenge(t *testing.T) {
	r := newRegistry(t)
	resp, err := (&http.Client{Transport: r.Transport("x")}).Get("https://quay.io/v2/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 401 || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic realm=") {
		t.Errorf("got %d %q", resp.StatusCode, resp.Header.Get("WWW-Authenticate"))
	}
}

func TestAnonymousAccount(t *testing.T) {
	r := newRegistry(t)
	r.SetAccount(registry.Account{Pull: []string{"public/*"}, Push: []string{"public/*"}})
	for _, ref := range []string{"quay.io/public/a:1", "quay.io/private/a:1"} {
		if _, err := r.PutImage(ref, image(t, "a")); err != nil {
			t.Fatal(err)
		}
	}
	o := options(r, registry.Account{})
	if _, err := remote.Image(reference(t, "quay.io/public/a:1"), o...); err != nil {
		t.Errorf("public image: %v", err)
	}
	if _, err := remote.Image(reference(t, "quay.io/private/a:1"), o...); status(err) != 401 {
		t.Errorf("private image: got %v, want 401", err)
	}
	if err := remote.Write(reference(t, "quay.io/public/a:2"), image(t, "b"), o...); status(err) != 401 {
		t.Errorf("push: got %v, want 401", err)
	}
}

func TestRotation(t *testing.T) {
	r := newRegistry(t)
	ref := reference(t, "quay.io/openshift/base:1")
	if _, err := r.PutImage(ref.Name(), image(t, "base")); err != nil {
		t.Fatal(err)
	}
	pull := func(a registry.Account) int { _, err := remote.Image(ref, options(r, a)...); return status(err) }
	rotated := puller
	rotated.Password = "rotated"
	r.SetAccount(rotated)
	if got := []int{pull(puller), pull(rotated)}; !cmp.Equal(got, []int{401, 200}) {
		t.Errorf("old and new password after rotation: %v", got)
	}
	r.RemoveAccount(puller.Name)
	if got := pull(rotated); got != 401 {
		t.Errorf("after revocation: %d", got)
	}
	if diff := cmp.Diff([]string{"builder"}, r.Accounts()); diff != "" {
		t.Error(diff)
	}
}

func TestKeychain(t *testing.T) {
	a := registry.Account{Name: "u", Password: "p:w"}
	merged := []byte(`{"auths":{"quay.io":{"auth":"` + base64Of("u:p:w") + `"},"quay.io/org/repo":{"username":"special","password":"s"},` +
		`"https://index.docker.io/v1/":{"username":"docker","password":"d"}}}`)
	for _, tt := range []struct {
		name   string
		kind   corev1.SecretType
		data   map[string][]byte
		target string
		want   string // user:password, "" anonymous
		err    string
	}{
		{"json", corev1.SecretTypeDockerConfigJson, map[string][]byte{".dockerconfigjson": registry.DockerConfigJSON("quay.io", a)}, "quay.io/x/y", "u:p:w", ""},
		{"legacy", corev1.SecretTypeDockercfg, map[string][]byte{".dockercfg": registry.DockerCfg(internal, a)}, internal + "/x/y", "u:p:w", ""},
		{"other host", corev1.SecretTypeDockercfg, map[string][]byte{".dockercfg": registry.DockerCfg(internal, a)}, "quay.io/x/y", "", ""},
		{"most specific", corev1.SecretTypeDockerConfigJson, map[string][]byte{".dockerconfigjson": merged}, "quay.io/org/repo", "special:s", ""},
		{"less specific", corev1.SecretTypeDockerConfigJson, map[string][]byte{".dockerconfigjson": merged}, "quay.io/org/repo2", "u:p:w", ""},
		{"docker's own key", corev1.SecretTypeDockerConfigJson, map[string][]byte{".dockerconfigjson": merged}, "docker.io/library/x", "docker:d", ""},
		{"no key", corev1.SecretTypeDockerConfigJson, nil, "", "", "secret of type kubernetes.io/dockerconfigjson has no key .dockerconfigjson"},
		{"type", corev1.SecretTypeOpaque, nil, "", "", `secret type "Opaque" holds no registry credentials`},
		{"not JSON", corev1.SecretTypeDockercfg, map[string][]byte{".dockercfg": []byte("hunter2")}, "", "", "secret key .dockercfg is not valid JSON"},
		{"bad auth", corev1.SecretTypeDockercfg, map[string][]byte{".dockercfg": []byte(`{"h":{"auth":"hunter2"}}`)}, "", "", "secret key .dockercfg: auth of h is not base64 of name:password"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := registry.Keychain(tt.kind, tt.data)
			if err != nil || tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("got error %v, want %q", err, tt.err)
				}
				return
			}
			repo, err := name.NewRepository(tt.target)
			if err != nil {
				t.Fatal(err)
			}
			auth, err := k.Resolve(repo)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if auth != authn.Anonymous {
				c, err := authn.Authorization(context.Background(), auth)
				if err != nil {
					t.Fatal(err)
				}
				got = c.Username + ":" + c.Password
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func base64Of(s string) string {
	b, _ := json.Marshal([]byte(s))
	return strings.Trim(string(b), `"`)
}

func TestDelete(t *testing.T) {
	const repo = "quay.io/openshift/os"
	r := newRegistry(t)
	o := options(r, pusher)
	one, two := image(t, "shared", "one"), image(t, "shared", "two")
	for tag, img := range map[string]v1.Image{"a": one, "b": one, "c": two} {
		if err := remote.Write(reference(t, repo+":"+tag), img, o...); err != nil {
			t.Fatal(err)
		}
	}
	if err := remote.Delete(reference(t, repo+":b"), o...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "c"}, r.Tags(repo)); diff != "" {
		t.Errorf("tags after deletion by tag: %s", diff)
	}
	kept, err := r.Image(repo + "@" + digest(t, one))
	if err != nil {
		t.Fatalf("deletion of a tag took the manifest: %v", err)
	}
	if err := remote.Delete(reference(t, repo+"@"+digest(t, one)), o...); err != nil {
		t.Fatal(err)
	}
	tags, err := remote.List(reference(t, repo).Context(), o...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"c"}, tags); diff != "" {
		t.Errorf("tags after deletion by digest: %s", diff)
	}
	for _, ref := range []string{repo + ":a", repo + "@" + digest(t, one)} {
		if _, err := remote.Image(reference(t, ref), o...); status(err) != 404 {
			t.Errorf("%s: got %v, want 404", ref, err)
		}
	}
	if err := remote.Delete(reference(t, repo+"@"+digest(t, one)), o...); status(err) != 404 {
		t.Errorf("second deletion: got %v, want 404", err)
	}
	// The blob that both share stays, the other one goes; an image that was read before stays readable.
	if img, err := remote.Image(reference(t, repo+":c"), o...); err != nil {
		t.Error(err)
	} else if _, err := registry.Copy(img); err != nil {
		t.Errorf("an image that shares a layer with a deleted one: %v", err)
	}
	if _, err := registry.Copy(kept); err != nil {
		t.Errorf("image that was read before its deletion: %v", err)
	}
	if err := r.Delete(repo + ":c"); err != nil {
		t.Error(err)
	}
	if err := r.Delete(repo + ":c"); err == nil {
		t.Error("second deletion of a tag: no error")
	}
}

func TestQuota(t *testing.T) {
	const repo = internal + "/openshift/os"
	r := newRegistry(t)
	o := options(r, pusher)
	r.SetQuota(repo, 10_000)
	if err := remote.Write(reference(t, repo+":1"), image(t, "base:6000", "one:1000"), o...); err != nil {
		t.Fatal(err)
	}
	before := r.Usage(repo)
	if before < 7000 || before > 9000 {
		t.Errorf("usage %d, want 7000 and a manifest and a config", before)
	}
	// The base is shared, so that this one fits...
	if err := remote.Write(reference(t, repo+":2"), image(t, "base:6000", "two:100"), o...); err != nil {
		t.Errorf("image that shares its base: %v", err)
	}
	// ... and this one doesn't.
	err := remote.Write(reference(t, repo+":3"), image(t, "base:6000", "three:9000"), o...)
	var e *transport.Error
	if !errors.As(err, &e) || e.StatusCode != 403 || e.Errors[0].Code != transport.DeniedErrorCode || e.Errors[0].Message != "quota exceeded" {
		t.Errorf("got %v, want 403 DENIED quota exceeded", err)
	}
	if diff := cmp.Diff([]string{"1", "2"}, r.Tags(repo)); diff != "" {
		t.Error(diff)
	}
	r.SetQuota(repo, 100)
	if err := remote.Write(reference(t, repo+":4"), image(t, "four"), o...); status(err) != 403 {
		t.Errorf("exhausted quota at the start of an upload: got %v", err)
	}
	if err := remote.Write(reference(t, internal+"/openshift/other:4"), image(t, "four"), o...); err != nil {
		t.Errorf("quota of one repository held for another: %v", err)
	}
	r.SetQuota(repo, 0)
	if err := r.Delete(repo + "@" + digest(t, image(t, "base:6000", "one:1000"))); err != nil {
		t.Fatal(err)
	}
	if after := r.Usage(repo); after >= before {
		t.Errorf("usage %d did not fall below %d", after, before)
	}
}

func TestMount(t *testing.T) {
	r := newRegistry(t)
	both := registry.Account{Name: "both", Password: "x", Push: []string{"openshift/*"}, Pull: []string{"base/*"}}
	r.SetAccount(both)
	if _, err := r.PutImage("quay.io/base/os:1", image(t, "a base layer")); err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(reference(t, "quay.io/base/os:1"), options(r, both)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference(t, "quay.io/openshift/os:1"), img, options(r, both)...); err != nil {
		t.Fatal(err)
	}
	mounted := false
	for _, e := range r.Journal() {
		mounted = mounted || e.Method == "POST" && e.Status == 201
	}
	if !mounted {
		t.Error("no blob was mounted")
	}

	// Who may not pull from the source gets an ordinary upload, and can't steal a blob by its digest.
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	h, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, "https://quay.io/v2/openshift/stolen/blobs/uploads/?mount="+h.String()+"&from=base/os", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(pusher.Name, pusher.Password)
	resp, err := r.Transport("thief").RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 202 {
		t.Errorf("mount without the right to pull: %d, want 202", resp.StatusCode)
	}
	req, err = http.NewRequest(http.MethodGet, "https://quay.io/v2/openshift/stolen/blobs/"+h.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(pusher.Name, pusher.Password)
	if resp, err = r.Transport("thief").RoundTrip(req); err != nil || resp.StatusCode != 404 {
		t.Errorf("blob of another repository: %v %v", resp, err)
	}
}

func TestHooks(t *testing.T) {
	r := newRegistry(t)
	ref := reference(t, "quay.io/openshift/base:1")
	if _, err := r.PutImage(ref.Name(), image(t, "base")); err != nil {
		t.Fatal(err)
	}
	pull := func() error { _, err := remote.Image(ref, options(r, puller)...); return err }
	r.SetHook(func(request *http.Request, caller string) *http.Response {
		if caller == "test" && strings.Contains(request.URL.Path, "/manifests/") {
			r.Accounts() // a hook may call the registry
			return registry.Answer(request, http.StatusServiceUnavailable, "UNAVAILABLE", "maintenance")
		}
		return nil
	})
	if err := pull(); status(err) != 503 || !strings.Contains(err.Error(), "maintenance") {
		t.Errorf("got %v", err)
	}
	journal := r.Journal()
	if last := journal[len(journal)-1]; last.Status != 503 || last.Caller != "test" || last.Account != puller.Name {
		t.Errorf("journal: %+v", last)
	}
	r.SetHook(nil)
	for _, tt := range []struct {
		err  error
		want string
	}{
		{registry.Refused("quay.io:443"), "dial tcp quay.io:443: connect: connection refused"},
		{registry.TimedOut("quay.io:443"), "dial tcp quay.io:443: i/o timeout"},
	} {
		r.SetErrorHook(func(*http.Request, string) error { return tt.err })
		if err := pull(); err == nil || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
	if err := error(registry.Refused("x")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error("a refused connection is not ECONNREFUSED")
	}
	if len(r.Journal()) != len(journal) {
		t.Error("requests that never arrived are in the journal")
	}
	r.SetErrorHook(nil)
	if err := pull(); err != nil {
		t.Error(err)
	}
}

func TestUnknownHost(t *testing.T) {
	r := newRegistry(t)
	_, err := remote.Image(reference(t, "nowhere.example.com/x/y:1"), options(r, puller)...)
	var dns *net.DNSError
	if !errors.As(err, &dns) || !dns.IsNotFound || !strings.HasSuffix(err.Error(), "dial tcp: lookup nowhere.example.com: no such host") {
		t.Errorf("got %v", err)
	}
	if _, err := r.PutImage("nowhere.example.com/x/y:1", image(t, "x")); err == nil {
		t.Error("an image was put into a registry that does not exist")
	}
}

func push(t *testing.T) []byte {
	t.Helper()
	var observed []history.Registry
	r := registry.New(registry.Options{Hosts: []string{"quay.io"}, Observe: func(e history.Registry) { observed = append(observed, e) }})
	r.SetAccount(pusher)
	for _, tag := range []string{"1", "2"} {
		if err := remote.Write(reference(t, "quay.io/openshift/os:"+tag), image(t, "base", "one", tag), options(r, pusher)...); err != nil {
			t.Fatal(err)
		}
	}
	wrong := pusher
	wrong.Password = "a-wrong-password"
	if err := remote.Write(reference(t, "quay.io/openshift/os:3"), image(t, "3"), options(r, wrong)...); status(err) != 401 {
		t.Fatalf("got %v, want 401", err)
	}
	if diff := cmp.Diff(observed, r.Journal()); diff != "" {
		t.Errorf("what was observed is not the journal:\n%s", diff)
	}
	b, err := json.Marshal(r.Journal())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestJournal(t *testing.T) {
	first := push(t)
	for range 20 {
		if diff := cmp.Diff(string(first), string(push(t))); diff != "" {
			t.Fatalf("two pushes gave two journals:\n%s", diff)
		}
	}
	for _, secret := range []string{pusher.Password, "a-wrong-password", base64Of(pusher.Name + ":" + pusher.Password)} {
		if strings.Contains(string(first), secret) {
			t.Errorf("the journal contains %q", secret)
		}
	}
	if !strings.Contains(string(first), `/blobs/uploads/-"`) {
		t.Error("no upload in the journal")
	}
}

// Error texts reach logs and conditions, and have the upload's id in them.
func TestUploadIDsAreCounted(t *testing.T) {
	text := func() string {
		r := newRegistry(t)
		r.SetHook(func(request *http.Request, _ string) *http.Response {
			if request.Method == http.MethodPatch {
				return registry.Answer(request, http.StatusInternalServerError, "UNKNOWN", "disk full")
			}
			return nil
		})
		return remote.Write(reference(t, "quay.io/openshift/os:1"), image(t, "a"), options(r, pusher)...).Error()
	}
	if a, b := text(), text(); a != b || !strings.Contains(a, "/blobs/uploads/1:") {
		t.Errorf("%s\n%s", a, b)
	}
}

func TestRefusedManifests(t *testing.T) {
	r := newRegistry(t)
	put := func(reference, body string) int {
		req, err := http.NewRequest(http.MethodPut, "https://quay.io/v2/openshift/os/manifests/"+reference, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", string(types.OCIManifestSchema1))
		req.SetBasicAuth(pusher.Name, pusher.Password)
		resp, err := r.Transport("x").RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	zero := "sha256:" + strings.Repeat("0", 64)
	if got := put("1", `{"schemaVersion":2,"config":{"digest":"`+zero+`","size":1,"mediaType":"x"},"layers":[]}`); got != 404 {
		t.Errorf("manifest without its blobs: %d", got)
	}
	if got := put("1", `not a manifest`); got != 400 {
		t.Errorf("no manifest at all: %d", got)
	}
	img := image(t, "a")
	if _, err := r.PutImage("quay.io/openshift/os:a", img); err != nil {
		t.Fatal(err)
	}
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if got := put(zero, string(raw)); got != 400 {
		t.Errorf("wrong digest: %d", got)
	}
	if _, err := r.Image("quay.io/openshift/os@" + zero); err == nil {
		t.Error("the manifest is there under the wrong digest")
	}
}

func TestServe(t *testing.T) {
	r := newRegistry(t)
	server := httptest.NewTLSServer(r)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "https://")
	r.AddHost(host)
	o := []remote.Option{
		remote.WithTransport(server.Client().Transport),
		remote.WithAuth(&authn.Basic{Username: pusher.Name, Password: pusher.Password}),
	}
	img := image(t, "over", "tls")
	if err := remote.Write(reference(t, host+"/openshift/os:1"), img, o...); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(reference(t, host+"/openshift/os:1"), o...)
	if err != nil {
		t.Fatal(err)
	}
	if digest(t, got) != digest(t, img) {
		t.Error("another digest")
	}
	repos, err := remote.Catalog(context.Background(), reference(t, host+"/x:1").Context().Registry, o...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"openshift/os"}, repos); diff != "" {
		t.Error(diff)
	}
	r.SetErrorHook(func(*http.Request, string) error { return registry.Refused(host) })
	if _, err := server.Client().Get(server.URL + "/v2/"); err == nil {
		t.Error("no error although the connection is to be cut")
	}
	r.SetErrorHook(nil)
	req, err := http.NewRequest(http.MethodGet, server.URL+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "other.example.com"
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 421 {
		t.Errorf("unknown host: %d %v", resp.StatusCode, err)
	}
}

// BenchmarkPull is what a node does: ping, manifest, config.
func BenchmarkPull(b *testing.B) {
	r := registry.New(registry.Options{Hosts: []string{"quay.io"}})
	r.SetAccount(puller)
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	if _, err := r.PutImage("quay.io/openshift/os:1", img); err != nil {
		b.Fatal(err)
	}
	ref, err := name.ParseReference("quay.io/openshift/os:1")
	if err != nil {
		b.Fatal(err)
	}
	o := options(r, puller)
	b.ReportAllocs()
	for b.Loop() {
		img, err := remote.Image(ref, o...)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := img.RawConfigFile(); err != nil {
			b.Fatal(err)
		}
	}
}
