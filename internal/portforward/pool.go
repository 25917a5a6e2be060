package portforward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// A Pool keeps upgraded connections to the pods of one cluster. Every field
// but Dial may be left zero; none may change after the first call. Its methods
// may be called concurrently.
type Pool struct {
	// Dial upgrades a new connection to a pod: [Dialer.Dial].
	Dial func(ctx context.Context, pod Pod) (net.Conn, error)

	// MaxIdle is how many unused upgraded connections are kept for each pod;
	// zero means 2.
	MaxIdle int
	// IdleTimeout is how long one is kept; zero means a minute.
	IdleTimeout time.Duration
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
	closed bool
}

// podConns is what the pool has of one pod. Its fields are guarded by the
// pool's mu, but for retired.
type podConns struct {
	pod      Pod
	retired  chan struct{} // closed by Retire
	isOver   bool          // retired is closed
	idle     []idleSession // the most recently used last
	sessions map[*session]struct{}
	leases   int
	dialing  int
	proven   time.Time
}

type idleSession struct {
	*session
	since time.Time
}

// Usage is what the pool knows of a pod.
type Usage struct {
	// Leases counts connections in progress, Upgraded all upgraded connections,
	// Idle those that are ready for the next lease.
	Leases, Upgraded, Idle int
	// Proven is when an upgraded connection last answered; zero if there is
	// none, or none did.
	Proven time.Time
}

// Open opens a connection to a port of the pod, on an idle upgraded connection
// if there is one, else on a new one. That the port refused is not known yet
// when it returns: Read tells.
func (p *Pool) Open(ctx context.Context, pod Pod, port uint16) (*Lease, error) {
	for {
		pc, s, fresh, err := p.session(ctx, pod)
		if err != nil {
			return nil, err
		}
		l, err := s.open(port)
		switch {
		case err != nil && fresh:
			return nil, err
		case err != nil: // it died while it was idle
			continue
		}
		l.pod, l.done = pc, p.giveBack
		p.mu.Lock()
		pc.leases++
		if fresh {
			pc.proven = time.Now()
		}
		p.mu.Unlock()
		p.changed()
		return l, nil
	}
}

// Probe proves that the pod can be reached, up to and including its node's
// container runtime, and leaves an idle upgraded connection behind. It opens
// no connection to the app.
func (p *Pool) Probe(ctx context.Context, pod Pod) error {
	pc, s, _, err := p.session(ctx, pod)
	if err != nil {
		return err
	}
	if err := s.ping(p.pingTimeout()); err != nil {
		err = fmt.Errorf("%w: %w", ErrLinkDead, err)
		s.fail(err)
		return err
	}
	p.proved(pc)
	p.keep(pc, s)
	p.changed()
	return nil
}

// session takes an idle upgraded connection, or makes a fresh one.
func (p *Pool) session(ctx context.Context, pod Pod) (pc *podConns, s *session, fresh bool, err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, nil, false, ErrClosed
	}
	pc = p.connsOf(pod)
	for len(pc.idle) > 0 {
		s := pc.idle[len(pc.idle)-1].session
		pc.idle = pc.idle[:len(pc.idle)-1]
		if s.alive() {
			p.mu.Unlock()
			return pc, s, false, nil
		}
	}
	pc.dialing++
	p.mu.Unlock()

	conn, err := p.Dial(ctx, pod)

	p.mu.Lock()
	defer p.mu.Unlock()
	pc.dialing--
	if err != nil {
		p.drop(pc)
		return nil, nil, false, err
	}
	s = newSession(conn)
	if p.closed {
		s.fail(ErrClosed)
		return nil, nil, false, ErrClosed
	}
	p.adopt(pc, s)
	return pc, s, true, nil
}

// connsOf returns what there is of a pod; mu is held.
func (p *Pool) connsOf(pod Pod) *podConns {
	pc := p.pods[pod]
	if pc == nil {
		pc = &podConns{pod: pod, retired: make(chan struct{}), sessions: make(map[*session]struct{})}
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
		if pc.dialing == 0 {
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
		s.keepalive(p.pingInterval(), p.pingTimeout(),
			func() bool { return p.wanted(pc, s) },
			func() { p.proved(pc); p.changed() })
	})
}

// wanted reports whether the session is used, or was until lately.
func (p *Pool) wanted(pc *podConns, s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range pc.idle {
		if i.session == s {
			return time.Since(i.since) < p.idleTimeout()
		}
	}
	return true
}

func (p *Pool) proved(pc *podConns) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pc.proven = time.Now()
}

// giveBack takes a lease back from its owner.
func (p *Pool) giveBack(l *Lease, clean bool) {
	p.mu.Lock()
	l.pod.leases--
	verify := clean && !p.closed
	if verify {
		p.running.Go(func() {
			if l.session.settled(p.pingTimeout()) {
				p.keep(l.pod, l.session)
			} else {
				l.session.fail(ErrClosed)
			}
			p.changed()
		})
	}
	p.mu.Unlock()
	l.session.release(l)
	if !verify {
		l.session.fail(ErrClosed)
	}
	p.changed()
}

// keep makes the session available to the next lease, or closes it if there
// are enough.
func (p *Pool) keep(pc *podConns, s *session) {
	p.mu.Lock()
	enough := p.closed || pc.isOver || !s.alive() || len(pc.idle) >= p.maxIdle()
	if !enough {
		pc.idle = append(pc.idle, idleSession{s, time.Now()})
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
	for i := range pc.idle {
		if pc.idle[i].session == s {
			pc.idle = append(pc.idle[:i], pc.idle[i+1:]...)
			break
		}
	}
	p.drop(pc)
	p.mu.Unlock()

	if err := s.cause(); !errors.Is(err, ErrClosed) {
		p.log().Debug("lost an upgraded connection", "pod", pc.pod, "err", err)
		if p.Lost != nil {
			p.Lost(pc.pod, err)
		}
	}
	p.changed()
}

// Retire says that the pod is going away: its idle upgraded connections are
// closed, and its leases' Retiring.
func (p *Pool) Retire(pod Pod) {
	p.mu.Lock()
	pc := p.pods[pod]
	if pc == nil {
		p.mu.Unlock()
		return
	}
	if !pc.isOver {
		pc.isOver = true
		close(pc.retired)
	}
	idle := pc.idle
	pc.idle = nil
	p.mu.Unlock()
	for _, i := range idle {
		i.fail(ErrClosed)
	}
}

// Usage reports what the pool has of a pod.
func (p *Pool) Usage(pod Pod) Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	pc := p.pods[pod]
	if pc == nil {
		return Usage{}
	}
	return Usage{Leases: pc.leases, Upgraded: len(pc.sessions), Idle: len(pc.idle), Proven: pc.proven}
}

// Pods lists the pods to which there are upgraded connections.
func (p *Pool) Pods() []Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.pods))
}

// Close ends every lease and every upgraded connection, and waits for them.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	var all []*session
	for _, pc := range p.pods {
		for s := range pc.sessions {
			all = append(all, s)
		}
	}
	p.mu.Unlock()
	for _, s := range all {
		s.fail(ErrClosed)
	}
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

func (p *Pool) maxIdle() int                { return cmp.Or(p.MaxIdle, 2) }
func (p *Pool) idleTimeout() time.Duration  { return cmp.Or(p.IdleTimeout, time.Minute) }
func (p *Pool) pingInterval() time.Duration { return cmp.Or(p.PingInterval, 5*time.Second) }
func (p *Pool) pingTimeout() time.Duration  { return cmp.Or(p.PingTimeout, 5*time.Second) }
