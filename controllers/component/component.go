// Package component says what a controller is: a name, the kinds it watches, and a Reconcile.
//
// A [Component] is a declaration, nothing more. It starts no goroutine, opens no connection and keeps no time of its
// own; what it needs of the world comes in an [Env] each time it is (re)started. So one declaration can be driven in
// two ways: by a controller-runtime manager against a real API server (package manager, beside this one), and by any
// other driver that keeps the same promises:
//
//   - one request key is reconciled at a time, and a key that is queued twice is reconciled once;
//   - a failed request is retried with a back-off of 5 ms, doubling to 1000 s, and a RequeueAfter is honoured;
//   - reads through Env.Client may lag behind the server, each kind by itself, but never go back;
//   - writes through Env.Client go to the server and may meet a conflict;
//   - New is called anew after a restart, and nothing survives it but what the server holds.
//
// The rules for code below controllers/ follow from that: no time.Now (use Env.Clock), no global rand (use Env.Rand),
// no goroutine, and no state that a restart may not lose.
package component

import (
	"context"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Component declares a controller.
type Component struct {
	// Name is the controller's name, unique in a cluster: "machine-os-builder". It names the writer in audit trails,
	// in events and in metrics.
	Name string

	// Watches lists the kinds whose changes lead to a reconcile. A kind that is only read needs no entry.
	Watches []Watch

	// Delay is how long a request waits between the event that caused it and its reconcile, so that a burst of events
	// leads to one reconcile. A request that is already waiting keeps its earlier due time. Zero means at once.
	Delay time.Duration

	// New returns the reconciler with empty memory. An error means that the component can't run at all.
	New func(Env) (reconcile.Reconciler, error)
}

// Around returns the component with a reconciler around each of its own, which wrap makes.
func (c Component) Around(wrap func(Env, reconcile.Reconciler) reconcile.Reconciler) Component {
	inner := c.New
	c.New = func(env Env) (reconcile.Reconciler, error) {
		reconciler, err := inner(env)
		if err != nil {
			return nil, err
		}
		return wrap(env, reconciler), nil
	}
	return c
}

// Watch is one kind that a component watches.
type Watch struct {
	// Object is an empty object of the kind, for example &corev1.Node{}.
	Object client.Object

	// Map names the requests that an object leads to; nil means the object itself. It is called for the new state on
	// add and update, for the old state too on update, and for the last known state on delete. It may read, from the
	// same view that Env.Client reads.
	Map func(ctx context.Context, reader client.Reader, object client.Object) []reconcile.Request

	// When drops events that can't matter; nil keeps them all. On add before is nil, on delete after is nil.
	When func(before, after client.Object) bool
}

// Env is what a component gets of the world when it starts.
type Env struct {
	// Client reads from the component's own cache, which lags, and writes to the server.
	Client client.Client
	// Live reads from the server itself. Use it where acting on an old state would do harm.
	Live client.Reader
	// Clock tells the time.
	Clock clock.PassiveClock
	// Rand is a seeded source, the component's own.
	Rand *rand.Rand
	// Recorder writes Kubernetes events under the component's name.
	Recorder EventRecorder
}

// EventRecorder is what components use of client-go's events.EventRecorder.
type EventRecorder interface {
	Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any)
}
