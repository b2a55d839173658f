package live

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/live/agent"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/registry"
)

const osImage = "image-registry.openshift-image-registry.svc:5000/openshift/os"

var pusher = registry.Account{Name: "pusher", Password: "secret", Push: []string{"openshift/*"}}

// remoteRegistry is a registry whose agent is in this process, at the end of the whole channel, with what it told.
type remoteRegistry struct {
	*inCluster
	storage, world string
	certificate    tls.Certificate
	// pod has the agent's address in it, as a service has.
	pod   sync.Mutex
	admin *agent.Answers // nil while there is no pod
	front *agent.Front
	proxy *url.URL
	port  string
	roots *x509.CertPool

	mu   sync.Mutex
	told []history.Registry
}

func newRemoteRegistry(t *testing.T) *remoteRegistry {
	t.Helper()
	r := &remoteRegistry{storage: t.TempDir(), roots: x509.NewCertPool()}
	kubernetes := httptest.NewServer(http.HandlerFunc(r.kubernetes))
	t.Cleanup(kubernetes.Close)
	core, err := corev1client.NewForConfig(&rest.Config{Host: kubernetes.URL})
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{}
	e.ctx, e.cancel = context.WithCancelCause(t.Context())
	ask := func(patience time.Duration) *agent.Asker {
		return &agent.Asker{URL: kubernetes.URL + "/proxy", Token: "token", Patience: patience}
	}
	r.inCluster = &inCluster{engine: e, core: core, agent: ask(10 * time.Second), soon: ask(200 * time.Millisecond),
		settings: agent.Settings{Run: "1", Hosts: []string{cluster.InternalRegistry, cluster.ReleaseRegistry}, Host: cluster.InternalRegistry,
			Quotas: map[string]int64{}},
		options: cluster.RegistryOptions{
			Options: registry.Options{Observe: func(j history.Registry) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.told = append(r.told, j)
			}},
			Hook: func(request *http.Request, caller string) *http.Response {
				if caller == "limited" && request.Method == http.MethodHead {
					return registry.Answer(request, http.StatusInternalServerError, "UNKNOWN", "fault "+request.URL.Path)
				}
				return nil
			},
			ErrorHook: func(request *http.Request, caller string) error {
				if caller == "cut-off" {
					return registry.Refused(request.URL.Host)
				}
				return nil
			},
		}}
	world := agent.NewAnswers("token")
	r.inCluster.answer(world)
	server := httptest.NewServer(world)
	t.Cleanup(server.Close)
	certificate, key, err := agent.Certify(append(r.settings.Hosts, "127.0.0.1")...)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	r.roots.AppendCertsFromPEM(certificate)
	r.world, r.certificate = server.URL, pair
	r.start(t)
	t.Cleanup(func() {
		r.pod.Lock()
		defer r.pod.Unlock()
		_ = r.front.Close() // the test is over
	})
	return r
}

// start starts an agent, which knows nothing but where layersim and its storage are, in the place of the last one.
func (r *remoteRegistry) start(t *testing.T) {
	t.Helper()
	opened, err := agent.OpenRegistry(t.Context(), &agent.Asker{URL: r.world, Token: "token"}, r.storage)
	if err != nil {
		t.Fatal(err)
	}
	front := opened.Front(r.certificate)
	var addresses []string
	for _, open := range []func(net.Listener){front.Proxy, front.Direct} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, l.Addr().String())
		open(l)
	}
	admin := agent.NewAnswers("token")
	opened.Answer(admin)
	r.pod.Lock()
	defer r.pod.Unlock()
	r.admin, r.front, r.port = admin, front, addresses[1]
	r.proxy = &url.URL{Scheme: "http", Host: addresses[0], User: url.UserPassword("somebody", "-")}
}

// kubernetes is the API server: it knows a build pod at 127.0.0.1 and leads to the agent.
func (r *remoteRegistry) kubernetes(w http.ResponseWriter, request *http.Request) {
	if path, ok := strings.CutPrefix(request.URL.Path, "/proxy"); ok {
		r.pod.Lock()
		admin := r.admin
		r.pod.Unlock()
		if admin == nil {
			http.Error(w, "no endpoints available for service", http.StatusServiceUnavailable)
			return
		}
		request.URL.Path = path
		admin.ServeHTTP(w, request)
		return
	}
	list := corev1.PodList{}
	if request.URL.Query().Get("fieldSelector") == "status.podIP=127.0.0.1" {
		list.Items = []corev1.Pod{*buildPod()}
	}
	var answer any = list
	if strings.HasSuffix(request.URL.Path, "/nodes") {
		answer = corev1.NodeList{Items: []corev1.Node{{Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24"}}}}
		answer.(corev1.NodeList).Items[0].Name = "one"
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // a client that is gone is no matter
}

func (r *remoteRegistry) heard() []history.Registry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.told)
}

// through are the options of a client that goes through a transport once.
func through(t http.RoundTripper, a registry.Account) []remote.Option {
	return []remote.Option{remote.WithTransport(t), remote.WithJobs(1), remote.WithAuth(&authn.Basic{Username: a.Name, Password: a.Password}),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryPredicate(func(error) bool { return false })}
}

// way is a client's, by the proxy under a name, or directly.
func (r *remoteRegistry) way(caller string) http.RoundTripper {
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots}, DisableKeepAlives: true}
	if caller != "" {
		proxy := *r.proxy
		proxy.User = url.UserPassword(caller, "-")
		t.Proxy = http.ProxyURL(&proxy)
	} else {
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, r.port)
		}
	}
	return t
}

func ref(t *testing.T, text string) name.Reference {
	t.Helper()
	parsed, err := name.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// All ways in lead to the same registry, which knows who comes, and tells of each request before its answer is there.
func TestRemoteRegistry(t *testing.T) {
	r := newRemoteRegistry(t)
	image, err := random.Image(100, 2)
	if err != nil {
		t.Fatal(err)
	}
	want, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	r.SetAccount(registry.Account{Name: "pusher", Password: "old"})
	r.SetAccount(pusher)
	if digest, err := r.PutImage(osImage+":put", image); err != nil || digest != want.String() {
		t.Fatal(digest, err)
	}
	if err := remote.Write(ref(t, osImage+":a"), image, through(r.way("builder"), pusher)...); err != nil {
		t.Fatal(err)
	}
	for caller, way := range map[string]http.RoundTripper{
		"here":                         r.Transport("here"),
		"node/a":                       r.way("node/a"),
		"build-pod/" + buildPod().Name: r.way(""), // by its address
	} {
		got, err := remote.Image(ref(t, osImage+":a"), through(way, pusher)...)
		if err != nil {
			t.Errorf("%s: %v", caller, err)
			continue
		}
		if got, err := registry.Copy(got); err != nil {
			t.Errorf("%s: %v", caller, err)
		} else if digest, _ := got.Digest(); digest != want {
			t.Errorf("%s: got %s", caller, digest)
		}
		if _, err := remote.Head(ref(t, osImage+":a"), through(way, pusher)...); err != nil {
			t.Errorf("%s: %v", caller, err)
		}
		told := r.heard()
		if last := told[len(told)-1]; last.Caller != caller || last.Account != "pusher" || last.Method != http.MethodHead {
			t.Errorf("%s: told of %+v", caller, last)
		}
	}
	for query, want := range map[string]string{"": cluster.InternalRegistry, "?ns=quay.io": "quay.io"} { // by address, as containerd comes
		client := &http.Client{Transport: r.way("")}
		if response, err := client.Get("https://127.0.0.1/v2/" + query); err != nil {
			t.Error(err)
		} else {
			_ = response.Body.Close() // nothing was read
		}
		told := r.heard()
		if last := told[len(told)-1]; last.Host != want {
			t.Errorf("by address%s: told of %+v, want host %s", query, last, want)
		}
	}
	if err := r.Delete(osImage + ":a"); err != nil {
		t.Error(err)
	}
	if err := r.Delete(osImage + ":a"); err == nil || !strings.Contains(err.Error(), "manifest unknown") {
		t.Errorf("delete what is not there: %v", err)
	}
	r.RemoveAccount("pusher")
	if _, err := remote.Image(ref(t, osImage+":put"), through(r.Transport("here"), pusher)...); err == nil || !strings.Contains(err.Error(), "UNAUTHORIZED") {
		t.Errorf("revoked: %v", err)
	}
	var content agent.Content
	if err := r.agent.Ask(t.Context(), agent.ContentPath, struct{}{}, &content); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]string{osImage: {"put"}}, content.Tags); diff != "" || len(content.Accounts) != 0 {
		t.Errorf("accounts %v, tags (-want +got):\n%s", content.Accounts, diff)
	}
	if diff := cmp.Diff(r.heard(), content.Journal); diff != "" {
		t.Errorf("journal (-told +kept):\n%s", diff)
	}
	if err := r.engine.ctx.Err(); err != nil {
		t.Error(context.Cause(r.engine.ctx))
	}
}

// Faults are layersim's, and strike whoever comes, by whatever way.
func TestRemoteFaults(t *testing.T) {
	r := newRemoteRegistry(t)
	r.SetAccount(pusher)
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.PutImage(osImage+":a", image); err != nil {
		t.Fatal(err)
	}
	for _, way := range []http.RoundTripper{r.Transport("limited"), r.way("limited")} {
		_, err := remote.Head(ref(t, osImage+":a"), through(way, pusher)...)
		if err == nil || !strings.Contains(err.Error(), "500 Internal") {
			t.Errorf("answer by fault: %v", err)
		}
		told := r.heard()
		if last := told[len(told)-1]; last.Status != 500 || last.Caller != "limited" {
			t.Errorf("told of %+v", last)
		}
	}
	before := len(r.heard())
	for _, way := range []http.RoundTripper{r.Transport("cut-off"), r.way("cut-off")} {
		if _, err := remote.Image(ref(t, osImage+":a"), through(way, pusher)...); err == nil || strings.Contains(err.Error(), "UNKNOWN") {
			t.Errorf("unreachable by fault: %v", err)
		}
	}
	if after := len(r.heard()); after != before {
		t.Errorf("%d requests that failed on their way were told", after-before)
	}
	r.SetQuota(osImage, 1)
	if err := remote.Write(ref(t, osImage+":b"), must(random.Image(100, 1)), through(r.way("builder"), pusher)...); err == nil || !strings.Contains(err.Error(), "quota exceeded") {
		t.Errorf("quota: %v", err)
	}
	r.SetQuota(osImage, 0)
	if err := remote.Write(ref(t, osImage+":b"), image, through(r.way("builder"), pusher)...); err != nil {
		t.Errorf("quota lifted: %v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// An agent that takes another's place has what was pushed, and the accounts and quotas of now. Orders wait for it.
func TestRemoteRegistryStartsAgain(t *testing.T) {
	r := newRemoteRegistry(t)
	r.SetAccount(pusher)
	r.SetAccount(registry.Account{Name: "other"})
	image := must(random.Image(100, 1))
	if err := remote.Write(ref(t, osImage+":a"), image, through(r.way("builder"), pusher)...); err != nil {
		t.Fatal(err)
	}
	r.SetQuota(osImage, 7)
	r.pod.Lock()
	r.admin = nil
	if err := r.front.Close(); err != nil {
		t.Fatal(err)
	}
	r.pod.Unlock()
	if _, err := remote.Image(ref(t, osImage+":a"), through(r.Transport("here"), pusher)...); err == nil || !strings.Contains(err.Error(), "no endpoints available") {
		t.Errorf("while there is none: %v", err)
	}
	done := make(chan struct{})
	go func() {
		r.RemoveAccount("other")
		close(done)
	}()
	time.Sleep(20 * time.Millisecond)
	select {
	case <-done:
		t.Error("an account was removed from nothing")
	default:
	}
	r.start(t)
	<-done
	if got, err := remote.Image(ref(t, osImage+":a"), through(r.way("node/a"), pusher)...); err != nil {
		t.Error(err)
	} else if _, err := registry.Copy(got); err != nil {
		t.Error(err)
	}
	err := remote.Write(ref(t, osImage+":b"), must(random.Image(100, 1)), through(r.way("builder"), pusher)...)
	if err == nil || !strings.Contains(err.Error(), "quota exceeded") {
		t.Errorf("quota: %v", err)
	}
	var content agent.Content
	if err := r.agent.Ask(t.Context(), agent.ContentPath, struct{}{}, &content); err != nil || !slices.Equal(content.Accounts, []string{"pusher"}) {
		t.Errorf("accounts %v, %v", content.Accounts, err)
	}
	// Another run has nothing of it.
	r.inCluster.mu.Lock()
	r.settings.Run = "2"
	r.inCluster.mu.Unlock()
	r.start(t)
	if _, err := remote.Image(ref(t, osImage+":a"), through(r.way("node/a"), pusher)...); err == nil || !strings.Contains(err.Error(), "MANIFEST_UNKNOWN") && !strings.Contains(err.Error(), "NAME_UNKNOWN") {
		t.Errorf("of another run: %v", err)
	}
}

// A registry that can't be reached at all breaks the cluster where nobody else would notice.
func TestRemoteRegistryIsLost(t *testing.T) {
	r := newRemoteRegistry(t)
	r.agent.Patience = 2 * time.Second
	r.agent.Token = "another run's"
	r.SetAccount(pusher)
	if err := context.Cause(r.engine.ctx); err == nil || !strings.Contains(err.Error(), "account pusher of the registry") || !strings.Contains(err.Error(), "token") {
		t.Errorf("the cluster broke: %v", err)
	}
}

func TestCallers(t *testing.T) {
	r := newRemoteRegistry(t)
	for address, want := range map[string]string{"127.0.0.1": "build-pod/" + buildPod().Name, "10.244.0.1": "node/one", "192.0.2.1": ""} {
		if got, err := r.caller(t.Context(), address); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", address, got, err, want)
		}
	}
	if _, err := r.caller(t.Context(), "text"); err == nil {
		t.Error("text is an address")
	}
}
