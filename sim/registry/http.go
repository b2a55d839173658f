package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Transport returns a RoundTripper that answers in process. Caller is who asks, for the journal and for hooks: the
// name of a component, "build-pod/<pod>", or a node. An unknown host gives the error that a resolver gives.
//
// Requests of go-containerregistry's remote package through it come in one order only with remote.WithJobs(1).
func (r *Registry) Transport(caller string) http.RoundTripper {
	if caller == "" {
		caller = "-"
	}
	return transport{r, caller}
}

type transport struct {
	registry *Registry
	caller   string
}

func (t transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := request.Context().Err(); err != nil {
		if request.Body != nil {
			_ = request.Body.Close() // as the interface demands; nothing was read from it
		}
		return nil, err
	}
	return t.registry.do(request, t.caller)
}

// NoSuchHost is the error of a dial to a host that no resolver knows.
func NoSuchHost(host string) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
}

// Refused is the error of a dial to a host that doesn't listen.
func Refused(host string) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: address(host), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// TimedOut is the error of a dial to a host that doesn't answer.
func TimedOut(host string) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: address(host), Err: os.ErrDeadlineExceeded}
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// Answer is a registry's error answer, for hooks: status, code ("TOOMANYREQUESTS", "UNAVAILABLE", "MANIFEST_UNKNOWN") and
// message, in the protocol's JSON form.
func Answer(request *http.Request, status int, code, message string) *http.Response {
	return refuse(request, status, code, message).response(request)
}

// complete fills what a hook's response lacks for a client to read it.
func complete(response *http.Response, request *http.Request) {
	if response.Request == nil {
		response.Request = request
	}
	if response.Header == nil {
		response.Header = http.Header{}
	}
	if response.Body == nil {
		response.Body = http.NoBody
	}
	if response.Proto == "" {
		response.Proto, response.ProtoMajor, response.ProtoMinor = "HTTP/1.1", 1, 1
	}
	if response.Status == "" {
		response.Status = fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode))
	}
}

// answer takes what a handler writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newAnswer(*http.Request) *answer { return &answer{header: http.Header{}} }

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

func (a *answer) json(status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // strings and slices of strings only
		status, b = http.StatusInternalServerError, nil
	}
	a.header.Set("Content-Type", "application/json")
	a.header.Set("Content-Length", strconv.Itoa(len(b)))
	a.WriteHeader(status)
	a.body.Write(b)
}

func (a *answer) response(request *http.Request) *http.Response {
	a.WriteHeader(http.StatusOK)
	length := int64(a.body.Len())
	if n, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64); err == nil {
		length = n // of a HEAD request: that of the body which GET would give
	}
	a.header.Set("Docker-Distribution-API-Version", "registry/2.0")
	response := &http.Response{StatusCode: a.status, Header: a.header, ContentLength: length}
	response.Body = io.NopCloser(&a.body)
	if request.Method == http.MethodHead {
		response.Body = http.NoBody
	}
	complete(response, request)
	return response
}

// refuse is an error answer.
func refuse(_ *http.Request, status int, code, message string) *answer {
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	a := newAnswer(nil)
	a.json(status, map[string][]item{"errors": {{code, message}}})
	return a
}

func unauthorized(request *http.Request) *answer {
	a := refuse(request, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	a.header.Set("WWW-Authenticate", `Basic realm="Registry Realm"`)
	return a
}

func quotaExceeded(request *http.Request) *answer {
	return refuse(request, http.StatusForbidden, "DENIED", "quota exceeded")
}

// internal is a request of the registry to its own handler.
func internal(method, repository, reference string) *http.Request {
	return &http.Request{
		Method: method,
		URL:    &url.URL{Path: "/v2/" + repository + "/manifests/" + reference},
		Header: http.Header{},
	}
}

type kind int

const (
	unknown kind = iota
	ping
	catalog
	manifest
	tags
	blob
	upload
)

// route is a path of the protocol taken apart. Reference is the tag, digest or upload id at its end.
type route struct {
	kind       kind
	repository string
	reference  string
}

// parse takes a path apart from its end, as a repository's name may contain any of the words.
func parse(path string) route {
	rest, ok := strings.CutPrefix(path, "/v2")
	if !ok {
		return route{}
	}
	rest = strings.TrimPrefix(rest, "/")
	switch rest {
	case "":
		return route{kind: ping}
	case "_catalog":
		return route{kind: catalog}
	}
	e := strings.Split(rest, "/")
	if e[len(e)-1] == "" && len(e) > 1 {
		e = e[:len(e)-1]
	}
	n := len(e)
	switch {
	case n >= 4 && e[n-3] == "blobs" && e[n-2] == "uploads":
		return route{upload, strings.Join(e[:n-3], "/"), e[n-1]}
	case n >= 3 && e[n-2] == "blobs" && e[n-1] == "uploads":
		return route{upload, strings.Join(e[:n-2], "/"), ""}
	case n >= 3 && e[n-2] == "blobs":
		return route{blob, strings.Join(e[:n-2], "/"), e[n-1]}
	case n >= 3 && e[n-2] == "manifests":
		return route{manifest, strings.Join(e[:n-2], "/"), e[n-1]}
	case n >= 3 && e[n-2] == "tags" && e[n-1] == "list":
		return route{tags, strings.Join(e[:n-2], "/"), ""}
	}
	return route{}
}

// journalPath is the path without the upload id.
func journalPath(path string) string {
	if r := parse(path); r.kind == upload && r.reference != "" {
		return "/v2/" + r.repository + "/blobs/uploads/-"
	}
	return path
}

func isDigest(reference string) bool { return strings.Contains(reference, ":") }
