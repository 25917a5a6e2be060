package portforward

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// maxDialing is how many upgraded connections are made at once for leases, and
	// turnTime how long one of those counts.
	maxDialing = 8
	turnTime   = time.Second
	// spareTimeout bounds an upgrade that no lease waits for.
	spareTimeout = 10 * time.Second
)

// dialSpare upgrades a connection for a later lease. That it fails is the
// later lease's to tell.
func (p *Pool) dialSpare(pc *podConns) {
	limited, cancel := context.WithTimeout(p.lifetime(), spareTimeout)
	defer cancel()
	s, err := p.dial(limited, pc, p.DialSpare)
	p.mu.Lock()
	pc.sparing = false
	p.mu.Unlock()
	if err == nil {
		err = p.prove(limited, pc, s)
	}
	if err != nil {
		p.log().Debug("no spare connection", "pod", pc.pod, "err", err)
	}
}

// dialInTurn makes an upgraded connection for a lease when not many others are
// being made, unless one is idle before that. If many come at once, as after the
// network was away, the first would else wait for all the others; and most can
// have what the first leave. The caller has counted it in pc.dialing.
func (p *Pool) dialInTurn(ctx context.Context, pc *podConns) (s *session, fresh bool, err error) {
	s, done, err := p.turnToDial(ctx, pc)
	if s != nil || err != nil {
		p.mu.Lock()
		pc.dialing--
		p.drop(pc) // it may have died meanwhile
		if err != nil {
			p.serve()
		}
		p.mu.Unlock()
		return s, false, err
	}
	defer done()
	s, err = p.dial(ctx, pc, p.Dial)
	return s, true, err
}

// turnToDial waits for a turn to dial, which the caller must say is over, or for
// an idle session.
func (p *Pool) turnToDial(ctx context.Context, pc *podConns) (s *session, done func(), err error) {
	w := make(chan *session, 1)
	p.mu.Lock()
	if p.turns == nil {
		p.turns = make(chan struct{}, maxDialing)
	}
	turns := p.turns
	pc.inLine = append(pc.inLine, w)
	p.mu.Unlock()
	over := p.lifetime().Done()
	mine := false
	select {
	case turns <- struct{}{}:
		mine = true
	case s = <-w:
		return s, nil, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-over:
		err = ErrClosed
	}
	p.mu.Lock()
	if i := slices.Index(pc.inLine, w); i >= 0 {
		pc.inLine = slices.Delete(pc.inLine, i, i+1)
	} else {
		s, err = <-w, nil // it came meanwhile
	}
	p.mu.Unlock()
	if !mine {
		return s, nil, err
	}
	release := sync.OnceFunc(func() { <-turns })
	if s != nil {
		release()
		return s, nil, nil
	}
	overdue := time.AfterFunc(turnTime, release) // what hangs must not hold up the others
	return nil, func() { overdue.Stop(); release() }, nil
}

// dial makes an upgraded connection. The caller has counted it in pc.dialing.
func (p *Pool) dial(ctx context.Context, pc *podConns, upgrade func(context.Context, Pod) (net.Conn, error)) (*session, error) {
	conn, err := p.dialUnlessClosed(ctx, pc.pod, upgrade)
	p.mu.Lock()
	pc.dialing--
	switch {
	case err != nil:
		p.drop(pc)
		p.serve()
		p.mu.Unlock()
		return nil, err
	case p.closed:
		p.drop(pc)
		p.mu.Unlock()
		conn.Close()
		return nil, ErrClosed
	}
	s := newSession(conn)
	p.adopt(pc, s)
	p.mu.Unlock()
	return s, nil
}

func (p *Pool) dialUnlessClosed(ctx context.Context, pod Pod, upgrade func(context.Context, Pod) (net.Conn, error)) (net.Conn, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	return upgrade(ctx, pod)
}
