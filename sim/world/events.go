package world

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/store"
)

// recorder writes Kubernetes events. Like client-go's it counts repetitions of one event in one object.
type recorder struct {
	world  *World
	name   string
	client client.Client
	seen   map[string]types.NamespacedName
	serial int
}

func newRecorder(w *World, name string) *recorder {
	return &recorder{world: w, name: name, client: w.Store.Client(store.ClientOptions{Author: name}),
		seen: map[string]types.NamespacedName{}}
}

// Eventf implements events.EventRecorder. Events about cluster-scoped objects go to namespace default.
func (r *recorder) Eventf(regarding, _ runtime.Object, eventtype, reason, _, note string, args ...any) {
	object, ok := regarding.(client.Object)
	if !ok {
		return
	}
	gvk, err := apiutil.GVKForObject(object, r.world.scheme)
	if err != nil {
		r.failed(reason, err)
		return
	}
	message := fmt.Sprintf(note, args...)
	namespace := object.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	now := metav1.NewTime(r.world.Clock.Now())
	id := fmt.Sprintf("%s/%s/%s/%s/%s/%s", gvk.Kind, object.GetName(), object.GetUID(), eventtype, reason, message)
	if name, ok := r.seen[id]; ok {
		var event corev1.Event
		err := r.client.Get(r.world.ctx, name, &event)
		if err == nil {
			event.Count++
			event.LastTimestamp = now
			err = r.client.Update(r.world.ctx, &event)
		}
		if !apierrors.IsNotFound(err) {
			r.failed(reason, err)
			return
		}
	}
	r.serial++
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      fmt.Sprintf("%s.%x.%s.%x", object.GetName(), r.world.Clock.Now().UnixNano(), r.name, r.serial),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Namespace: object.GetNamespace(),
			Name: object.GetName(), UID: object.GetUID(),
		},
		Type: eventtype, Reason: reason, Message: message, Count: 1,
		FirstTimestamp: now, LastTimestamp: now,
		Source:              corev1.EventSource{Component: r.name},
		ReportingController: r.name,
	}
	r.seen[id] = client.ObjectKeyFromObject(event)
	r.failed(reason, r.client.Create(r.world.ctx, event))
}

// failed records an event that could not be written: an event is never worth a failed reconcile, but it must not get
// lost without a trace either.
func (r *recorder) failed(reason string, err error) {
	if err != nil {
		r.world.record(history.Component{Name: r.name, Event: "error", Message: fmt.Sprintf("write event %s: %v", reason, err)})
	}
}
