package world

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/store"
)

// Process is a program with one or more replicas; each runs the same components, but only those of the leader act.
type Process struct {
	Name     string
	world    *World
	replicas []*replica
	leader   *replica
	crash    *Crash
	takeover *Timer
}

// Crash says at which write a process crashes.
type Crash struct {
	// After is false to crash before the write, true to crash after it, before its answer is seen.
	After bool
	// Write counts the matching writes from 1.
	Write int
	// Verb and Kind, where not empty, select writes.
	Verb, Kind string
	// Fired, where not nil, is called when it happened, with a description.
	Fired func(string)
}

// Leader returns the identity of the replica whose components act; empty while there is none.
func (p *Process) Leader() string {
	if p.leader == nil {
		return ""
	}
	return p.leader.identity
}

// CrashAt lets the process crash at a write from now on. A former order is dropped.
func (p *Process) CrashAt(c Crash) { p.crash = &c }

// Stop ends the process gracefully: the lease is released, and nothing runs until Start.
func (p *Process) Stop() {
	if p.takeover != nil {
		p.world.Stop(p.takeover)
		p.takeover = nil
	}
	for _, r := range p.replicas {
		r.end("stopped", "")
	}
	p.leader = nil
}

// StartAgain starts a stopped process with empty memory.
func (p *Process) StartAgain() error {
	for _, r := range p.replicas {
		if err := r.start(); err != nil {
			return err
		}
	}
	return nil
}

// Restart stops the leader gracefully and starts it again; with several replicas another one leads afterwards.
func (p *Process) Restart() error {
	r := p.leader
	if r == nil {
		return p.StartAgain()
	}
	r.end("stopped", "restart")
	p.leader = nil
	if next := p.next(r); next != nil {
		if err := next.lead(); err != nil {
			return err
		}
	}
	return r.start()
}

// next returns a running replica to lead after r, another one if there is one.
func (p *Process) next(r *replica) *replica {
	at := slices.Index(p.replicas, r)
	for n := range p.replicas {
		if other := p.replicas[(at+1+n)%len(p.replicas)]; other.running {
			return other
		}
	}
	return nil
}

// Running reports whether a replica runs.
func (p *Process) Running() bool {
	return slices.ContainsFunc(p.replicas, func(r *replica) bool { return r.running })
}

type replica struct {
	process   *Process
	identity  string
	running   bool
	restart   *Timer
	instances []*instance
}

// start runs the replica; the first one leads.
func (r *replica) start() error {
	if r.running {
		return nil
	}
	r.running = true
	r.process.world.Stop(r.restart)
	if r.process.leader == nil && r.process.takeover == nil {
		return r.lead()
	}
	return nil
}

// lead lets the replica's components act, with empty memory.
func (r *replica) lead() error {
	r.process.leader = r
	if len(r.process.replicas) > 1 {
		if err := r.process.hold(r.identity); err != nil {
			return err
		}
		r.process.world.record(history.Component{Name: r.process.Name, Event: "leading", Message: r.identity})
	}
	for _, i := range r.instances {
		if err := i.start(); err != nil {
			return err
		}
	}
	return nil
}

// end takes the replica and all that its components had in memory.
func (r *replica) end(event, message string) {
	if !r.running {
		r.process.world.Stop(r.restart)
		return
	}
	r.running = false
	for _, i := range r.instances {
		if i.running {
			i.stop()
		}
	}
	r.process.world.record(history.Component{Name: r.process.Name, Event: event, Message: message})
}

// crashed ends the replica and lets it come back; if it led, another replica takes over when the lease has expired.
func (r *replica) crashed(event, message string) {
	w, p := r.process.world, r.process
	r.end(event, message)
	r.restart = w.After(RestartDelay, func() { w.fail(r.start()) })
	if p.leader != r {
		return
	}
	p.leader = nil
	if len(p.replicas) == 1 {
		return
	}
	p.takeover = w.After(LeaseDuration, func() {
		p.takeover = nil
		if next := p.next(r); next != nil {
			w.fail(next.lead())
		}
	})
}

// fail keeps the first error of something that happened by itself; Step returns it.
func (w *World) fail(err error) {
	if err != nil && w.failed == nil {
		w.failed = err
	}
}

// instance is a component of a replica.
type instance struct {
	replica    *replica
	declared   component.Component
	reconciler reconcile.Reconciler
	running    bool
	views      map[schema.GroupVersionKind]*view
	order      []*view
	queue      []reconcile.Request
	queued     map[reconcile.Request]bool
	waiting    map[reconcile.Request]*Timer
	failures   map[reconcile.Request]int
	// ran counts the reconciles of each key at the present instant, to find hot loops.
	ran     map[reconcile.Request]int
	instant int64
	at      int
}

type crashing struct{ message string }

func (i *instance) world() *World { return i.replica.process.world }

func (i *instance) start() error {
	w := i.world()
	i.views = map[schema.GroupVersionKind]*view{}
	i.order, i.queue = nil, nil
	i.queued = map[reconcile.Request]bool{}
	i.waiting = map[reconcile.Request]*Timer{}
	i.failures = map[reconcile.Request]int{}
	i.ran = map[reconcile.Request]int{}
	i.running = true
	name := i.declared.Name
	cached := w.Store.Client(store.ClientOptions{Author: name, View: i, Before: i.before, After: i.after})
	live := w.Store.Client(store.ClientOptions{Author: name, Before: i.before, After: i.after})
	r, err := i.declared.New(component.Env{
		Client:   cached,
		Live:     live,
		Clock:    w.Clock,
		Rand:     Source(w.Seed, i.replica.identity+"/"+name),
		Recorder: newRecorder(w, name),
	})
	if err != nil {
		return fmt.Errorf("start component %s: %w", name, err)
	}
	i.reconciler = r
	w.record(history.Component{Name: name, Event: "started"})
	for _, watch := range i.declared.Watches {
		gvk, err := apiutil.GVKForObject(watch.Object, w.scheme)
		if err != nil {
			return fmt.Errorf("start component %s: watch %T: %w", name, watch.Object, err)
		}
		v := i.view(gvk)
		v.watches = append(v.watches, watch)
		w.Store.ListObjects(gvk, func(o *store.Object) bool {
			i.notify(watch, nil, o.Typed())
			return true
		})
	}
	return nil
}

func (i *instance) stop() {
	w := i.world()
	i.running = false
	w.unready(i)
	for _, v := range i.order {
		w.unready(v)
		w.Stop(v.held)
		w.views[v.gvk] = slices.DeleteFunc(w.views[v.gvk], func(other *view) bool { return other == v })
	}
	waiting := slices.Collect(maps.Values(i.waiting))
	slices.SortFunc(waiting, func(a, b *Timer) int { return cmp.Compare(a.seq, b.seq) })
	for _, t := range waiting {
		w.Stop(t)
	}
	i.reconciler, i.views, i.order, i.queue, i.queued, i.waiting = nil, nil, nil, nil, nil, nil
}

// Revision implements store.View: the revision at which the component sees a kind. A kind that is read for the first
// time is listed and watched from then on, as an informer would.
func (i *instance) Revision(gvk schema.GroupVersionKind) int64 { return i.view(gvk).revision }

func (i *instance) view(gvk schema.GroupVersionKind) *view {
	if v, ok := i.views[gvk]; ok {
		return v
	}
	w := i.world()
	v := &view{instance: i, gvk: gvk, log: w.Store.Changes(gvk), revision: w.Store.Revision(), at: -1}
	v.cursor = v.log.Len()
	i.views[gvk] = v
	i.order = append(i.order, v)
	w.views[gvk] = append(w.views[gvk], v)
	return v
}

// before runs ahead of each request of the component.
func (i *instance) before(r *store.Request) error {
	if !i.running {
		return errStopped
	}
	w := i.world()
	if write(r.Verb) {
		if c := i.replica.process.crash; c != nil && !c.After && c.matches(r) {
			c.Write--
			if c.Write == 0 {
				i.crashNow(c, r, "before")
			}
		}
	}
	if w.Hooks != nil && w.Hooks.Before != nil {
		return w.Hooks.Before(r)
	}
	return nil
}

func (i *instance) after(r *store.Request, err error) error {
	if err == nil && write(r.Verb) {
		if c := i.replica.process.crash; c != nil && c.After && c.matches(r) {
			c.Write--
			if c.Write == 0 {
				i.crashNow(c, r, "after")
			}
		}
	}
	if h := i.world().Hooks; h != nil && h.After != nil {
		return h.After(r, err)
	}
	return err
}

func (i *instance) crashNow(c *Crash, r *store.Request, when string) {
	i.replica.process.crash = nil
	message := fmt.Sprintf("%s %s %s/%s by %s", when, r.Verb, strings.ToLower(r.GVK.Kind), r.Name, i.declared.Name)
	if c.Fired != nil {
		c.Fired(message)
	}
	// The reconcile must not go on, not even to handle an error: a process that is gone handles nothing.
	panic(crashing{message})
}

func (c *Crash) matches(r *store.Request) bool {
	return (c.Verb == "" || c.Verb == r.Verb) && (c.Kind == "" || strings.EqualFold(c.Kind, r.GVK.Kind))
}

func write(verb string) bool {
	switch verb {
	case "get", "list", "watch":
		return false
	}
	return true
}

// notify maps a change to requests and queues them.
func (i *instance) notify(watch component.Watch, before, after client.Object) {
	if watch.When != nil && !watch.When(before, after) {
		return
	}
	for n, o := range []client.Object{before, after} {
		if o == nil || n == 0 && after != nil && watch.Map == nil {
			continue // without a mapping, old and new state give the same request
		}
		if watch.Map == nil {
			i.event(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
			continue
		}
		for _, r := range watch.Map(i.world().ctx, i.reader(), o) {
			i.event(r)
		}
	}
}

func (i *instance) reader() client.Reader {
	return i.world().Store.Client(store.ClientOptions{Author: i.declared.Name, View: i})
}

func (i *instance) event(r reconcile.Request) {
	if i.declared.Delay > 0 {
		i.addAfter(r, i.declared.Delay)
		return
	}
	i.add(r)
}

func (i *instance) add(r reconcile.Request) {
	if i.queued[r] {
		return
	}
	i.queued[r] = true
	i.queue = append(i.queue, r)
	i.world().makeReady(i)
}

// addAfter queues a request later. One that waits already keeps the earlier time, as in client-go's delaying queue.
func (i *instance) addAfter(r reconcile.Request, d time.Duration) {
	w := i.world()
	if t, ok := i.waiting[r]; ok {
		if t.due <= w.Clock.now+d {
			return
		}
		w.Stop(t)
	}
	i.waiting[r] = w.After(d, func() {
		delete(i.waiting, r)
		i.add(r)
	})
}

func (i *instance) place() *int { return &i.at }

// happen runs the reconcile that is first in the queue.
func (i *instance) happen() error {
	w := i.world()
	r := i.queue[0]
	i.queue = i.queue[1:]
	delete(i.queued, r)
	if i.instant != w.instant {
		i.instant = w.instant
		clear(i.ran)
	}
	i.ran[r]++
	if i.ran[r] > HotLoop {
		return &HotLoopError{Component: i.declared.Name, Key: r.String()}
	}
	w.reconc++
	result, err, ended := i.run(r)
	if ended {
		return nil
	}
	switch {
	case err != nil:
		w.record(history.Component{Name: i.declared.Name, Event: "error", Key: key(r), Message: err.Error()})
		i.failures[r]++
		i.addAfter(r, backoff(i.failures[r]))
	case result.RequeueAfter > 0:
		delete(i.failures, r)
		i.addAfter(r, result.RequeueAfter)
	default:
		delete(i.failures, r)
	}
	if len(i.queue) > 0 {
		w.makeReady(i)
	}
	return nil
}

// run reconciles once. ended reports that the process ended in the middle of it.
func (i *instance) run(r reconcile.Request) (result reconcile.Result, err error, ended bool) {
	ctx, cancel := context.WithCancel(i.world().ctx)
	defer cancel()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case crashing:
			i.replica.crashed("crashed", p.message)
			ended = true
		default:
			i.replica.crashed("panic", fmt.Sprintf("%v in %s, request %s\n%s", p, i.declared.Name, key(r), frames(debug.Stack())))
			ended = true
		}
	}()
	result, err = i.reconciler.Reconcile(ctx, r)
	return result, err, false
}

// frames keeps the function names of a stack, without addresses and goroutine numbers, so that a history with a panic in
// it is the same each time.
func frames(stack []byte) string {
	var lines []string
	for l := range strings.Lines(string(stack)) {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "github.com/layersim/") {
			name, _, _ := strings.Cut(l, "(0x")
			name, _, _ = strings.Cut(name, "({0x")
			lines = append(lines, name)
		}
	}
	return strings.Join(lines, "\n")
}

func key(r reconcile.Request) string {
	if r.Namespace == "" {
		return r.Name
	}
	return types.NamespacedName(r.NamespacedName).String()
}

// backoff is client-go's default for a key that failed n times in a row.
func backoff(n int) time.Duration {
	const first, most = 5 * time.Millisecond, 1000 * time.Second
	if n > 18 {
		return most
	}
	return min(first<<(n-1), most)
}

// view is a component's cache of one kind: a cursor in the store's log of that kind.
type view struct {
	instance *instance
	gvk      schema.GroupVersionKind
	log      *store.Log
	cursor   int
	revision int64
	watches  []component.Watch
	held     *Timer
	at       int
}

// pend makes the next event deliverable, now or, now and then, later.
func (v *view) pend() {
	w := v.instance.world()
	if v.at >= 0 || v.held != nil {
		return
	}
	var held time.Duration
	if w.Lag.OneIn > 0 && w.rand.IntN(w.Lag.OneIn) == 0 {
		held = time.Duration(w.rand.Int64N(int64(w.Lag.Most)))
	}
	if w.Hold != nil {
		held += w.Hold(v.instance.declared.Name, v.gvk)
	}
	if held == 0 {
		w.makeReady(v)
		return
	}
	v.held = w.After(held, func() {
		v.held = nil
		w.makeReady(v)
	})
}

func (v *view) place() *int { return &v.at }

// happen delivers the next event.
func (v *view) happen() error {
	change := v.log.At(v.cursor)
	v.cursor++
	v.revision = change.Revision
	var before, after client.Object
	if len(v.watches) > 0 {
		if change.Old != nil {
			before = change.Old.Typed()
		}
		if change.New != nil {
			after = change.New.Typed()
		}
	}
	for _, watch := range v.watches {
		v.instance.notify(watch, before, after)
	}
	if v.cursor < v.log.Len() {
		v.pend()
	}
	return nil
}
