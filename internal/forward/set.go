package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// moveUp is added to a port below 1024 that cannot be bound.
const moveUp = 8000

// OpenTimeout bounds the opening of a connection to a pod that was picked.
const OpenTimeout = 15 * time.Second

// holdEnd is Set.HoldEnd where nobody says otherwise.
const holdEnd = 5 * time.Second

// A Spec is the desired state of one raw TCP port of a forward. Specs are
// comparable: equal Specs need no work, and those that differ in Hold only are
// the same port.
type Spec struct {
	// Name is the forward's name, for messages and meters.
	Name string
	// Listen is the wanted local address; port 0 picks a free one. A port
	// below 1024 that cannot be had moves up by 8000.
	Listen netip.AddrPort
	Target Target
	// TLS says that Set.Listen shall terminate TLS.
	TLS bool
	// ALPN is the protocol that TLS clients may agree on; empty: none, so that
	// each speaks what the app does.
	ALPN string
	// Hold is how long a connection waits for a pod; 0 means not at all.
	Hold time.Duration
}

// key is the Spec without what may change while it runs.
func (s Spec) key() Spec {
	s.Hold = 0
	return s
}

// A Set keeps listeners equal to the Specs last applied, and carries what they
// accept. Backends must be set; nothing may be changed after the first Apply.
// Its methods may be called concurrently.
type Set struct {
	Backends Backends
	// Listen binds a Spec's address, given as the second argument because it
	// may have moved up; nil means plain TCP.
	Listen func(s Spec, at netip.AddrPort) (net.Listener, error)
	// HoldEnd is for how long the end of a client's side is kept from the pod
	// while the app owes an answer; 0 means 5 s. The runtime gives the answer
	// only a second after that, and tells the app nothing of it.
	HoldEnd time.Duration
	Meters  *Meters      // nil: nothing is counted
	Log     *slog.Logger // nil: none

	applying sync.Mutex // makes Apply and Close one at a time

	mu     sync.Mutex     // guards the following
	ports  map[Spec]*port // by Spec.key
	closed bool
}

// A Binding tells what became of a Spec.
type Binding struct {
	Spec Spec
	// Addr is where it listens; the zero value if it could not be bound, and
	// Err says why.
	Addr netip.AddrPort
	Err  error
}

// Retain ends the ports that are not in specs, with their connections, and
// waits for them. It starts none.
func (s *Set) Retain(specs []Spec) {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.retain(keyed(specs))
}

// Apply ends the ports that are not in specs, with their connections, leaves
// equal ones alone, starts the others, and tries again those that could not be
// bound. When it returns, all is bound that can be.
func (s *Set) Apply(specs []Spec) {
	s.applying.Lock()
	defer s.applying.Unlock()
	want := keyed(specs)
	s.retain(want) // first: their addresses may be wanted again

	failed := make(map[Spec]error) // what could not be bound before
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	for key, p := range s.ports {
		if p.err != nil {
			failed[key] = p.err
			continue
		}
		p.spec = want[key]
		delete(want, key)
	}
	s.mu.Unlock()

	// Low ports last: where they move up to is another port's own.
	start := slices.SortedFunc(maps.Values(want), func(a, b Spec) int { return b.Listen.Compare(a.Listen) })
	for _, spec := range start {
		p := s.start(spec)
		if before := failed[spec.key()]; p.err != nil && (before == nil || before.Error() != p.err.Error()) {
			p.log.Warn("cannot listen", "addr", spec.Listen, "err", p.err)
		}
		s.mu.Lock()
		if s.ports == nil {
			s.ports = make(map[Spec]*port)
		}
		s.ports[spec.key()] = p
		s.mu.Unlock()
	}
}

// retain ends the ports that are not wanted; applying is held.
func (s *Set) retain(want map[Spec]Spec) {
	var gone []*port
	s.mu.Lock()
	for key, p := range s.ports {
		if _, still := want[key]; !still {
			gone = append(gone, p)
			delete(s.ports, key)
		}
	}
	s.mu.Unlock()
	for _, p := range gone {
		p.close()
	}
}

func keyed(specs []Spec) map[Spec]Spec {
	m := make(map[Spec]Spec, len(specs))
	for _, spec := range specs {
		m[spec.key()] = spec
	}
	return m
}

// start binds a Spec's address and begins to accept.
func (s *Set) start(spec Spec) *port {
	p := &port{set: s, spec: spec, log: s.log().With("forward", spec.Name, "port", spec.Target.Port)}
	p.listener, p.err = s.listen(spec)
	if p.err != nil {
		return p
	}
	p.log.Info("listening", "addr", p.listener.Addr())
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.accepting.Go(p.accept)
	return p
}

func (s *Set) listen(spec Spec) (net.Listener, error) {
	bind := s.Listen
	if bind == nil {
		bind = func(_ Spec, at netip.AddrPort) (net.Listener, error) { return net.Listen("tcp", at.String()) }
	}
	l, err := bind(spec, spec.Listen)
	if err == nil || spec.Listen.Port() == 0 || spec.Listen.Port() >= 1024 {
		return l, err
	}
	up := netip.AddrPortFrom(spec.Listen.Addr(), spec.Listen.Port()+moveUp)
	l, upErr := bind(spec, up)
	if upErr != nil {
		return nil, fmt.Errorf("%w; and on port %d: %w", err, up.Port(), upErr)
	}
	return l, nil
}

// Bindings tells about all Specs, sorted by name and address.
func (s *Set) Bindings() []Binding {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Binding, 0, len(s.ports))
	for _, p := range s.ports {
		b := Binding{Spec: p.spec, Err: p.err}
		if p.err == nil {
			b.Addr = addrPort(p.listener.Addr())
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b Binding) int {
		if n := strings.Compare(a.Spec.Name, b.Spec.Name); n != 0 {
			return n
		}
		return a.Spec.Listen.Compare(b.Spec.Listen)
	})
	return all
}

// Close ends every port and every connection, and waits for them. It is
// idempotent.
func (s *Set) Close() error {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	return s.Shutdown(now)
}

// Shutdown is Close, but lets connections come to an end of their own until ctx
// is done: see drain. No more are accepted.
func (s *Set) Shutdown(ctx context.Context) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	all := s.ports
	s.ports, s.closed = nil, true
	s.mu.Unlock()
	for _, p := range all {
		if p.err == nil {
			p.listener.Close()
		}
	}
	for _, p := range all {
		p.accepting.Wait() // what was accepted meanwhile counts
	}
	drain(ctx, all)
	var ended sync.WaitGroup
	for _, p := range all {
		ended.Go(p.close)
	}
	ended.Wait()
	return nil
}

func (s *Set) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

func addrPort(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return ap
}

// A port is one running Spec, or why it does not run.
type port struct {
	set       *Set
	spec      Spec // guarded by Set.mu
	log       *slog.Logger
	err       error
	listener  net.Listener
	ctx       context.Context
	cancel    context.CancelFunc
	accepting sync.WaitGroup // accept
	running   sync.WaitGroup // what it starts

	mu        sync.Mutex // guards the following
	transfers map[*transfer]struct{}
}

func (p *port) close() {
	if p.err != nil {
		return
	}
	p.cancel()
	p.listener.Close()
	p.accepting.Wait()
	p.running.Wait()
	p.log.Info("stopped listening", "addr", p.listener.Addr())
}

// accept accepts until the listener is closed. Other errors, such as too many
// open files, pass: it tries again.
func (p *port) accept() {
	var pause time.Duration
	for {
		local, err := p.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			p.log.Warn("accept", "err", err, "again in", pause)
			select {
			case <-time.After(pause):
			case <-p.ctx.Done():
				return
			}
		default:
			pause = 0
			ctx, cut := context.WithCancel(p.ctx)
			t := &transfer{local: local, hold: cmp.Or(p.set.HoldEnd, holdEnd), cut: cut}
			p.begin(t) // here, so that no drain overlooks it
			p.running.Go(func() {
				defer p.end(t)
				defer cut()
				p.serve(ctx, t)
			})
		}
	}
}

// serve finds a pod for a connection and carries it.
func (p *port) serve(ctx context.Context, t *transfer) {
	local := t.local
	p.set.mu.Lock()
	spec := p.spec
	p.set.mu.Unlock()
	meter := p.set.Meters.Of(spec.Name)
	done := meter.Begin()
	t.local = meter.Count(local)
	err := p.carry(ctx, spec, t)
	if ctx.Err() != nil {
		err = nil // ended by us: nobody failed
	}
	done(err)
	p.log.Debug("connection ended", "client", local.RemoteAddr(), "err", err)
}

// carry carries a connection until its end, or that of ctx.
func (p *port) carry(ctx context.Context, spec Spec, t *transfer) error {
	until := time.Now().Add(spec.Hold)
	open := func(ctx context.Context) (Conn, error) { return open(ctx, p.set.Backends, spec.Target, until) }
	pod, err := open(ctx)
	if err != nil {
		Reset(t.local)
		return err
	}
	up := newReplay(ctx, pod, open)
	defer up.Close() // waits, if it is being closed
	stop := context.AfterFunc(ctx, func() {
		Reset(t.local)
		up.Close()
	})
	defer stop()
	return t.carry(up)
}

func (p *port) begin(t *transfer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.transfers == nil {
		p.transfers = make(map[*transfer]struct{})
	}
	p.transfers[t] = struct{}{}
}

func (p *port) end(t *transfer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.transfers, t)
}

// open picks a pod and dials it, and picks again as long as nothing was
// delivered and the hold lasts.
func open(ctx context.Context, b Backends, t Target, until time.Time) (Conn, error) {
	held, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		e, err := b.Pick(held, t)
		if err != nil {
			return nil, err
		}
		c, err := dial(ctx, b, e)
		if err == nil || !errors.Is(err, ErrNotDelivered) || held.Err() != nil {
			return c, err
		}
	}
}

func dial(ctx context.Context, b Backends, e Endpoint) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, OpenTimeout)
	defer cancel()
	return b.Dial(ctx, e)
}
