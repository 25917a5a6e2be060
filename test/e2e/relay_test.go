//go:build e2e

package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A relay stands between the daemon and the API server, and can turn into a
// black hole: no byte passes, nothing is closed, and whoever connects gets no
// answer to its SYN. The API server keeps its links to the node all the while.
type relay struct {
	t        *testing.T
	target   string
	listener *net.TCPListener
	parked   chan struct{} // accept has stopped, and waits for resume
	resume   chan struct{}
	done     chan struct{}
	running  sync.WaitGroup
	fillers  []net.Conn // of the listener's queue

	mu    sync.Mutex // guards the following
	pairs map[*pair]struct{}
	pass  chan struct{} // closed unless there is a hole
}

// A pair is one connection through the relay.
type pair struct {
	client, server net.Conn
	lost           bool // nothing will ever pass again; guarded by relay.mu
}

// newRelay has the user's kubeconfig lead through a relay.
func newRelay(u *user) *relay {
	u.t.Helper()
	config := func(args ...string) string {
		return kubectl(u.t, append([]string{"--kubeconfig", u.kubeconfig, "config"}, args...)...)
	}
	server, err := url.Parse(config("view", "-o", "jsonpath={.clusters[0].cluster.server}"))
	if err != nil {
		u.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		u.t.Fatal(err)
	}
	r := &relay{
		t: u.t, target: server.Host, listener: l.(*net.TCPListener),
		parked: make(chan struct{}), resume: make(chan struct{}), done: make(chan struct{}),
		pairs: make(map[*pair]struct{}), pass: make(chan struct{}),
	}
	close(r.pass)
	if server.Port() == "" {
		r.target = net.JoinHostPort(server.Hostname(), "443")
	}
	name := config("view", "-o", "jsonpath={.clusters[0].name}")
	verify := config("view", "-o", "jsonpath={.clusters[0].cluster.tls-server-name}")
	if verify == "" {
		verify = server.Hostname()
	}
	config("set-cluster", name, "--server=https://"+l.Addr().String()+server.Path, "--tls-server-name="+verify)
	r.running.Go(r.accept)
	u.t.Cleanup(r.close)
	return r
}

func (r *relay) accept() {
	for {
		c, err := r.listener.Accept()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			select {
			case r.parked <- struct{}{}:
			case <-r.done:
				return
			}
			select {
			case <-r.resume:
			case <-r.done:
				return
			}
		case err != nil:
			return
		default:
			r.running.Go(func() { r.carry(c) })
		}
	}
}

func (r *relay) carry(client net.Conn) {
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		client.Close() // as the API server would
		return
	}
	p := &pair{client: client, server: server}
	r.mu.Lock()
	r.pairs[p] = struct{}{}
	select {
	case <-r.done:
		r.mu.Unlock()
		client.Close()
		server.Close()
		return
	default:
	}
	r.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { r.pump(p, server, client) })
	both.Go(func() { r.pump(p, client, server) })
	both.Wait()
}

// pump passes on what comes, or throws it away once the pair is lost: then the
// end, too.
func (r *relay) pump(p *pair, dst, src net.Conn) {
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		if !r.may(p) {
			io.Copy(io.Discard, src)
			return
		}
		if n > 0 {
			if _, werr := dst.Write(b[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			r.mu.Lock()
			delete(r.pairs, p)
			r.mu.Unlock()
			p.client.Close()
			p.server.Close()
			return
		}
	}
}

// may waits while there is a hole, and reports whether bytes of the pair pass.
func (r *relay) may(p *pair) bool {
	r.mu.Lock()
	pass, lost := r.pass, p.lost
	r.mu.Unlock()
	if lost {
		return false
	}
	select {
	case <-pass:
		return true
	case <-r.done:
		return false
	}
}

// cut makes the hole. With forget, the connections that there are stay silent
// for ever; else they go on afterwards, with what was sent meanwhile.
func (r *relay) cut(forget bool) {
	r.t.Helper()
	r.listener.SetDeadline(time.Now())
	<-r.parked
	r.mu.Lock()
	r.pass = make(chan struct{})
	for p := range r.pairs {
		p.lost = p.lost || forget
	}
	r.mu.Unlock()
	// The kernel drops SYNs to a listener whose queue is full.
	r.backlog(0)
	for range 16 {
		limited, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		c, err := new(net.Dialer).DialContext(limited, "tcp", r.listener.Addr().String())
		cancel()
		if err != nil {
			return
		}
		r.fillers = append(r.fillers, c)
	}
	r.t.Fatal("the relay's queue does not fill")
}

// restore ends the hole.
func (r *relay) restore() {
	r.t.Helper()
	r.backlog(128)
	r.listener.SetDeadline(time.Time{})
	for _, c := range r.fillers {
		c.Close()
	}
	r.fillers = nil
	r.mu.Lock()
	close(r.pass)
	r.mu.Unlock()
	r.resume <- struct{}{}
}

func (r *relay) backlog(n int) {
	r.t.Helper()
	raw, err := r.listener.SyscallConn()
	if err == nil {
		var lerr error
		err = raw.Control(func(fd uintptr) { lerr = syscall.Listen(int(fd), n) })
		err = errors.Join(err, lerr)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *relay) close() {
	close(r.done)
	r.listener.Close()
	for _, c := range r.fillers {
		c.Close()
	}
	r.mu.Lock()
	for p := range r.pairs {
		p.client.Close()
		p.server.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
}
