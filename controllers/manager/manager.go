// Package manager runs components against a real API server, on a controller-runtime manager.
//
// [Add] attaches one [component.Component] to a manager: a watch for each declared kind, a work queue with the promised
// back-off, one worker, and an environment made of the manager's cached client, its API reader, the real clock and its
// event recorder. Nothing of a component needs to know that it is driven this way.
//
// [Program] is what the processes below cmd/ share: the flags and environment variables that upstream's processes
// have, leader election on a Lease in the machine-config-operator's namespace, a metrics listener and a graceful stop.
// Beside controller-runtime's metrics it serves [NextReconcileMetric], which [Pauses] collects.
//
//	program := manager.Program{Name: "machine-os-builder", Components: func() ([]component.Component, error) { ... }}
//	os.Exit(program.Main())
//
// What it does not do: the cache can answer a field selector only for a field that was indexed (Program.Setup is the
// place), so components select by field through Env.Live.
package manager

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/layersim/layersim/controllers/component"
)

// The back-off of a failed request, which package component promises: it doubles from failure to failure.
const (
	FirstRetry = 5 * time.Millisecond
	LastRetry  = 1000 * time.Second
)

// Add attaches a component to a manager. The component's New is called at once; its reconciler runs when the manager
// is started and, with leader election, has been elected. More are sources of requests beside the API.
func Add(mgr manager.Manager, c component.Component, more ...source.Source) error {
	clk := clock.RealClock{}
	reconciler, err := c.New(component.Env{
		Client: mgr.GetClient(),
		Live:   mgr.GetAPIReader(),
		Clock:  clk,
		//nolint:gosec // spreads retries; nothing secret depends on it
		Rand:     rand.New(rand.NewPCG(uint64(clk.Now().UnixNano()), rand.Uint64())),
		Recorder: mgr.GetEventRecorder(c.Name),
	})
	if err != nil {
		return fmt.Errorf("start component %s: %w", c.Name, err)
	}
	ctrl, err := controller.New(c.Name, mgr, controller.Options{
		Reconciler:  reconciler,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](FirstRetry, LastRetry),
		// Reconcilers keep unguarded memory: one worker, as package component says.
		MaxConcurrentReconciles: 1,
	})
	if err != nil {
		return fmt.Errorf("add controller %s: %w", c.Name, err)
	}
	for _, src := range more {
		if err := ctrl.Watch(src); err != nil {
			return fmt.Errorf("watch for controller %s: %w", c.Name, err)
		}
	}
	for _, watch := range c.Watches {
		src := source.Kind(mgr.GetCache(), watch.Object, handle(watch, mgr.GetClient(), c.Delay), filter(watch))
		if err := ctrl.Watch(src); err != nil {
			return fmt.Errorf("watch %T for controller %s: %w", watch.Object, c.Name, err)
		}
	}
	return nil
}

// handle queues the requests that a watch maps an event to: those of the new state, and on update those of the old
// state as well, so that a request that an object no longer leads to is told.
func handle(watch component.Watch, reader client.Reader, delay time.Duration) handler.EventHandler {
	requests := func(ctx context.Context, object client.Object) []reconcile.Request {
		if watch.Map == nil {
			return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(object)}}
		}
		return watch.Map(ctx, reader, object)
	}
	enqueue := func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request],
		objects ...client.Object) {
		seen := map[reconcile.Request]bool{}
		for _, object := range objects {
			for _, request := range requests(ctx, object) {
				if seen[request] {
					continue
				}
				seen[request] = true
				if delay > 0 {
					queue.AddAfter(request, delay) // keeps an earlier due time
				} else {
					queue.Add(request)
				}
			}
		}
	}
	type queueType = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queueType) { enqueue(ctx, q, e.Object) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queueType) { enqueue(ctx, q, e.ObjectOld, e.ObjectNew) },
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queueType) { enqueue(ctx, q, e.Object) },
	}
}

// filter makes a predicate of Watch.When.
func filter(watch component.Watch) predicate.Predicate {
	if watch.When == nil {
		return predicate.Funcs{}
	}
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return watch.When(nil, e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool { return watch.When(e.ObjectOld, e.ObjectNew) },
		DeleteFunc: func(e event.DeleteEvent) bool { return watch.When(e.Object, nil) },
	}
}
