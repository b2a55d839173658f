package agent

import (
	"context"
	"fmt"
	"runtime/debug"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/manager"
	"github.com/layersim/layersim/sim/history"
)

// Wakes queue the keys of components, by the component's name, that no event of the API leads to.
type Wakes map[string]chan event.GenericEvent

// NewWakes returns them for components.
func NewWakes(components []component.Component) Wakes {
	w := Wakes{}
	for _, c := range components {
		w[c.Name] = make(chan event.GenericEvent, 4096)
	}
	return w
}

// Add attaches a component to a manager.
func (w Wakes) Add(mgr ctrlmanager.Manager, c component.Component) error {
	return manager.Add(mgr, c, source.Channel(w[c.Name], &handler.EnqueueRequestForObject{}))
}

// Wake queues a key of a component, if it is one of them. Where the queue is full the component looks at everything anyway.
func (w Wakes) Wake(component, key string) {
	o := &metav1.PartialObjectMetadata{}
	o.Name = key
	select {
	case w[component] <- event.GenericEvent{Object: o}:
	default:
	}
}

// Watched returns a component of whose reconciles it is told when they fail or panic. A panic is an error for whoever
// drives the component.
func Watched(c component.Component, failed func(context.Context, *history.Component)) component.Component {
	return c.Around(func(_ component.Env, inner reconcile.Reconciler) reconcile.Reconciler {
		return reconcile.Func(func(ctx context.Context, r reconcile.Request) (result reconcile.Result, err error) {
			tell := func(event, message string) {
				failed(ctx, &history.Component{Name: c.Name, Event: event, Key: r.String(), Message: message})
			}
			defer func() {
				if cause := recover(); cause != nil {
					tell("panic", fmt.Sprintf("%v\n%s", cause, debug.Stack()))
					err = fmt.Errorf("panic: %v", cause)
				}
			}()
			if result, err = inner.Reconcile(ctx, r); err != nil && ctx.Err() == nil {
				tell("error", err.Error())
			}
			return result, err
		})
	})
}
