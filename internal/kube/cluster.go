package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/portforward"
	"github.com/tunneld/tunneld/internal/status"
)

// Timing holds the durations by which clusters are watched. Zero values mean
// the defaults, which are given in parentheses; tests use shorter ones.
type Timing struct {
	// InUse is for how long after its last connection a workload is watched
	// closely, and an idle upgraded connection kept (1 min).
	InUse time.Duration
	// Watch is how closely (2 s).
	Watch time.Duration
	// Quiet is how long an API server in use may be silent before it is asked
	// for a sign of life (4 s), and Answer how long it has for that (3 s).
	Quiet, Answer time.Duration
	// Ping is how often upgraded connections are asked for a sign of life
	// (4 s), and Pong how long they have for it (3 s). With Answer, silence is
	// noticed and confirmed within 10 s.
	Ping, Pong time.Duration
	// Retry is the first wait after a failure (250 ms); it doubles up to
	// RetryInUse (2 s), or RetryIdle (15 s) if nobody waits.
	Retry, RetryInUse, RetryIdle time.Duration
	// RetryDenied is the first wait after credentials were refused (5 s); it
	// doubles up to a minute: trying them may open a browser, or lock an
	// account.
	RetryDenied time.Duration
}

func (t Timing) withDefaults() Timing {
	return Timing{
		InUse:       cmp.Or(t.InUse, time.Minute),
		Watch:       cmp.Or(t.Watch, 2*time.Second),
		Quiet:       cmp.Or(t.Quiet, 4*time.Second),
		Answer:      cmp.Or(t.Answer, 3*time.Second),
		Ping:        cmp.Or(t.Ping, 4*time.Second),
		Pong:        cmp.Or(t.Pong, 3*time.Second),
		Retry:       cmp.Or(t.Retry, 250*time.Millisecond),
		RetryInUse:  cmp.Or(t.RetryInUse, 2*time.Second),
		RetryIdle:   cmp.Or(t.RetryIdle, 15*time.Second),
		RetryDenied: cmp.Or(t.RetryDenied, 5*time.Second),
	}
}

const (
	// retryDeniedMax ends the doubling of Timing.RetryDenied.
	retryDeniedMax = time.Minute
	// probeTimeout bounds an upgrade that no connection waits for.
	probeTimeout = 10 * time.Second
)

// A cluster is one context of one kubeconfig.
type cluster struct {
	id      ID
	log     *slog.Logger
	changed func()
	timing  Timing
	// outdated asks for a reload, because the kubeconfig says something new. It
	// does not block.
	outdated func()

	err    *forward.Error // why the context cannot be used; nil if it can
	said   entries        // of the kubeconfig
	link   *link
	client *client
	pool   *portforward.Pool

	poked   chan struct{} // cap 1: something happened that run should see
	hurried chan struct{} // cap 1: check now, whatever the last one said
	stop    context.CancelFunc
	running sync.WaitGroup // run and what it starts

	mu         sync.Mutex    // guards the following
	wake       chan struct{} // closed at the next change
	uses       map[forward.Workload]*use
	namespaces map[string]*namespace
	waiters    int // Picks that wait
	turn       uint64
}

// newCluster starts following the cluster. Its problems, a missing context
// among them, are told by what it reports.
func newCluster(id ID, userAgent string, timing Timing, log *slog.Logger, changed, outdated func()) *cluster {
	c := &cluster{
		id:         id,
		log:        log.With("context", id.Context),
		changed:    changed,
		outdated:   outdated,
		timing:     timing.withDefaults(),
		poked:      make(chan struct{}, 1),
		hurried:    make(chan struct{}, 1),
		wake:       make(chan struct{}),
		uses:       make(map[forward.Workload]*use),
		namespaces: make(map[string]*namespace),
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	to, err := readAccess(id)
	if err == nil {
		c.said = to.said
		c.link = &link{host: to.rest.Host, context: id.Context, changed: c.notify}
		c.client, err = newClient(to.rest, userAgent, c.link)
	}
	if err != nil {
		if !errors.As(err, &c.err) {
			c.err = &forward.Error{Kind: forward.ErrUnavailable, Err: err, Condition: status.Condition{
				State: status.Failed, Cause: fmt.Sprintf("context %s cannot be used: %v", id.Context, err),
			}}
		}
		return c
	}
	c.pool = &portforward.Pool{
		Dial:         c.client.upgrade.Dial,
		IdleTimeout:  c.timing.InUse,
		PingInterval: c.timing.Ping,
		PingTimeout:  c.timing.Pong,
		Changed:      c.notify,
		Lost:         func(portforward.Pod, error) { c.poke() },
		Log:          c.log,
	}
	c.running.Go(func() { c.run(ctx) })
	return c
}

// sameAs reports whether the kubeconfig now says what it said when c was made.
func (c *cluster) sameAs() bool {
	to, err := readAccess(c.id)
	return err == nil && c.err == nil && reflect.DeepEqual(to.said, c.said)
}

// close ends every connection and waits.
func (c *cluster) close() {
	c.stop()
	c.running.Wait()
	if c.pool != nil {
		c.pool.Close()
		c.client.close()
	}
	c.notify()
}

// notify tells everyone who waits, and the owner, that something changed.
func (c *cluster) notify() {
	c.mu.Lock()
	close(c.wake)
	c.wake = make(chan struct{})
	c.mu.Unlock()
	c.poke()
	c.changed()
}

// next returns a channel that is closed at the next change.
func (c *cluster) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wake
}

func (c *cluster) poke() {
	select {
	case c.poked <- struct{}{}:
	default:
	}
}

// hurry makes run check the link now.
func (c *cluster) hurry() {
	select {
	case c.hurried <- struct{}{}:
	default:
	}
	c.poke()
}

// use makes the set of configured workloads equal to ws.
func (c *cluster) use(ws map[forward.Workload]bool) {
	c.mu.Lock()
	for w := range c.uses {
		if !ws[w] {
			delete(c.uses, w)
		}
	}
	for w := range ws {
		if c.uses[w] == nil {
			c.uses[w] = newUse()
		}
	}
	c.mu.Unlock()
	c.poke()
}

// run keeps the link, the mirrors and the proofs in order until ctx is done.
func (c *cluster) run(ctx context.Context) {
	defer c.unfollow()
	var retry time.Duration
	var tried time.Time
	var last status.State
	for ctx.Err() == nil {
		if state := c.link.condition().State; state != last {
			c.log.Info("cluster", "state", state, "was", last, "cause", c.link.condition().Cause)
			last = state
			c.notify()
		}
		if !c.link.up() {
			c.unfollow()
			since := time.Since(tried)
			if c.waiting() > 0 {
				retry = min(retry, c.timing.RetryInUse)
			}
			if since < retry && !c.hurryUp() {
				c.sleep(ctx, retry-since)
				continue
			}
			c.check(ctx)
			tried = time.Now()
			retry = c.nextRetry(retry)
			if !c.link.up() && !c.sameAs() {
				c.outdated() // somebody has logged in, or made the cluster anew
			}
			continue
		}
		retry = 0
		c.follow(ctx)
		c.retire()
		switch used := c.inUse(); {
		case used && c.link.quiet() >= c.timing.Quiet:
			c.check(ctx)
		case used:
			c.prove(ctx)
			c.sleep(ctx, c.timing.Watch)
		case c.link.asking(): // silence has to be noticed
			c.sleep(ctx, c.timing.Watch)
		default:
			c.sleep(ctx, 0)
		}
	}
}

// hurryUp reports whether hurry was called since it was asked last.
func (c *cluster) hurryUp() bool {
	select {
	case <-c.hurried:
		return true
	default:
		return false
	}
}

// nextRetry is how long to wait after a check that failed; the last wait is
// given, or 0.
func (c *cluster) nextRetry(last time.Duration) time.Duration {
	first, limit := c.timing.Retry, c.timing.RetryIdle
	switch {
	case c.link.condition().State == status.NeedsLogin:
		first, limit = c.timing.RetryDenied, retryDeniedMax
	case c.inUse():
		limit = c.timing.RetryInUse
	}
	next := min(max(2*last, first), limit)
	return next - rand.N(next/4+1)
}

// sleep waits for a poke, or for d if it is not 0.
func (c *cluster) sleep(ctx context.Context, d time.Duration) {
	var timeout <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-ctx.Done():
	case <-c.poked:
	case <-timeout:
	}
}

// check asks the API server for a sign of life.
func (c *cluster) check(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, c.timing.Answer)
	defer cancel()
	if err := c.client.check(limited); err != nil && limited.Err() != nil && ctx.Err() == nil {
		c.link.dead()
		c.client.close() // what comes next shall not wait for a dead connection
	}
}

// follow runs the mirrors of every namespace in use, and ends the others.
func (c *cluster) follow(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	used := make(map[string]bool)
	for w := range c.uses {
		used[w.Namespace] = true
		n := c.namespaces[w.Namespace]
		if n == nil {
			n = newNamespace(w.Namespace, c.client, c.timing, c.notify)
			c.namespaces[w.Namespace] = n
		}
		n.follow(ctx, w)
	}
	for name, n := range c.namespaces {
		if !used[name] {
			n.stop()
			delete(c.namespaces, name)
		}
	}
}

// unfollow pauses all mirrors, which keep what they know, and waits for them.
func (c *cluster) unfollow() {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.namespaces))
	c.mu.Unlock()
	for _, n := range all {
		n.stop()
	}
}

// retire tells the pool which pods are going away.
func (c *cluster) retire() {
	stay := make(map[portforward.Pod]bool)
	for w := range c.wantedUses() {
		for _, b := range c.view(w).backends {
			if !b.terminating {
				stay[podOf(w, b)] = true
			}
		}
	}
	for _, pod := range c.pool.Pods() {
		if !stay[pod] {
			c.pool.Retire(pod)
		}
	}
}

// prove sees to it that each workload in use has an upgraded connection, so
// that its state is known, and so that the next connection need not wait; and
// that pods that could not be reached are tried again.
func (c *cluster) prove(ctx context.Context) {
	for w, lately := range c.wantedUses() {
		if !lately {
			continue
		}
		v := c.view(w)
		suspects := c.suspects(w, v)
		if len(suspects) == 0 && c.proven(w, v) {
			continue
		}
		busy := true
		c.count(w, func(u *use) {
			if busy = u.probing || time.Since(u.probed) < c.timing.Retry; !busy {
				u.probing, u.probed = true, time.Now()
			}
		})
		if busy {
			continue
		}
		c.running.Go(func() {
			defer c.count(w, func(u *use) { u.probing = false })
			for _, b := range suspects {
				if err := c.probePod(ctx, w, b); err != nil {
					c.log.Debug("probe", "pod", b.pod, "err", err)
				}
			}
			if len(suspects) == 0 {
				if err := c.probe(ctx, w); err != nil {
					c.log.Debug("probe", "workload", w.Ref(), "err", err)
				}
			}
		})
	}
}

// proven reports whether an upgraded connection to some pod of w answers.
func (c *cluster) proven(w forward.Workload, v view) bool {
	for _, b := range v.backends {
		if time.Since(c.pool.Usage(podOf(w, b)).Proven) < proofAge {
			return true
		}
	}
	return false
}

// wantedUses returns the configured workloads, and which of them are in use.
func (c *cluster) wantedUses() map[forward.Workload]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[forward.Workload]bool, len(c.uses))
	for w, u := range c.uses {
		all[w] = u.lately(c.timing.InUse)
	}
	return all
}

// inUse reports whether any workload is in use.
func (c *cluster) inUse() bool {
	for _, lately := range c.wantedUses() {
		if lately {
			return true
		}
	}
	return false
}

// waiting returns how many connections wait for a pod.
func (c *cluster) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiters
}

// view is what the cluster is known to say about w.
func (c *cluster) view(w forward.Workload) view {
	c.mu.Lock()
	n := c.namespaces[w.Namespace]
	c.mu.Unlock()
	if n == nil {
		return view{}
	}
	return n.view(w)
}

// report judges a workload.
func (c *cluster) report(w forward.Workload) Report {
	if c.err != nil {
		return Report{Condition: c.err.Condition}
	}
	c.mu.Lock()
	n := c.namespaces[w.Namespace]
	f := facts{workload: w, now: time.Now()}
	u := c.uses[w]
	if u != nil {
		f.opening = u.opening > 0
		f.refusal = u.denied
	}
	c.mu.Unlock()

	f.cluster = c.link.condition()
	if f.cluster.State == status.Offline {
		f.refusal = nil // who is not there refuses nothing
	}
	if n != nil {
		f.complete = true
		for _, m := range n.needs(w) {
			f.complete = f.complete && m.complete()
			if err := m.refusal(); err != nil && f.cluster.State != status.Offline {
				f.refusal = err
			}
		}
		f.view = n.view(w)
	}
	for _, b := range f.view.backends {
		usage := c.pool.Usage(podOf(w, b))
		f.leases += usage.Leases
		if usage.Proven.After(f.proven) {
			f.proven = usage.Proven
		}
	}
	if u != nil {
		c.mu.Lock()
		f.fault = u.fault(f.view, u.lately(c.timing.InUse))
		c.mu.Unlock()
	}
	r := Report{Condition: judge(f), Ports: f.view.ports, Notes: f.view.notes}
	r.Ready, _, r.Total = f.view.count()
	return r
}

// condition is the cluster's own state.
func (c *cluster) condition() status.Condition {
	if c.err != nil {
		s := c.err.Condition
		s.State = status.Failed // for a cluster, there is no "not-found"
		return s
	}
	cond := c.link.condition()
	if cond.State == status.Ready {
		if err := c.refusedEverywhere(); err != nil {
			return status.Condition{State: status.Forbidden, Cause: err.Error()}
		}
	}
	return cond
}

// refusedEverywhere returns the API server's 403 if nothing may be read in any
// namespace in use.
func (c *cluster) refusedEverywhere() error {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.namespaces))
	c.mu.Unlock()
	var refusal error
	for _, n := range all {
		err := n.refusal()
		if err == nil {
			return nil
		}
		refusal = err
	}
	return refusal
}

// await waits for a pod for t.
func (c *cluster) await(ctx context.Context, t forward.Target) (forward.Endpoint, error) {
	c.touch(t.Workload)
	c.mu.Lock()
	c.waiters++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.waiters--
		c.mu.Unlock()
	}()
	for {
		next := c.next()
		var again time.Time
		if c.link.up() {
			e, later, ok := c.pick(t)
			if ok {
				return e, nil
			}
			again = later
		}
		if cond := c.report(t.Workload).Condition; ctx.Err() != nil || hopeless(cond.State) || c.view(t.Workload).obstacle != "" {
			return forward.Endpoint{}, &forward.Error{Kind: forward.ErrUnavailable, Condition: cond, Err: ctx.Err()}
		}
		until(ctx, next, again)
	}
}

// until returns when ctx is done, next is closed, or it is again, if that is
// not zero.
func until(ctx context.Context, next <-chan struct{}, again time.Time) {
	var timeout <-chan time.Time
	if !again.IsZero() {
		timer := time.NewTimer(time.Until(again))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-ctx.Done():
	case <-next:
	case <-timeout:
	}
}
