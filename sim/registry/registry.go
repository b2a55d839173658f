package registry

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	upstream "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/layersim/layersim/sim/history"
)

// SizeAnnotation, on a layer's descriptor in a manifest, says how many bytes the layer of the real image would have.
// [Registry.Usage] and quotas count it in place of the blob's own size.
const SizeAnnotation = "io.layersim.size"

// Options say what a Registry is.
type Options struct {
	// Hosts are the names that it answers to, with a port where clients use one:
	// "image-registry.openshift-image-registry.svc:5000", "quay.io".
	Hosts []string
	// Observe, where not nil, gets each entry of the journal when it is written. It must not call the registry.
	Observe func(history.Registry)
}

// Hook answers a request in place of the registry. It is asked before anything else is done with a request, with the
// name of the caller's [Registry.Transport] (empty for the handler); nil leaves the request to the registry. It may call the
// Registry's methods.
type Hook func(request *http.Request, caller string) *http.Response

// ErrorHook lets a request fail on its way: the error is what the RoundTripper returns. See [Refused], [TimedOut] and
// [NoSuchHost] for the usual ones. The handler closes the connection in place of it where it can.
type ErrorHook func(request *http.Request, caller string) error

// Account is a user of the registry.
type Account struct {
	Name, Password string
	// Pull and Push are patterns of repositories: "*" (all), "openshift/*" (all below openshift/), or a name. A
	// pattern may begin with a host: "quay.io/openshift/*". Push includes pull.
	Pull, Push []string
}

// Registry is a registry. Its methods may be called at the same time.
type Registry struct {
	observe func(history.Registry)

	mu       sync.Mutex // guards all below; held while a request is answered, but not in hooks
	hosts    map[string]*host
	accounts map[string]Account
	quota    map[string]int64 // by host/repository
	journal  []history.Registry
	uploads  map[string]string // the handler's upload id by ours
	uploadID int
	hook     Hook
	errHook  ErrorHook
	storage  Storage // nil for none
}

// host is what one host name holds.
type host struct {
	name         string
	handler      http.Handler
	blobs        *blobs
	repositories map[string]*repository
}

// repository is the index of a repository; the manifests themselves are the handler's.
type repository struct {
	tags      map[string]string              // tag -> digest
	manifests map[string]map[string]blobInfo // digest -> what it refers to, itself included
}

type blobInfo struct {
	size    int64 // what the real one would have
	content bool  // a blob, not a manifest
}

// New returns an empty registry without accounts.
func New(o Options) *Registry {
	r := &Registry{
		observe:  o.Observe,
		hosts:    map[string]*host{},
		accounts: map[string]Account{},
		quota:    map[string]int64{},
		uploads:  map[string]string{},
	}
	for _, name := range o.Hosts {
		r.AddHost(name)
	}
	return r
}

// AddHost lets the registry answer to one more host name.
func (r *Registry) AddHost(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name = canonicalHost(name)
	if r.hosts[name] != nil {
		return
	}
	b := newBlobs()
	r.hosts[name] = &host{
		name:         name,
		blobs:        b,
		repositories: map[string]*repository{},
		handler:      upstream.New(upstream.WithBlobHandler(b), upstream.Logger(log.New(io.Discard, "", 0))),
	}
}

// Hosts returns the host names that the registry answers to, sorted.
func (r *Registry) Hosts() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.hosts))
}

func canonicalHost(name string) string {
	if name == "docker.io" {
		return "index.docker.io"
	}
	return name
}

// SetAccount adds an account, or replaces the one of the same name.
func (r *Registry) SetAccount(a Account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.Pull, a.Push = slices.Clone(a.Pull), slices.Clone(a.Push)
	r.accounts[a.Name] = a
}

// RemoveAccount revokes an account. An unknown one is ignored.
func (r *Registry) RemoveAccount(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.accounts, name)
}

// Accounts returns the names of the accounts, sorted.
func (r *Registry) Accounts() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.accounts))
}

// Account returns the account of that name, for example to rotate its password and keep its rights.
func (r *Registry) Account(name string) (Account, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.accounts[name]
	a.Pull, a.Push = slices.Clone(a.Pull), slices.Clone(a.Push)
	return a, ok
}

// SetQuota limits a repository, named host/path, to a number of bytes. Zero or less lifts the limit.
func (r *Registry) SetQuota(repository string, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if bytes <= 0 {
		delete(r.quota, r.key(repository))
		return
	}
	r.quota[r.key(repository)] = bytes
}

// Usage returns the bytes that a repository, named host/path, takes; see the package's documentation on quota.
func (r *Registry) Usage(repository string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, path, err := r.locate(repository)
	if err != nil {
		return 0
	}
	return h.usage(path, nil)
}

// SetHook sets the seam for faults that answer; nil removes it.
func (r *Registry) SetHook(h Hook) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = h
}

// SetErrorHook sets the seam for faults of the network; nil removes it. It is asked before the [Hook].
func (r *Registry) SetErrorHook(h ErrorHook) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errHook = h
}

// Journal returns a copy of the journal.
func (r *Registry) Journal() []history.Registry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.journal)
}

// ServeHTTP answers a request from a listener. The caller in the journal is empty.
func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) { r.Serve(w, request, "") }

// Serve answers a request from a listener that knows who asks.
func (r *Registry) Serve(w http.ResponseWriter, request *http.Request, caller string) {
	request = request.Clone(request.Context())
	request.URL.Host = request.Host
	response, err := r.do(request, caller)
	if err != nil {
		if h, ok := w.(http.Hijacker); ok {
			if conn, _, err := h.Hijack(); err == nil {
				_ = conn.Close() // the client sees the connection end, which is all that is wanted
				return
			}
		}
		http.Error(w, http.StatusText(http.StatusBadGateway), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	maps.Copy(w.Header(), response.Header)
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, response.Body) // a client that has gone can't be told
}

// do answers a request whose URL has the host.
func (r *Registry) do(request *http.Request, caller string) (*http.Response, error) {
	var body []byte
	if request.Body != nil {
		var err error
		body, err = io.ReadAll(request.Body)
		if closeErr := request.Body.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return nil, fmt.Errorf("read request %s %s: %w", request.Method, request.URL.Path, err)
		}
	}

	r.mu.Lock()
	hook, errHook := r.hook, r.errHook
	r.mu.Unlock()
	if errHook != nil {
		if err := errHook(request, caller); err != nil {
			return nil, err
		}
	}
	if hook != nil {
		if response := hook(request, caller); response != nil {
			complete(response, request)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.record(request, caller, response.StatusCode, max(response.ContentLength, 0), int64(len(body)))
			return response, nil
		}
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	name := canonicalHost(request.URL.Host)
	h := r.hosts[name]
	if h == nil {
		if caller == "" {
			return refuse(request, http.StatusMisdirectedRequest, "UNSUPPORTED", "no registry of that name").response(request), nil
		}
		return nil, NoSuchHost(request.URL.Hostname())
	}
	a := r.answer(h, request, body)
	r.record(request, caller, a.status, int64(a.body.Len()), int64(len(body)))
	return a.response(request), nil
}

// answer checks the caller's rights and the quota, and lets the handler do the rest.
func (r *Registry) answer(h *host, request *http.Request, body []byte) *answer {
	account, known := r.authenticate(request)
	if !known {
		return unauthorized(request)
	}
	route := parse(request.URL.Path)
	switch route.kind {
	case ping:
		if account.Name == "" {
			return unauthorized(request) // clients ask here which kind of credentials is wanted
		}
		return h.serve(request, body)
	case catalog:
		return r.catalog(h, request, account)
	case unknown:
		return h.serve(request, body)
	}

	write := request.Method != http.MethodGet && request.Method != http.MethodHead
	if !account.may(h.name, route.repository, write) {
		if account.Name == "" {
			return unauthorized(request)
		}
		return refuse(request, http.StatusForbidden, "DENIED", "requested access to the resource is denied")
	}

	a := r.act(h, request, route, body, account)
	if write && a.status/100 == 2 && (a.status != http.StatusAccepted || request.Method == http.MethodDelete) {
		if err := r.keep(h, route.repository); err != nil {
			return refuse(request, http.StatusInternalServerError, "UNKNOWN", err.Error())
		}
	}
	return a
}

// act does what a request that is allowed wants.
func (r *Registry) act(h *host, request *http.Request, route route, body []byte, account Account) *answer {
	switch {
	case route.kind == upload:
		return r.upload(h, request, route, body, account)
	case route.kind == manifest && request.Method == http.MethodPut:
		return r.putManifest(h, request, route, body)
	case route.kind == manifest && request.Method == http.MethodDelete:
		return h.deleteManifest(request, route)
	case route.kind == blob && request.Method == http.MethodDelete && h.needs(route.repository, route.reference):
		return refuse(request, http.StatusForbidden, "DENIED", "blob is referenced by a manifest")
	}
	return h.serve(request, body)
}

// authenticate returns the account whose credentials a request carries, and whether they are right.
func (r *Registry) authenticate(request *http.Request) (Account, bool) {
	name, password, ok := request.BasicAuth()
	if !ok || name == "" {
		if request.Header.Get("Authorization") != "" {
			return Account{}, false
		}
		anonymous := r.accounts[""]
		anonymous.Push = nil
		return anonymous, true
	}
	a, ok := r.accounts[name]
	if !ok || subtle.ConstantTimeCompare([]byte(a.Password), []byte(password)) != 1 {
		return Account{}, false
	}
	return a, true
}

func (a Account) may(host, repository string, write bool) bool {
	matches := func(pattern string) bool {
		for _, name := range []string{repository, host + "/" + repository} {
			if prefix, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasPrefix(name, prefix) || pattern == name {
				return true
			}
		}
		return false
	}
	return slices.ContainsFunc(a.Push, matches) || !write && slices.ContainsFunc(a.Pull, matches)
}

// catalog lists the repositories that the account may pull from, sorted; the handler's own order is a map's.
func (r *Registry) catalog(h *host, request *http.Request, account Account) *answer {
	if account.Name == "" {
		return unauthorized(request)
	}
	if request.Method != http.MethodGet {
		return refuse(request, http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported")
	}
	names := []string{}
	for _, name := range slices.Sorted(maps.Keys(h.repositories)) {
		if account.may(h.name, name, false) && name > request.URL.Query().Get("last") {
			names = append(names, name)
		}
	}
	if n, err := strconv.Atoi(request.URL.Query().Get("n")); err == nil && n >= 0 && n < len(names) {
		names = names[:n]
	}
	a := newAnswer(request)
	a.json(http.StatusOK, map[string][]string{"repositories": names})
	return a
}

// upload passes the requests of a blob upload on, with the handler's random upload ids replaced by our own.
func (r *Registry) upload(h *host, request *http.Request, route route, body []byte, account Account) *answer {
	if request.Method == http.MethodPost {
		if limit, ok := r.quota[h.name+"/"+route.repository]; ok && h.usage(route.repository, nil) >= limit {
			return quotaExceeded(request)
		}
		q := request.URL.Query()
		if digest, from := q.Get("mount"), q.Get("from"); digest != "" && from != "" &&
			account.may(h.name, from, false) && h.blobs.link(from, route.repository, digest) {
			a := newAnswer(request)
			a.header.Set("Location", "/v2/"+route.repository+"/blobs/"+digest)
			a.header.Set("Docker-Content-Digest", digest)
			a.WriteHeader(http.StatusCreated)
			return a
		} // else as the specification says: an ordinary upload begins
	}
	inner := request
	if route.reference != "" {
		id, ok := r.uploads[route.reference]
		if !ok {
			return refuse(request, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
		}
		inner = request.Clone(request.Context())
		inner.URL.Path = "/v2/" + route.repository + "/blobs/uploads/" + id
	}
	h.blobs.target = route.repository
	a := h.serve(inner, body)
	if location := a.header.Get("Location"); location != "" && a.status == http.StatusAccepted {
		id := route.reference
		if id == "" {
			r.uploadID++
			id = strconv.Itoa(r.uploadID)
			r.uploads[id] = location[strings.LastIndexByte(location, '/')+1:]
		}
		a.header.Set("Location", "/v2/"+route.repository+"/blobs/uploads/"+id)
	}
	if request.Method == http.MethodPut && a.status == http.StatusCreated {
		delete(r.uploads, route.reference)
	}
	return a
}

// putManifest takes a manifest whose blobs are all there and for which there is room.
func (r *Registry) putManifest(h *host, request *http.Request, route route, body []byte) *answer {
	needs, err := references(body, request.Header.Get("Content-Type"))
	if err != nil {
		return refuse(request, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
	}
	for _, digest := range slices.Sorted(maps.Keys(needs)) {
		if needs[digest].content && !h.blobs.has(route.repository, digest) {
			return refuse(request, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry: "+digest)
		}
	}
	if limit, ok := r.quota[h.name+"/"+route.repository]; ok && h.usage(route.repository, needs) > limit {
		return quotaExceeded(request)
	}
	a := h.serve(request, body)
	if a.status != http.StatusCreated {
		return a
	}
	digest := a.header.Get("Docker-Content-Digest")
	if isDigest(route.reference) && route.reference != digest {
		// The handler believes the client's digest; a real registry compares.
		h.serve(internal(http.MethodDelete, route.repository, route.reference), nil)
		return refuse(request, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
	}
	h.index(route, digest, needs)
	return a
}

func (h *host) index(route route, digest string, needs map[string]blobInfo) {
	repo := h.repositories[route.repository]
	if repo == nil {
		repo = &repository{tags: map[string]string{}, manifests: map[string]map[string]blobInfo{}}
		h.repositories[route.repository] = repo
	}
	repo.manifests[digest] = needs
	if !isDigest(route.reference) {
		repo.tags[route.reference] = digest
	}
}

// deleteManifest removes a tag, or a manifest with its tags and with the blobs that nothing else needs.
func (h *host) deleteManifest(request *http.Request, route route) *answer {
	a := h.serve(request, nil)
	repo := h.repositories[route.repository]
	if a.status != http.StatusAccepted || repo == nil {
		return a
	}
	if !isDigest(route.reference) {
		delete(repo.tags, route.reference)
		return a
	}
	for _, tag := range slices.Sorted(maps.Keys(repo.tags)) {
		if repo.tags[tag] == route.reference {
			h.serve(internal(http.MethodDelete, route.repository, tag), nil)
			delete(repo.tags, tag)
		}
	}
	gone := repo.manifests[route.reference]
	delete(repo.manifests, route.reference)
	for _, digest := range slices.Sorted(maps.Keys(gone)) {
		if gone[digest].content && !h.needs(route.repository, digest) {
			h.blobs.unlink(route.repository, digest)
		}
	}
	return a
}

// needs tells whether a manifest of the repository refers to the blob.
func (h *host) needs(name, digest string) bool {
	repo := h.repositories[name]
	if repo == nil {
		return false
	}
	for _, refs := range repo.manifests {
		if _, ok := refs[digest]; ok {
			return true
		}
	}
	return false
}

// usage is what the repository takes once a manifest that refers to more is added to it.
func (h *host) usage(name string, more map[string]blobInfo) int64 {
	all := maps.Clone(more)
	if all == nil {
		all = map[string]blobInfo{}
	}
	if repo := h.repositories[name]; repo != nil {
		for _, refs := range repo.manifests {
			maps.Copy(all, refs)
		}
	}
	var sum int64
	for _, info := range all {
		sum += info.size
	}
	return sum
}

// serve lets the handler below answer.
func (h *host) serve(request *http.Request, body []byte) *answer {
	inner := request.Clone(request.Context())
	inner.Body = io.NopCloser(bytes.NewReader(body))
	inner.ContentLength = int64(len(body))
	inner.URL.Host = "" // the handler would take it as a part of the repository's name
	a := newAnswer(request)
	h.handler.ServeHTTP(a, inner)
	return a
}

// references lists what a manifest refers to, and the manifest itself, by digest.
func references(body []byte, mediaType string) (map[string]blobInfo, error) {
	var m struct {
		Config    *v1.Descriptor  `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	digest, size, err := v1.SHA256(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("digest manifest: %w", err)
	}
	refs := map[string]blobInfo{digest.String(): {size: size}}
	if m.Config == nil && !types.MediaType(mediaType).IsIndex() {
		return nil, fmt.Errorf("manifest of type %q has no config", mediaType)
	}
	if m.Config != nil {
		refs[m.Config.Digest.String()] = blobInfo{size: m.Config.Size, content: true}
	}
	for _, l := range m.Layers {
		if !l.MediaType.IsDistributable() {
			continue
		}
		info := blobInfo{size: l.Size, content: true}
		if n, err := strconv.ParseInt(l.Annotations[SizeAnnotation], 10, 64); err == nil {
			info.size = n
		}
		refs[l.Digest.String()] = info
	}
	return refs, nil
}

// record writes the journal. Bytes are those of the answer's body or, for what is pushed, of the request's.
func (r *Registry) record(request *http.Request, caller string, status int, answered, sent int64) {
	account, _, _ := request.BasicAuth()
	e := history.Registry{
		Host:    request.URL.Host,
		Method:  request.Method,
		Path:    journalPath(request.URL.Path),
		Account: account,
		Status:  status,
		Bytes:   answered,
		Caller:  caller,
	}
	if sent > 0 {
		e.Bytes = sent
	}
	r.journal = append(r.journal, e)
	if r.observe != nil {
		r.observe(e)
	}
}
