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
	// sureDenials is how many checks in a row must be denied until it is sure
	// that a login is needed: a plugin gets new credentials after the first.
	sureDenials = 2
)

// errReplaced tells a Pick that its cluster is closed: there may be another one
// by now.
var errReplaced = errors.New("the cluster was replaced")

// A cluster is one context of one kubeconfig.
type cluster struct {
	id        ID
	userAgent string
	log       *slog.Logger
	changed   func()
	timing    Timing
	// outdated asks for a reload of the cluster, because the kubeconfig says
	// something new. It does not block.
	outdated func(*cluster)

	made   time.Time
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
	denials    int                // checks in a row whose credentials were denied
	closed     bool               // Picks that wait shall look for another cluster
	interrupt  context.CancelFunc // ends the check under way; nil if there is none

	answering time.Duration // how long the last check took; for run only
}

// newCluster starts following the cluster. Its problems, a missing context
// among them, are told by what it reports.
func newCluster(id ID, userAgent string, timing Timing, log *slog.Logger, changed func(), outdated func(*cluster)) *cluster {
	c := &cluster{
		id:         id,
		userAgent:  userAgent,
		log:        log.With("context", id.Context),
		changed:    changed,
		outdated:   outdated,
		timing:     timing.withDefaults(),
		made:       time.Now(),
		poked:      make(chan struct{}, 1),
		hurried:    make(chan struct{}, 1),
		wake:       make(chan struct{}),
		uses:       make(map[forward.Workload]*use),
		namespaces: make(map[string]*namespace),
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	if c.err = c.connect(); c.err != nil {
		c.running.Go(func() { c.awaitKubeconfig(ctx) })
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

// connect makes what is needed to speak to the cluster, or says why not.
func (c *cluster) connect() *forward.Error {
	to, err := readAccess(c.id)
	if err == nil {
		c.said = to.said
		c.link = &link{host: to.rest.Host, context: c.id.Context, changed: c.notify, waiting: c.poke}
		c.client, err = newClient(to.rest, c.userAgent, c.link)
	}
	if e, ok := errors.AsType[*forward.Error](err); ok || err == nil {
		return e
	}
	return &forward.Error{Kind: forward.ErrUnavailable, Err: err, Condition: status.Condition{
		State: status.Failed, Cause: fmt.Sprintf("context %s cannot be used: %v", c.id.Context, err),
		Hint: "kubectl config view --minify --context " + c.id.Context,
	}}
}

// awaitKubeconfig waits until the kubeconfig says something else than that the
// cluster cannot be used.
func (c *cluster) awaitKubeconfig(ctx context.Context) {
	for ctx.Err() == nil {
		c.sleep(ctx, c.timing.RetryInUse)
		if !c.upToDate() {
			c.outdated(c)
		}
	}
}

// upToDate reports whether the kubeconfig says what it said when c was made. It
// is taken to do so if it cannot be read now, but could be then.
func (c *cluster) upToDate() bool {
	if c.err != nil {
		now := &cluster{id: c.id}
		err := now.connect()
		return err != nil && err.Condition == c.err.Condition
	}
	to, err := readAccess(c.id)
	if e, ok := errors.AsType[*forward.Error](err); ok {
		return e.State == status.Failed
	}
	return reflect.DeepEqual(to.said, c.said)
}

// inherit takes over the workloads of the cluster that c is to replace.
func (c *cluster) inherit(old *cluster) {
	old.mu.Lock()
	defer old.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for w, u := range old.uses {
		c.uses[w] = newUse()
		if c.uses[w].last = u.last; u.active > 0 {
			c.uses[w].last = time.Now()
		}
	}
	if c.err == nil {
		c.poke()
	}
}

// close ends every connection and waits. Picks that wait are told at once.
func (c *cluster) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.notify()
	c.stop()
	c.running.Wait()
	if c.pool != nil {
		c.pool.Close()
		c.client.close()
	}
	c.changed()
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

// hurry makes run check the link now, and anew if a check is under way.
func (c *cluster) hurry() {
	select {
	case c.hurried <- struct{}{}:
	default:
	}
	c.poke()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.interrupt != nil {
		c.interrupt()
	}
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
		cond := c.link.condition()
		if cond.State != last {
			c.log.Info("cluster", "state", cond.State, "was", last, "cause", cond.Cause)
			last = cond.State
			c.notify()
		}
		if c.link.up() {
			retry = 0
			c.watch(ctx)
			continue
		}
		c.unfollow()
		c.client.close() // a connection that is dead shall not be asked again
		if cond.State == status.Offline && c.waiting() > 0 {
			retry = min(retry, c.timing.RetryInUse)
		}
		if since := time.Since(tried); since < retry && !c.hurryUp() {
			c.sleep(ctx, retry-since)
			continue
		}
		c.check(ctx)
		tried = time.Now()
		retry = c.nextRetry(retry)
		if !c.link.up() && !c.upToDate() {
			c.outdated(c) // somebody has logged in, or made the cluster anew
		}
	}
}

// watch looks after a cluster whose link is up, and waits until something has
// happened, or it is time to look again.
func (c *cluster) watch(ctx context.Context) {
	c.follow(ctx)
	c.retire()
	switch used := c.inUse(); {
	case c.hurryUp() || used && c.link.quiet() >= c.timing.Quiet:
		c.check(ctx)
	case used:
		c.prove(ctx)
		c.sleep(ctx, c.timing.Watch)
	case c.link.asking() >= c.timing.Quiet: // who is not used may be silent, too
		c.check(ctx)
	case c.link.asking() > 0:
		c.sleep(ctx, c.timing.Watch)
	default:
		c.sleep(ctx, 0)
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
	switch denied := c.link.condition().State == status.NeedsLogin; {
	case denied && c.surelyDenied():
		first, limit = c.timing.RetryDenied, retryDeniedMax
	case denied:
		limit = c.timing.Retry
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

// check asks the API server for a sign of life. One that is known to be slow
// gets more time, and so does one that is not believed to answer anyway.
func (c *cluster) check(ctx context.Context) {
	limit := min(max(c.timing.Answer, 2*c.answering), silenceLimit-c.timing.Quiet)
	if !c.link.up() {
		limit = silenceLimit
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c.mu.Lock()
	c.interrupt = cancel
	c.mu.Unlock()
	began := time.Now()
	err := c.client.check(limited)
	c.mu.Lock()
	c.interrupt = nil
	c.mu.Unlock()
	switch {
	case err != nil && overdue(limited):
		c.link.dead(began)
	case err != nil && limited.Err() != nil:
		return // interrupted
	default:
		c.answering = time.Since(began)
	}
	c.mu.Lock()
	if c.denials++; c.link.condition().State != status.NeedsLogin {
		c.denials = 0
	}
	sure := c.denials == sureDenials
	c.mu.Unlock()
	if sure {
		c.notify() // connections need not wait any more
	}
}

// surelyDenied reports whether credentials were denied again and again.
func (c *cluster) surelyDenied() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.denials >= sureDenials
}

// hopeless reports whether waiting will not help a connection.
func (c *cluster) hopeless(s status.State) bool {
	switch s {
	case status.Failed, status.Forbidden:
		return true
	case status.NeedsLogin:
		return c.surelyDenied()
	}
	return false
}

// follow runs the mirrors of every namespace in use, and ends the others.
func (c *cluster) follow(ctx context.Context) {
	var left []*namespace
	c.mu.Lock()
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
			left = append(left, n)
			delete(c.namespaces, name)
		}
	}
	c.mu.Unlock()
	for _, n := range left { // without the lock, which its mirrors may want
		n.stop()
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
		c.pool.SetRetiring(pod, !stay[pod])
	}
}

// prove sees to it that each workload in use has an upgraded connection, so
// that its state is known, and so that the next connection need not wait; and
// that what did not work is tried again.
func (c *cluster) prove(ctx context.Context) {
	for w, lately := range c.wantedUses() {
		if !lately {
			continue
		}
		v := c.view(w)
		suspects, denied := c.suspects(w, v)
		if len(suspects) == 0 && !denied && c.proven(w, v) {
			continue
		}
		pause := c.timing.Watch
		if len(suspects) > 0 { // they have pauses of their own
			pause = c.timing.Retry
		}
		busy := true
		c.count(w, func(u *use) {
			if busy = u.probing || time.Since(u.probed) < pause; !busy {
				u.probing = true
			}
		})
		if busy {
			continue
		}
		c.running.Go(func() {
			defer c.count(w, func(u *use) { u.probing, u.probed = false, time.Now() })
			err := c.probeAll(ctx, w, suspects, denied)
			c.log.Debug("probe", "workload", w.Ref(), "err", err)
		})
	}
}

// probeAll probes the suspects or, if there are none, any pod.
func (c *cluster) probeAll(ctx context.Context, w forward.Workload, suspects []backend, denied bool) error {
	if len(suspects) == 0 {
		return c.probe(ctx, w, denied)
	}
	errs := make([]error, len(suspects))
	var probing sync.WaitGroup
	for i, b := range suspects {
		probing.Go(func() { errs[i] = c.probePod(ctx, w, b, denied) })
	}
	probing.Wait()
	return errors.Join(errs...)
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
	for port, cause := range f.view.nowhere {
		if r.Nowhere == nil {
			r.Nowhere = make(map[uint16]status.Condition)
		}
		r.Nowhere[port] = leadsNowhere(w, cause)
	}
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
		c.mu.Lock()
		closed, gone := c.closed, c.uses[t.Workload] == nil
		c.mu.Unlock()
		switch {
		case closed:
			return forward.Endpoint{}, errReplaced
		case gone:
			return forward.Endpoint{}, unconfigured(t.Workload)
		}
		if c.err != nil { // the context may come back, and the file be being written
			var again time.Time
			if c.hopeless(c.err.State) {
				again = c.made.Add(2 * c.timing.RetryInUse)
			}
			if ctx.Err() != nil || !again.IsZero() && !time.Now().Before(again) {
				return forward.Endpoint{}, c.err
			}
			until(ctx, next, again)
			continue
		}
		var again time.Time
		if c.link.up() {
			e, later, ok := c.pick(t)
			if ok {
				return e, nil
			}
			again = later
		}
		v := c.view(t.Workload)
		if cond := c.report(t.Workload).Condition; ctx.Err() != nil || c.hopeless(cond.State) || v.obstacle != "" {
			if cause := v.nowhere[t.Port]; cause != "" {
				cond = leadsNowhere(t.Workload, cause)
			}
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
