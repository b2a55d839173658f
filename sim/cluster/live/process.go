package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/controllers/manager"
	"github.com/layersim/layersim/sim/cluster/live/agent"
	"github.com/layersim/layersim/sim/cluster/proxy"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/world"
)

// The lease of bundled controllers with several replicas. It is short, for nobody wants to wait for it.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
	stopTimeout   = 10 * time.Second
)

// process is a program of the cluster, with its replicas.
type process struct {
	engine     *Engine
	name       string
	replicas   int
	components []component.Component
	// program or deployment says how it is run outside of this process; with neither the components run here.
	program    *Program
	deployment *Deployment

	mu      sync.Mutex // guards what follows
	running []*incarnation
	serial  int
	order   *world.Crash
	stopped bool
}

// incarnation is one life of a replica.
type incarnation struct {
	caller *proxy.Caller
	cancel func() // asks it to end
	kill   func() // ends it
	ended  chan struct{}
	err    error
	// ready, where not nil, gets one value as soon as it runs, or will never run.
	ready chan error
	// replica is the name of its Deployment.
	replica string
	wakes   agent.Wakes
	// next, where not nil, is when its components look again by themselves: the zero time if they wait for events only.
	next func(context.Context) (time.Time, error)
}

func (p *process) record(event, message string) {
	p.engine.Record(history.Record{Component: &history.Component{Name: p.name, Event: event, Message: message}})
}

// StartAgain implements [cluster.Process].
func (p *process) StartAgain() error {
	for range p.replicas {
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// start runs one replica more, and returns when it runs.
func (p *process) start() error {
	i, err := p.launch()
	if err != nil {
		return err
	}
	return p.await(i)
}

// await returns when a life has begun that was launched, if it was.
func (p *process) await(i *incarnation) (err error) {
	if i == nil || i.ready == nil {
		return nil
	}
	select {
	case err = <-i.ready:
	case <-p.engine.ctx.Done():
	case <-time.After(deployLimit):
		err = fmt.Errorf("it is not ready after %s", deployLimit)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	return nil
}

// launch starts one replica more, if one is missing.
func (p *process) launch() (*incarnation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = false
	if len(p.running) >= p.replicas {
		return nil, nil
	}
	caller := p.engine.admit(p.name)
	run := p.attach
	switch {
	case p.deployment != nil:
		run = p.deploy
	case p.program != nil:
		run = p.execute
	}
	i, err := run(caller)
	if err != nil {
		caller.Cut()
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	p.running = append(p.running, i)
	p.arm(i)
	p.record("started", "")
	return i, nil
}

// attach runs the components on a manager.
func (p *process) attach(caller *proxy.Caller) (*incarnation, error) {
	e := p.engine
	cached := cache.Options{DefaultTransform: cache.TransformStripManagedFields()}
	if e.restricted(p.name) {
		cached.ByObject = manager.Scope()
	}
	mgr, err := ctrlmanager.New(caller.Config(), ctrlmanager.Options{
		Scheme:         e.scheme,
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return e.Server.mapper, nil },
		Cache:          cached,
		Metrics:        metricsserver.Options{BindAddress: "0"},
		Logger:         logr.Discard(),                                      // what goes wrong is in the history
		Controller:     config.Controller{SkipNameValidation: ptr.To(true)}, // there are runs side by side
		LeaderElection: p.replicas > 1, LeaderElectionID: p.name, LeaderElectionNamespace: layering.Namespace,
		LeaderElectionReleaseOnCancel: true, LeaseDuration: ptr.To(leaseDuration), RenewDeadline: ptr.To(renewDeadline),
		RetryPeriod: ptr.To(retryPeriod), GracefulShutdownTimeout: ptr.To(stopTimeout),
	})
	if err != nil {
		return nil, err
	}
	i := &incarnation{caller: caller, ended: make(chan struct{}), wakes: agent.NewWakes(p.components)}
	pauses := &manager.Pauses{}
	i.next = func(context.Context) (time.Time, error) { return pauses.Next(), nil }
	for _, c := range p.components {
		if err := i.wakes.Add(mgr, pauses.Follow(p.watched(c))); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(e.ctx)
	i.cancel, i.kill = cancel, cancel
	go func() {
		defer close(i.ended)
		if err := mgr.Start(ctx); err != nil && ctx.Err() == nil {
			i.err = err
			p.exited(i)
		}
	}()
	return i, nil
}

// watched counts a component's reconciles and records what they come to.
func (p *process) watched(c component.Component) component.Component {
	c = agent.Watched(c, func(_ context.Context, failure *history.Component) {
		p.engine.Record(history.Record{Component: failure})
	})
	return c.Around(func(_ component.Env, inner reconcile.Reconciler) reconcile.Reconciler {
		return reconcile.Func(func(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
			p.engine.reconcs.Add(1)
			return inner.Reconcile(ctx, r)
		})
	})
}

// unexpected reports whether a replica that ended was to run on.
func (p *process) unexpected(i *incarnation) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.running, i)
}

// exited tells that a replica ended by itself, and starts another.
func (p *process) exited(i *incarnation) {
	p.record("exited", i.err.Error())
	p.again(i)
}

// again lets a replica come back after its end.
func (p *process) again(i *incarnation) {
	p.mu.Lock()
	p.running = slices.DeleteFunc(p.running, func(other *incarnation) bool { return other == i })
	p.mu.Unlock()
	i.caller.Cut()
	i.kill()
	p.release()
	p.engine.After(p.engine.Timing().Of(world.RestartDelay), func() {
		p.mu.Lock()
		stopped := p.stopped
		p.mu.Unlock()
		if stopped {
			return
		}
		if err := p.start(); err != nil {
			p.engine.cancel(err)
		}
	})
}

// CrashAt implements [cluster.Process]. With several replicas it is the one that comes to the write that crashes.
func (p *process) CrashAt(c world.Crash) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order = &c
	for _, i := range p.running {
		p.arm(i)
	}
	return nil
}

// arm gives an incarnation the order to crash. The caller holds the lock.
func (p *process) arm(i *incarnation) {
	if p.order == nil {
		return
	}
	i.caller.CrashAt(*p.order, func() {
		p.mu.Lock()
		p.order = nil
		p.mu.Unlock()
		p.record("crashed", "")
		p.again(i)
	})
}

// Stop implements [cluster.Process].
func (p *process) Stop() error {
	p.mu.Lock()
	p.stopped = true
	running := p.running
	p.running = nil
	p.mu.Unlock()
	var errs []error
	for _, i := range running {
		errs = append(errs, p.end(i))
	}
	if len(running) > 0 {
		p.record("stopped", "")
	}
	return errors.Join(errs...)
}

// end stops one replica.
func (p *process) end(i *incarnation) error {
	i.cancel()
	grace := stopTimeout
	switch {
	case p.deployment != nil:
		grace *= 2 // it is the kubelet's and two controllers' as well
	case p.program != nil:
		grace = cmp.Or(p.program.Grace, grace)
	}
	select {
	case <-i.ended:
	case <-time.After(grace + time.Second):
		i.kill()
		if p.program == nil && p.deployment == nil {
			return fmt.Errorf("stop %s: it still runs after %s", p.name, grace)
		}
		<-i.ended
		p.release()
	}
	i.caller.Cut()
	return nil
}

// Restart implements [cluster.Process].
func (p *process) Restart() error {
	p.mu.Lock()
	var first *incarnation
	if len(p.running) > 0 {
		first = p.running[0]
		p.running = p.running[1:]
	}
	p.mu.Unlock()
	if first != nil {
		if err := p.end(first); err != nil {
			return err
		}
		p.record("stopped", "restart")
	}
	return p.start()
}

// wake queues a key of a component of this process.
func (p *process) wake(name, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.running {
		i.wakes.Wake(name, key)
	}
}
