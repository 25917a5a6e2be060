package kube

import (
	"context"
	"errors"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// An object is any API object.
type object interface {
	metav1.Object
	runtime.Object
}

const (
	// maxMirrorRetry bounds the wait after a list or a watch that failed, so
	// that a right that was granted is seen before a state is 10 s old.
	maxMirrorRetry = 5 * time.Second
	// watchGrace is for how long a watch may go on after the API server should
	// have ended it. There are proxies that live on when what is behind them
	// has died.
	watchGrace = 10 * time.Second
)

// A mirror is a copy of all objects of one kind in one namespace, which a
// cache.Reflector keeps while its run runs; what it holds outlives a run. It
// implements cache.ReflectorStore.
type mirror[T object] struct {
	resource  string
	namespace string
	client    rest.Interface
	example   T                // for the Reflector
	groupsOf  func(T) []string // nil: objects are not grouped
	timing    Timing
	limit     func() time.Duration // of the waits after a failure
	changed   func()
	again     chan struct{} // cap 1: what has failed shall be tried now

	mu      sync.Mutex // guards the following
	items   map[string]T
	groups  map[string]map[string]T
	synced  bool
	watched time.Time // when this try had its first watch; zero: it has had none
	// The last answer was 403. A role may lack either of the verbs.
	listDenied, watchDenied error
}

func newMirror[T object](timing Timing, namespace, resource string, c rest.Interface, example T, groupsOf func(T) []string, limit func() time.Duration, changed func()) *mirror[T] {
	return &mirror[T]{
		timing: timing, namespace: namespace, resource: resource, client: c, example: example, groupsOf: groupsOf,
		limit: limit, changed: changed, again: make(chan struct{}, 1),
	}
}

// run follows the objects until ctx is done. What fails is tried again after
// waits that double, until a watch has lasted for longer than the last of them.
func (m *mirror[T]) run(ctx context.Context) {
	r := m.reflector()
	var pause time.Duration
	for ctx.Err() == nil {
		m.mu.Lock()
		m.watched = time.Time{}
		m.mu.Unlock()
		r.ListAndWatchWithContext(ctx) // why it ends, the link has seen, or note
		m.mu.Lock()
		worked := !m.watched.IsZero() && time.Since(m.watched) > pause
		m.mu.Unlock()
		if worked {
			pause = 0
		}
		pause = longer(pause, m.timing.Retry, m.limit())
		sleep(ctx, m.again, pause)
	}
}

// retry has what has failed tried now.
func (m *mirror[T]) retry() { signal(m.again) }

func (m *mirror[T]) reflector() *cache.Reflector {
	plain := cache.NewFilteredListWatchFromClient(m.client, m.resource, m.namespace, func(*metav1.ListOptions) {})
	noting := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := plain.ListWithContext(ctx, o)
			m.noteList(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			cancel := context.CancelFunc(func() {})
			if o.TimeoutSeconds != nil {
				ctx, cancel = context.WithTimeout(ctx, time.Duration(*o.TimeoutSeconds)*time.Second+watchGrace)
			}
			w, err := plain.WatchWithContext(ctx, o)
			m.noteWatch(err)
			if err != nil {
				cancel()
				if utilnet.IsConnectionRefused(err) {
					err = errors.New(err.Error()) // the Reflector would wait by itself, deaf to ctx
				}
				return nil, err
			}
			return limitedWatch{w, cancel}, nil
		},
	}
	return cache.NewReflectorWithOptions(noting, m.example, m, cache.ReflectorOptions{
		Name: m.namespace + "/" + m.resource,
		// For what it tries again by itself: where the API server has too much
		// to do. Jitter adds.
		Backoff: &wait.Backoff{Duration: m.timing.Retry, Cap: m.timing.RetryInUse * 2 / 3, Factor: 2, Jitter: 0.5, Steps: 16},
	})
}

// A limitedWatch is a watch with a deadline.
type limitedWatch struct {
	watch.Interface
	cancel context.CancelFunc
}

func (w limitedWatch) Stop() {
	w.Interface.Stop()
	w.cancel()
}

func (m *mirror[T]) noteList(err error) { m.note(err, &m.listDenied) }

// noteWatch: a watch may take the place of a list, so that works too.
func (m *mirror[T]) noteWatch(err error) {
	if err == nil {
		m.mu.Lock()
		if m.watched.IsZero() {
			m.watched = time.Now()
		}
		m.mu.Unlock()
	}
	m.note(err, &m.watchDenied, &m.listDenied)
}

// note remembers a refusal of the first verb, and forgets those of all the
// verbs on success.
func (m *mirror[T]) note(err error, verbs ...*error) {
	if err != nil && !apierrors.IsForbidden(err) {
		return // the link has seen it
	}
	m.mu.Lock()
	before := m.refusalLocked()
	*verbs[0] = err
	if err == nil {
		for _, verb := range verbs {
			*verb = nil
		}
	}
	after := m.refusalLocked()
	m.mu.Unlock()
	if (before == nil) != (after == nil) {
		m.changed()
	}
}

// refusal is the API server's 403, or nil.
func (m *mirror[T]) refusal() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refusalLocked()
}

func (m *mirror[T]) refusalLocked() error {
	if m.listDenied != nil {
		return m.listDenied
	}
	return m.watchDenied
}

// complete reports whether all objects have been seen once.
func (m *mirror[T]) complete() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced
}

func (m *mirror[T]) get(name string) (T, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, ok := m.items[name]
	return obj, ok
}

// in returns the objects of a group, in no order.
func (m *mirror[T]) in(group string) []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	objs := make([]T, 0, len(m.groups[group]))
	for _, obj := range m.groups[group] {
		objs = append(objs, obj)
	}
	return objs
}

// all returns the objects, in no order.
func (m *mirror[T]) all() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	objs := make([]T, 0, len(m.items))
	for _, obj := range m.items {
		objs = append(objs, obj)
	}
	return objs
}

// Add implements cache.ReflectorStore.
func (m *mirror[T]) Add(obj any) error { return m.Update(obj) }

// Update implements cache.ReflectorStore.
func (m *mirror[T]) Update(obj any) error {
	m.mu.Lock()
	m.put(obj.(T))
	m.mu.Unlock()
	m.changed()
	return nil
}

// Delete implements cache.ReflectorStore.
func (m *mirror[T]) Delete(obj any) error {
	m.mu.Lock()
	m.remove(obj.(T).GetName())
	m.mu.Unlock()
	m.changed()
	return nil
}

// Replace implements cache.ReflectorStore.
func (m *mirror[T]) Replace(objs []any, _ string) error {
	m.mu.Lock()
	m.items, m.groups = nil, nil
	for _, obj := range objs {
		m.put(obj.(T))
	}
	m.synced = true
	m.mu.Unlock()
	m.changed()
	return nil
}

// Resync implements cache.ReflectorStore.
func (m *mirror[T]) Resync() error { return nil }

// put stores obj; mu is held.
func (m *mirror[T]) put(obj T) {
	obj.SetManagedFields(nil) // the largest part of many objects, of no use here
	m.remove(obj.GetName())
	if m.items == nil {
		m.items, m.groups = make(map[string]T), make(map[string]map[string]T)
	}
	m.items[obj.GetName()] = obj
	for _, group := range m.groupsIn(obj) {
		if m.groups[group] == nil {
			m.groups[group] = make(map[string]T)
		}
		m.groups[group][obj.GetName()] = obj
	}
}

// remove drops the object of that name; mu is held.
func (m *mirror[T]) remove(name string) {
	obj, ok := m.items[name]
	if !ok {
		return
	}
	delete(m.items, name)
	for _, group := range m.groupsIn(obj) {
		delete(m.groups[group], name)
		if len(m.groups[group]) == 0 {
			delete(m.groups, group)
		}
	}
}

func (m *mirror[T]) groupsIn(obj T) []string {
	if m.groupsOf == nil {
		return nil
	}
	return m.groupsOf(obj)
}
