package kube

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/portforward"
	"github.com/tunneld/tunneld/internal/status"
)

// run keeps the link, the mirrors and the proofs in order until ctx is done.
func (c *cluster) run(ctx context.Context) {
	defer c.unfollow()
	var retry time.Duration
	var tried, up time.Time
	var last status.State
	for ctx.Err() == nil {
		cond := c.link.condition()
		if cond.State != last {
			c.log.Info("cluster", "state", cond.State, "was", last, "cause", cond.Cause)
			last = cond.State
			c.notify()
		}
		shaken := isSignalled(c.shaken)
		if c.link.up() {
			if up.IsZero() {
				up = time.Now()
			}
			c.watch(ctx, shaken)
			continue
		}
		// What answers checks and nothing else is not up for long.
		if !up.IsZero() && time.Since(up) > retry {
			retry = 0
		}
		up = time.Time{}
		c.unfollow()
		c.client.close() // a connection that is dead shall not be asked again
		if shaken {
			retry = min(retry, c.leastRetry())
		}
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
// happened, or it is time to look again. It checks the link if it must, or is
// told to.
func (c *cluster) watch(ctx context.Context, check bool) {
	until(ctx, nil, c.looked.Add(lookPause)) // every connection pokes
	c.looked = time.Now()
	c.follow(ctx)
	c.retire(ctx)
	switch used := c.inUse(); {
	case c.hurryUp() || check || used && c.link.quiet() >= c.timing.Quiet:
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
func (c *cluster) hurryUp() bool { return isSignalled(c.hurried) }

// leastRetry is the wait that even who knows something new keeps.
func (c *cluster) leastRetry() time.Duration {
	if c.surelyDenied() {
		return c.timing.RetryDenied
	}
	return 0
}

// mirrorLimit bounds the waits between lists and watches that fail.
func (c *cluster) mirrorLimit() time.Duration {
	if c.inUse() {
		return c.timing.RetryInUse
	}
	return min(c.timing.RetryIdle, maxMirrorRetry)
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
	return longer(last, first, limit)
}

// longer is the wait after another one: it doubles, within limits, less up to a
// quarter, so that not all try again at the same time.
func longer(last, first, limit time.Duration) time.Duration {
	next := min(max(2*last, first), limit)
	return next - rand.N(next/4+1)
}

// sleep waits for a poke, or for d if it is not 0.
func (c *cluster) sleep(ctx context.Context, d time.Duration) { sleep(ctx, c.poked, d) }

// sleep waits for a signal, or for d if it is not 0.
func sleep(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	var timeout <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timeout:
	}
}

// check asks the API server for a sign of life. One that is known to be slow
// gets more time, and so does one that is not believed to answer anyway.
func (c *cluster) check(ctx context.Context) {
	limit := max(c.timing.Answer, min(2*c.answering, silenceLimit-c.timing.Quiet))
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
			n = newNamespace(w.Namespace, c.client, c.timing, c.mirrorLimit, c.notify)
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

// retire tells the pool which pods are going away, and asks after those to
// which there are connections although no workload has them any more.
func (c *cluster) retire(ctx context.Context) {
	stays := make(map[portforward.Pod]bool)
	for w := range c.wantedUses() {
		for _, b := range c.view(w).backends {
			pod := podOf(w, b)
			stays[pod] = stays[pod] || !b.terminating
		}
	}
	for _, pod := range c.pool.Pods() {
		stay, known := stays[pod]
		c.pool.SetRetiring(pod, !stay)
		if !known && pod.UID != "" && c.pool.Usage(pod).Leases > 0 {
			c.askAfter(ctx, c.client, pod)
		}
	}
}

// askAfter finds out whether a pod is gone, and tells the pool. It does so
// once in a while for each pod.
func (c *cluster) askAfter(ctx context.Context, by *client, pod portforward.Pod) {
	maps.DeleteFunc(c.asked, func(_ portforward.Pod, last time.Time) bool { return time.Since(last) >= c.timing.Ping })
	if _, lately := c.asked[pod]; lately {
		return
	}
	c.asked[pod] = time.Now()
	c.running.Go(func() {
		limited, cancel := context.WithTimeout(ctx, c.timing.Ping)
		defer cancel()
		if gone, _ := by.lookAt(limited, pod); gone {
			c.log.Debug("a pod with connections is gone", "pod", pod)
			c.pool.SetGone(pod)
		}
	})
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
