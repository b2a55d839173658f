package world

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/store"
)

// HotLoop is how often one key of one component may be reconciled without time moving on.
const HotLoop = 500

// RestartDelay is how long a crashed process needs until it runs again.
const RestartDelay = 10 * time.Second

// LeaseDuration is how long a leader that vanished without releasing its lease keeps others from leading. It is
// upstream's (cmd/common/helpers.go).
const LeaseDuration = 137 * time.Second

// Lag says how late watch events may be delivered, beyond the disorder of the schedule itself.
type Lag struct {
	// OneIn of that many deliveries is held back; 0 holds none.
	OneIn int
	// Most is the longest time that a delivery is held back.
	Most time.Duration
}

// Options of a world.
type Options struct {
	Store *store.Store
	Clock *Clock
	Seed  uint64
	// Recorder gets what components do; nil records nothing.
	Recorder *history.Recorder
	Lag      Lag
	// Hold, where not nil, is asked for each watch event how long it is held back, beyond Lag.
	Hold Hold
	// Hooks, where not nil, sees each request of a component before and after the API server handles it. An error from
	// Before stops the request, After may replace its result. It is the seam for faults.
	Hooks *Hooks
}

// Hooks is the seam for faults on the way to the API server.
type Hooks struct {
	Before func(*store.Request) error
	After  func(*store.Request, error) error
}

// Actor is something besides components that may act, such as the scenario. Act is called when the schedule chooses it,
// and only while Ready reports true.
type Actor interface {
	Ready() bool
	Act()
}

// HotLoopError ends a run in which a component keeps acting without time moving on.
type HotLoopError struct{ Component, Key string }

func (e *HotLoopError) Error() string {
	return fmt.Sprintf("component %s reconciled %s %d times at one instant: hot loop", e.Component, e.Key, HotLoop)
}

// Outcome of a step.
type Outcome int

const (
	// Acted: something happened.
	Acted Outcome = iota
	// DeadEnd: nothing happened, and nothing can happen any more but the scenario's own timers.
	DeadEnd
)

// item is something that could happen now.
type item interface {
	// happen lets it happen. The world has taken the item out of its set before.
	happen() error
	// place is where the item keeps its index in the world's set; -1 means that it isn't there.
	place() *int
}

// World is a simulated cluster's engine. It is not safe for concurrent use: everything happens in Step.
type World struct {
	Options
	rand      *rand.Rand
	processes []*Process
	views     map[schema.GroupVersionKind][]*view
	ready     []item
	timers    timers
	actors    []Actor
	seq       int64
	steps     int64
	reconc    int64
	instant   int64 // counts the jumps of time
	ctx       context.Context
	scheme    *runtime.Scheme
	failed    error
	// driverTimers counts the timers that don't keep the world alive.
	driverTimers int
}

// New returns a world without components.
func New(o Options) *World {
	w := &World{
		Options: o,
		rand:    rand.New(rand.NewPCG(o.Seed, 0x6c617965727369)),
		views:   map[schema.GroupVersionKind][]*view{},
		ctx:     context.Background(),
		scheme:  o.Store.Client(store.ClientOptions{}).Scheme(),
	}
	if o.Recorder == nil {
		w.Recorder = &history.Recorder{History: &history.History{}, Now: o.Clock.Elapsed, Revision: o.Store.Revision}
	}
	o.Store.OnChange(w.changed)
	return w
}

// Source returns a seeded source of its own for name, so that one user's draws don't shift another's.
func Source(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name)) // a hash never fails to write
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// Counters of work done: steps of the loop and reconciles.
func (w *World) Counters() (steps, reconciles int64) { return w.steps, w.reconc }

// AddActor adds an actor.
func (w *World) AddActor(a Actor) { w.actors = append(w.actors, a) }

// After lets fire happen after d. Timers keep the world alive.
func (w *World) After(d time.Duration, fire func()) *Timer {
	t := &Timer{index: -1, fire: fire}
	t.item = &firing{world: w, timer: t, at: -1}
	w.set(t, d)
	return t
}

// Deadline is After for the scenario: it doesn't keep the world alive.
func (w *World) Deadline(d time.Duration, fire func()) *Timer {
	t := &Timer{index: -1, fire: fire, driver: true}
	t.item = &firing{world: w, timer: t, at: -1}
	w.set(t, d)
	return t
}

// Stop takes a timer back, also one that is due but hasn't fired.
func (w *World) Stop(t *Timer) {
	if t == nil {
		return
	}
	if t.index >= 0 {
		heap.Remove(&w.timers, t.index)
		if t.driver {
			w.driverTimers--
		}
	}
	w.unready(t.item)
}

func (w *World) set(t *Timer, d time.Duration) {
	if d < 0 {
		d = 0
	}
	w.seq++
	t.seq = w.seq
	t.due = w.Clock.now + d
	heap.Push(&w.timers, t)
	if t.driver {
		w.driverTimers++
	}
}

// firing is a due timer that calls a function.
type firing struct {
	world *World
	timer *Timer
	at    int
}

func (f *firing) happen() error { f.timer.fire(); return nil }
func (f *firing) place() *int   { return &f.at }

func (w *World) makeReady(i item) {
	at := i.place()
	if *at >= 0 {
		return
	}
	*at = len(w.ready)
	w.ready = append(w.ready, i)
}

func (w *World) unready(i item) {
	at := i.place()
	if *at < 0 {
		return
	}
	last := len(w.ready) - 1
	moved := w.ready[last]
	w.ready[*at] = moved
	*moved.place() = *at
	w.ready[last] = nil
	w.ready = w.ready[:last]
	*at = -1
}

// Step lets one thing happen. The error, if any, ends the run: a [HotLoopError], or a component that can't start.
func (w *World) Step() (Outcome, error) {
	for {
		var acting []Actor
		for _, a := range w.actors {
			if a.Ready() {
				acting = append(acting, a)
			}
		}
		if n := len(w.ready) + len(acting); n > 0 {
			w.steps++
			chosen := w.rand.IntN(n)
			if chosen >= len(w.ready) {
				acting[chosen-len(w.ready)].Act()
				return Acted, nil
			}
			i := w.ready[chosen]
			w.unready(i)
			if err := i.happen(); err != nil {
				return Acted, err
			}
			return Acted, w.failed
		}
		if len(w.timers) == w.driverTimers {
			return DeadEnd, nil
		}
		w.jump()
	}
}

// Jump moves time to the next timer, of whichever kind, when nothing else could happen. It reports false without one.
func (w *World) Jump() bool {
	if len(w.timers) == 0 {
		return false
	}
	w.jump()
	return true
}

func (w *World) jump() {
	next := w.timers[0].due
	if next > w.Clock.now {
		w.Clock.now = next
		w.instant++
	}
	for len(w.timers) > 0 && w.timers[0].due <= w.Clock.now {
		t := heap.Pop(&w.timers).(*Timer)
		if t.driver {
			w.driverTimers--
		}
		w.makeReady(t.item)
	}
}

// changed is told of every change of the store.
func (w *World) changed(c *store.Change) {
	for _, v := range w.views[c.GVK] {
		v.pend()
	}
}

// Start adds a process and starts it. Components of one process crash and restart together.
func (w *World) Start(name string, replicas int, components ...component.Component) (*Process, error) {
	if w.Process(name) != nil {
		return nil, fmt.Errorf("start process %s: there is one of that name", name)
	}
	p := &Process{Name: name, world: w}
	for n := range max(replicas, 1) {
		r := &replica{process: p, identity: fmt.Sprintf("%s-%d", name, n)}
		for _, c := range components {
			r.instances = append(r.instances, &instance{replica: r, declared: c, at: -1})
		}
		p.replicas = append(p.replicas, r)
	}
	w.processes = append(w.processes, p)
	for _, r := range p.replicas {
		if err := r.start(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Process returns the process of that name, or the one that holds the component of that name; nil if there is none.
func (w *World) Process(name string) *Process {
	for _, p := range w.processes {
		if p.Name == name {
			return p
		}
		for _, i := range p.replicas[0].instances {
			if i.declared.Name == name {
				return p
			}
		}
	}
	return nil
}

// Processes returns the names of all processes, in the order in which they were started.
func (w *World) Processes() []string {
	var names []string
	for _, p := range w.processes {
		names = append(names, p.Name)
	}
	return names
}

func (w *World) record(c history.Component) { w.Recorder.Add(history.Record{Component: &c}) }

// errStopped is what a request of a component gets that no longer runs.
var errStopped = errors.New("the component's process has ended")

// Wake queues a key of a component, for things that happen without an event of the API.
func (w *World) Wake(name, key string) {
	for _, p := range w.processes {
		if p.leader == nil {
			continue
		}
		for _, i := range p.leader.instances {
			if i.declared.Name == name && i.running {
				i.add(reconcile.Request{NamespacedName: types.NamespacedName{Name: key}})
			}
		}
	}
}

// Hold is asked, where not nil, how long a watch event is held back from a component, beyond [Lag].
type Hold func(component string, gvk schema.GroupVersionKind) time.Duration
