package check

import (
	"time"

	"github.com/tidwall/btree"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/layersim/layersim/sim/history"
)

// State is the world at one record of a history.
type State struct {
	// Start is the virtual start of the run.
	Start    time.Time
	Time     time.Duration
	Revision int64

	kinds      map[schema.GroupKind]*kind
	membership *membership
	// machines holds the last boot of each node's machine, boots how often it booted.
	machines btree.Map[string, *history.Node]
	boots    map[string]int
	registry []timed[*history.Registry]
	logs     []timed[*history.Pod]
	// down are the programs that don't run, of those that ever did.
	down map[string]bool
	// version grows with each record that can change what an expectation sees.
	version int64
}

type timed[T any] struct {
	seq  int64
	what T
}

type kind struct {
	objects btree.Map[string, *unstructured.Unstructured]
	version int64
}

// NewState returns the empty world.
func NewState(start time.Time) *State {
	return &State{Start: start, kinds: map[schema.GroupKind]*kind{}, membership: newMembership(), boots: map[string]int{}, down: map[string]bool{}}
}

// Now is the virtual time as a date.
func (s *State) Now() time.Time { return s.Start.Add(s.Time) }

// Apply moves the state on by one record.
func (s *State) Apply(r *history.Record) {
	s.Time, s.Revision = r.Time, r.Revision
	switch {
	case r.Change != nil:
		k := s.kind(r.Change.GVK.GroupKind())
		key := objectKey(r.Change.Namespace, r.Change.Name)
		if r.Change.New == nil {
			k.objects.Delete(key)
		} else {
			k.objects.Set(key, r.Change.New)
		}
		s.membership.apply(s, r.Change)
		s.version++
		k.version = s.version
	case r.Node != nil:
		if r.Node.Event == "boot" {
			s.machines.Set(r.Node.Node, r.Node)
			s.boots[r.Node.Node]++
		}
		s.version++
	case r.Registry != nil:
		s.registry = append(s.registry, timed[*history.Registry]{r.Seq, r.Registry})
		s.version++
	case r.Component != nil:
		switch r.Component.Event {
		case "started":
			delete(s.down, r.Component.Name)
		case "stopped", "crashed", "exited":
			s.down[r.Component.Name] = true
		}
	case r.Pod != nil:
		s.logs = append(s.logs, timed[*history.Pod]{r.Seq, r.Pod})
		s.version++
	}
}

func (s *State) kind(gk schema.GroupKind) *kind {
	k, ok := s.kinds[gk]
	if !ok {
		k = &kind{}
		s.kinds[gk] = k
	}
	return k
}

// Object returns an object; nil if there is none.
func (s *State) Object(gk schema.GroupKind, namespace, name string) *unstructured.Unstructured {
	o, _ := s.kind(gk).objects.Get(objectKey(namespace, name))
	return o
}

// Each calls fn with each object of a kind, in the order of namespace and name, until it returns false.
func (s *State) Each(gk schema.GroupKind, fn func(*unstructured.Unstructured) bool) {
	s.kind(gk).objects.Scan(func(_ string, o *unstructured.Unstructured) bool { return fn(o) })
}

func objectKey(namespace, name string) string { return namespace + "/" + name }
