package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/portforward"
	"github.com/tunneld/tunneld/internal/status"
)

// A use is what the connections to one workload have taught. It is guarded by
// its cluster's mu.
type use struct {
	last    time.Time // when a connection was last asked for or ended
	active  int       // connections
	opening int       // opens and probes under way
	probing bool
	probed  time.Time // when the last probe ended
	denied  error     // the API server said 403 to the last upgrade
	// turns tells which pod has had the last turn, to break ties.
	turns map[string]uint64
	// failing holds the pods to which the last open failed.
	failing map[string]failure
	// refused holds the ports whose last open the pod turned away.
	refused map[uint16]failure
}

// A failure is why the last open to a pod did not work.
type failure struct {
	pod   string
	cause string    // empty where it is no fault: pods come and go
	until time.Time // when to try again
	tries int
}

func newUse() *use {
	return &use{
		turns:   make(map[string]uint64),
		failing: make(map[string]failure),
		refused: make(map[uint16]failure),
	}
}

// lately reports whether the workload is in use.
func (u *use) lately(window time.Duration) bool {
	return u.active > 0 || time.Since(u.last) < window
}

// fault is something that does not work, if anything, about pods that are
// still there. Whether a pod can be reached is only known while the workload is
// in use.
func (u *use) fault(v view, inUse bool) string {
	for _, b := range v.backends {
		if f, ok := u.failing[b.key()]; ok && inUse && f.cause != "" {
			return f.cause
		}
	}
	for _, port := range slices.Sorted(maps.Keys(u.refused)) {
		f := u.refused[port]
		if slices.ContainsFunc(v.backends, func(b backend) bool { return b.key() == f.pod }) {
			return f.cause
		}
	}
	return ""
}

// key tells a pod from its namesake.
func (b backend) key() string { return b.pod + "/" + b.uid }

// pick chooses the pod for a connection to t.
func (c *cluster) pick(t forward.Target) (e forward.Endpoint, again time.Time, ok bool) {
	v := c.view(t.Workload)
	carrying := slices.DeleteFunc(slices.Clone(v.backends), func(b backend) bool { return !b.takes(t) })
	c.mu.Lock()
	b, again, ok := c.choose(t.Workload, carrying)
	if ok {
		c.turn++
		c.uses[t.Workload].turns[b.key()] = c.turn
	}
	c.mu.Unlock()
	if !ok {
		return e, again, false
	}
	port, _ := b.port(t.Port)
	return forward.Endpoint{Target: t, Pod: b.pod, UID: b.uid, Port: port}, again, true
}

// choose chooses a pod: a ready one before one that only serves; of those, one
// that has about the fewest leases, not counting idle ones; of those, the one
// whose turn is longest ago. One lease more does not count: else one connection
// that stays open would keep all that come one after the other away from its
// pod. Pods whose last open failed are left out for a while; if there are no
// others, again says when to ask again. mu is held.
func (c *cluster) choose(w forward.Workload, backends []backend) (best backend, again time.Time, ok bool) {
	u := c.uses[w]
	if u == nil {
		return best, again, false
	}
	now := time.Now()
	var able []backend
	for _, b := range backends {
		if !b.carries() || !b.ready && !b.serving {
			continue
		}
		if f, failing := u.failing[b.key()]; failing && now.Before(f.until) {
			if again.IsZero() || f.until.Before(again) {
				again = f.until
			}
			continue
		}
		able = append(able, b)
	}
	if slices.ContainsFunc(able, func(b backend) bool { return b.ready }) {
		able = slices.DeleteFunc(able, func(b backend) bool { return !b.ready })
	}
	if len(able) == 0 {
		return best, again, false
	}
	leases := make(map[string]int, len(able))
	fewest := math.MaxInt
	for _, b := range able {
		pod := podOf(w, b)
		leases[b.key()] = c.pool.Usage(pod).Leases - c.idle[pod]
		fewest = min(fewest, leases[b.key()])
	}
	able = slices.DeleteFunc(able, func(b backend) bool { return leases[b.key()] > fewest+1 })
	best = slices.MinFunc(able, func(a, b backend) int { return cmp.Compare(u.turns[a.key()], u.turns[b.key()]) })
	return best, again, true
}

func podOf(w forward.Workload, b backend) portforward.Pod {
	return portforward.Pod{Namespace: w.Namespace, Name: b.pod, UID: b.uid}
}

// touch notes that the workload is wanted now.
func (c *cluster) touch(w forward.Workload) {
	c.mu.Lock()
	if u := c.uses[w]; u != nil {
		if n := c.namespaces[w.Namespace]; n != nil && !u.lately(c.timing.InUse) {
			n.retry() // it waits as long as it may while nobody does
		}
		u.last = time.Now()
	}
	c.mu.Unlock()
	c.poke()
}

// opened notes the outcome of an open or a probe.
func (c *cluster) opened(w forward.Workload, b backend, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.uses[w]
	if u == nil {
		return
	}
	key := b.key()
	switch {
	case err == nil:
		u.denied = nil
		delete(u.failing, key)
	case apierrors.IsForbidden(err):
		u.denied = err
	case errors.Is(err, context.Canceled), errors.Is(err, portforward.ErrClosed), apierrors.IsUnauthorized(err):
		// It says nothing about the pod.
	default:
		f := u.failing[key]
		wait := min(c.timing.Retry<<f.tries, c.timing.RetryInUse)
		f.pod, f.cause = key, ""
		f.until = time.Now().Add(wait - rand.N(wait/4))
		f.tries = min(f.tries+1, 8)
		if !errors.Is(err, portforward.ErrPodGone) {
			f.cause = c.unreached(podOf(w, b), err)
		}
		u.failing[key] = f
	}
}

// unreached is why no connection to a pod could be opened.
func (c *cluster) unreached(pod portforward.Pod, err error) string {
	if errors.Is(err, portforward.ErrBusy) {
		return crowded(pod, c.pool.Usage(pod))
	}
	return fmt.Sprintf("pod %s cannot be reached: %v", pod.Name, err)
}

// lessCrowded is what to do about that.
func lessCrowded(w forward.Workload) string {
	return fmt.Sprintf("close connections that are not needed, or give %s more pods", w.Ref())
}

// crowded is why connections to a pod wait for others to end.
func crowded(pod portforward.Pod, u portforward.Usage) string {
	return fmt.Sprintf("pod %s has %d connections, and there can be no more at a time", pod.Name, u.Leases)
}

// dial opens a connection to e.
func (c *cluster) dial(ctx context.Context, e forward.Endpoint) (forward.Conn, error) {
	w := e.Target.Workload
	c.mu.Lock()
	u := c.uses[w]
	if u == nil {
		c.mu.Unlock()
		return nil, &forward.Error{Kind: forward.ErrUnavailable, Condition: c.report(w).Condition}
	}
	u.opening++
	c.mu.Unlock()

	b := backend{pod: e.Pod, uid: e.UID}
	lease, err := c.pool.Open(ctx, podOf(w, b), e.Port)

	c.opened(w, b, err)
	c.mu.Lock()
	u.opening--
	if err == nil {
		u.active++
	}
	c.mu.Unlock()
	if err == nil {
		return &conn{Lease: lease, cluster: c, use: u, endpoint: e}, nil
	}
	c.notify()
	if cond := c.report(w).Condition; c.hopeless(cond.State) {
		return nil, &forward.Error{Kind: forward.ErrUnavailable, Condition: cond, Err: err}
	}
	cond := status.Condition{State: status.Degraded, Cause: c.unreached(podOf(w, b), err), Hint: w.Kubectl("get pods")}
	if errors.Is(err, portforward.ErrBusy) {
		cond.Hint = lessCrowded(w)
	}
	return nil, &forward.Error{Kind: forward.ErrNotDelivered, Err: err, Condition: cond}
}

// probe proves that some pod of the workload can be reached. With upgrade, it
// proves that upgrades are allowed, too.
func (c *cluster) probe(ctx context.Context, w forward.Workload, upgrade bool) error {
	v := c.view(w)
	c.mu.Lock()
	b, _, ok := c.choose(w, v.backends) // which takes no turn
	c.mu.Unlock()
	if !ok {
		return &forward.Error{Kind: forward.ErrUnavailable, Condition: c.report(w).Condition}
	}
	return c.probePod(ctx, w, b, upgrade)
}

// probePod proves that a pod can be reached.
func (c *cluster) probePod(ctx context.Context, w forward.Workload, b backend, upgrade bool) error {
	c.mu.Lock()
	u := c.uses[w]
	if u == nil {
		c.mu.Unlock()
		return unconfigured(w)
	}
	u.opening++
	c.mu.Unlock()

	limited, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	probe := c.pool.Probe
	if upgrade {
		probe = c.pool.ProbeUpgrade
	}
	err := probe(limited, podOf(w, b))
	if ctx.Err() == nil { // else it says nothing about the pod
		c.opened(w, b, err)
	}
	c.mu.Lock()
	u.opening--
	c.mu.Unlock()
	c.notify()
	return err
}

// suspects are the pods to which the last open failed, and whose turn to be
// tried again has come; denied says that the last upgrade was. What is known of
// pods that are gone is forgotten.
func (c *cluster) suspects(w forward.Workload, v view) (suspects []backend, denied bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.uses[w]
	if u == nil {
		return nil, false
	}
	there := make(map[string]bool)
	for _, b := range v.backends {
		there[b.key()] = true
		if f, ok := u.failing[b.key()]; ok && (b.ready || b.serving) && time.Now().After(f.until) {
			suspects = append(suspects, b)
		}
	}
	gone := func(key string, _ failure) bool { return !there[key] }
	maps.DeleteFunc(u.failing, gone)
	maps.DeleteFunc(u.turns, func(key string, _ uint64) bool { return !there[key] })
	return suspects, u.denied != nil
}

// count changes the use of a workload, if it is still configured.
func (c *cluster) count(w forward.Workload, change func(*use)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u := c.uses[w]; u != nil {
		change(u)
	}
}

// A conn is a lease that tells its cluster what becomes of it.
type conn struct {
	*portforward.Lease
	cluster  *cluster
	use      *use
	endpoint forward.Endpoint
	answered atomic.Bool // the app has sent something
	closed   atomic.Bool
	idle     bool // guarded by the cluster's mu

	looking sync.Once
	leaves  bool // once looked at: the pod is terminating, or gone
}

// SetIdle implements forward.Conn.
func (c *conn) SetIdle(idle bool) {
	c.cluster.mu.Lock()
	defer c.cluster.mu.Unlock()
	c.setIdle(idle && !c.closed.Load())
}

// setIdle counts the pod's idle leases; the cluster's mu is held.
func (c *conn) setIdle(idle bool) {
	if idle == c.idle {
		return
	}
	c.idle = idle
	w := c.endpoint.Target.Workload
	pod, all := podOf(w, backend{pod: c.endpoint.Pod, uid: c.endpoint.UID}), c.cluster.idle
	if idle {
		all[pod]++
	} else if all[pod]--; all[pod] == 0 {
		delete(all, pod)
	}
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Lease.Read(p)
	if n > 0 {
		c.heard()
	}
	return n, c.explain(err)
}

// WriteTo implements io.WriterTo.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.Lease.WriteTo(hearing{w, c})
	return n, c.explain(err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Lease.Write(p)
	return n, c.explain(err)
}

func (c *conn) Close() error {
	err := c.Lease.Close()
	if !c.closed.Swap(true) {
		c.cluster.mu.Lock()
		c.setIdle(false)
		c.use.active--
		c.use.last = time.Now()
		c.cluster.mu.Unlock()
	}
	return err
}

// A hearing tells its conn when the app sends something.
type hearing struct {
	io.Writer
	conn *conn
}

func (h hearing) Write(p []byte) (int, error) {
	h.conn.heard()
	return h.Writer.Write(p)
}

// heard notes that the app answers on its port.
func (c *conn) heard() {
	if c.answered.Swap(true) {
		return
	}
	port := c.endpoint.Target.Port
	c.cluster.mu.Lock()
	_, mended := c.use.refused[port]
	delete(c.use.refused, port)
	c.cluster.mu.Unlock()
	if mended {
		c.cluster.notify()
	}
}

// goingAway reports whether the pod is terminating, or gone. An app may end
// before the watch tells of that, so the API server is asked, too, unless the
// pod is known to refuse the port.
func (c *conn) goingAway() bool {
	c.looking.Do(func() {
		cl, e := c.cluster, c.endpoint
		stays := slices.ContainsFunc(cl.view(e.Target.Workload).backends, func(b backend) bool {
			return b.pod == e.Pod && b.uid == e.UID && !b.terminating
		})
		cl.mu.Lock()
		known := c.use.refused[e.Target.Port].pod == backend{pod: e.Pod, uid: e.UID}.key()
		cl.mu.Unlock()
		c.leaves = !stays || e.UID != "" && !known && cl.isLeaving(e)
	})
	return c.leaves
}

// isLeaving asks the API server whether the pod is terminating, or gone.
func (c *cluster) isLeaving(e forward.Endpoint) bool {
	limited, cancel := context.WithTimeout(context.Background(), c.timing.Answer)
	defer cancel()
	gone, terminating := c.client.lookAt(limited, podOf(e.Target.Workload, backend{pod: e.Pod, uid: e.UID}))
	return gone || terminating
}

// explain turns a lease's error into one that crosses the line, and remembers
// what it says about the pod. What is said after the app has answered says
// nothing about the next connection.
func (c *conn) explain(err error) error {
	if errors.Is(err, portforward.ErrTooSlow) { // which is not the pod's fault
		return &forward.Error{Kind: forward.ErrInterrupted, Err: err, Condition: status.Condition{
			State: status.Degraded,
			Cause: fmt.Sprintf("pod %s has so many connections that they share, and this one was read too slowly", c.endpoint.Pod),
			Hint:  lessCrowded(c.endpoint.Target.Workload),
		}}
	}
	said, isStream := errors.AsType[*portforward.StreamError](err)
	gone := errors.Is(err, portforward.ErrPodGone)
	if !isStream && !gone && !errors.Is(err, portforward.ErrLinkDead) {
		return err
	}
	e, answered := c.endpoint, c.answered.Load()
	b := backend{pod: e.Pod, uid: e.UID}
	f := failure{pod: b.key()}
	kind := forward.ErrInterrupted
	refused := errors.Is(err, portforward.ErrRefused)
	switch {
	case !isStream && !gone:
		if errors.Is(err, portforward.ErrUnsent) {
			kind = forward.ErrNotDelivered
		}
		return &forward.Error{Kind: kind, Err: err, Condition: status.Condition{
			State: status.Degraded, Cause: fmt.Sprintf("the connection to pod %s was lost", e.Pod),
		}}
	case gone, refused && c.goingAway():
		// A pod that goes away may end its app first: then it refuses what
		// another one takes.
		c.cluster.opened(e.Target.Workload, b, portforward.ErrPodGone)
		c.cluster.notify()
		if isStream && !answered {
			kind = forward.ErrNotDelivered
		}
		return &forward.Error{Kind: kind, Err: err, Condition: status.Condition{
			State: status.Degraded, Cause: fmt.Sprintf("pod %s is gone, or going", e.Pod), Hint: e.Target.Kubectl("get pods"),
		}}
	case refused:
		kind = forward.ErrRefused
		f.cause = fmt.Sprintf("pod %s refuses connections to port %d", e.Pod, e.Port)
	default:
		f.cause = fmt.Sprintf("port %d of pod %s: %s", e.Port, e.Pod, said.Text)
	}
	if !answered {
		c.cluster.mu.Lock()
		c.use.refused[e.Target.Port] = f
		c.cluster.mu.Unlock()
		c.cluster.notify()
	}
	return &forward.Error{Kind: kind, Err: err, Condition: status.Condition{
		State: status.Degraded, Cause: f.cause, Hint: e.Target.Kubectl("describe pod " + e.Pod),
	}}
}
