package portforward

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// There are at most MaxPerPod upgraded connections to a pod and MaxTotal to all.
// Half of them are for leases that want one to themselves; those beyond that may
// be shared, and are when there can be no more. A lease that has a connection to
// itself keeps it so: nobody comes between.
//
// A pod that has none to share gets one in spite of MaxTotal, since it matters
// more that every pod can be reached; and so do probes.

// A place is where a lease can be opened.
type place struct {
	session *session // nil if it is still to be made
	seat    int      // on a session that may be shared; else 0
	spent   []*session
}

func (p place) open(ctx context.Context, port uint16) (*Lease, error) {
	if p.seat > 0 {
		return p.session.openSeat(ctx, port, p.seat)
	}
	return p.session.open(port)
}

// A waiter waits for a place.
type waiter struct {
	pc      *podConns
	granted chan place // cap 1
}

// place finds a place for a lease, or makes one.
func (p *Pool) place(ctx context.Context, pod Pod) (pc *podConns, at place, fresh bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pc = p.connsOf(pod)
	pc.opening++
	defer func() {
		pc.opening--
		p.drop(pc)
	}()
	at, ok := p.reuse(ctx, pc)
	if !ok {
		spent := at.spent
		at, ok = p.claim(pc)
		at.spent = append(at.spent, spent...)
	}
	if !ok {
		w := &waiter{pc, make(chan place, 1)}
		p.queue = append(p.queue, w)
		p.mu.Unlock()
		end(at.spent)
		at, err = p.awaitPlace(ctx, w)
		p.mu.Lock()
		if err != nil {
			return pc, at, false, err
		}
	}
	p.mu.Unlock()
	end(at.spent)
	made := at.session == nil
	if made {
		at.session, fresh, err = p.dialInTurn(ctx, pc)
	}
	p.mu.Lock()
	if made && err == nil {
		at = p.assign(pc, at.session)
		p.serve() // others may share it
	}
	return pc, at, fresh, err
}

// reuse takes an idle session, or waits a little for one that is being recycled;
// mu is held, but not while it waits.
func (p *Pool) reuse(ctx context.Context, pc *podConns) (at place, ok bool) {
	if p.isAwaited(pc) {
		return at, false // others were first
	}
	s, spent := pc.takeIdle()
	if s == nil && pc.recycling > len(pc.waiters) {
		w := make(chan *session, 1)
		pc.waiters = append(pc.waiters, w)
		p.mu.Unlock()
		s = p.await(ctx, pc, w)
		p.mu.Lock()
	}
	if s != nil {
		at = p.assign(pc, s)
	}
	at.spent = spent
	return at, s != nil
}

// claim finds a place for a lease, if there is one; mu is held.
func (p *Pool) claim(pc *podConns) (at place, ok bool) {
	s, spent := pc.takeIdle()
	if s != nil {
		at = p.assign(pc, s)
		at.spent = spent
		return at, true
	}
	full := len(pc.sessions)+pc.dialing >= p.maxPerPod()
	switch {
	case full:
	case p.total() < p.maxTotal():
		pc.dialing++
		return place{spent: spent}, true
	default:
		if other := p.evict(); other != nil {
			pc.dialing++
			return place{spent: append(spent, other)}, true
		}
	}
	if s := pc.roomiest(); s != nil {
		if seat := s.sit(); seat > 0 {
			return place{session: s, seat: seat, spent: spent}, true
		}
	}
	if !full && len(pc.shared)+pc.dialing == 0 {
		pc.dialing++
		return place{spent: spent}, true
	}
	return place{spent: spent}, false
}

// assign makes a place of a session that nobody uses; mu is held.
func (p *Pool) assign(pc *podConns, s *session) place {
	if pc.exclusive() <= p.maxPerPod()/2 && p.exclusive() <= p.maxTotal()/2 && p.total() <= p.maxTotal() {
		return place{session: s}
	}
	pc.shared[s] = struct{}{}
	s.share()
	return place{session: s, seat: s.sit()}
}

// exclusive is how many sessions are in use by one lease that has it to itself.
func (pc *podConns) exclusive() int {
	return len(pc.sessions) - len(pc.idle) - len(pc.shared) - pc.recycling
}

// exclusive is the same for all pods; mu is held.
func (p *Pool) exclusive() (n int) {
	for _, pc := range p.pods {
		n += pc.exclusive()
	}
	return n
}

// total is how many sessions there are, or will be soon; mu is held.
func (p *Pool) total() (n int) {
	for _, pc := range p.pods {
		n += len(pc.sessions) + pc.dialing
	}
	return n
}

// mayUpgrade reports whether there may be one more session, and isOverCaps
// whether there are too many; mu is held.
func (p *Pool) mayUpgrade(pc *podConns) bool {
	return len(pc.sessions)+pc.dialing < p.maxPerPod() && p.total() < p.maxTotal()
}

func (p *Pool) isOverCaps(pc *podConns) bool {
	return len(pc.sessions) > p.maxPerPod() || p.total() > p.maxTotal()
}

// evict takes away the session that has been idle longest, if any is; mu is held.
func (p *Pool) evict() *session {
	var of *podConns
	var since time.Time
	for _, pc := range p.pods {
		if len(pc.idle) > 0 && (of == nil || pc.idle[0].since.Before(since)) {
			of, since = pc, pc.idle[0].since
		}
	}
	if of == nil {
		return nil
	}
	s := of.idle[0].session
	of.idle = slices.Delete(of.idle, 0, 1)
	delete(of.sessions, s)
	p.drop(of)
	return s
}

// roomiest is the session with a seat on which a lease gets on best; mu of the
// pool is held.
func (pc *podConns) roomiest() (best *session) {
	var has vacancy
	for s := range pc.shared {
		v := s.vacancy()
		if v.free && (best == nil || v.isBetterThan(has)) {
			best, has = s, v
		}
	}
	return best
}

func (v vacancy) isBetterThan(other vacancy) bool {
	if v.behind != other.behind {
		return other.behind
	}
	return v.leases < other.leases
}

// awaitPlace waits until there is a place for w.
func (p *Pool) awaitPlace(ctx context.Context, w *waiter) (place, error) {
	select {
	case at := <-w.granted:
		return at, nil
	case <-ctx.Done():
	case <-p.lifetime().Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.queue, w)
	switch {
	case i < 0: // it was granted meanwhile
		return <-w.granted, nil
	case p.closed:
		return place{}, ErrClosed
	}
	p.queue = slices.Delete(p.queue, i, i+1)
	return place{}, fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
}

// isAwaited reports whether a lease waits for a place on the pod; mu is held.
func (p *Pool) isAwaited(pc *podConns) bool {
	return slices.ContainsFunc(p.queue, func(w *waiter) bool { return w.pc == pc })
}

// serve gives the places that there are to who waits for them, in turn for each
// pod; mu is held.
func (p *Pool) serve() {
	if len(p.queue) == 0 || p.closed {
		return
	}
	waits := make(map[*podConns]bool)
	p.queue = slices.DeleteFunc(p.queue, func(w *waiter) bool {
		if waits[w.pc] {
			return false
		}
		at, ok := p.claim(w.pc)
		if ok {
			w.granted <- at
			return true
		}
		if len(at.spent) > 0 {
			p.running.Go(func() { end(at.spent) })
		}
		waits[w.pc] = true
		return false
	})
}

// giveUp gives back a place where no lease could be opened.
func (p *Pool) giveUp(pc *podConns, at place) {
	if at.seat > 0 {
		p.vacate(pc, at.session, at.seat)
		return
	}
	at.session.fail(ErrClosed) // it may be the server that wants no more streams
}

// giveBackSeat is giveBack for a lease with a seat, which is free again when the
// server's worker is done with it.
func (p *Pool) giveBackSeat(l *Lease) {
	seat := int(workerOf(l.dataID))
	p.mu.Lock()
	l.pod.leases--
	leave := l.session.leave
	if l.isSettled() {
		leave = l.session.cutSeat
	}
	l.session.release(l)
	if !p.closed {
		p.running.Go(func() {
			leave(l, p.pingTimeout())
			p.vacate(l.pod, l.session, seat)
			p.changed()
		})
	}
	p.mu.Unlock()
	p.changed()
}

// vacate gives a seat back. The last one to leave makes the session idle, unless
// a worker is still not done with one who has left.
func (p *Pool) vacate(pc *podConns, s *session, seat int) {
	p.mu.Lock()
	empty, done := s.stand(seat)
	if empty {
		delete(pc.shared, s)
	} else {
		p.serve()
	}
	p.mu.Unlock()
	switch {
	case empty && done:
		s.unshare()
		p.keep(pc, s)
	case empty:
		s.fail(ErrClosed)
	}
}
