package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	"github.com/layersim/layersim/sim/store"
)

// exchange is a request and its answer.
type exchange struct {
	p      *Proxy
	caller *Caller
	// request is nil for what is no request for resources.
	request  *store.Request
	resource schema.GroupResource
	body     []byte
	began    time.Time
	// The answered object's.
	resourceVersion string
	uid             types.UID
}

// sessions are the subresources that are no requests in the sense of this package.
var sessions = []string{"exec", "attach", "portforward", "proxy", "log"}

// errUnanswered ends a request whose caller is dead.
var errUnanswered = errors.New("caller is gone")

// resolve finds out what is asked for.
func (x *exchange) resolve(r *http.Request) {
	info, err := x.p.resolver.NewRequestInfo(r)
	if err != nil || !info.IsResourceRequest || slices.Contains(sessions, info.Subresource) {
		return
	}
	switch info.Verb {
	case "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection":
	default:
		return
	}
	q := &store.Request{
		Author: x.caller.name, Verb: info.Verb, Subresource: info.Subresource, Namespace: info.Namespace, Name: info.Name,
		DryRun: len(r.URL.Query()["dryRun"]) > 0,
	}
	gvr := schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource}
	x.resource = gvr.GroupResource()
	var known bool
	if q.GVK, known = x.p.o.Kinds(gvr); !known {
		q.GVK = gvr.GroupVersion().WithKind("")
	}
	if gvr.Group == "" && gvr.Resource == "namespaces" {
		q.Namespace = "" // which is the name again
	}
	if q.Verb == "list" || q.Verb == "watch" {
		q.Name = "" // a field selector's
	}
	x.request = q
}

// hooked tells whether an exchange is more than passed on.
func (x *exchange) hooked() bool { return x.request != nil && x.request.Verb != "watch" }

func (x *exchange) writes() bool {
	return x.hooked() && x.request.Verb != "get" && x.request.Verb != "list"
}

func (x *exchange) serve(w http.ResponseWriter, r *http.Request) {
	if x.writes() {
		x.p.begin(x)
		defer x.p.end(x)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, largest+1))
	if err != nil {
		panic(http.ErrAbortHandler) // the caller went away
	}
	if len(body) > largest {
		x.refuse(w, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", largest)))
		return
	}
	x.body = body
	x.decode(r)
	if x.writes() {
		if o := x.caller.strike(false, x.request); o != nil {
			x.caller.crash(o, x.request)
		}
	}
	if x.caller.alive() && x.p.o.Before != nil {
		err = x.p.o.Before(x.request)
	}
	if !x.caller.alive() || r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // it went away while it waited
	}
	if err != nil {
		x.refuse(w, err)
		return
	}
	limited := x.caller.bound
	if x.writes() {
		limited = x.caller.outliving
	}
	ctx, cancel := limited(r.Context())
	defer cancel()
	x.p.forward.ServeHTTP(w, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
}

func (p *Proxy) begin(x *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing[x] = struct{}{}
}

func (p *Proxy) end(x *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.writing, x)
}

// decode completes the request by its body. What can't be decoded is left to the API server.
func (x *exchange) decode(r *http.Request) {
	q := x.request
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		media = ""
	}
	if q.Verb == "patch" {
		q.Patch, q.PatchType = x.body, types.PatchType(media)
		if !strings.HasPrefix(media, "application/apply-patch") {
			return
		}
		q.Verb = "apply"
	}
	if !x.writes() || len(x.body) == 0 {
		return
	}
	o := decoded(media, x.body)
	if o == nil {
		return
	}
	options := o
	if q.Subresource == "eviction" {
		options, _, _ = unstructured.NestedMap(o, "deleteOptions")
	}
	if list, ok := options["dryRun"].([]any); ok && len(list) > 0 && (q.Subresource == "eviction" || strings.HasPrefix(q.Verb, "delete")) {
		q.DryRun = true
	}
	if strings.HasPrefix(q.Verb, "delete") {
		return // only options
	}
	u := &unstructured.Unstructured{Object: o}
	if q.Subresource == "" {
		if q.GVK.Kind == "" {
			q.GVK.Kind = u.GetKind()
		}
		if u.GetKind() == "" {
			u.SetGroupVersionKind(q.GVK) // which the API server doesn't insist on
		}
		if q.Name == "" {
			q.Name = u.GetName()
		}
	}
	q.Object = u
}

// decoded returns an object in its untyped form, nil where that isn't possible.
func decoded(media string, data []byte) map[string]any {
	var o map[string]any
	var err error
	switch {
	case strings.HasSuffix(media, "protobuf"):
		var typed runtime.Object
		var gvk *schema.GroupVersionKind
		if typed, gvk, err = clientgoscheme.Codecs.UniversalDeserializer().Decode(data, nil, nil); err == nil {
			if o, err = runtime.DefaultUnstructuredConverter.ToUnstructured(typed); err == nil {
				o["apiVersion"], o["kind"] = gvk.ToAPIVersionAndKind()
			}
		}
	case strings.HasSuffix(media, "cbor"):
		err = direct.Unmarshal(data, &o)
	case strings.HasSuffix(media, "yaml"):
		if data, err = utilyaml.ToJSON(data); err == nil {
			err = utiljson.Unmarshal(data, &o)
		}
	default:
		err = utiljson.Unmarshal(data, &o)
	}
	if err != nil {
		return nil
	}
	return o
}

// send gives the body that was read to the request to the API server.
func (x *exchange) send(r *http.Request) {
	r.ContentLength = int64(len(x.body))
	if len(x.body) == 0 {
		r.Body, r.GetBody = http.NoBody, nil
		return
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.body)), nil }
	r.Body = io.NopCloser(bytes.NewReader(x.body))
}

// modify is between the API server's answer and the caller.
func modify(res *http.Response) error {
	x := exchangeOf(res.Request)
	if x.request == nil || !x.hooked() && res.StatusCode != http.StatusForbidden {
		return nil
	}
	var answered error
	if x.writes() || res.StatusCode >= http.StatusBadRequest {
		body, err := peek(res)
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if res.StatusCode >= http.StatusBadRequest {
			answered = x.refusal(res, body)
		} else {
			x.done(body)
		}
	}
	if !x.writes() && res.StatusCode == http.StatusForbidden {
		x.tell(answered)
	}
	if !x.hooked() {
		return nil
	}
	if answered == nil && x.writes() {
		if o := x.caller.strike(true, x.request); o != nil {
			x.observe(nil)
			x.caller.crash(o, x.request)
			return errUnanswered
		}
	}
	told := answered
	if x.p.o.After != nil {
		if err := x.p.o.After(x.request, answered); err != nil && err != answered {
			told = err
			if err := replace(res, err); err != nil {
				return err
			}
		}
	}
	x.observe(told)
	if !x.caller.alive() {
		return errUnanswered
	}
	return nil
}

// peek reads an answer and leaves it as it was. It returns nil for a body that is too large.
func peek(res *http.Response) ([]byte, error) {
	read, err := io.ReadAll(io.LimitReader(res.Body, largest+1))
	if err != nil {
		return nil, err
	}
	if len(read) > largest {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(read), res.Body), res.Body}
		return nil, nil
	}
	if err := res.Body.Close(); err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(read))
	return read, nil
}

// refusal is the error that the API server answered.
func (x *exchange) refusal(res *http.Response, body []byte) error {
	var s metav1.Status
	if media := res.Header.Get("Content-Type"); strings.HasSuffix(media, "protobuf") || strings.HasSuffix(media, "cbor") {
		// A watch is answered as the caller wants it.
		if readable, err := json.Marshal(decoded(media, body)); err == nil {
			body = readable
		}
	}
	if err := json.Unmarshal(body, &s); err == nil && s.Kind == "Status" {
		if s.Code == 0 {
			s.Code = int32(res.StatusCode) //nolint:gosec // three digits
		}
		return &apierrors.StatusError{ErrStatus: s}
	}
	after, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil {
		after = 0
	}
	return apierrors.NewGenericServerResponse(res.StatusCode, res.Request.Method, x.resource, x.request.Name, strings.TrimSpace(string(body)), after, true)
}

// done notes what the API server stored.
func (x *exchange) done(body []byte) {
	var o struct {
		Kind     string
		Metadata struct {
			Name, ResourceVersion string
			UID                   types.UID
		}
		Details struct{ UID types.UID }
	}
	if err := json.Unmarshal(body, &o); err != nil {
		return
	}
	if o.Kind == "Status" {
		x.uid = o.Details.UID // of what was deleted
		return
	}
	if o.Metadata.UID == "" {
		return // a list, or nothing that is stored
	}
	x.resourceVersion, x.uid = o.Metadata.ResourceVersion, o.Metadata.UID
	if x.request.Name == "" && x.request.Verb == "create" {
		named := *x.request // hooks may have kept the other
		named.Name = o.Metadata.Name
		x.request = &named
	}
}

// observe tells of a write.
func (x *exchange) observe(err error) {
	if x.writes() {
		x.tell(err)
	}
}

func (x *exchange) tell(err error) {
	if x.p.o.Observe == nil {
		return
	}
	w := Write{Request: x.request, ResourceVersion: x.resourceVersion, UID: x.uid, Began: x.began, Ended: time.Now()}
	if err != nil {
		s := status(err)
		w.Code, w.Reason, w.Message = int(s.Code), string(s.Reason), s.Message
	}
	x.p.o.Observe(w)
}

// failed is called when the API server didn't answer, or when the answer may not be passed on.
func failed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r)
	if errors.Is(err, errUnanswered) || !x.writes() && r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	x.refuse(w, apierrors.NewServiceUnavailable("the API server did not answer: "+err.Error()))
}

// refuse answers an error in place of the API server.
func (x *exchange) refuse(w http.ResponseWriter, err error) {
	x.observe(err)
	if !x.caller.alive() {
		panic(http.ErrAbortHandler)
	}
	res := &http.Response{Header: w.Header()}
	if err := replace(res, err); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body) // nobody to tell
}

// replace puts an error into an answer.
func replace(res *http.Response, err error) error {
	s := status(err)
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	if res.Body != nil {
		if err := res.Body.Close(); err != nil {
			return fmt.Errorf("drop answer: %w", err)
		}
	}
	res.StatusCode, res.Status = int(s.Code), ""
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	res.Header.Set("Content-Type", "application/json")
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
	res.Header.Del("Retry-After")
	if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
		res.Header.Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
	}
	return nil
}

// status is the form in which an API server tells an error.
func status(err error) metav1.Status {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	s := known.Status()
	s.Kind, s.APIVersion, s.Status = "Status", "v1", metav1.StatusFailure
	if s.Code < 100 {
		s.Code = http.StatusInternalServerError
	}
	return s
}

// readable asks for JSON instead of what can't be read here, in the same form (a table, or metadata only).
func readable(accept string) string {
	var out []string
	for _, clause := range strings.Split(accept, ",") {
		media, parameters, err := mime.ParseMediaType(clause)
		if err != nil {
			out = append(out, strings.TrimSpace(clause))
			continue
		}
		if strings.HasSuffix(media, "protobuf") || strings.HasSuffix(media, "cbor") {
			media = "application/json"
			delete(parameters, "type")
		}
		if clause = mime.FormatMediaType(media, parameters); !slices.Contains(out, clause) {
			out = append(out, clause)
		}
	}
	return strings.Join(out, ",")
}
