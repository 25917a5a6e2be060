package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// A pod is a running pod: its program's listeners and connections. The
// container ports exist only in the map from their numbers to loopback ports.
type pod struct {
	key     types.NamespacedName
	uid     types.UID
	sandbox string // the runtime's id of the pod, which appears in errors
	node    *Node

	mu        sync.Mutex
	listeners map[uint16]net.Listener
	refused   map[uint16]int // Refuse in force
	stalls    int            // Stall in force
	flowing   chan struct{}  // closed while the program reads
	conns     map[*podConn]struct{}
	gone      error // why the runtime reaches the pod no more
	abandoned bool  // Abandon is in force
}

// StartPod runs a program: what serves a connection, by container port.
func (n *Node) StartPod(key types.NamespacedName, uid types.UID, program map[uint16]func(net.Conn)) error {
	id := make([]byte, 32)
	rand.Read(id)
	p := &pod{
		key: key, uid: uid, sandbox: hex.EncodeToString(id), node: n,
		listeners: map[uint16]net.Listener{}, refused: map[uint16]int{}, conns: map[*podConn]struct{}{},
		flowing: make(chan struct{}),
	}
	close(p.flowing)
	for port, serve := range program {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.stop(err)
			return fmt.Errorf("start pod %s: %w", key, err)
		}
		p.listeners[port] = l
		n.work.Go(func() { p.accept(l, serve) })
	}
	n.mu.Lock()
	n.pods[uid] = p
	n.mu.Unlock()
	return nil
}

// StopPod ends a pod's program and its connections. From then on a port-forward
// that still has a connection to the runtime is told why.
func (n *Node) StopPod(uid types.UID, why Reason) {
	n.mu.Lock()
	p := n.pods[uid]
	delete(n.pods, uid)
	n.mu.Unlock()
	if p != nil {
		p.stop(why(p.sandbox))
	}
}

func (p *pod) stop(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone != nil {
		return
	}
	p.gone = why
	for _, l := range p.listeners {
		l.Close()
	}
	for c := range p.conns {
		c.shut()
	}
}

func (p *pod) accept(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		c := &podConn{Conn: conn, pod: p, done: make(chan struct{})}
		p.mu.Lock()
		gone := p.gone != nil
		if !gone {
			p.conns[c] = struct{}{}
		}
		p.mu.Unlock()
		if gone || !p.node.work.Go(func() { defer c.Close(); serve(c) }) {
			c.Close()
			return
		}
	}
}

func (p *pod) isAbandoned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.abandoned && p.gone != nil
}

// dial opens a connection to a container port, as the runtime does within the
// pod's network namespace. Errors have containerd's texts.
func (p *pod) dial(port uint16) (net.Conn, error) {
	p.node.mu.Lock()
	p.node.dials[dialed{p.key, port}]++
	p.node.mu.Unlock()
	p.mu.Lock()
	gone, l, refused := p.gone, p.listeners[port], p.refused[port] > 0
	p.mu.Unlock()
	if gone != nil {
		return nil, gone
	}
	if l != nil && !refused {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			return conn, nil
		}
	}
	return nil, p.failed(fmt.Errorf("failed to connect to localhost:%d inside namespace %q, "+
		"IPv4: dial tcp4 127.0.0.1:%d: connect: connection refused IPv6 dial tcp6: [::1]:%d: connect: connection refused ",
		port, p.sandbox, port, port))
}

func (p *pod) failed(err error) error {
	return fmt.Errorf("failed to execute portforward in network namespace \"/var/run/netns/cni-%s\": %w", p.uid, err)
}

// A podConn is the program's end of a connection.
type podConn struct {
	net.Conn
	pod  *pod
	done chan struct{}
	once sync.Once
}

// Read keeps what came while the pod is stalled, so that nothing more is read.
func (c *podConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.pod.mu.Lock()
	flowing := c.pod.flowing
	c.pod.mu.Unlock()
	select {
	case <-flowing:
	case <-c.done:
	}
	return n, err
}

func (c *podConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func (c *podConn) Close() error {
	c.pod.mu.Lock()
	delete(c.pod.conns, c)
	c.pod.mu.Unlock()
	return c.shut()
}

func (c *podConn) shut() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// A forwarder is the container runtime's part of a port-forward.
type forwarder struct {
	pod   *pod
	dying <-chan struct{} // closed when the upgraded connection ends
}

// PortForward connects a stream with a port. It does what containerd does: it
// copies both ways, and when either way has ended, the other gets a second.
// A half-closed connection is therefore cut, and no end is passed on. It ends
// the stream before it says what went wrong.
func (f forwarder) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	work := &f.pod.node.work
	if !work.Enter() {
		return net.ErrClosed
	}
	defer stream.Close() // which may wait for ever after a cut (spdystream v0.5.1)
	defer work.Leave()
	conn, err := f.pod.dial(uint16(port))
	if err != nil {
		return err
	}
	defer conn.Close()
	ended := make(chan error, 2)
	down := func() {
		_, err := io.Copy(stream, conn)
		ended <- err
	}
	up := func() {
		_, err := io.Copy(conn, stream)
		ended <- err
		if err != nil {
			// What the client goes on to send blocks the connection, as it
			// does in real clusters. The connection's end must not be blocked.
			<-f.dying
			io.Copy(io.Discard, stream)
		}
	}
	if !work.Go(down) || !work.Go(up) {
		return net.ErrClosed
	}
	err = <-ended
	if f.pod.isAbandoned() {
		<-f.dying
		return nil
	}
	linger := time.NewTimer(f.pod.node.options.Linger)
	defer linger.Stop()
	select {
	case other := <-ended:
		if err == nil {
			err = other
		}
	case <-linger.C:
	}
	if err != nil {
		return f.pod.failed(err)
	}
	return nil
}

// A Reason is why the runtime reaches a pod no more, in its own words.
type Reason func(sandbox string) error

// Ended is the Reason for a pod that ended as it should: the runtime still
// knows it.
func Ended(sandbox string) error {
	return fmt.Errorf("network namespace for sandbox %q is closed", sandbox)
}

// Lost is the Reason for a pod that was deleted by force.
func Lost(sandbox string) error {
	return fmt.Errorf("failed to find sandbox %q in store: not found", sandbox)
}
