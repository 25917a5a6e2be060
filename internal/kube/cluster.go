package kube

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"reflect"
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
	// lookPause is the least time between two looks at a cluster whose link is up.
	lookPause = 10 * time.Millisecond
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
	shaken  chan struct{} // cap 1: what was found out may be so no more
	stop    context.CancelFunc
	running sync.WaitGroup // run and what it starts

	mu         sync.Mutex    // guards the following
	wake       chan struct{} // closed at the next change
	uses       map[forward.Workload]*use
	namespaces map[string]*namespace
	idle       map[portforward.Pod]int // leases that are kept for later
	waiters    int                     // Picks that wait
	turn       uint64
	denials    int                // checks in a row whose credentials were denied
	closed     bool               // Picks that wait shall look for another cluster
	interrupt  context.CancelFunc // ends the check under way; nil if there is none

	// The following are for run only.
	looked    time.Time
	answering time.Duration                 // how long the last check took
	asked     map[portforward.Pod]time.Time // when askAfter last was, if lately; for outlive, too
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
		shaken:     make(chan struct{}, 1),
		wake:       make(chan struct{}),
		uses:       make(map[forward.Workload]*use),
		namespaces: make(map[string]*namespace),
		idle:       make(map[portforward.Pod]int),
		asked:      make(map[portforward.Pod]time.Time),
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
		DialSpare:    c.client.upgrade.DialSpare,
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
		c.link = newLink(c.id, to, c.notify)
		c.link.waiting = c.poke
		c.client, err = newClient(to.rest, c.userAgent, c.timing, c.link)
	}
	if e, ok := errors.AsType[*forward.Error](err); ok || err == nil {
		return e
	}
	return unusable(c.id, err)
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
		now := &cluster{id: c.id, timing: c.timing}
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
	c.halt()
	if c.pool != nil {
		c.pool.Close()
		c.client.close()
	}
	c.changed()
}

// halt ends all but the connections, and tells Picks that wait.
func (c *cluster) halt() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.notify()
	c.stop()
	c.running.Wait()
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

func (c *cluster) poke() { signal(c.poked) }

// signal has a channel of capacity 1 tell something, unless it is about to.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// isSignalled reports whether there was a signal since it was asked last.
func isSignalled(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// hurry makes run check the link now, and anew if a check is under way.
func (c *cluster) hurry() {
	c.stopCheck()
	signal(c.hurried)
	c.poke()
}

// stopCheck interrupts the check under way, if there is one. Whoever wants
// another one says so afterwards: else it might be that one.
func (c *cluster) stopCheck() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.interrupt != nil {
		c.interrupt()
	}
}

// probeNow asks everything for a sign of life, and tries what has failed. Only
// credentials that were denied keep their least wait: trying them may open a
// browser.
func (c *cluster) probeNow() {
	if c.err != nil {
		c.poke()
		return
	}
	c.pool.PingAll()
	if c.link.condition().State != status.NeedsLogin { // else it may be a plugin that waits for a person
		c.stopCheck()
	}
	signal(c.shaken)
	c.mu.Lock()
	for _, u := range c.uses {
		u.probed = time.Time{}
		for pod, f := range u.failing {
			f.until, f.tries = time.Now(), 0
			u.failing[pod] = f
		}
	}
	for _, n := range c.namespaces {
		n.retry()
	}
	c.mu.Unlock()
	c.notify()
}

// use makes the set of configured workloads equal to ws.
func (c *cluster) use(ws map[forward.Workload]bool) {
	left := false
	c.mu.Lock()
	for w := range c.uses {
		if !ws[w] {
			delete(c.uses, w)
			if n := c.namespaces[w.Namespace]; n != nil {
				n.forget(w)
			}
			left = true
		}
	}
	for w := range ws {
		if c.uses[w] == nil {
			c.uses[w] = newUse()
		}
	}
	c.mu.Unlock()
	if left {
		c.notify() // Picks that wait for it, too
		return
	}
	c.poke()
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
		cond := c.report(t.Workload).Condition
		unknown := t.Port == 0 && v.exists && v.obstacle == "" // to whoever asks, but not any more
		if ctx.Err() != nil || c.hopeless(cond.State) || v.obstacle != "" || unknown {
			if unknown && cond.Cause == "" {
				cond = status.Condition{State: status.Connecting, Cause: "the ports of " + t.Ref() + " have just become known"}
			}
			if cause := v.nowhere[t.Port]; cause != "" {
				cond = leadsNowhere(t.Workload, cause)
			} else if t.Pod != "" && v.exists && !unknown && (cond.State.Usable() || cond.State == status.Connecting) {
				cond = cmp.Or(v.away(t), cond) // the other pods may be well
			}
			err := ctx.Err()
			if unknown {
				err = forward.ErrPortUnknown
			}
			return forward.Endpoint{}, &forward.Error{Kind: forward.ErrUnavailable, Condition: cond, Err: err}
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
