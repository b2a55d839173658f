package store

import (
	"context"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// watchBuffer is how many events a watch may have outstanding beyond its initial ones. A reader that falls further
// behind is cut off, as kube-apiserver does it too: the channel is closed and the reader has to list again.
const watchBuffer = 8192

// watcher is a running watch. It has no goroutine: events are put into the channel's buffer by the write that causes
// them.
type watcher struct {
	s         *Store
	k         *kind
	namespace string
	match     func(*Object) bool
	empty     func() (runtime.Object, error)

	mu     sync.Mutex
	ch     chan watch.Event
	closed bool
}

// Watch streams the changes of a kind after the resourceVersion in the options' Raw, or, without one, everything that
// exists as ADDED and then the changes.
func (c *Client) Watch(ctx context.Context, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
	k, err := c.kindOf(list)
	if err != nil {
		return nil, err
	}
	o := (&client.ListOptions{}).ApplyOptions(opts)
	var wa *watcher
	r := &Request{Verb: "watch", GVK: k.gvk, Namespace: o.Namespace}
	err = c.do(ctx, r, func() error {
		wa, err = c.s.watch(k, list, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, wa.Stop) //layersim:allow goroutine a watch ends with its context; no component of the simulator watches this way
	return wa, nil
}

func (s *Store) watch(k *kind, list client.ObjectList, o *client.ListOptions) (*watcher, error) {
	match, err := k.matcher(o)
	if err != nil {
		return nil, err
	}
	wa := &watcher{s: s, k: k, match: match, empty: itemOf(k, list, s.scheme)}
	if k.namespaced {
		wa.namespace = o.Namespace
	}
	raw := o.Raw
	if raw == nil {
		raw = &metav1.ListOptions{}
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	var first []watch.Event
	add := func(t watch.EventType, obj *Object, revision int64) error {
		e, err := wa.event(t, obj, revision)
		first = append(first, e)
		return err
	}
	initial := raw.ResourceVersion == "" || raw.ResourceVersion == "0" || raw.SendInitialEvents != nil && *raw.SendInitialEvents
	if initial {
		s.head(k).objects.Scan(func(_ string, obj *Object) bool {
			if wa.selects(obj) {
				err = add(watch.Added, obj, obj.revision)
			}
			return err == nil
		})
		if err == nil && raw.SendInitialEvents != nil && *raw.SendInitialEvents && raw.AllowWatchBookmarks {
			var e watch.Event
			e, err = wa.bookmark(s.Revision())
			first = append(first, e)
		}
	} else {
		rv, perr := strconv.ParseInt(raw.ResourceVersion, 10, 64)
		if perr != nil {
			return nil, apierrors.NewBadRequest("invalid resourceVersion: " + perr.Error())
		}
		s.mu.RLock()
		floor, log := s.floor, k.data.log
		s.mu.RUnlock()
		if rv < floor {
			return nil, apierrors.NewResourceExpired("too old resource version: " + raw.ResourceVersion + " (" + strconv.FormatInt(floor, 10) + ")")
		}
		for _, c := range log {
			if c.Revision <= rv {
				continue
			}
			if t, obj, ok := wa.translate(c); ok {
				if err = add(t, obj, c.Revision); err != nil {
					break
				}
			}
		}
	}
	if err != nil {
		return nil, err
	}
	wa.ch = make(chan watch.Event, len(first)+watchBuffer)
	for _, e := range first {
		wa.ch <- e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers[:len(s.watchers):len(s.watchers)], wa)
	return wa, nil
}

// ResultChan returns the events.
func (wa *watcher) ResultChan() <-chan watch.Event { return wa.ch }

// Stop ends the watch and closes its channel.
func (wa *watcher) Stop() {
	wa.mu.Lock()
	if wa.closed {
		wa.mu.Unlock()
		return
	}
	wa.closed = true
	close(wa.ch)
	wa.mu.Unlock()
	wa.s.mu.Lock()
	defer wa.s.mu.Unlock()
	var rest []*watcher
	for _, other := range wa.s.watchers {
		if other != wa {
			rest = append(rest, other)
		}
	}
	wa.s.watchers = rest
}

func (wa *watcher) selects(o *Object) bool {
	return (wa.namespace == "" || o.namespace == wa.namespace) && wa.match(o)
}

// translate says what a change looks like through the watch's selection.
func (wa *watcher) translate(c *Change) (watch.EventType, *Object, bool) {
	was := c.Old != nil && wa.selects(c.Old)
	is := c.New != nil && wa.selects(c.New)
	switch {
	case is && was:
		return watch.Modified, c.New, true
	case is:
		return watch.Added, c.New, true
	case was:
		return watch.Deleted, c.Old, true
	}
	return "", nil, false
}

// event makes an event. A deleted object carries the revision of its deletion.
func (wa *watcher) event(t watch.EventType, o *Object, revision int64) (watch.Event, error) {
	item, err := wa.empty()
	if err != nil {
		return watch.Event{}, err
	}
	if err := o.into(item, false); err != nil {
		return watch.Event{}, wa.k.wrap("decode", o, err)
	}
	if revision != o.revision {
		m, err := meta.Accessor(item)
		if err != nil {
			return watch.Event{}, err
		}
		m.SetResourceVersion(strconv.FormatInt(revision, 10))
	}
	return watch.Event{Type: t, Object: item}, nil
}

func (wa *watcher) bookmark(revision int64) (watch.Event, error) {
	item, err := wa.empty()
	if err != nil {
		return watch.Event{}, err
	}
	item.GetObjectKind().SetGroupVersionKind(wa.k.gvk)
	m, err := meta.Accessor(item)
	if err != nil {
		return watch.Event{}, err
	}
	m.SetResourceVersion(strconv.FormatInt(revision, 10))
	m.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	return watch.Event{Type: watch.Bookmark, Object: item}, nil
}

// deliver is called for each change of any kind, in order, under the store's writing lock.
func (wa *watcher) deliver(c *Change) {
	if c.GVK != wa.k.gvk {
		return
	}
	t, o, ok := wa.translate(c)
	if !ok {
		return
	}
	e, err := wa.event(t, o, c.Revision)
	if err != nil {
		e = watch.Event{Type: watch.Error, Object: &apierrors.NewInternalError(err).ErrStatus}
	}
	wa.mu.Lock()
	if wa.closed {
		wa.mu.Unlock()
		return
	}
	//layersim:allow goroutine one case and a default: nothing is chosen at random
	select {
	case wa.ch <- e:
		wa.mu.Unlock()
	default:
		wa.mu.Unlock()
		wa.Stop()
	}
}

// itemOf returns a maker of empty items of a list.
func itemOf(k *kind, list client.ObjectList, scheme *runtime.Scheme) func() (runtime.Object, error) {
	switch list.(type) {
	case *unstructured.UnstructuredList:
		return func() (runtime.Object, error) { return &unstructured.Unstructured{}, nil }
	case *metav1.PartialObjectMetadataList:
		return func() (runtime.Object, error) { return &metav1.PartialObjectMetadata{}, nil }
	}
	return func() (runtime.Object, error) { return newTyped(scheme, k.gvk) }
}
