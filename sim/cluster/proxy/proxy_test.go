package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/layersim/layersim/sim/cluster/proxy"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

const limit = 10 * time.Second

var kinds = map[string]string{
	"pods": "Pod", "configmaps": "ConfigMap", "jobs": "Job", "namespaces": "Namespace", "nodes": "Node", "leases": "Lease",
	"machineosconfigs": "MachineOSConfig", "events": "Event",
}

func kindOf(r schema.GroupVersionResource) (schema.GroupVersionKind, bool) {
	kind, ok := kinds[r.Resource]
	return r.GroupVersion().WithKind(kind), ok
}

// apiServer plays an API server. It answers what was sent, as stored.
type apiServer struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request
	sent [][]byte
	// answer, where not nil, answers instead when it returns true.
	answer func(http.ResponseWriter, *http.Request) bool
	// ended gets the path of each request of which the caller went away.
	ended chan string
}

func (a *apiServer) requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, r := range a.seen {
		out = append(out, r.Method+" "+r.URL.Path)
	}
	return out
}

func (a *apiServer) last() (*http.Request, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[len(a.seen)-1], string(a.sent[len(a.sent)-1])
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.seen, a.sent = append(a.seen, r), append(a.sent, body)
	answer := a.answer
	a.mu.Unlock()
	defer func() {
		if r.Context().Err() != nil {
			a.ended <- r.Method + " " + r.URL.Path
		}
	}()
	if answer != nil && answer(w, r) {
		return
	}
	if r.URL.Query().Get("watch") != "" {
		fmt.Fprintln(w, `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"seen"}}}`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return
	}
	if strings.HasSuffix(r.URL.Path, "/eviction") || r.Method == http.MethodDelete {
		tell(w, 200, `{"kind":"Status","apiVersion":"v1","status":"Success","details":{"uid":"u-gone"}}`)
		return
	}
	pod := &corev1.Pod{}
	if bytes.HasPrefix(body, []byte("k8s\x00")) {
		if _, _, err := clientgoscheme.Codecs.UniversalDeserializer().Decode(body, nil, pod); err != nil {
			tell(w, 400, err.Error())
			return
		}
	} else {
		_ = json.Unmarshal(body, pod)
	}
	pod.Kind, pod.APIVersion, pod.UID, pod.ResourceVersion = "Pod", "v1", "u-1", "42"
	if pod.Name == "" {
		pod.Name = pod.GenerateName + "x7"
	}
	if strings.Contains(r.Header.Get("Accept"), "protobuf") {
		info, _ := runtimeInfo("application/vnd.kubernetes.protobuf")
		w.Header().Set("Content-Type", info.MediaType)
		_ = clientgoscheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion).Encode(pod, w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(pod)
}

func tell(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body)
}

// rig is a proxy in front of a played API server.
type rig struct {
	*testing.T
	api *apiServer
	*proxy.Proxy

	mu            sync.Mutex
	before, after []string
	requests      []*store.Request // as Before got them
	errs          []error          // as After got them
	writes        []proxy.Write
	failBefore    func(*store.Request) error
	failAfter     func(*store.Request, error) error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s := &rig{T: t, api: &apiServer{ended: make(chan string, 100)}}
	s.api.Server = httptest.NewServer(s.api)
	t.Cleanup(func() {
		s.api.CloseClientConnections()
		s.api.Close()
	})
	var err error
	s.Proxy, err = proxy.New(proxy.Options{
		Target: &rest.Config{Host: s.api.URL, BearerToken: "admin"},
		Kinds:  kindOf,
		Before: func(r *store.Request) error {
			s.mu.Lock()
			s.before, s.requests = append(s.before, say(r)), append(s.requests, r)
			fail := s.failBefore
			s.mu.Unlock()
			if fail != nil {
				return fail(r)
			}
			return nil
		},
		After: func(r *store.Request, err error) error {
			s.mu.Lock()
			s.after, s.errs = append(s.after, say(r)), append(s.errs, err)
			fail := s.failAfter
			s.mu.Unlock()
			if fail != nil {
				return fail(r, err)
			}
			return err
		},
		Observe: func(w proxy.Write) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if w.Began.IsZero() || w.Ended.Before(w.Began) {
				t.Errorf("began %s, ended %s", w.Began, w.Ended)
			}
			w.Began, w.Ended = time.Time{}, time.Time{}
			s.writes = append(s.writes, w)
		},
	})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func (s *rig) observed() []proxy.Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

func say(r *store.Request) string {
	return strings.Join([]string{r.Author, r.Verb, r.GVK.Kind + "/" + r.Subresource, r.Namespace + "/" + r.Name}, " ")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func runtimeInfo(media string) (i runtime.SerializerInfo, ok bool) {
	for _, i := range clientgoscheme.Codecs.SupportedMediaTypes() {
		if i.MediaType == media {
			return i, true
		}
	}
	return i, false
}

// do sends a request as a caller, with headers as "Name: value".
func (s *rig) do(c *proxy.Caller, method, path, body string, headers ...string) (*http.Response, string, error) {
	ctx, cancel := context.WithTimeout(s.Context(), limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Config().Host, "/")+path, strings.NewReader(body))
	must(s.T, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	res, err := c.Config().Transport.RoundTrip(r)
	if err != nil {
		if ctx.Err() != nil {
			s.Fatalf("%s %s: no answer", method, path)
		}
		return nil, "", err
	}
	answer, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	return res, string(answer), err
}

// ok is do for a request that is answered.
func (s *rig) ok(c *proxy.Caller, method, path, body string, headers ...string) (*http.Response, string) {
	s.Helper()
	res, answer, err := s.do(c, method, path, body, headers...)
	must(s.T, err)
	return res, answer
}

// refused is do for a request of a caller that is dead.
func (s *rig) refused(c *proxy.Caller, method, path string) {
	s.Helper()
	if res, answer, err := s.do(c, method, path, "{}"); err == nil {
		s.Errorf("%s %s of a dead caller: %s %s", method, path, res.Status, answer)
	}
}

func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(limit):
		t.Fatalf("not in time: %s", what)
	}
	panic("unreachable")
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); !holds(); time.Sleep(time.Millisecond) {
		if time.Since(began) > limit {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func diff(t *testing.T, what string, got, want any, options ...cmp.Option) {
	t.Helper()
	if d := cmp.Diff(want, got, options...); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// The API server is asked in the caller's name, with nothing of what the caller says about itself, below the prefix.
func TestIdentity(t *testing.T) {
	s := newRig(t)
	first, second := s.Admit("machine-os-builder"), s.Admit("machine-os-builder")
	config, err := clientcmd.RESTConfigFromKubeConfig(second.Kubeconfig())
	must(t, err)
	if config.Host != second.Config().Host || first.Config().Host == second.Config().Host {
		t.Errorf("kubeconfig has %s, config %s, other incarnation %s", config.Host, second.Config().Host, first.Config().Host)
	}
	if c := first.Config(); c.QPS != -1 || c.UserAgent != "machine-os-builder" || !strings.HasSuffix(c.Host, "/machine-os-builder.1/") {
		t.Errorf("config is %+v", c)
	}
	if odd := s.Admit("system:node:a/b"); !strings.HasSuffix(odd.Config().Host, "/system-node-a-b.3/") {
		t.Errorf("odd name gives %s", odd.Config().Host)
	}
	for _, path := range []string{"/api/v1/namespaces/n/configmaps/a%2Fb?x=y", "/apis/apps/v1?timeout=1s", "/version", "/api/v1/pods?watch=1&fieldSelector=a%3Db"} {
		watch, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(watch, http.MethodGet, strings.TrimSuffix(first.Config().Host, "/")+path, nil)
		must(t, err)
		for _, name := range []string{"Authorization", "Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-a", "X-Remote-User"} {
			r.Header.Set(name, "Bearer evil")
		}
		r.Header.Set("Accept-Encoding", "gzip")
		r.Header.Set("User-Agent", "curl")
		res, err := first.Config().Transport.RoundTrip(r)
		must(t, err)
		got, _ := s.api.last()
		diff(t, "path", got.URL.RequestURI(), path)
		want := http.Header{
			"Accept-Encoding": {"identity"}, "Authorization": {"Bearer admin"}, "Impersonate-User": {"machine-os-builder"}, "Impersonate-Group": {"system:masters"}, "User-Agent": {"curl"},
		}
		diff(t, "headers of "+path, got.Header, want)
		cancel()
		_ = res.Body.Close()
	}
	res, err := http.Get(strings.Replace(first.Config().Host, ".1/", ".9/", 1) + "version")
	must(t, err)
	if res.StatusCode != http.StatusNotFound || len(s.api.requests()) != 4 {
		t.Errorf("a path of nobody gave %s", res.Status)
	}
	_ = res.Body.Close()
}

// Requests are understood as package store has them.
func TestRequests(t *testing.T) {
	core := schema.GroupVersion{Version: "v1"}
	object := func(apiVersion, kind string, more map[string]any) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind}}
		for k, v := range more {
			u.Object[k] = v
		}
		return u
	}
	named := map[string]any{"metadata": map[string]any{"name": "p"}, "spec": map[string]any{"replicas": int64(3)}}
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"replicas":3}}`
	cborPod, err := direct.Marshal(object("v1", "Pod", named).Object)
	must(t, err)
	info, _ := runtimeInfo("application/vnd.kubernetes.protobuf")
	var proto, options bytes.Buffer
	encoder := clientgoscheme.Codecs.EncoderForVersion(info.Serializer, core)
	must(t, encoder.Encode(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, &proto))
	must(t, encoder.Encode(&metav1.DeleteOptions{DryRun: []string{"All"}}, &options))

	const json, protobuf = "application/json", "application/vnd.kubernetes.protobuf"
	const strategic, apply = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
	podKind := core.WithKind("Pod")
	moc := schema.GroupVersionKind{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: "MachineOSConfig"}
	for _, test := range []struct {
		method, path, media, body string
		want                      *store.Request // nil: only passed on
	}{
		{"GET", "/api/v1/namespaces/n/pods/p", "", "", &store.Request{Verb: "get", GVK: podKind, Namespace: "n", Name: "p"}},
		{"GET", "/api/v1/namespaces/n/pods?fieldSelector=metadata.name%3Dp", "", "", &store.Request{Verb: "list", GVK: podKind, Namespace: "n"}},
		{"GET", "/api/v1/pods", "", "", &store.Request{Verb: "list", GVK: podKind}},
		{"GET", "/api/v1/namespaces/n", "", "", &store.Request{Verb: "get", GVK: core.WithKind("Namespace"), Name: "n"}},
		{"GET", "/api/v1/namespaces/n/pods/p/log", "", "", nil},
		{"GET", "/apis/batch/v1", "", "", nil},
		{"GET", "/healthz", "", "", nil},
		{"POST", "/api/v1/namespaces/n/pods", json, pod, &store.Request{Verb: "create", GVK: podKind, Namespace: "n", Name: "p", Object: object("v1", "Pod", named)}},
		{"POST", "/api/v1/namespaces/n/pods", "", `{"metadata":{"name":"p"},"spec":{"replicas":3}}`, &store.Request{Verb: "create", GVK: podKind, Namespace: "n", Name: "p", Object: object("v1", "Pod", named)}},
		{"POST", "/api/v1/namespaces/n/pods?dryRun=All", "application/yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {replicas: 3}", &store.Request{
			Verb: "create", GVK: podKind, Namespace: "n", Name: "p", Object: object("v1", "Pod", named), DryRun: true}},
		{"POST", "/api/v1/namespaces/n/pods", "application/cbor", string(cborPod), &store.Request{Verb: "create", GVK: podKind, Namespace: "n", Name: "p", Object: object("v1", "Pod", named)}},
		{"POST", "/api/v1/namespaces/n/pods", json, `{"metadata":`, &store.Request{Verb: "create", GVK: podKind, Namespace: "n"}},
		{"POST", "/apis/x.io/v1/widgets", json, `{"apiVersion":"x.io/v1","kind":"Widget"}`, &store.Request{
			Verb: "create", GVK: schema.GroupVersionKind{Group: "x.io", Version: "v1", Kind: "Widget"}, Object: object("x.io/v1", "Widget", nil)}},
		{"POST", "/api/v1/namespaces/n/pods", protobuf, proto.String(), &store.Request{Verb: "create", GVK: podKind, Namespace: "n", Name: "p", Object: object("v1", "Pod", map[string]any{
			"metadata": map[string]any{"name": "p"}, "spec": map[string]any{"containers": nil}, "status": map[string]any{}})}},
		{"PUT", "/apis/machineconfiguration.openshift.io/v1/machineosconfigs/a/status", json, `{"kind":"MachineOSConfig","apiVersion":"machineconfiguration.openshift.io/v1"}`, &store.Request{
			Verb: "update", Subresource: "status", GVK: moc, Name: "a", Object: object("machineconfiguration.openshift.io/v1", "MachineOSConfig", nil)}},
		{"PATCH", "/api/v1/nodes/n1/status", strategic, `{"status":{}}`, &store.Request{
			Verb: "patch", Subresource: "status", GVK: core.WithKind("Node"), Name: "n1", Patch: []byte(`{"status":{}}`), PatchType: strategic}},
		{"PATCH", "/api/v1/nodes/n1?dryRun=All&fieldManager=x", apply, "apiVersion: v1\nkind: Node\n", &store.Request{
			Verb: "apply", GVK: core.WithKind("Node"), Name: "n1", Patch: []byte("apiVersion: v1\nkind: Node\n"), PatchType: apply, Object: object("v1", "Node", nil), DryRun: true}},
		{"POST", "/api/v1/namespaces/n/pods/p/eviction", json, `{"apiVersion":"policy/v1","kind":"Eviction","deleteOptions":{"dryRun":["All"]}}`, &store.Request{
			Verb: "create", Subresource: "eviction", GVK: podKind, Namespace: "n", Name: "p", DryRun: true,
			Object: object("policy/v1", "Eviction", map[string]any{"deleteOptions": map[string]any{"dryRun": []any{"All"}}})}},
		{"DELETE", "/api/v1/namespaces/n/pods/p", json, `{"propagationPolicy":"Background"}`, &store.Request{Verb: "delete", GVK: podKind, Namespace: "n", Name: "p"}},
		{"DELETE", "/api/v1/namespaces/n/pods/p", protobuf, options.String(), &store.Request{Verb: "delete", GVK: podKind, Namespace: "n", Name: "p", DryRun: true}},
		{"DELETE", "/api/v1/namespaces/n", "", "", &store.Request{Verb: "delete", GVK: core.WithKind("Namespace"), Name: "n"}},
		{"DELETE", "/api/v1/namespaces/n/pods?labelSelector=a", "", "", &store.Request{Verb: "deletecollection", GVK: podKind, Namespace: "n"}},
		{"PUT", "/api/v1/namespaces/n/finalize", json, `{"kind":"Namespace","apiVersion":"v1"}`, &store.Request{
			Verb: "update", Subresource: "finalize", GVK: core.WithKind("Namespace"), Name: "n", Object: object("v1", "Namespace", nil)}},
	} {
		s := newRig(t)
		headers := []string{}
		if test.media != "" {
			headers = append(headers, "Content-Type: "+test.media)
		}
		what := test.method + " " + test.path
		if res, answer := s.ok(s.Admit("me"), test.method, test.path, test.body, headers...); res.StatusCode != 200 {
			t.Errorf("%s: %s %s", what, res.Status, answer)
		}
		if _, sent := s.api.last(); sent != test.body {
			t.Errorf("%s: the API server got %q", what, sent)
		}
		if test.want == nil {
			diff(t, what+" is not told", len(s.requests)+len(s.after)+len(s.observed()), 0)
			continue
		}
		test.want.Author = "me"
		diff(t, what, s.requests, []*store.Request{test.want})
		diff(t, what+" is told after", len(s.after), 1)
		if writes, isWrite := s.observed(), test.method != "GET"; isWrite != (len(writes) == 1) {
			t.Errorf("%s: observed %v", what, writes)
		}
	}
}

// What is written is observed with the name, the revision and the uid that the API server gave, whatever form the client asks for.
func TestObserved(t *testing.T) {
	s := newRig(t)
	c := s.Admit("me")
	config := c.Config()
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	typed, err := corev1client.NewForConfig(config)
	must(t, err)
	pods := typed.Pods("n")
	made, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "build-"}}, metav1.CreateOptions{})
	must(t, err)
	diff(t, "name", made.Name, "build-x7")
	if _, body := s.api.last(); !strings.HasPrefix(body, "k8s\x00") {
		t.Errorf("the API server got %q", body)
	}
	diff(t, "name that Before saw", s.requests[0].Name, "")
	_, err = pods.UpdateStatus(t.Context(), made, metav1.UpdateOptions{})
	must(t, err)
	must(t, pods.EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "build-x7", Namespace: "n"}}))
	must(t, pods.Delete(t.Context(), "build-x7", metav1.DeleteOptions{}))
	must(t, pods.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
	_, err = pods.Get(t.Context(), "build-x7", metav1.GetOptions{})
	must(t, err)
	var got []string
	for _, w := range s.observed() {
		got = append(got, fmt.Sprintf("%s: %d %s %s", say(w.Request), w.Code, w.ResourceVersion, w.UID))
	}
	diff(t, "writes", got, []string{
		"me create Pod/ n/build-x7: 0 42 u-1",
		"me update Pod/status n/build-x7: 0 42 u-1",
		"me create Pod/eviction n/build-x7: 0  u-gone",
		"me delete Pod/ n/build-x7: 0  u-gone",
		"me deletecollection Pod/ n/: 0  u-gone",
	})

	for sent, want := range map[string]string{
		"application/vnd.kubernetes.protobuf": "application/json",
		"application/json":                    "application/json",
		"*/*":                                 "*/*",
		"application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json": "application/json; as=PartialObjectMetadata; g=meta.k8s.io; v=v1,application/json",
		"application/cbor, application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9":                                                                                          "application/json,application/json; as=Table; g=meta.k8s.io; q=0.9; v=v1",
	} {
		s.ok(c, "GET", "/api/v1/pods", "", "Accept: "+sent)
		r, _ := s.api.last()
		diff(t, "accept of "+sent, r.Header.Get("Accept"), want)
	}
	s.ok(c, "GET", "/openapi/v2", "", "Accept: application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
	if r, _ := s.api.last(); !strings.Contains(r.Header.Get("Accept"), "protobuf") {
		t.Errorf("openapi is asked for as %s", r.Header.Get("Accept"))
	}
}

// Refusals reach the caller as they are, and are told with code, reason and message.
func TestRefusals(t *testing.T) {
	s := newRig(t)
	c := s.Admit("me")
	const conflict = `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"has been modified","reason":"Conflict","code":409}`
	for _, test := range []struct {
		code      int
		body      string
		want      proxy.Write
		temporary bool
	}{
		{409, conflict, proxy.Write{Code: 409, Reason: "Conflict", Message: "has been modified"}, false},
		{403, "go away", proxy.Write{Code: 403, Reason: "Forbidden", Message: "go away"}, false},
		{429, "too many", proxy.Write{Code: 429, Reason: "TooManyRequests", Message: "too many"}, true},
	} {
		s.api.answer = func(w http.ResponseWriter, _ *http.Request) bool {
			if test.temporary {
				w.Header().Set("Retry-After", "7")
			}
			tell(w, test.code, test.body)
			return true
		}
		s.writes, s.errs = nil, nil
		res, answer := s.ok(c, "PUT", "/api/v1/nodes/n", "{}")
		if res.StatusCode != test.code || answer != test.body || test.temporary && res.Header.Get("Retry-After") != "7" {
			t.Errorf("caller got %s %s", res.Status, answer)
		}
		test.want.Request = s.requests[len(s.requests)-1]
		got := s.observed()
		if len(got) != 1 || !strings.Contains(got[0].Message, test.want.Message) {
			t.Fatalf("observed %+v", got)
		}
		got[0].Message = test.want.Message
		diff(t, "observed", got[0], test.want)
		if string(apierrors.ReasonForError(s.errs[0])) != test.want.Reason {
			t.Errorf("After got %v", s.errs[0])
		}
		if seconds, ok := apierrors.SuggestsClientDelay(s.errs[0]); test.temporary != (ok && seconds == 7) {
			t.Errorf("After got a delay of %d s", seconds)
		}
		s.ok(c, "GET", "/api/v1/nodes/n", "")
		if len(s.errs) != 2 || string(apierrors.ReasonForError(s.errs[1])) != test.want.Reason {
			t.Errorf("After got %v for reads", s.errs)
		}
	}
	s.failAfter = func(*store.Request, error) error { return errors.New("fault") }
	if res, _ := s.ok(c, "GET", "/api/v1/nodes/n", ""); res.StatusCode != 500 || res.Header.Get("Retry-After") != "" {
		t.Errorf("another refusal has %v", res.Header)
	}
	s.failAfter = nil
	s.writes = nil
	s.ok(c, "POST", "/api/v1/namespaces/n/pods", strings.Repeat("x", 17<<20))
	if got := s.observed(); len(got) != 1 || got[0].Code != 413 || slices.Contains(s.api.requests(), "POST /api/v1/namespaces/n/pods") {
		t.Errorf("too large: observed %+v", got)
	}
	s.writes = nil
	s.api.Close()
	res, answer := s.ok(c, "PUT", "/api/v1/nodes/n", "{}")
	if got := s.observed(); res.StatusCode != 503 || !strings.Contains(answer, `"reason":"ServiceUnavailable"`) || len(got) != 1 || got[0].Code != 503 {
		t.Errorf("without an API server: %s %s, observed %+v", res.Status, answer, got)
	}
}

// The errors of Before and After are answered as the API server answers errors.
func TestFaults(t *testing.T) {
	node := schema.GroupResource{Resource: "nodes"}
	for _, test := range []struct {
		fault         error
		code          int
		reason, retry string
		message       string
	}{
		{apierrors.NewConflict(node, "n", errors.New("fault f")), 409, "Conflict", "", `Operation cannot be fulfilled on nodes "n": fault f`},
		{fmt.Errorf("wrapped: %w", apierrors.NewTimeoutError("fault f", 3)), 504, "Timeout", "3", "Timeout: fault f"},
		{errors.New("fault f"), 500, "InternalError", "", "Internal error occurred: fault f"},
	} {
		for _, after := range []bool{false, true} {
			for _, method := range []string{"PUT", "GET"} {
				s := newRig(t)
				what := fmt.Sprintf("%s, after %t: %v", method, after, test.fault)
				if after {
					s.failAfter = func(*store.Request, error) error { return test.fault }
				} else {
					s.failBefore = func(*store.Request) error { return test.fault }
				}
				res, answer := s.ok(s.Admit("me"), method, "/api/v1/nodes/n", "{}")
				var told metav1.Status
				must(t, json.Unmarshal([]byte(answer), &told))
				if res.StatusCode != test.code || res.Header.Get("Retry-After") != test.retry || res.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%s: answer is %s %v", what, res.Status, res.Header)
				}
				diff(t, what, fmt.Sprint(told.Kind, told.APIVersion, told.Status, told.Code, told.Reason, told.Message),
					fmt.Sprint("Status", "v1", "Failure", int32(test.code), test.reason, test.message))
				diff(t, what+" reached the API server", len(s.api.requests()) == 1, after)
				diff(t, what+" reached After", len(s.after) == 1, after)
				if method == "GET" {
					diff(t, what, len(s.observed()), 0)
					continue
				}
				want := proxy.Write{Request: s.requests[0], Code: test.code, Reason: test.reason, Message: test.message}
				if after {
					want.ResourceVersion, want.UID = "42", "u-1" // it was done
				}
				diff(t, what, s.observed(), []proxy.Write{want})
			}
		}
	}
	s := newRig(t)
	s.failBefore = func(*store.Request) error { return errors.New("fault") }
	watch := open(s, s.Admit("me"))
	diff(t, "event of a watch", <-watch, "seen")
	s.failBefore = nil
	s.failAfter = func(*store.Request, error) error { return nil }
	s.api.answer = func(w http.ResponseWriter, _ *http.Request) bool { tell(w, 418, "no"); return true }
	if res, answer := s.ok(s.Admit("me"), "PUT", "/api/v1/nodes/n", "{}"); res.StatusCode != 418 || answer != "no" {
		t.Errorf("an After without an opinion made it %s %s", res.Status, answer)
	}
}

// open watches pods. The channel gets their names and is closed when the watch has ended.
func open(s *rig, c *proxy.Caller) <-chan string {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), http.MethodGet, c.Config().Host+"api/v1/pods?watch=1", nil)
	must(s.T, err)
	res, err := c.Config().Transport.RoundTrip(r)
	must(s.T, err)
	names := make(chan string, 10)
	go func() {
		defer close(names)
		defer func() { _ = res.Body.Close() }()
		for d := json.NewDecoder(res.Body); ; {
			var event struct{ Object corev1.Pod }
			if d.Decode(&event) != nil {
				return
			}
			names <- event.Object.Name
		}
	}()
	return names
}

func TestCrashAt(t *testing.T) {
	for _, test := range []struct {
		name    string
		crash   world.Crash
		do      []string // method and path, with ! in front where it is refused by the API server
		reached []string // what the API server saw
		fired   string
	}{
		{"first", world.Crash{Write: 1}, []string{"GET /api/v1/nodes/n", "PUT /api/v1/nodes/n"},
			[]string{"GET /api/v1/nodes/n"}, "before update node/n by me"},
		{"first, after", world.Crash{Write: 1, After: true}, []string{"GET /api/v1/nodes/n", "PUT /api/v1/nodes/n"},
			[]string{"GET /api/v1/nodes/n", "PUT /api/v1/nodes/n"}, "after update node/n by me"},
		{"third", world.Crash{Write: 3}, []string{"PUT /api/v1/nodes/a", "!DELETE /api/v1/nodes/b", "PATCH /api/v1/nodes/c/status"},
			[]string{"PUT /api/v1/nodes/a", "DELETE /api/v1/nodes/b"}, "before patch node/c by me"},
		{"refused writes were not done", world.Crash{Write: 2, After: true}, []string{"PUT /api/v1/nodes/a", "!PUT /api/v1/nodes/b", "PUT /api/v1/nodes/c"},
			[]string{"PUT /api/v1/nodes/a", "PUT /api/v1/nodes/b", "PUT /api/v1/nodes/c"}, "after update node/c by me"},
		{"verb", world.Crash{Write: 1, Verb: "delete"}, []string{"PUT /api/v1/nodes/a", "DELETE /api/v1/nodes/b"}, []string{"PUT /api/v1/nodes/a"}, "before delete node/b by me"},
		{"kind", world.Crash{Write: 1, Kind: "pod", After: true}, []string{"PUT /api/v1/nodes/a", "PUT /api/v1/namespaces/n/pods/b"},
			[]string{"PUT /api/v1/nodes/a", "PUT /api/v1/namespaces/n/pods/b"}, "after update pod/b by me"},
		{"generated name", world.Crash{Write: 1, After: true}, []string{"POST /api/v1/namespaces/n/pods"}, []string{"POST /api/v1/namespaces/n/pods"}, "after create pod/x7 by me"},
		{"housekeeping", world.Crash{Write: 1},
			[]string{"PUT /apis/coordination.k8s.io/v1/namespaces/n/leases/l", "PUT /api/v1/namespaces/n/events/e", "PUT /apis/events.k8s.io/v1/namespaces/n/events/e", "PUT /api/v1/nodes/a"},
			[]string{"PUT /apis/coordination.k8s.io/v1/namespaces/n/leases/l", "PUT /api/v1/namespaces/n/events/e", "PUT /apis/events.k8s.io/v1/namespaces/n/events/e"}, "before update node/a by me"},
		{"a lease", world.Crash{Write: 2, Kind: "Lease"}, []string{"PUT /apis/coordination.k8s.io/v1/namespaces/n/leases/l", "PUT /apis/coordination.k8s.io/v1/namespaces/n/leases/m"},
			[]string{"PUT /apis/coordination.k8s.io/v1/namespaces/n/leases/l"}, "before update lease/m by me"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newRig(t)
			c, namesake := s.Admit("me"), s.Admit("me")
			watch := open(s, c)
			receive(t, watch, "event")
			fired, crashed := make(chan string, 10), make(chan struct{}, 10)
			c.CrashAt(world.Crash{Write: 1}, func() { t.Error("an order that was dropped was carried out") })
			test.crash.Fired = func(message string) { fired <- message }
			c.CrashAt(test.crash, func() { crashed <- struct{}{} })
			for n, what := range test.do {
				_, refused := strings.CutPrefix(what, "!")
				s.api.mu.Lock()
				s.api.answer = nil
				if refused {
					s.api.answer = func(w http.ResponseWriter, _ *http.Request) bool { tell(w, 409, "no"); return true }
				}
				s.api.mu.Unlock()
				method, path, _ := strings.Cut(strings.TrimPrefix(what, "!"), " ")
				s.ok(namesake, "PUT", "/api/v1/nodes/other", "{}") // which is another's
				_, answer, err := s.do(c, method, path, "{}")
				if last := n == len(test.do)-1; last != (err != nil) {
					t.Fatalf("%s: %q %v", what, answer, err)
				}
			}
			diff(t, "fired", receive(t, fired, "fired"), test.fired)
			receive(t, crashed, "crashed")
			eventually(t, "the watch ends", func() bool { _, open := <-watch; return !open })
			s.refused(c, "GET", "/api/v1/nodes/late")
			s.refused(c, "PUT", "/api/v1/nodes/late")
			s.ok(namesake, "PUT", "/api/v1/nodes/other", "{}")
			mine := slices.DeleteFunc(s.api.requests(), func(r string) bool { return strings.HasSuffix(r, "/other") || r == "GET /api/v1/pods" })
			diff(t, "what the API server saw", mine, test.reached)
			var told []string
			for _, w := range s.observed() {
				if w.Request.Name != "other" {
					told = append(told, w.Request.Verb)
				}
			}
			var writes int
			for _, r := range test.reached {
				if !strings.HasPrefix(r, "GET") {
					writes++
				}
			}
			diff(t, "observed writes", len(told), writes)
			if len(fired)+len(crashed) > 0 {
				t.Error("crashed more than once")
			}
			c.Cut()
		})
	}
}

// What a cut caller left waiting is not passed on, what it watches ends, and a write that was passed on is finished for nobody.
func TestCut(t *testing.T) {
	s := newRig(t)
	c, next := s.Admit("me"), s.Admit("me")
	watch, other := open(s, c), open(s, next)
	receive(t, watch, "event")
	receive(t, other, "event")
	entered, proceed := make(chan string, 10), make(chan struct{})
	s.api.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/late") {
			return false
		}
		entered <- "server"
		select {
		case <-proceed:
		case <-r.Context().Done():
		}
		return false
	}
	s.failBefore = func(r *store.Request) error {
		if r.Name == "waiting" {
			entered <- "before"
			<-proceed
		}
		return nil
	}
	conn, err := net.Dial("tcp", host(t, c))
	must(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "GET %sapi/v1/nodes/late HTTP/1.1\r\nHost: x\r\n\r\n", prefix(t, c))
	must(t, err)
	idle := make(chan error, 1)
	first := make([]byte, 1)
	_, err = conn.Read(first)
	must(t, err)
	go func() { _, err := io.Copy(io.Discard, conn); idle <- err }()

	results := make(chan error, 3)
	for method, path := range map[string]string{"PUT": "/api/v1/nodes/waiting", "POST": "/api/v1/namespaces/n/pods", "GET": "/api/v1/nodes/slow"} {
		go func() { _, _, err := s.do(c, method, path, "{}"); results <- err }()
	}
	for range 3 {
		receive(t, entered, "request in flight")
	}
	if n, _ := s.Writing(); n != 2 {
		t.Errorf("%d writes in flight, want 2", n)
	}
	c.Cut()
	c.Cut()
	for range 3 {
		if receive(t, results, "end of a request") == nil {
			t.Error("a cut caller got an answer")
		}
	}
	if err := receive(t, idle, "end of an idle connection"); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	eventually(t, "the watch ends", func() bool { _, open := <-watch; return !open })
	ended := []string{receive(t, s.api.ended, "end of a read"), receive(t, s.api.ended, "end of a read")}
	slices.Sort(ended)
	diff(t, "ended at the API server", ended, []string{"GET /api/v1/nodes/slow", "GET /api/v1/pods"})
	if n, _ := s.Writing(); n != 2 || len(s.observed()) != 0 {
		t.Errorf("%d writes in flight, want 2; observed %v", n, s.observed())
	}
	close(proceed)
	eventually(t, "no writes", func() bool { n, _ := s.Writing(); return n == 0 })
	got := s.observed()
	if len(got) != 1 || got[0].ResourceVersion != "42" || got[0].Code != 0 {
		t.Errorf("observed %+v", got)
	}
	if slices.Contains(s.api.requests(), "PUT /api/v1/nodes/waiting") {
		t.Error("a waiting request was passed on")
	}
	for _, r := range []string{"GET /api/v1/nodes/late2", "PUT /api/v1/nodes/late2", "GET /version", "GET /api/v1/pods?watch=1"} {
		method, path, _ := strings.Cut(r, " ")
		s.refused(c, method, path)
	}
	s.ok(next, "GET", "/api/v1/nodes/late", "")
	select {
	case name, open := <-other:
		t.Errorf("the other incarnation's watch got %q, open: %t", name, open)
	default:
	}
}

func host(t *testing.T, c *proxy.Caller) string {
	t.Helper()
	u, err := url.Parse(c.Config().Host)
	must(t, err)
	return u.Host
}

func prefix(t *testing.T, c *proxy.Caller) string {
	t.Helper()
	u, err := url.Parse(c.Config().Host)
	must(t, err)
	return u.Path
}

// A caller that hangs up ends its read at the API server, and a write after a while; what still waits isn't passed on.
func TestHangUp(t *testing.T) {
	s := newRig(t)
	s.SetGrace(50 * time.Millisecond)
	c := s.Admit("me")
	entered, proceed := make(chan struct{}, 10), make(chan struct{})
	s.api.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		entered <- struct{}{}
		<-r.Context().Done()
		return true
	}
	s.failBefore = func(r *store.Request) error {
		if r.Name == "waiting" {
			entered <- struct{}{}
			<-proceed
		}
		return nil
	}
	for _, request := range []string{"GET /api/v1/nodes/n", "PUT /api/v1/nodes/n", "PUT /api/v1/nodes/waiting"} {
		method, path, _ := strings.Cut(request, " ")
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Config().Host, "/")+path, strings.NewReader("{}"))
		must(t, err)
		done := make(chan error, 1)
		go func() { _, err := c.Config().Transport.RoundTrip(r); done <- err }() //nolint:bodyclose // there is none
		receive(t, entered, request)
		began := time.Now()
		cancel()
		if receive(t, done, request) == nil {
			t.Errorf("%s was answered", request)
		}
		if strings.HasSuffix(path, "/waiting") {
			time.Sleep(20 * time.Millisecond) // for the proxy to notice, which nothing shows
			close(proceed)
			eventually(t, "no writes", func() bool { n, _ := s.Writing(); return n == 0 })
			continue
		}
		diff(t, "ended", receive(t, s.api.ended, "end of "+request), request)
		if took := time.Since(began); method == "PUT" && took < 50*time.Millisecond {
			t.Errorf("the write got only %s", took)
		}
	}
	diff(t, "what the API server saw", s.api.requests(), []string{"GET /api/v1/nodes/n", "PUT /api/v1/nodes/n"})
	eventually(t, "the write is observed", func() bool { w := s.observed(); return len(w) == 1 && w[0].Code == 503 })
}

func TestWriting(t *testing.T) {
	s := newRig(t)
	c := s.Admit("me")
	entered, proceed := make(chan struct{}, 10), make(chan struct{})
	s.api.answer = func(http.ResponseWriter, *http.Request) bool { entered <- struct{}{}; <-proceed; return false }
	if n, oldest := s.Writing(); n != 0 || !oldest.IsZero() {
		t.Errorf("%d writes since %s", n, oldest)
	}
	results := make(chan error, 3)
	began := time.Now()
	var between time.Time
	for n, method := range []string{"PUT", "GET", "PATCH"} {
		go func() { _, _, err := s.do(c, method, "/api/v1/nodes/n", "{}"); results <- err }()
		receive(t, entered, "request")
		if n == 0 {
			between = time.Now()
		}
	}
	if n, oldest := s.Writing(); n != 2 || oldest.Before(began) || oldest.After(between) {
		t.Errorf("%d writes since %s, want 2 since %s to %s", n, oldest, began, between)
	}
	close(proceed)
	for range 3 {
		must(t, receive(t, results, "answer"))
	}
	eventually(t, "no writes", func() bool { n, _ := s.Writing(); return n == 0 })
}

func TestClose(t *testing.T) {
	s := newRig(t)
	c := s.Admit("me")
	watch := open(s, c)
	receive(t, watch, "event")
	entered := make(chan struct{})
	s.api.answer = func(_ http.ResponseWriter, r *http.Request) bool { close(entered); <-r.Context().Done(); return true }
	done := make(chan error, 1)
	go func() { _, _, err := s.do(c, "PUT", "/api/v1/nodes/n", "{}"); done <- err }()
	receive(t, entered, "write")
	hooked, left := make(chan struct{}), make(chan struct{})
	s.failBefore = func(*store.Request) error {
		close(hooked)
		time.Sleep(20 * time.Millisecond) // Close must wait for it
		close(left)
		return nil
	}
	go func() { _, _, _ = s.do(c, "GET", "/api/v1/nodes/n", "") }()
	receive(t, hooked, "hook")
	began := time.Now()
	must(t, s.Close())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %s", took)
	}
	select {
	case <-left:
	default:
		t.Error("Close didn't wait for a hook")
	}
	if n, _ := s.Writing(); n != 0 {
		t.Errorf("%d writes after Close", n)
	}
	if receive(t, done, "end of the write") == nil {
		t.Error("answered after Close")
	}
	eventually(t, "the watch ends", func() bool { _, open := <-watch; return !open })
	s.refused(c, "GET", "/api/v1/nodes/n")
	must(t, s.Close())
	c.Cut()
	if _, err := proxy.New(proxy.Options{Kinds: kindOf}); err == nil {
		t.Error("a proxy to nowhere")
	}
	if _, err := proxy.New(proxy.Options{Kinds: kindOf, Target: &rest.Config{Host: "http://a b"}}); err == nil {
		t.Error("a proxy to a place that is none")
	}
}

// A service account is asked for by its name and groups, without an administrator's.
func TestAdmitAs(t *testing.T) {
	s := newRig(t)
	c := s.AdmitAs("machine-os-builder", proxy.ServiceAccount("mco", "builder"))
	s.ok(c, http.MethodGet, "/api/v1/namespaces/n/pods/p", "")
	got, _ := s.api.last()
	diff(t, "user", got.Header.Values("Impersonate-User"), []string{"system:serviceaccount:mco:builder"})
	diff(t, "groups", got.Header.Values("Impersonate-Group"), []string{"system:serviceaccounts", "system:serviceaccounts:mco", "system:authenticated"})
}

// Reads are told of only when the API server forbids them, watches included, in whatever form it says so.
func TestForbiddenReads(t *testing.T) {
	s := newRig(t)
	c := s.Admit("node-agent")
	s.ok(c, http.MethodGet, "/api/v1/namespaces/n/pods/p", "")
	const message = `pods is forbidden: User "u" cannot watch resource "pods"`
	forbidden := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: "Forbidden", Code: 403, Message: message}
	s.api.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.Header.Get("Accept"), "protobuf") {
			body, err := json.Marshal(forbidden)
			must(t, err)
			tell(w, 403, string(body))
			return true
		}
		info, _ := runtimeInfo("application/vnd.kubernetes.protobuf")
		w.Header().Set("Content-Type", info.MediaType)
		w.WriteHeader(403)
		must(t, clientgoscheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion).Encode(&forbidden, w))
		return true
	}
	for _, path := range []string{"/api/v1/namespaces/n/pods/p", "/api/v1/namespaces/n/pods", "/api/v1/pods?watch=1"} {
		res, _, err := s.do(c, http.MethodGet, path, "", "Accept: application/vnd.kubernetes.protobuf")
		must(t, err)
		if res.StatusCode != 403 {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	var got []string
	for _, w := range s.observed() {
		got = append(got, fmt.Sprintln(w.Request.Verb, w.Request.GVK.Kind, w.Request.Name, w.Code, w.Reason, w.Message))
	}
	diff(t, "observed", got, []string{
		"get Pod p 403 Forbidden " + message + "\n", "list Pod  403 Forbidden " + message + "\n", "watch Pod  403 Forbidden " + message + "\n",
	})
}

// On another address than loopback nobody is let in by a path that can be guessed.
func TestListen(t *testing.T) {
	s := newRig(t)
	address, err := s.Listen("0.0.0.0")
	must(t, err)
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	addresses, err := net.InterfaceAddrs()
	must(t, err)
	for _, a := range addresses {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.IsLoopback() || n.IP.To4() == nil {
			continue
		}
		c := s.Admit("machine-os-builder")
		address = net.JoinHostPort(n.IP.String(), port)
		config, err := clientcmd.RESTConfigFromKubeConfig(c.KubeconfigAt(address))
		must(t, err)
		local, err := url.Parse(c.Config().Host)
		must(t, err)
		local.Host = address
		for where, want := range map[string]int{config.Host: http.StatusOK, local.String(): http.StatusNotFound} {
			res, err := http.Get(where + "version")
			must(t, err)
			must(t, res.Body.Close())
			if res.StatusCode != want {
				t.Errorf("%s: %s, want %d", where, res.Status, want)
			}
		}
		if _, err := s.Listen("127.0.0.1"); err == nil {
			t.Error("listens a third time")
		}
		return
	}
	t.Skip("this machine has no address but loopback")
}

// An API server that was away gets no request until it says that it is ready: it would forbid what it allows.
func TestNotReady(t *testing.T) {
	s := newRig(t)
	c := s.Admit("machine-os-builder")
	answers := func(answer func(http.ResponseWriter, *http.Request) bool) {
		s.api.mu.Lock()
		defer s.api.mu.Unlock()
		s.api.answer, s.api.seen = answer, nil
	}
	get := func() (int, string) {
		res, answer := s.ok(c, http.MethodGet, "/api/v1/namespaces/n/pods/p", "")
		return res.StatusCode, answer
	}
	forbids := func(w http.ResponseWriter, r *http.Request) bool {
		tell(w, http.StatusForbidden, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403}`)
		return true
	}

	answers(forbids)
	if code, answer := get(); code != http.StatusForbidden {
		t.Errorf("while it was never away: %d %s, want what it says", code, answer)
	}
	answers(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	if code, answer := get(); code != http.StatusServiceUnavailable {
		t.Errorf("while it is away: %d %s", code, answer)
	}
	answers(forbids)
	for range 2 {
		if code, answer := get(); code != http.StatusServiceUnavailable || !strings.Contains(answer, "it is not ready yet: readyz says 403 Forbidden") {
			t.Errorf("while it isn't ready: %d %s", code, answer)
		}
	}
	if diff := cmp.Diff([]string{"GET /readyz", "GET /readyz"}, s.api.requests()); diff != "" {
		t.Errorf("(-want +got requests):\n%s", diff)
	}
	answers(nil)
	for range 2 {
		if code, answer := get(); code != http.StatusOK {
			t.Errorf("when it is ready: %d %s", code, answer)
		}
	}
	if diff := cmp.Diff([]string{"GET /readyz", "GET /api/v1/namespaces/n/pods/p", "GET /api/v1/namespaces/n/pods/p"}, s.api.requests()); diff != "" {
		t.Errorf("(-want +got requests):\n%s", diff)
	}
}
