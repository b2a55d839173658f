package proxy

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

// Caller is one incarnation of a process.
type Caller struct {
	p    *Proxy
	name string
	as   Identity
	// segment is the first of the caller's path on loopback; elsewhere it is followed by the secret.
	segment, secret string
	// transport keeps the connections of clients in this process apart, so that cutting one caller hits no other.
	transport *http.Transport
	ctx       context.Context // ends when the caller is cut
	cancel    context.CancelFunc
	ending    sync.Once

	mu    sync.Mutex
	dead  bool
	order *order
}

// order is a crash to come.
type order struct {
	world.Crash
	crashed func()
}

var unfitForPath = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// Identity is who a caller is for the API server.
type Identity struct {
	User   string
	Groups []string
}

// ServiceAccount is the identity of a namespace's service account.
func ServiceAccount(namespace, name string) Identity {
	return Identity{
		User:   serviceaccount.MakeUsername(namespace, name),
		Groups: append(serviceaccount.MakeGroupNames(namespace), user.AllAuthenticated),
	}
}

// Admit lets one incarnation of a process in, as an administrator of that name. Several may have the same name, at the same
// time or one after the other.
func (p *Proxy) Admit(caller string) *Caller {
	return p.AdmitAs(caller, Identity{User: caller, Groups: []string{user.SystemPrivilegedGroup}})
}

// AdmitAs does the same for somebody with the rights of an identity.
func (p *Proxy) AdmitAs(caller string, as Identity) *Caller {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serial++
	c := &Caller{
		p: p, name: caller, as: as, secret: rand.Text(),
		segment:   fmt.Sprintf("%s.%d", unfitForPath.ReplaceAllString(caller, "-"), p.serial),
		transport: &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: 90 * time.Second, DisableCompression: true},
	}
	c.ctx, c.cancel = context.WithCancel(p.ctx)
	p.callers[c.segment], p.remote[c.segment+"."+c.secret] = c, c
	return c
}

// Config reaches the API server as this caller, without client-side throttling.
func (c *Caller) Config() *rest.Config {
	return &rest.Config{Host: c.url(), UserAgent: c.name, QPS: -1, Transport: c.transport}
}

func (c *Caller) url() string { return "http://" + c.p.address + "/" + c.segment + "/" }

// Kubeconfig is a file that says the same, for programs.
func (c *Caller) Kubeconfig() []byte { return kubeconfig(c.url()) }

// KubeconfigAt is the same for programs that reach the proxy at an address that Listen returned. Whoever has the file has
// the caller's rights.
func (c *Caller) KubeconfigAt(address string) []byte {
	return kubeconfig("http://" + address + "/" + c.segment + "." + c.secret + "/")
}

func kubeconfig(url string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster: {server: %q}
users:
- name: caller
  user: {}
contexts:
- name: caller
  context: {cluster: cluster, user: caller}
current-context: caller
`, url)
}

// Cut ends this incarnation: no request of it is passed on any more, those that wait inside included; its watches end, and
// its connections close. It does so again without effect.
func (c *Caller) Cut() {
	c.mu.Lock()
	c.dead = true
	c.mu.Unlock()
	c.end()
}

// end lets what a dead caller left go.
func (c *Caller) end() {
	c.ending.Do(func() {
		c.cancel()
		c.p.mu.Lock()
		defer c.p.mu.Unlock()
		for conn, owner := range c.p.owners {
			if owner == c {
				_ = conn.Close() // it is gone either way
			}
		}
		c.transport.CloseIdleConnections()
	})
}

func (c *Caller) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.dead && c.p.ctx.Err() == nil
}

// CrashAt arranges that a write is the last thing that this incarnation does. The write is counted from now on, of those
// with the verb and kind; [Housekeeping] counts only where the kind names it. Before: it never reaches the API
// server, nor Options.Before. After: it is done and observed, but never answered; writes that are refused don't count. Then
// the incarnation is cut, crash.Fired is told, and crashed is called once in a goroutine of its own; it may be nil. A former
// order is dropped.
func (c *Caller) CrashAt(crash world.Crash, crashed func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order = &order{crash, crashed}
}

// Housekeeping reports whether a request is for a Lease or an Event. In the simulator, neither the faults nor the counting of
// writes see those: processes renew leases all the time, so that counting them would count time.
func Housekeeping(r *store.Request) bool {
	switch r.GVK.Group {
	case "coordination.k8s.io":
		return r.GVK.Kind == "Lease"
	case "", "events.k8s.io":
		return r.GVK.Kind == "Event"
	}
	return false
}

// strike counts a write and returns the order to crash at it, if that is what it has come to. The caller is dead then.
func (c *Caller) strike(after bool, r *store.Request) *order {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.order
	if c.dead || o == nil || o.After != after || o.Verb != "" && o.Verb != r.Verb || o.Kind != "" && !strings.EqualFold(o.Kind, r.GVK.Kind) ||
		o.Kind == "" && Housekeeping(r) {
		return nil
	}
	if o.Write--; o.Write != 0 {
		return nil
	}
	c.order, c.dead = nil, true
	return o
}

// crash ends the caller by an order that has come to pass.
func (c *Caller) crash(o *order, r *store.Request) {
	when := "before"
	if o.After {
		when = "after"
	}
	if o.Fired != nil {
		o.Fired(fmt.Sprintf("%s %s %s/%s by %s", when, r.Verb, strings.ToLower(r.GVK.Kind), r.Name, c.name))
	}
	c.end()
	if o.crashed != nil {
		go o.crashed()
	}
}

// bound ends a context with the caller.
func (c *Caller) bound(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// outliving returns a context that a while after the caller went away ends, and with the proxy.
func (c *Caller) outliving(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	later := func() {
		timer := time.AfterFunc(c.p.grace, cancel)
		context.AfterFunc(ctx, func() { timer.Stop() })
	}
	stops := []func() bool{
		context.AfterFunc(parent, later), context.AfterFunc(c.ctx, later), context.AfterFunc(c.p.ctx, cancel),
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
