package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/registry"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

// Options of an engine.
type Options struct {
	// Name is the cluster's kind: "envtest".
	Name string
	// Server is the API server and what has been there from the beginning.
	Server *Server
	// Seed of ids and passwords.
	Seed uint64
	// Speed is how many seconds of the world pass in one second; default [Speed].
	Speed float64
	// MinimumBuild is the least time that a build takes, whatever the speed; default [MinimumBuild].
	MinimumBuild time.Duration
	// BuildImage, where not "", is the image that build pods run in, with layersim's agent: then they are real ones. Else
	// they are simulated. They run on nodes that have the label BuildNodes with the value "true".
	BuildImage, BuildNodes string
	// Address is the one of this machine at which pods reach this process; default 127.0.0.1, for none do.
	Address string
	// Program, where not nil, says how to run a process outside of this one; nil for one that is run here.
	Program func(process string) *Program
	// Deployment, where not nil, is how the bundled controllers are run in the cluster. It comes before Program.
	Deployment *Deployment
	// Registry, where not nil, is how the registry is run in the cluster, with Address. Else it is in this process.
	Registry *RegistryPod
	// Nodes, where not nil, is how the agent of the simulated machines is run in the cluster; else they are in this process.
	Nodes *Deployment
	// KeepNodes leaves that agent there after the run, for who wants to look at the machines. The next run removes it.
	KeepNodes bool
	// Outage is how long the API server may be out of reach until the run is broken; zero means not at all.
	Outage time.Duration
	// Foundation, where not nil, is laid in place of the bundled controllers' own.
	Foundation Foundation
	// Logs is a directory for the output of programs, by default Scratch, which is removed after the run. Files is one below
	// which each run has its Scratch. Both have to be there.
	Logs, Files, Scratch string
}

// Engine drives a cluster on a real API server. See [cluster.Engine].
type Engine struct {
	Options
	parent context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	start  time.Time
	scheme *runtime.Scheme

	front     *front // of a registry in this process
	gate      *gate  // nil until there is a registry
	recorder  *history.Recorder
	redactor  *history.Redactor
	faults    faults
	processes []*process
	// starting are waits for what was launched and may not run yet.
	starting []func() error
	clients  map[string]client.WithWatch
	actors   []world.Actor
	reconcs  atomic.Int64

	sequence
	stillness stillness
	// agents is the channel to the agents in the cluster; nil until the first is made. The token that they are known by never
	// gets into the history.
	agents *channel
	token  string
	// outfits are of processes that run in the cluster though they are not the bundled controllers, by name.
	outfits map[string]outfit
	// now is the time of the record that is being added.
	now time.Duration

	timersMu sync.Mutex
	timers   []*timer
}

type faults interface {
	Before(*store.Request) error
	After(*store.Request, error) error
}

type timer struct {
	due  time.Time
	fire func()
}

// Quieten silences the logs of the libraries that managers are made of: what goes wrong is in the history.
func Quieten() {
	klog.SetLogger(logr.Discard())
	log.SetLogger(logr.Discard())
}

// New returns an engine for one run. It ends with the context, and has to be closed in any case.
func New(ctx context.Context, o Options) (*Engine, error) {
	if o.Speed <= 0 {
		o.Speed = Speed
	}
	if o.MinimumBuild == 0 {
		o.MinimumBuild = MinimumBuild
	}
	scheme, err := cluster.Scheme()
	if err != nil {
		return nil, err
	}
	e := &Engine{Options: o, parent: ctx, start: time.Now(), scheme: scheme, clients: map[string]client.WithWatch{},
		redactor: history.NewRedactor(o.Seed)}
	e.ctx, e.cancel = context.WithCancelCause(ctx)
	e.sequence.init()
	return e, nil
}

// Durations are those of the world at the engine's speed.
func (e *Engine) Durations() cluster.Durations {
	d := cluster.Scaled(e.Speed)
	// The controllers' own pauses aren't scaled, so neither is the time until a build's first request: what a scenario does
	// when a build has begun shall come before it, as it does on a real cluster.
	d.Build.Start = (builder.Durations{}).Scaled(1).Start
	d.Build.Base, d.Build.Fail = max(d.Build.Base, e.MinimumBuild), max(d.Build.Fail, e.MinimumBuild)
	return d
}

// Close ends all processes and takes back what the run left on the API server.
func (e *Engine) Close() error {
	errs := make([]error, len(e.processes))
	var ending sync.WaitGroup
	for n, p := range e.processes {
		if p.name != nodesName || e.outfits == nil || !e.KeepNodes {
			ending.Go(func() { errs[n] = p.Stop() })
		}
	}
	ending.Wait()
	e.cancel(errors.New("the run is over"))
	e.watches.Wait()
	e.Server.run.CompareAndSwap(e, nil)
	if e.front != nil {
		errs = append(errs, e.front.close())
	}
	if e.agents != nil {
		errs = append(errs, e.agents.close())
	}
	return errors.Join(errs...)
}

// Name implements [cluster.Engine], as do the methods that follow.
func (e *Engine) Name() string { return e.Options.Name }

// Timing implements [cluster.Engine].
func (e *Engine) Timing() cluster.Timing {
	return cluster.Timing{Speed: e.Speed, Patience: Patience, Quiet: Settled, BringUp: BringUp, Terms: fmt.Sprintf(
		"Time is real: boots, pulls and builds pass %g times as fast, Kubernetes' back-off and the controllers' pauses as they are. "+
			"A step gets at least %s. At rest is what has not changed for %s while nobody pauses, or for %s where that isn't known.",
		e.Speed, Patience, Settled, Quiet)}
}

// Clock implements [cluster.Engine].
func (e *Engine) Clock() clock.PassiveClock { return clock.RealClock{} }

// Elapsed implements [cluster.Engine].
func (e *Engine) Elapsed() time.Duration { return time.Since(e.start) }

// Open implements [cluster.Engine]: from now on it watches all kinds.
func (e *Engine) Open(c *cluster.Cluster) error {
	e.recorder, e.faults = c.Recorder, c.Faults
	c.Recorder.Now = func() time.Duration { return e.now }
	if !e.Server.run.CompareAndSwap(nil, e) {
		return errors.New("another run is being made on this API server")
	}
	return e.watch()
}

// Transport implements [cluster.Engine]. The first call opens the front of a registry in this process.
func (e *Engine) Transport(r cluster.Registry, caller string) http.RoundTripper {
	here, ok := r.(*registry.Registry)
	if !ok {
		return r.Transport(caller)
	}
	if e.front == nil {
		front, err := newFront(here, cmp.Or(e.Address, "127.0.0.1"))
		if err != nil {
			return broken{err}
		}
		e.front, e.gate = front, &front.gate
	}
	return e.front.ways.To(caller)
}

// authority is the certificate authority of the registry in PEM form. There is none before the first Transport.
func (e *Engine) authority() []byte {
	if e.gate == nil {
		return nil
	}
	return e.gate.authority
}

type broken struct{ error }

func (b broken) RoundTrip(*http.Request) (*http.Response, error) { return nil, b.error }

// Client implements [cluster.Engine]. After a write it waits until the history has it, so that whatever is judged next
// is judged with it.
func (e *Engine) Client(author string) (client.WithWatch, error) {
	if c := e.clients[author]; c != nil {
		return c, nil
	}
	inner, err := client.NewWithWatch(e.Server.proxy.Admit(author).Config(), client.Options{Scheme: e.scheme, Mapper: e.Server.mapper})
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", author, err)
	}
	e.clients[author] = interceptor.NewClient(inner, e.seen())
	return e.clients[author], nil
}

// Start implements [cluster.Engine].
func (e *Engine) Start(name string, replicas int, components ...component.Component) error {
	p := &process{engine: e, name: name, replicas: max(replicas, 1), components: components}
	outfit, outfitted := e.outfits[name]
	switch {
	case outfitted:
		p.deployment = &outfit.Deployment
	case e.Deployment != nil && e.restricted(name):
		p.deployment = e.Deployment
	case e.Program != nil:
		p.program = e.Program(name)
	}
	e.processes = append(e.processes, p)
	for range p.replicas {
		i, err := p.launch()
		if err != nil {
			return err
		}
		e.starting = append(e.starting, func() error { return p.await(i) })
	}
	return nil
}

// started waits until all runs that Start has launched, side by side.
func (e *Engine) started() error {
	for _, await := range e.starting {
		if err := await(); err != nil {
			return err
		}
	}
	e.starting = nil
	return nil
}

// Process implements [cluster.Engine].
func (e *Engine) Process(name string) cluster.Process {
	for _, p := range e.processes {
		if p.name == name || slices.ContainsFunc(p.components, func(c component.Component) bool { return c.Name == name }) {
			return p
		}
	}
	return nil
}

// Processes implements [cluster.Engine].
func (e *Engine) Processes() []string {
	var names []string
	for _, p := range e.processes {
		names = append(names, p.name)
	}
	return names
}

// Wake implements [cluster.Engine].
func (e *Engine) Wake(name, key string) {
	for _, p := range e.processes {
		p.wake(name, key)
	}
}

// Reconciles implements [cluster.Engine]. Those of programs are not known.
func (e *Engine) Reconciles() int64 { return e.reconcs.Load() }

// After implements [cluster.Engine].
func (e *Engine) After(d time.Duration, fire func()) { e.Deadline(d, fire) }

// Deadline implements [cluster.Engine].
func (e *Engine) Deadline(d time.Duration, fire func()) (stop func()) {
	t := &timer{time.Now().Add(d), fire}
	e.timersMu.Lock()
	defer e.timersMu.Unlock()
	e.timers = append(e.timers, t)
	return func() {
		e.timersMu.Lock()
		defer e.timersMu.Unlock()
		e.timers = slices.DeleteFunc(e.timers, func(other *timer) bool { return other == t })
	}
}

// due takes the earliest timer that is due, else says how long it will be until one is.
func (e *Engine) due() (*timer, time.Duration) {
	e.timersMu.Lock()
	defer e.timersMu.Unlock()
	if len(e.timers) == 0 {
		return nil, time.Second
	}
	first := slices.MinFunc(e.timers, func(a, b *timer) int { return a.due.Compare(b.due) })
	if wait := time.Until(first.due); wait > 0 {
		return nil, wait
	}
	e.timers = slices.DeleteFunc(e.timers, func(t *timer) bool { return t == first })
	return first, 0
}

// AddActor implements [cluster.Engine].
func (e *Engine) AddActor(a world.Actor) { e.actors = append(e.actors, a) }

// Jump implements [cluster.Engine]: real time can't be moved.
func (e *Engine) Jump() {}

// Step implements [cluster.Engine]. Records come first, so that what acts or is judged knows all that happened; then timers,
// then actors; and when nothing of that is there it waits, for a second at most.
func (e *Engine) Step() (world.Outcome, error) {
	if err := e.started(); err != nil {
		return world.Acted, fmt.Errorf("%w: %w", cluster.ErrBroken, err)
	}
	for {
		if e.parent.Err() != nil {
			return world.Acted, context.Cause(e.parent)
		}
		if e.ctx.Err() != nil {
			return world.Acted, fmt.Errorf("%w: %w", cluster.ErrBroken, context.Cause(e.ctx))
		}
		added, wait := e.next()
		if added {
			return world.Acted, nil
		}
		e.now = e.Elapsed()
		t, until := e.due()
		if t != nil {
			t.fire()
			return world.Acted, nil
		}
		if wait == 0 {
			for _, a := range e.actors {
				if a.Ready() {
					a.Act()
					return world.Acted, nil
				}
			}
			wait = time.Second
		}
		if e.await(min(wait, until)); wait == time.Second {
			return world.Acted, nil // for those who look at the time
		}
	}
}
