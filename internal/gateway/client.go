package gateway

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
)

// A countingListener counts the connections that it accepts. On an address
// that forwards share, a connection counts for the one that its first request
// is for.
type countingListener struct {
	net.Listener
	meter  *forward.Meter
	shared bool

	mu    sync.Mutex // guards the following
	conns map[*clientConn]struct{}
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &clientConn{Conn: conn, shared: l.shared, left: l.leave}
	if !l.shared {
		c.attribute(l.meter)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = make(map[*clientConn]struct{})
	}
	l.conns[c] = struct{}{}
	return c, nil
}

func (l *countingListener) leave(c *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// awaitUnused waits for those connections to end that have had a request.
func (l *countingListener) awaitUnused(ctx context.Context, atMost time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	look := time.NewTicker(usedLook)
	defer look.Stop()
	for l.used() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// used reports whether a connection has had a request.
func (l *countingListener) used() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if c.used.Load() {
			return true
		}
	}
	return false
}

// abortUnused ends the connections that have had no request.
func (l *countingListener) abortUnused() {
	l.mu.Lock()
	all := slices.Collect(maps.Keys(l.conns))
	l.mu.Unlock()
	for _, c := range all {
		if !c.used.Load() {
			c.abort()
		}
	}
}

// A clientConn is a client's connection, counted from when it is known whose
// it is until it is closed.
type clientConn struct {
	net.Conn
	shared bool // by all forwards, as is its listener
	left   func(*clientConn)
	used   atomic.Bool // for a request

	mu     sync.Mutex // guards the following
	meter  *forward.Meter
	done   func(error)
	failed bool
	closed bool
}

// attribute counts the connection, once. It may be called on nil.
func (c *clientConn) attribute(m *forward.Meter) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil && !c.closed {
		c.meter, c.done = m, m.Begin()
	}
}

// use notes that there is a request. It may be called on nil.
func (c *clientConn) use() {
	if c != nil {
		c.used.Store(true)
	}
}

// fail notes why a request to the meter's forward failed. A connection counts
// as failed once, however many of its requests fail. It may be called on nil.
func (c *clientConn) fail(m *forward.Meter, err error) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.meter != m || c.failed {
		m.Note(err)
		return
	}
	c.failed = true
	m.Fail(err)
}

// abort ends the connection with RST, so that what was cut is not taken for all
// there was. It may be called on nil.
func (c *clientConn) abort() {
	if c != nil {
		forward.Reset(c.Conn)
	}
}

// watch watches for a reset of the connection while the pod takes nothing, and
// then calls gone. It may be called on nil.
func (c *clientConn) watch(gone func()) *forward.StuckWatch {
	if c == nil {
		return nil
	}
	return forward.NewStuckWatch(c.Conn, gone)
}

func (c *clientConn) Close() error {
	c.mu.Lock()
	if c.done != nil && !c.closed {
		c.done(nil)
	}
	c.closed = true
	c.mu.Unlock()
	c.left(c)
	return c.Conn.Close()
}

// NetConn returns what is wrapped.
func (c *clientConn) NetConn() net.Conn { return c.Conn }

type clientKey struct{}

// withClient is an http.Server's ConnContext.
func withClient(ctx context.Context, conn net.Conn) context.Context {
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		if inner, ok := wrapped.NetConn().(*clientConn); ok { // under TLS
			return context.WithValue(ctx, clientKey{}, inner)
		}
	}
	if c, ok := conn.(*clientConn); ok {
		return context.WithValue(ctx, clientKey{}, c)
	}
	return ctx
}

func clientOf(r *http.Request) *clientConn {
	c, _ := r.Context().Value(clientKey{}).(*clientConn)
	return c
}
