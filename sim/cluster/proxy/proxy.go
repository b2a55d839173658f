package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/sets"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"

	"github.com/layersim/layersim/sim/store"
)

// largest is the size of the largest body that is read; kube-apiserver accepts 3 MiB.
const largest = 16 << 20

// Options of a proxy. The functions are called from several goroutines at a time.
type Options struct {
	// Target reaches the API server as a cluster administrator.
	Target *rest.Config
	// Kinds names the kind of a resource.
	Kinds func(schema.GroupVersionResource) (schema.GroupVersionKind, bool)
	// Before, where not nil, is called before each request that is not a watch; its error is answered in place of it.
	Before func(*store.Request) error
	// After, where not nil, is called with each such request that the API server answered, and the error that it answered.
	// Another error than this one replaces the answer; nil leaves it.
	After func(*store.Request, error) error
	// Observe, where not nil, gets each write (create, update, patch, apply, delete, deletecollection) after the API server
	// or a fault answered it, before the answer reaches the caller. It gets reads (get, list, watch) as well that the API
	// server forbade.
	Observe func(Write)
}

// Write is a write request and what came of it.
type Write struct {
	// Request is as package store has it, with the caller as Author and bodies as unstructured objects. A patch has an
	// Object only when it is applied, a deletion never has one. The Name is the one that the API server chose for a
	// generateName, which is not known yet in Before.
	Request *store.Request
	// Code is the HTTP status of a refusal, 0 when the caller is told that the write was done. Reason and Message are those
	// of its metav1.Status.
	Code            int
	Reason, Message string
	// ResourceVersion and UID are those of the object that the API server answered, even when After refused the write then.
	// Both are empty where it answered none, as for an eviction, a collection, and deletions of some kinds.
	ResourceVersion string
	UID             types.UID
	Began, Ended    time.Time
}

// Proxy stands in front of an API server.
type Proxy struct {
	o        Options
	target   *url.URL
	address  string
	forward  *httputil.ReverseProxy
	resolver *apirequest.RequestInfoFactory
	server   *http.Server
	served   chan error      // one error for each listener
	grace    time.Duration   // how long a write may go on after its caller went away
	ctx      context.Context // ends with the proxy
	cancel   context.CancelFunc
	handlers sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	serial  int
	serving int                    // listeners
	callers map[string]*Caller     // by the first segment of the path, dead ones too
	remote  map[string]*Caller     // the same for those that don't come by loopback
	owners  map[net.Conn]*Caller   // open connections and who used them last
	writing map[*exchange]struct{} // in flight
}

// New starts a proxy on a free loopback port. It serves plain HTTP/1.1.
func New(o Options) (*Proxy, error) {
	if o.Target == nil || o.Kinds == nil {
		return nil, errors.New("start proxy: no target, or no kinds")
	}
	p := &Proxy{
		o: o, callers: map[string]*Caller{}, remote: map[string]*Caller{}, owners: map[net.Conn]*Caller{}, writing: map[*exchange]struct{}{},
		served: make(chan error, 2), grace: 10 * time.Second,
		resolver: &apirequest.RequestInfoFactory{
			APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api"),
		},
	}
	var err error
	if p.target, _, err = rest.DefaultServerUrlFor(o.Target); err != nil {
		return nil, fmt.Errorf("start proxy: target: %w", err)
	}
	transport, err := rest.TransportFor(o.Target)
	if err != nil {
		return nil, fmt.Errorf("start proxy: target: %w", err)
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	// What goes wrong is answered; that a caller hung up is nothing to log.
	silent := log.New(io.Discard, "", 0)
	p.forward = &httputil.ReverseProxy{
		Transport: &ready{RoundTripper: transport, url: p.target.JoinPath("readyz").String()},
		Rewrite:   p.rewrite, ModifyResponse: modify, ErrorHandler: failed, FlushInterval: -1, ErrorLog: silent,
	}
	p.server = &http.Server{
		Handler: http.HandlerFunc(p.serve), ErrorLog: silent, ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, c)
		},
		ConnState: p.connection,
	}
	if p.address, err = p.Listen("127.0.0.1"); err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	return p, nil
}

// Listen serves on a free port of another address of this machine, for programs that don't reach its loopback, and returns
// where. There a caller is known by a path that can't be guessed, see Caller.KubeconfigAt. It can be called once.
func (p *Proxy) Listen(host string) (address string, err error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.serving == cap(p.served) {
		return "", errors.Join(errors.New("the proxy is closed, or listens elsewhere already"), listener.Close())
	}
	p.serving++
	go func() { p.served <- p.server.Serve(listener) }()
	return listener.Addr().String(), nil
}

// Writing returns how many writes are in flight now, and when the oldest of them began.
func (p *Proxy) Writing() (n int, oldest time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for x := range p.writing {
		if oldest.IsZero() || x.began.Before(oldest) {
			oldest = x.began
		}
	}
	return len(p.writing), oldest
}

// Close ends all requests and waits for them, so that no function of the Options is called afterwards; none of these may
// call it. It is safe to call it again.
func (p *Proxy) Close() error {
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	err := p.server.Close()
	p.handlers.Wait()
	if again {
		return nil
	}
	for range p.serving {
		if served := <-p.served; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.callers {
		c.transport.CloseIdleConnections()
	}
	utilnet.CloseIdleConnectionsFor(p.forward.Transport)
	if err != nil {
		return fmt.Errorf("close proxy: %w", err)
	}
	return nil
}

type (
	connectionKey struct{}
	exchangeKey   struct{}
)

// connection forgets connections that are gone. Those that are hijacked for a session end with the caller's context.
func (p *Proxy) connection(c net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.owners, c)
	}
}

// enter finds out who asks. It returns nil, false when nobody may any more.
func (p *Proxy) enter(r *http.Request, segment string) (*Caller, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn, is := r.Context().Value(connectionKey{}).(net.Conn)
	known := p.remote
	if is {
		if a, tcp := conn.LocalAddr().(*net.TCPAddr); tcp && a.IP.IsLoopback() {
			known = p.callers
		}
	}
	c, ok := known[segment]
	if p.closed || ok && !c.alive() {
		return nil, false
	}
	if is && ok {
		p.owners[conn] = c
	}
	p.handlers.Add(1)
	return c, true
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	segment, path, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	c, ok := p.enter(r, segment)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	defer p.handlers.Done()
	unescaped, err := url.PathUnescape(path)
	if c == nil || err != nil {
		http.Error(w, "no caller of this proxy has the path "+r.URL.Path, http.StatusNotFound)
		return
	}
	r.URL.Path, r.URL.RawPath = "/"+unescaped, "/"+path

	x := &exchange{p: p, caller: c, began: time.Now()}
	if x.resolve(r); !x.hooked() {
		ctx, cancel := c.bound(r.Context())
		defer cancel()
		p.forward.ServeHTTP(w, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
		return
	}
	x.serve(w, r)
}

// rewrite makes the request to the API server out of the caller's.
func (p *Proxy) rewrite(r *httputil.ProxyRequest) {
	x := exchangeOf(r.In)
	r.SetURL(p.target)
	h := r.Out.Header
	for name := range h {
		if strings.HasPrefix(name, "Impersonate-") || strings.HasPrefix(name, "X-Remote-") {
			h.Del(name)
		}
	}
	h.Del("Authorization")
	h.Set("Accept-Encoding", "identity") // without one, the transport would ask for gzip
	h.Set("Impersonate-User", x.caller.as.User)
	for _, group := range x.caller.as.Groups {
		h.Add("Impersonate-Group", group)
	}
	if !x.hooked() {
		return
	}
	if accept := h.Values("Accept"); len(accept) > 0 {
		h.Set("Accept", readable(strings.Join(accept, ",")))
	}
	x.send(r.Out)
}

func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}
