package apiserver

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// An Object is a typed Kubernetes object. Once stored it is never changed.
type Object interface {
	runtime.Object
	metav1.Object
}

// An event is one change. Before is nil for an addition. After a deletion, gone
// is set, and after is the object as it last was, with the version of its end.
type event struct {
	version       uint64
	resource      string
	before, after Object
	gone          bool
}

// A Store holds the objects and the recent changes, by resource ("pods").
type Store struct {
	mu        sync.Mutex
	version   uint64
	objects   map[string]map[types.NamespacedName]Object // by resource
	history   []event
	limit     int
	forgotten uint64        // the version of the newest event that is not in history
	changed   chan struct{} // closed and replaced at each change
}

func newStore(history int) *Store {
	return &Store{
		// Version 0 means "any" in requests, and small numbers hide mistakes
		// such as comparing versions as strings.
		version:   998,
		forgotten: 998,
		objects:   map[string]map[types.NamespacedName]Object{},
		limit:     history,
		changed:   make(chan struct{}),
	}
}

// KeyOf is where an object lies.
func KeyOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// Put stores a copy of o, adding what the server gives: uid, creation time and
// version. If o says nothing new, nothing happens.
func (s *Store) Put(resource string, o Object) Object {
	o = o.DeepCopyObject().(Object)
	key := KeyOf(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.objects[resource][key]
	if old == nil {
		if o.GetUID() == "" {
			o.SetUID(NewUID())
		}
		o.SetCreationTimestamp(metav1.Now().Rfc3339Copy())
	} else {
		o.SetUID(old.GetUID())
		o.SetCreationTimestamp(old.GetCreationTimestamp())
		o.SetResourceVersion(old.GetResourceVersion())
		if equality.Semantic.DeepEqual(old, o) {
			return old
		}
	}
	s.record(event{resource: resource, before: old, after: o})
	if s.objects[resource] == nil {
		s.objects[resource] = map[types.NamespacedName]Object{}
	}
	s.objects[resource][key] = o
	return o
}

// Remove deletes an object and returns it; nil if there is none.
func (s *Store) Remove(resource string, key types.NamespacedName) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.objects[resource][key]
	if old == nil {
		return nil
	}
	delete(s.objects[resource], key)
	last := old.DeepCopyObject().(Object)
	s.record(event{resource: resource, before: old, after: last, gone: true})
	return last
}

// record gives the change the next version. The caller holds mu.
func (s *Store) record(e event) {
	s.version++
	e.version = s.version
	e.after.SetResourceVersion(strconv.FormatUint(e.version, 10))
	s.history = append(s.history, e)
	if extra := len(s.history) - s.limit; extra > 0 {
		s.forgotten = s.history[extra-1].version
		s.history = slices.Delete(s.history, 0, extra)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// Get returns the object, or nil.
func (s *Store) Get(resource, namespace, name string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[resource][types.NamespacedName{Namespace: namespace, Name: name}]
}

// List returns the objects that keep accepts, in the order of their names, and
// the version at which this was so. An empty namespace means all.
func (s *Store) List(resource, namespace string, keep func(Object) bool) ([]Object, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Object
	for key, o := range s.objects[resource] {
		if (namespace == "" || key.Namespace == namespace) && keep(o) {
			found = append(found, o)
		}
	}
	slices.SortFunc(found, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return found, s.version
}

// since returns the events of a resource after version, the version up to
// which that is complete, and a channel that is closed when there are more. ok
// is false if the events are no longer known.
func (s *Store) since(resource string, version uint64) (events []event, now uint64, changed <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version < s.forgotten {
		return nil, s.forgotten, s.changed, false
	}
	for _, e := range s.history {
		if e.version > version && e.resource == resource {
			events = append(events, e)
		}
	}
	return events, s.version, s.changed, true
}

// Forget drops the history, as etcd's compaction does.
func (s *Store) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = nil
	s.forgotten = s.version
	close(s.changed)
	s.changed = make(chan struct{})
}

// Wait returns a channel that is closed at the next change.
func (s *Store) Wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// All is for List.
func All(Object) bool { return true }

// NewUID returns a random UUID (RFC 9562, version 4).
func NewUID() types.UID {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}
