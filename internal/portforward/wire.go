package portforward

import (
	"io"
	"net"
	"sync"
	"time"
)

// partingTime is how long the last words on a connection may take. They are a
// courtesy.
const partingTime = 10 * time.Millisecond

// A wire is the TCP connection of an upgrade, below TLS. TLS makes several
// records of one Write, and a system call for each; after gatherWrites they wait
// for flush. So does what TLS says of its own accord, which may wait for the
// next data (RFC 8446, 4.6.3).
type wire struct {
	net.Conn

	mu       sync.Mutex // guards the following
	gather   bool
	out      []byte
	flushing bool
	spare    []byte // the next out
}

func (w *wire) gatherWrites() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gather = true
}

func (w *wire) Write(p []byte) (int, error) {
	if w.keep(p) {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// keep keeps p for flush, if writes are gathered.
func (w *wire) keep(p []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gather {
		w.out = append(w.out, p...)
	}
	return w.gather
}

// flush sends what was gathered. It must not be called concurrently.
func (w *wire) flush() error {
	w.mu.Lock()
	out := w.out
	w.out, w.flushing = w.spare[:0], true
	w.mu.Unlock()

	_, err := w.Conn.Write(out)

	w.mu.Lock()
	w.spare, w.flushing = out, false
	w.mu.Unlock()
	return err
}

// Close sends what was gathered if that is quick, and interrupts a flush.
func (w *wire) Close() error {
	w.mu.Lock()
	out := w.out
	if w.flushing {
		out = nil
	}
	w.out = nil
	w.mu.Unlock()
	if len(out) > 0 {
		w.Conn.SetWriteDeadline(time.Now().Add(partingTime))
		w.Conn.Write(out)
	}
	return w.Conn.Close()
}

// An upgradedConn is what an upgrade has made of an HTTP connection. Of its
// Writes, one at a time may be under way.
type upgradedConn struct {
	io.ReadWriteCloser // TLS, or the wire itself
	wire               *wire
}

func (c *upgradedConn) Write(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Write(p)
	if err != nil {
		return n, err
	}
	return n, c.wire.flush()
}

func (c *upgradedConn) LocalAddr() net.Addr                { return c.wire.LocalAddr() }
func (c *upgradedConn) RemoteAddr() net.Addr               { return c.wire.RemoteAddr() }
func (c *upgradedConn) SetDeadline(t time.Time) error      { return c.wire.SetDeadline(t) }
func (c *upgradedConn) SetReadDeadline(t time.Time) error  { return c.wire.SetReadDeadline(t) }
func (c *upgradedConn) SetWriteDeadline(t time.Time) error { return c.wire.SetWriteDeadline(t) }
