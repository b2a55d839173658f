package store

import (
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Options configures a Store.
type Options struct {
	// Clock gives creation, deletion and managed field times. Nil means the wall clock.
	Clock clock.PassiveClock
	// Scheme maps kinds to Go types. Nil means client-go's scheme.
	Scheme *runtime.Scheme
	// Seed makes UIDs and the suffixes of generateName.
	Seed uint64
}

// Store is an in-memory API server. It is safe for concurrent use.
type Store struct {
	clock  clock.PassiveClock
	scheme *runtime.Scheme
	rand   *rand.Rand // guarded by writing

	// writing is held during a whole write and the observers' calls for it; mu guards the data and is only held while
	// data is read or changed. Lock order: writing, mu.
	writing  sync.Mutex
	mu       sync.RWMutex
	revision int64
	floor    int64 // revisions below are compacted
	kinds    map[schema.GroupVersionKind]*kind
	mapper   *restMapper
	watchers []*watcher

	onChange  []func(*Change)
	onRefused []func(*Request, error)
}

// Request is what a client asks.
type Request struct {
	// Author is the client's.
	Author string
	// Verb is one of get, list, watch, create, update, patch, apply, delete, deletecollection.
	Verb        string
	Subresource string
	GVK         schema.GroupVersionKind
	Namespace   string
	Name        string
	// Object is what the client passed (for a subresource with a body of its own: that body). It must not be changed.
	// Nil where the client passed none.
	Object runtime.Object
	// Patch and PatchType are a patch's.
	Patch     []byte
	PatchType types.PatchType
	// DryRun is set where nothing will be stored.
	DryRun bool
}

// Change is one object's step from one state to the next.
type Change struct {
	Revision    int64
	Time        time.Time
	Author      string
	Verb        string
	Subresource string
	GVK         schema.GroupVersionKind
	Namespace   string
	Name        string
	Old         *Object // nil: created
	New         *Object // nil: gone
}

// Log is the list of all changes of a kind, oldest first. It is a live view: it grows with the store, and Compact
// doesn't shorten it.
type Log struct {
	s *Store
	d *data
}

// Len returns the number of changes so far.
func (l *Log) Len() int {
	l.s.mu.RLock()
	defer l.s.mu.RUnlock()
	return len(l.d.log)
}

// At returns the i-th change, counted from 0.
func (l *Log) At(i int) *Change {
	l.s.mu.RLock()
	defer l.s.mu.RUnlock()
	return l.d.log[i]
}

type tree = btree.Map[string, *Object]

// treeDegree is small, because every revision of a kind keeps its own copy of the path to the changed leaf.
const treeDegree = 6

// version is the state of a kind from a revision on.
type version struct {
	revision int64
	objects  *tree
	// byNode holds Pods once more, by the node that they are bound to, so that a node's pods are found without
	// reading all. Nil for other kinds.
	byNode *tree
}

// nodeKey is a pod's key in version.byNode.
func nodeKey(o *Object) string {
	node, _ := nested(o.u.Object, "spec", "nodeName").(string)
	return node + "/" + o.key
}

// New returns an empty store. It knows the built-in kinds, and no namespace exists.
func New(o Options) *Store {
	if o.Clock == nil {
		o.Clock = clock.RealClock{} //layersim:allow walltime a server without a clock of its own keeps the world's
	}
	if o.Scheme == nil {
		o.Scheme = scheme.Scheme
	}
	s := &Store{
		clock:  o.Clock,
		scheme: o.Scheme,
		rand:   rand.New(rand.NewPCG(o.Seed, 0x6c617965727369)),
		kinds:  map[schema.GroupVersionKind]*kind{},
	}
	for _, b := range builtins {
		s.addKind(b.kind())
	}
	return s
}

// addKind makes a kind known. The caller holds mu or is New.
func (s *Store) addKind(k *kind) {
	if old := s.kinds[k.gvk]; old != nil {
		k.data = old.data
	}
	if k.data == nil {
		v := version{objects: btree.NewMap[string, *Object](treeDegree)}
		if k.gvk == podKind {
			v.byNode = btree.NewMap[string, *Object](treeDegree)
		}
		k.data = &data{versions: []version{v}}
	}
	k.resource = schema.GroupResource{Group: k.gvk.Group, Resource: k.plural}
	s.kinds[k.gvk] = k
	s.mapper = newRESTMapper(s.kinds)
}

func (s *Store) kind(gvk schema.GroupVersionKind) *kind {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.kinds[gvk]
}

// kindOrPlaceholder makes a kind that isn't served yet known to Changes, so that a cursor can wait for it.
func (s *Store) kindOrPlaceholder(gvk schema.GroupVersionKind) *kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[gvk]
	if k == nil {
		k = &kind{gvk: gvk, hidden: true}
		s.addKind(k)
	}
	return k
}

// Kinds returns all kinds that are served, sorted.
func (s *Store) Kinds() []schema.GroupVersionKind {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []schema.GroupVersionKind
	for gvk, k := range s.kinds {
		if !k.hidden {
			out = append(out, gvk)
		}
	}
	slices.SortFunc(out, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// Revision returns the newest revision, 0 when nothing was ever written.
func (s *Store) Revision() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.revision
}

// Changes returns the log of a kind. A kind that isn't served yet has an empty one, which fills when it is.
func (s *Store) Changes(gvk schema.GroupVersionKind) *Log {
	k := s.kindOrPlaceholder(gvk)
	return &Log{s, k.data}
}

// OnChange registers an observer of changes. Observers are called in the order of registration, once per change and in
// the order of revisions, before the write returns to its client. They may read the store but must not write to it.
func (s *Store) OnChange(fn func(*Change)) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.onChange = append(s.onChange, fn)
}

// OnRefused registers an observer of writes that failed, by the server or by a client's Before or After. The same rules
// hold as for OnChange.
func (s *Store) OnRefused(fn func(*Request, error)) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.onRefused = append(s.onRefused, fn)
}

func (s *Store) refused(r *Request, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for _, fn := range s.onRefused {
		fn(r, err)
	}
}

// Get returns the newest state of an object, nil if it doesn't exist.
func (s *Store) Get(gvk schema.GroupVersionKind, namespace, name string) *Object {
	k := s.kind(gvk)
	if k == nil {
		return nil
	}
	o, _ := s.head(k).objects.Get(k.key(namespace, name))
	return o
}

// ListObjects calls fn for each object of a kind in its newest state, in the order of namespace and name, until fn
// returns false.
func (s *Store) ListObjects(gvk schema.GroupVersionKind, fn func(*Object) bool) {
	k := s.kind(gvk)
	if k == nil {
		return
	}
	s.head(k).objects.Scan(func(_ string, o *Object) bool { return fn(o) })
}

// At returns the state of an object at a revision, nil if it didn't exist then or the revision is compacted.
func (s *Store) At(revision int64, gvk schema.GroupVersionKind, namespace, name string) *Object {
	k := s.kind(gvk)
	if k == nil {
		return nil
	}
	v, ok := s.at(k, revision)
	if !ok {
		return nil
	}
	o, _ := v.objects.Get(k.key(namespace, name))
	return o
}

func (s *Store) head(k *kind) version {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return k.data.versions[len(k.data.versions)-1]
}

// at returns the newest state of a kind that is not newer than a revision, false if that is compacted.
func (s *Store) at(k *kind, revision int64) (version, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v := k.data.versions
	if n := len(v); v[n-1].revision <= revision {
		return v[n-1], true
	}
	i := sort.Search(len(v), func(i int) bool { return v[i].revision > revision })
	if i == 0 {
		return version{}, false
	}
	return v[i-1], true
}

// Compact forgets all snapshots that only reads and watches from before revision need. Those get 410 Gone from then on.
// Changes keeps its entries.
func (s *Store) Compact(revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	revision = min(revision, s.revision)
	if revision <= s.floor {
		return
	}
	s.floor = revision
	for _, k := range s.kinds {
		i := sort.Search(len(k.data.versions), func(i int) bool { return k.data.versions[i].revision > revision })
		if i > 1 {
			k.data.versions = slices.Clone(k.data.versions[i-1:])
		}
		d := k.data
		for ; d.compacted < len(d.log) && d.log[d.compacted].Revision <= revision; d.compacted++ {
			if old := d.log[d.compacted].Old; old != nil {
				old.typed.Store(nil)
			}
		}
	}
}

// uid returns a new version 4 UUID.
func (s *Store) uid() types.UID {
	const hex = "0123456789abcdef"
	hi, lo := s.rand.Uint64(), s.rand.Uint64()
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 2<<62
	b := make([]byte, 0, 36)
	for i := range 32 {
		if i == 8 || i == 12 || i == 16 || i == 20 {
			b = append(b, '-')
		}
		w := hi
		if i >= 16 {
			w = lo
		}
		b = append(b, hex[w>>(60-4*(i%16))&15])
	}
	return types.UID(b)
}

// generateName returns a name as the API server makes one.
func (s *Store) generateName(base string) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	if len(base) > 58 {
		base = base[:58]
	}
	b := []byte(base)
	for range 5 {
		b = append(b, alphabet[s.rand.IntN(len(alphabet))])
	}
	return string(b)
}

func (s *Store) now() metav1.Time { return metav1.NewTime(s.clock.Now().UTC().Truncate(time.Second)) }

// commit stores the next state of an object, nil if it is gone, and tells watchers and observers. The caller holds
// writing; next, and typed, which is nil or its decoded form, are the store's from then on.
func (s *Store) commit(w *write, old *Object, next map[string]any, typed client.Object) *Object {
	k := w.kind
	c := &Change{
		Time: s.clock.Now(), Author: w.req.Author, Verb: w.req.Verb, Subresource: w.req.Subresource, GVK: k.gvk,
		Old: old,
	}
	s.mu.Lock()
	s.revision++
	c.Revision = s.revision
	d := k.data
	v := d.versions[len(d.versions)-1]
	v.revision, v.objects = s.revision, v.objects.Copy()
	if next != nil {
		metadataOf(next)["resourceVersion"] = strconv.FormatInt(s.revision, 10)
		if old != nil {
			share(next, old.u.Object)
		}
		c.New = s.newObject(k, next, s.revision)
		c.Namespace, c.Name = c.New.namespace, c.New.name
		if typed != nil {
			typed.SetResourceVersion(strconv.FormatInt(s.revision, 10))
			generation, _ := metadataOf(next)["generation"].(int64)
			typed.SetGeneration(generation)
			c.New.typed.Store(&typed)
		}
		v.objects.Set(c.New.key, c.New)
	} else {
		c.Namespace, c.Name = old.namespace, old.name
		v.objects.Delete(old.key)
	}
	if v.byNode != nil {
		v.byNode = v.byNode.Copy()
		if old != nil {
			v.byNode.Delete(nodeKey(old))
		}
		if c.New != nil {
			v.byNode.Set(nodeKey(c.New), c.New)
		}
	}
	d.versions = append(d.versions, v)
	d.log = append(d.log, c)
	watchers := s.watchers
	s.mu.Unlock()
	for _, wa := range watchers {
		wa.deliver(c)
	}
	for _, fn := range s.onChange {
		fn(c)
	}
	return c.New
}

// newObject wraps a canonical map that nobody else changes.
func (s *Store) newObject(k *kind, m map[string]any, revision int64) *Object {
	o := &Object{u: &unstructured.Unstructured{Object: m}, gvk: k.gvk, revision: revision, scheme: s.scheme}
	meta := metadataOf(m)
	o.namespace, _ = meta["namespace"].(string)
	o.name, _ = meta["name"].(string)
	uid, _ := meta["uid"].(string)
	o.uid = types.UID(uid)
	o.deleting = meta["deletionTimestamp"] != nil
	if l, ok := meta["labels"].(map[string]any); ok {
		o.labels = make(map[string]string, len(l))
		for name, v := range l {
			o.labels[name], _ = v.(string)
		}
	}
	o.key = k.key(o.namespace, o.name)
	return o
}
