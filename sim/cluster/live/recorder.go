package live

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/layersim/layersim/sim/cluster/proxy"
	"github.com/layersim/layersim/sim/history"
)

// patience is how long one revision waits for another that the proxy knows of, or for a write that is under way. Then
// it is taken as it comes.
const patience = 2 * time.Second

// sequence puts what happens into one order.
type sequence struct {
	watches sync.WaitGroup
	more    chan struct{} // holds one token when something has come

	mu        sync.Mutex
	revisions revisions
	records   []queued
	revision  int64
	arrived   map[int64]bool         // revisions that watches have told
	awaited   map[int64]time.Time    // revisions that writes have told and watches haven't, since when
	authors   map[int64]proxy.Write  // by revision
	last      map[string]proxy.Write // the last write of each object
	// introduced are the objects of which the history has the whole.
	introduced map[string]bool
	failure    error
}

// revision is one object's step that a watch told.
type revision struct {
	number int64
	at     time.Time
	change *history.Change
	key    string
	// manager is the field manager that wrote last.
	manager string
}

// queued is a record that waits for its turn.
type queued struct {
	at     time.Time
	record history.Record
}

type revisions []*revision

func (r revisions) Len() int           { return len(r) }
func (r revisions) Less(i, j int) bool { return r[i].number < r[j].number }
func (r revisions) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *revisions) Push(x any)        { *r = append(*r, x.(*revision)) }
func (r *revisions) Pop() any {
	old := *r
	last := old[len(old)-1]
	*r = old[:len(old)-1]
	return last
}

func (s *sequence) init() {
	s.more = make(chan struct{}, 1)
	s.arrived, s.awaited = map[int64]bool{}, map[int64]time.Time{}
	s.introduced = map[string]bool{}
	s.authors, s.last = map[int64]proxy.Write{}, map[string]proxy.Write{}
}

// signal says that something has come.
func (s *sequence) signal() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// await waits until something comes, but not longer than d.
func (e *Engine) await(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-e.more:
	case <-t.C:
	case <-e.ctx.Done():
	}
}

// Record implements [cluster.Engine].
func (e *Engine) Record(r history.Record) {
	e.mu.Lock()
	e.records = append(e.records, queued{time.Now(), r})
	e.mu.Unlock()
	e.signal()
}

// wrote is told of each write by the proxy.
func (e *Engine) wrote(w proxy.Write) {
	r := w.Request
	if r.DryRun {
		return
	}
	if w.Code >= 400 {
		e.Record(history.Record{Request: &history.Request{
			Author: r.Author, Verb: r.Verb, Subresource: r.Subresource, GVK: r.GVK, Namespace: r.Namespace, Name: r.Name,
			Code: int32(w.Code), Reason: w.Reason, Message: w.Message,
		}})
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last[objectKey(r.GVK, r.Namespace, r.Name)] = w
	number, err := strconv.ParseInt(w.ResourceVersion, 10, 64)
	if err != nil || number <= e.revision || !e.Server.followed[r.GVK] {
		return // nothing was changed, or nobody looks
	}
	if _, known := e.authors[number]; !known {
		e.authors[number] = w
	}
	if !e.arrived[number] {
		e.awaited[number] = time.Now()
	}
}

func objectKey(gvk schema.GroupVersionKind, namespace, name string) string {
	return gvk.Group + "/" + gvk.Kind + "/" + namespace + "/" + name
}

// Busy implements [cluster.Engine].
func (e *Engine) Busy() bool {
	if e.pausing() {
		return true
	}
	writing, _ := e.Server.proxy.Writing()
	e.mu.Lock()
	defer e.mu.Unlock()
	return writing > 0 || len(e.revisions)+len(e.records)+len(e.awaited) > 0
}

// next adds the next record to the history, if its turn has come. Else it says how long that may take; zero when nothing
// waits for its turn.
func (e *Engine) next() (added bool, wait time.Duration) {
	writing, oldest := e.Server.proxy.Writing()
	now := time.Now()
	e.mu.Lock()
	record, at, wait := e.take(now, writing > 0, oldest)
	e.mu.Unlock()
	if record == nil {
		return false, wait
	}
	e.add(*record, at)
	return true, 0
}

// drain adds what has come while nobody added anything: where a cluster could not be made, it may say why.
func (e *Engine) drain() {
	if e.recorder == nil {
		return // there is no history yet
	}
	for end := time.Now().Add(2 * patience); time.Now().Before(end); {
		added, wait := e.next()
		switch {
		case added:
		case wait == 0:
			return
		default:
			<-time.After(wait) // also where the run is over
		}
	}
}

// take takes the record whose turn it is. The caller holds the lock.
func (e *Engine) take(now time.Time, writing bool, oldest time.Time) (*history.Record, time.Time, time.Duration) {
	var first *revision
	if len(e.revisions) > 0 {
		first = e.revisions[0]
	}
	if len(e.records) > 0 && (first == nil || e.records[0].at.Before(first.at)) {
		q := e.records[0]
		if wait := q.at.Add(Hold).Sub(now); wait > 0 {
			return nil, now, wait
		}
		e.records = e.records[1:]
		return &q.record, q.at, 0
	}
	if first == nil {
		return nil, now, 0
	}
	if wait := first.at.Add(Hold).Sub(now); wait > 0 {
		return nil, now, wait
	}
	if now.Sub(first.at) < patience {
		if writing && oldest.Before(first.at) {
			return nil, now, 5 * time.Millisecond
		}
		for number := range e.awaited { // order doesn't matter: it is asked whether there is one
			if number < first.number {
				return nil, now, 5 * time.Millisecond
			}
		}
	}
	heap.Pop(&e.revisions)
	for number, since := range e.awaited {
		if now.Sub(since) > patience {
			delete(e.awaited, number)
		}
	}
	e.revision = max(e.revision, first.number)
	e.author(first)
	return &history.Record{Revision: first.number, Change: first.change}, first.at, 0
}

// author says who made a revision.
func (e *Engine) author(r *revision) {
	w, known := e.authors[r.number]
	if !known {
		// Some deletions answer no revision, or an older one; and whoever takes the last finalizer deletes the object.
		w, known = e.last[r.key]
		if known && (!deletes(r.change) || r.at.Sub(w.Ended) > patience) {
			known = false
		}
	}
	if !known {
		r.change.Author = r.manager // it came another way than through the proxy
		return
	}
	delete(e.authors, r.number)
	r.change.Author, r.change.Subresource = w.Request.Author, w.Request.Subresource
	if r.change.Verb == "update" {
		r.change.Verb = w.Request.Verb
	}
	if !w.Ended.IsZero() && w.Ended.Before(r.at) {
		r.at = w.Ended
	}
}

// deletes reports whether a change is an object's end, or the beginning of it.
func deletes(c *history.Change) bool {
	return c.New == nil || c.New.GetDeletionTimestamp() != nil && (c.Old == nil || c.Old.GetDeletionTimestamp() == nil)
}

// add adds a record as of a time. Time never goes back in a history.
func (e *Engine) add(r history.Record, at time.Time) {
	e.now = max(e.now, at.Sub(e.start))
	if c := r.Change; c != nil {
		c.Old, c.New = e.conceal(e.redactor.Object(c.Old)), e.conceal(e.redactor.Object(c.New))
		e.introduce(r)
	}
	e.recorder.Add(r)
}

// conceal takes the run's token out of an object: the ControllerConfig and the Jobs of builds have it in the address of their
// proxy.
func (e *Engine) conceal(o *unstructured.Unstructured) *unstructured.Unstructured {
	if o == nil || e.token == "" {
		return o
	}
	text, err := o.MarshalJSON()
	if err == nil && !bytes.Contains(text, []byte(e.token)) {
		return o
	}
	clean := &unstructured.Unstructured{}
	if err == nil {
		err = clean.UnmarshalJSON(bytes.ReplaceAll(text, []byte(e.token), []byte("redacted")))
	}
	if err != nil {
		e.cancel(fmt.Errorf("conceal the run's token in %s %s: %w", o.GetKind(), o.GetName(), err))
	}
	return clean
}

// introduce adds the state before, where an object was there before the history began: each object's records begin with the
// whole of it, so that a saved history can be read again.
func (e *Engine) introduce(r history.Record) {
	c := r.Change
	key := objectKey(c.GVK, c.Namespace, c.Name)
	if c.Old != nil && !e.introduced[key] {
		before := *c
		before.Old, before.New, before.Verb, before.Subresource, before.Author = nil, c.Old, "create", "", "kube-apiserver"
		e.recorder.Add(history.Record{Revision: r.Revision, Change: &before})
	}
	e.introduced[key] = c.New != nil
}

// Revision implements [cluster.Engine].
func (e *Engine) Revision() int64 { return e.revision }

// watch watches all kinds, from now on.
func (e *Engine) watch() error {
	for _, gvr := range e.Server.watched {
		w := &watcher{engine: e, gvr: gvr, gvk: e.Server.kinds[gvr], known: map[string]*unstructured.Unstructured{}}
		list, err := e.Server.dynamic.Resource(gvr).List(e.ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list %s: %w", gvr.Resource, err)
		}
		for n := range list.Items {
			o := &list.Items[n]
			w.known[objectKey(w.gvk, o.GetNamespace(), o.GetName())] = o
		}
		w.from = list.GetResourceVersion()
		number, err := strconv.ParseInt(w.from, 10, 64)
		if err != nil {
			return fmt.Errorf("list %s: resource version %q is no number", gvr.Resource, w.from)
		}
		e.revision = max(e.revision, number)
		e.watches.Go(w.run)
	}
	return nil
}

// watcher follows one kind.
type watcher struct {
	engine *Engine
	gvr    schema.GroupVersionResource
	gvk    schema.GroupVersionKind
	from   string
	known  map[string]*unstructured.Unstructured
}

// run watches until the run is over. A watch that ends is taken up where it ended, if need be when the API server is back.
func (w *watcher) run() {
	e := w.engine
	var lost time.Time // when it could not be taken up
	for e.ctx.Err() == nil {
		err := w.once(e.ctx)
		if e.Outage > 0 && (apierrors.IsResourceExpired(err) || apierrors.IsGone(err)) {
			err = w.again(e.ctx)
		}
		switch {
		case err == nil:
			lost = time.Time{}
			continue
		case lost.IsZero():
			lost = time.Now()
		}
		switch {
		case e.ctx.Err() != nil:
		case apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || time.Since(lost) >= e.Outage:
			e.cancel(fmt.Errorf("the history has a hole: watch %s: %w", w.gvr.Resource, err))
		default:
			select {
			case <-e.ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (w *watcher) once(ctx context.Context) error {
	events, err := w.engine.Server.dynamic.Resource(w.gvr).Watch(ctx, metav1.ListOptions{ResourceVersion: w.from, AllowWatchBookmarks: true})
	if err != nil {
		return err
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		if event.Type == watch.Error {
			return apierrors.FromObject(event.Object)
		}
		o, ok := event.Object.(*unstructured.Unstructured)
		if !ok {
			return errors.New("an event without an object")
		}
		w.from = o.GetResourceVersion()
		if event.Type == watch.Bookmark {
			continue
		}
		number, err := strconv.ParseInt(w.from, 10, 64)
		if err != nil {
			return fmt.Errorf("resource version %q is no number", w.from)
		}
		w.saw(event.Type, o, number)
	}
	return nil
}

// again takes a watch up that an API server that was started anew can't go on with: it remembers no revision from before. What
// changed meanwhile is seen as one change an object.
func (w *watcher) again(ctx context.Context) error {
	list, err := w.engine.Server.dynamic.Resource(w.gvr).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	now, err := strconv.ParseInt(list.GetResourceVersion(), 10, 64)
	if err != nil {
		return fmt.Errorf("resource version %q is no number", list.GetResourceVersion())
	}
	gone := maps.Clone(w.known)
	for n := range list.Items {
		o := &list.Items[n]
		key := objectKey(w.gvk, o.GetNamespace(), o.GetName())
		old := gone[key]
		delete(gone, key)
		if old != nil && old.GetResourceVersion() == o.GetResourceVersion() {
			continue
		}
		number, err := strconv.ParseInt(o.GetResourceVersion(), 10, 64)
		if err != nil {
			return fmt.Errorf("resource version %q is no number", o.GetResourceVersion())
		}
		w.saw(watch.Modified, o, number)
	}
	for _, key := range slices.Sorted(maps.Keys(gone)) {
		w.saw(watch.Deleted, gone[key].DeepCopy(), now)
	}
	w.from = list.GetResourceVersion()
	return nil
}

// ticking reports whether a change is one of those that come all the time: leases of Kubernetes' own programs and of nodes.
func ticking(c *history.Change) bool {
	return c.GVK.Kind == "Lease" && ofKubernetes(c.Namespace)
}

// ofKubernetes tells the namespaces of Kubernetes' own programs and of nodes.
func ofKubernetes(namespace string) bool { return strings.HasPrefix(namespace, "kube-") }

// lastManager is the field manager that wrote an object last.
func lastManager(o *unstructured.Unstructured) string {
	name, at := "kube-apiserver", time.Time{}
	for _, f := range o.GetManagedFields() {
		if f.Time != nil && !f.Time.Time.Before(at) {
			name, at = f.Manager, f.Time.Time
		}
	}
	return name
}

func (w *watcher) saw(what watch.EventType, o *unstructured.Unstructured, number int64) {
	manager := lastManager(o)
	o.SetManagedFields(nil)
	key := objectKey(w.gvk, o.GetNamespace(), o.GetName())
	r := &revision{number: number, at: time.Now(), key: key, manager: manager, change: &history.Change{
		GVK: w.gvk, Namespace: o.GetNamespace(), Name: o.GetName(), Old: w.known[key], New: o, Verb: "update",
	}}
	switch {
	case what == watch.Deleted:
		r.change.New, r.change.Verb = nil, "delete"
		r.change.Old = cmp.Or(r.change.Old, o)
		delete(w.known, key)
	case r.change.Old == nil:
		r.change.Verb = "create"
		fallthrough
	default:
		w.known[key] = o
	}
	e := w.engine
	e.mu.Lock()
	if !ticking(r.change) {
		heap.Push(&e.revisions, r)
	}
	e.arrived[number] = true
	delete(e.awaited, number)
	e.mu.Unlock()
	e.signal()
}
