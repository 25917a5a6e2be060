// Package wire is the network between the demo cluster's clients and its API
// server: loopback connections that can be slowed down or silenced.
package wire

import (
	"bytes"
	"net"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/demo/internal/inflight"
)

// A Network is the stretch between clients and the API server. Every client's
// connection is carried over it by a wire, so that packets can be delayed or
// silently dropped while both ends believe in the connection.
type Network struct {
	mu      sync.Mutex
	delay   time.Duration
	drops   int           // Drop in force
	passing chan struct{} // closed while packets pass
	wires   map[*wire]struct{}
	pumps   inflight.Group
}

// New returns a network without delay that drops nothing.
func New() *Network {
	passing := make(chan struct{})
	close(passing)
	return &Network{passing: passing, wires: map[*wire]struct{}{}}
}

// A wire joins a client's TCP connection to the API server's end of a pipe.
// Each direction has a reader and a deliverer with a queue between them; the
// queue is what is in flight.
type wire struct {
	client net.Conn
	server net.Conn // as the API server holds it
	inner  net.Conn // the server's peer
	cut    chan struct{}
	once   sync.Once
}

// close ends the wire at once, whatever is in flight.
func (w *wire) close() {
	w.once.Do(func() {
		close(w.cut)
		w.client.Close()
		w.inner.Close()
	})
}

// join carries client over the network and returns the server's end.
func (n *Network) join(client net.Conn) (net.Conn, bool) {
	server, inner := net.Pipe()
	w := &wire{client: client, server: &namedConn{server, client}, inner: inner, cut: make(chan struct{})}
	n.mu.Lock()
	n.wires[w] = struct{}{}
	n.mu.Unlock()
	started := n.pumps.Go(func() {
		var both sync.WaitGroup
		both.Go(func() { n.carry(w, inner, client) })
		both.Go(func() { n.carry(w, client, inner) })
		both.Wait()
		w.close()
		n.mu.Lock()
		delete(n.wires, w)
		n.mu.Unlock()
	})
	if !started {
		w.close()
		return nil, false
	}
	return w.server, true
}

// A packet without data is the end of the stream.
type packet struct {
	due  time.Time
	data []byte
}

// carry moves one direction of w, in order and each packet when it is due. The
// end of the source ends the destination in both directions: TLS has no use
// for half-closed TCP.
func (n *Network) carry(w *wire, to, from net.Conn) {
	queue := make(chan packet, 64)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(queue)
		n.send(w, queue, from)
	})
	for p := range queue {
		if !n.arrive(w, p.due) {
			break
		}
		if p.data == nil {
			to.Close()
			break
		}
		if _, err := to.Write(p.data); err != nil {
			w.close() // what is written to a closed connection is answered with RST
			break
		}
	}
	from.Close()
	for range queue {
	}
	reader.Wait()
}

// send puts what comes from a connection on its way, and its end.
func (n *Network) send(w *wire, queue chan<- packet, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		k, err := from.Read(buf)
		due := time.Now().Add(n.latency())
		if k > 0 {
			select {
			case queue <- packet{due, bytes.Clone(buf[:k])}:
			case <-w.cut:
				return
			}
		}
		if err != nil {
			select {
			case queue <- packet{due: due}:
			case <-w.cut:
			}
			return
		}
	}
}

func (n *Network) latency() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.delay
}

// arrive waits until a packet that is due then has arrived, and reports
// whether the wire still exists.
func (n *Network) arrive(w *wire, due time.Time) bool {
	if wait := time.Until(due); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-w.cut:
			return false
		}
	}
	n.mu.Lock()
	passing := n.passing
	n.mu.Unlock()
	select {
	case <-passing:
		return true
	case <-w.cut:
		return false
	}
}

// SetDelay gives each direction a latency, for what is sent from now on.
func (n *Network) SetDelay(oneWay time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = oneWay
}

// Drop stops all packets, of connections that are and that come, until undo
// is called; then they go on. Undo is idempotent.
func (n *Network) Drop() (undo func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.drops == 0 {
		n.passing = make(chan struct{})
	}
	n.drops++
	return sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.drops--
		if n.drops == 0 {
			close(n.passing)
		}
	})
}

// each calls f for every wire, without the lock.
func (n *Network) each(f func(*wire)) {
	n.mu.Lock()
	wires := make([]*wire, 0, len(n.wires))
	for w := range n.wires {
		wires = append(wires, w)
	}
	n.mu.Unlock()
	for _, w := range wires {
		f(w)
	}
}

// Len is how many connections clients have.
func (n *Network) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.wires)
}

// HangUp closes the server's ends. Clients learn of it when packets pass.
func (n *Network) HangUp() { n.each(func(w *wire) { w.server.Close() }) }

// Close cuts everything and waits. It is idempotent.
func (n *Network) Close() {
	idle := n.pumps.Shut()
	n.each((*wire).close)
	<-idle
}

// Listener returns a listener for the API server: it accepts what comes to l,
// over the network.
func (n *Network) Listener(l net.Listener) net.Listener { return &listener{l, n} }

type listener struct {
	net.Listener
	network *Network
}

func (l *listener) Accept() (net.Conn, error) {
	client, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	server, ok := l.network.join(client)
	if !ok {
		return nil, net.ErrClosed
	}
	return server, nil
}

// A namedConn is a pipe that has the addresses of the connection it stands for.
type namedConn struct {
	net.Conn
	real net.Conn
}

func (c *namedConn) LocalAddr() net.Addr  { return c.real.LocalAddr() }
func (c *namedConn) RemoteAddr() net.Addr { return c.real.RemoteAddr() }
