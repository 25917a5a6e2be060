package portforward

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// A Pod is one incarnation of a pod. It is comparable; a pod that was
// recreated under its old name has another UID and shares nothing with it.
type Pod struct {
	Namespace, Name, UID string
}

func (p Pod) String() string { return p.Namespace + "/" + p.Name }

const (
	// fewIdle is how many idle connections are few.
	fewIdle = 2
	// handOver is for how long a lease waits for a connection that is being
	// recycled, instead of upgrading another.
	handOver = 20 * time.Millisecond
)

// A Pool keeps upgraded connections to the pods of one cluster. Every field
// but Dial may be left zero; none may change after the first call. Its methods
// may be called concurrently.
type Pool struct {
	// Dial upgrades a new connection to a pod: [Dialer.Dial].
	Dial func(ctx context.Context, pod Pod) (net.Conn, error)

	// MaxPerPod is how many upgraded connections there may be to a pod; zero means
	// 64. MaxTotal is how many there may be to all; zero means 256. Further leases
	// share them: see caps.go.
	MaxPerPod int
	MaxTotal  int
	// MaxIdle is how many unused upgraded connections are kept for each pod;
	// zero means 32.
	MaxIdle int
	// IdleTimeout is how long one is kept; zero means a minute. All but two are
	// kept for a sixth of that.
	IdleTimeout time.Duration
	// DialSpare, if set, is called to upgrade another connection when the last idle
	// one is taken, so that the next lease need not wait for that:
	// [Dialer.DialSpare].
	DialSpare func(ctx context.Context, pod Pod) (net.Conn, error)
	// PingInterval is how often each upgraded connection is asked for a sign
	// of life, and PingTimeout how long it has to answer; zero means 5 s.
	PingInterval time.Duration
	PingTimeout  time.Duration

	// Changed, if set, is called without locks after anything that Usage
	// reports has changed. It must not block.
	Changed func()
	// Lost, if set, is called without locks when an upgraded connection ended
	// that nobody had closed. It must not block.
	Lost func(pod Pod, err error)

	Log *slog.Logger // nil: none

	running sync.WaitGroup

	mu     sync.Mutex // guards the following
	pods   map[Pod]*podConns
	queue  []*waiter // for a place
	closed bool
	life   context.Context // see lifetime
	end    context.CancelFunc
	turns  chan struct{} // to dial; one is in it for each that dials
}

// podConns is what the pool has of one pod. Its fields are guarded by the
// pool's mu.
type podConns struct {
	pod      Pod
	retired  chan struct{} // closed while the pod is going away
	gone     bool
	idle     []idleSession // the most recently used last
	sessions map[*session]struct{}
	shared   map[*session]struct{} // of which are for several leases
	leases   int
	opening  int // leases that may be soon
	dialing  int
	sparing  bool // one of those is a spare
	// recycling counts the sessions that may be idle soon, of which each can
	// have somebody who waits for it.
	recycling int
	waiters   []chan *session // cap 1; nil is sent if it came to nothing
	inLine    []chan *session // cap 1; who waits for a turn to dial
	proven    time.Time
	question  *question // being answered
}

type idleSession struct {
	*session
	since  time.Time
	before int64 // what it had dropped then
}

// Usage is what the pool knows of a pod.
type Usage struct {
	// Leases counts connections in progress, Upgraded all upgraded connections,
	// Idle those that are ready for the next lease. Waiting counts leases for which
	// there is no place.
	Leases, Upgraded, Idle, Waiting int
	// Proven is when an upgraded connection last answered; zero if there is
	// none, or none did.
	Proven time.Time
}

// Open opens a connection to a port of the pod, on an idle upgraded connection
// if there is one, else on a new one. Where there are as many of those as there
// may be, it shares one; and where that cannot be, it waits for a place. Its
// error Is ErrBusy if ctx ends first. That the port refused is not known yet when
// it returns: Read tells.
func (p *Pool) Open(ctx context.Context, pod Pod, port uint16) (*Lease, error) {
	for {
		pc, place, fresh, err := p.place(ctx, pod)
		if err != nil {
			return nil, err
		}
		l, err := place.open(ctx, port)
		if err != nil {
			p.giveUp(pc, place)
			switch {
			case ctx.Err() != nil:
				return nil, context.Cause(ctx)
			case fresh:
				return nil, err
			}
			continue // it died while it was idle
		}
		l.pod, l.done = pc, p.giveBack
		p.mu.Lock()
		l.retired = pc.retired
		pc.leases++
		if fresh {
			pc.proven = time.Now()
		}
		if p.DialSpare != nil && !p.closed && p.pods[pod] == pc && !pc.isRetired() && len(pc.idle)+pc.recycling == 0 && !pc.sparing && p.mayUpgrade(pc) {
			pc.sparing = true
			pc.dialing++
			p.running.Go(func() { p.dialSpare(pc) })
		}
		p.mu.Unlock()
		p.changed()
		return l, nil
	}
}

// takeIdle takes the idle session that was used last, and those with it that
// cannot be used any more; mu is held.
func (pc *podConns) takeIdle() (s *session, spent []*session) {
	for len(pc.idle) > 0 {
		i := pc.idle[len(pc.idle)-1]
		pc.idle = pc.idle[:len(pc.idle)-1]
		if i.usable() && i.dropped.Load()-i.before <= strays {
			return i.session, spent
		}
		spent = append(spent, i.session)
	}
	return nil, spent
}

// end ends sessions that nobody uses.
func end(spent []*session) {
	for _, s := range spent {
		s.fail(ErrClosed)
	}
}

// await waits for a session that is being recycled, as long as that may be
// quicker than to dial.
func (p *Pool) await(ctx context.Context, pc *podConns, w chan *session) *session {
	timer := time.NewTimer(handOver)
	defer timer.Stop()
	select {
	case s := <-w:
		return s
	case <-timer.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(pc.waiters, w); i >= 0 {
		pc.waiters = slices.Delete(pc.waiters, i, i+1)
		return nil
	}
	return <-w // it came meanwhile
}

// offer hands what came of a recycling, which may be nil, to who waits for one,
// or else a session to who waits for a turn to dial, and reports whether anybody
// does; mu is held.
func (pc *podConns) offer(s *session) bool {
	if len(pc.waiters) == 0 && s != nil && len(pc.inLine) > 0 {
		pc.inLine[0] <- s
		pc.inLine = pc.inLine[1:]
		return true
	}
	if len(pc.waiters) == 0 || s == nil && pc.recycling >= len(pc.waiters) {
		return false
	}
	pc.waiters[0] <- s
	pc.waiters = pc.waiters[1:]
	return true
}

// connsOf returns what there is of a pod; mu is held.
func (p *Pool) connsOf(pod Pod) *podConns {
	pc := p.pods[pod]
	if pc == nil {
		pc = &podConns{
			pod: pod, retired: make(chan struct{}),
			sessions: make(map[*session]struct{}), shared: make(map[*session]struct{}),
		}
		if p.pods == nil {
			p.pods = make(map[Pod]*podConns)
		}
		p.pods[pod] = pc
	}
	return pc
}

// drop forgets a pod of which nothing is left; mu is held.
func (p *Pool) drop(pc *podConns) {
	if len(pc.sessions) == 0 {
		pc.proven = time.Time{}
		if pc.dialing+pc.opening == 0 && p.pods[pc.pod] == pc {
			delete(p.pods, pc.pod)
		}
	}
}

// adopt starts the goroutines of a new session; mu is held.
func (p *Pool) adopt(pc *podConns, s *session) {
	pc.sessions[s] = struct{}{}
	p.running.Go(func() {
		s.run()
		p.forget(pc, s)
	})
	p.running.Go(func() {
		s.keepalive(p.pingInterval(), p.pingTimeout(), keeper{
			wanted:    func() bool { return p.wanted(pc, s) },
			answered:  func() { p.proved(pc); p.changed() },
			reachable: func(ctx context.Context) bool { return p.reachable(ctx, pc) },
			gone:      func() bool { return p.isGone(pc) },
		})
	})
}

// lifetime is done when the pool is closed.
func (p *Pool) lifetime() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life == nil {
		p.life, p.end = context.WithCancel(context.Background())
		if p.closed {
			p.end()
		}
	}
	return p.life
}

// wanted reports whether the session is used, or was until lately. One that was
// not is not handed out any more.
func (p *Pool) wanted(pc *podConns, s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := pc.indexOfIdle(s)
	timeout := p.idleTimeout()
	if len(pc.idle) > fewIdle {
		timeout /= 6
	}
	if i < 0 || time.Since(pc.idle[i].since) < timeout {
		return true
	}
	pc.idle = slices.Delete(pc.idle, i, i+1)
	return false
}

// indexOfIdle is where the session is among the idle ones, or -1.
func (pc *podConns) indexOfIdle(s *session) int {
	return slices.IndexFunc(pc.idle, func(i idleSession) bool { return i.session == s })
}

// isRetired reports whether the pod is going away.
func (pc *podConns) isRetired() bool { return isClosed(pc.retired) }

func (p *Pool) proved(pc *podConns) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pc.proven = time.Now()
	p.serve() // a worker may be done at last
}

// giveBack takes a lease back from its owner.
func (p *Pool) giveBack(l *Lease, clean bool) {
	if l.inbox != nil {
		p.giveBackSeat(l)
		return
	}
	p.mu.Lock()
	l.pod.leases--
	again := clean && !p.closed && !l.pod.isRetired() && l.session.usable()
	settled := again && l.isSettled()
	if again && !settled {
		l.pod.recycling++
		p.running.Go(func() { p.recycle(l) })
	}
	p.mu.Unlock()
	switch {
	case settled && l.session.cut(l):
		l.session.release(l)
		p.keep(l.pod, l.session)
	case !again || settled:
		l.session.release(l)
		l.session.fail(ErrClosed)
	}
	p.changed()
}

// recycle makes the session of a lease available to the next one, or ends it.
func (p *Pool) recycle(l *Lease) {
	done := l.session.recycle(l, p.pingTimeout())
	l.session.release(l)
	p.mu.Lock()
	l.pod.recycling--
	if !done {
		l.pod.offer(nil)
	}
	p.mu.Unlock()
	if done {
		p.keep(l.pod, l.session)
	} else {
		l.session.fail(ErrClosed)
	}
	p.changed()
}

// keep makes the session available to the next lease, or closes it if there
// are enough, or if nothing has ever come on it.
func (p *Pool) keep(pc *podConns, s *session) {
	p.mu.Lock()
	usable := !p.closed && !pc.isRetired() && s.usable() && s.seen.Load() > 0
	enough := !usable || (len(pc.idle) >= p.maxIdle() || p.isOverCaps(pc)) && !p.isAwaited(pc)
	switch {
	case usable && pc.offer(s):
		enough = false
	case !enough:
		pc.idle = append(pc.idle, idleSession{s, time.Now(), s.dropped.Load()})
		p.serve()
	}
	if enough {
		pc.offer(nil)
	}
	p.mu.Unlock()
	if enough {
		s.fail(ErrClosed)
	}
}

// forget drops a session that has ended.
func (p *Pool) forget(pc *podConns, s *session) {
	p.mu.Lock()
	delete(pc.sessions, s)
	delete(pc.shared, s)
	if i := pc.indexOfIdle(s); i >= 0 {
		pc.idle = slices.Delete(pc.idle, i, i+1)
	}
	p.drop(pc)
	p.serve()
	p.mu.Unlock()

	if err := s.cause(); !errors.Is(err, ErrClosed) {
		p.log().Debug("lost an upgraded connection", "pod", pc.pod, "err", err)
		if p.Lost != nil {
			p.Lost(pc.pod, err)
		}
	}
	p.changed()
}

// SetRetiring says whether the pod is going away: then its idle upgraded
// connections are closed, none is kept, and its leases' Retiring is closed. A
// pod of which there is nothing is not retiring.
func (p *Pool) SetRetiring(pod Pod, retiring bool) {
	p.mu.Lock()
	pc := p.pods[pod]
	if pc == nil || pc.isRetired() == retiring {
		p.mu.Unlock()
		return
	}
	if !retiring {
		pc.retired = make(chan struct{}) // the leases that there are have their own
		p.mu.Unlock()
		return
	}
	close(pc.retired)
	idle := pc.idle
	pc.idle = nil
	p.mu.Unlock()
	for _, i := range idle {
		i.fail(ErrClosed)
	}
}

// SetGone says that there is no such pod any more. Its leases end, with
// ErrPodGone, as soon as nothing has come for PingInterval.
func (p *Pool) SetGone(pod Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pc := p.pods[pod]; pc != nil {
		pc.gone = true
	}
}

func (p *Pool) isGone(pc *podConns) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return pc.gone
}

// Usage reports what the pool has of a pod.
func (p *Pool) Usage(pod Pod) Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	pc := p.pods[pod]
	if pc == nil {
		return Usage{}
	}
	u := Usage{Leases: pc.leases, Upgraded: len(pc.sessions), Idle: len(pc.idle), Proven: pc.proven}
	for _, w := range p.queue {
		if w.pc == pc {
			u.Waiting++
		}
	}
	return u
}

// Pods lists the pods to which there are upgraded connections, or will be soon.
func (p *Pool) Pods() []Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.pods))
}

// Close ends every lease and every upgraded connection, and waits for them.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	if p.end != nil {
		p.end()
	}
	var all []*session
	for _, pc := range p.pods {
		for s := range pc.sessions {
			all = append(all, s)
		}
	}
	p.mu.Unlock()
	var closing sync.WaitGroup // to close a TLS connection is to write to it
	for _, s := range all {
		closing.Go(func() { s.fail(ErrClosed) })
	}
	closing.Wait()
	p.running.Wait()
	return nil
}

func (p *Pool) changed() {
	if p.Changed != nil {
		p.Changed()
	}
}

func (p *Pool) log() *slog.Logger {
	if p.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.Log
}

func (p *Pool) maxPerPod() int              { return cmp.Or(p.MaxPerPod, 64) }
func (p *Pool) maxTotal() int               { return cmp.Or(p.MaxTotal, 256) }
func (p *Pool) maxIdle() int                { return cmp.Or(p.MaxIdle, 32) }
func (p *Pool) idleTimeout() time.Duration  { return cmp.Or(p.IdleTimeout, time.Minute) }
func (p *Pool) pingInterval() time.Duration { return cmp.Or(p.PingInterval, 5*time.Second) }
func (p *Pool) pingTimeout() time.Duration  { return cmp.Or(p.PingTimeout, 5*time.Second) }
