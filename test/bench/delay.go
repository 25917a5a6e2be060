package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// A delay is a TCP proxy that passes everything on later, and in order: a link
// as long as that, of unlimited width. (The kernel's own way to do this,
// netem, takes root, and a module that many kernels lack.)
type delay struct {
	to       string
	each     time.Duration // way
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex // guards the following
	conns  map[net.Conn]struct{}
	closed bool
}

const (
	// chunk is how much is read at once, and inFlight how many of these one
	// direction holds: enough for 800 MB/s at 20 ms.
	chunk    = 64 << 10
	inFlight = 256
)

func newDelay(to string, each time.Duration) (*delay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &delay{to: to, each: each, listener: l, conns: map[net.Conn]struct{}{}}
	d.running.Go(d.accept)
	return d, nil
}

func (d *delay) addr() string { return d.listener.Addr().String() }

// Close ends all connections, and waits.
func (d *delay) Close() error {
	d.mu.Lock()
	d.closed = true
	for c := range d.conns {
		c.Close()
	}
	d.mu.Unlock()
	err := d.listener.Close()
	d.running.Wait()
	return err
}

func (d *delay) accept() {
	for {
		c, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.running.Go(func() { d.carry(c) })
	}
}

func (d *delay) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", d.to)
	if err != nil {
		return
	}
	defer far.Close()
	if !d.keep(near, far) {
		return
	}
	defer d.forget(near, far)
	var both sync.WaitGroup
	both.Go(func() { d.pass(far, near) })
	both.Go(func() { d.pass(near, far) })
	both.Wait()
}

func (d *delay) keep(conns ...net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range conns {
		d.conns[c] = struct{}{}
	}
	return !d.closed
}

func (d *delay) forget(conns ...net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range conns {
		delete(d.conns, c)
	}
}

// pass carries one direction, its end included.
func (d *delay) pass(to, from net.Conn) {
	type piece struct {
		bytes []byte
		due   time.Time
	}
	way := make(chan piece, inFlight)
	var arriving sync.WaitGroup
	arriving.Go(func() {
		late := time.NewTimer(0)
		defer late.Stop()
		for p := range way {
			late.Reset(time.Until(p.due))
			<-late.C
			if _, err := to.Write(p.bytes); err != nil {
				from.Close() // ends the other loop
			}
		}
		to.(*net.TCPConn).CloseWrite()
	})
	for {
		b := make([]byte, chunk)
		n, err := from.Read(b)
		if n > 0 {
			way <- piece{b[:n], time.Now().Add(d.each)}
		}
		if err != nil {
			if err != io.EOF {
				to.Close()
			}
			break
		}
	}
	close(way)
	arriving.Wait()
}
