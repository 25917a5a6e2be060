package forward

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Meters holds a Meter for each forward. The zero value is ready; a nil
// *Meters counts nothing.
type Meters struct {
	mu     sync.Mutex // guards the following
	meters map[string]*Meter
}

// Of returns the forward's meter. It is nil, which counts nothing, if m is.
func (m *Meters) Of(name string) *Meter {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.meters[name] == nil {
		if m.meters == nil {
			m.meters = make(map[string]*Meter)
		}
		m.meters[name] = new(Meter)
	}
	return m.meters[name]
}

// Forget drops the meter of a forward that was removed.
func (m *Meters) Forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.meters, name)
}

// A Meter counts the connections and bytes of one forward. Its methods may be
// called concurrently, and on nil.
type Meter struct {
	active, total, failed atomic.Int64
	in, out               atomic.Int64
	lastError             atomic.Pointer[string]
}

// Counts is what a Meter shows. In is from pods to clients, Out from clients
// to pods. Failed connections are part of Total.
type Counts struct {
	Active, Total, Failed int64
	In, Out               int64
	LastError             string
}

// Begin counts a connection; the caller calls done once when it ends, with
// what went wrong, or nil.
func (m *Meter) Begin() (done func(error)) {
	if m == nil {
		return func(error) {}
	}
	m.active.Add(1)
	m.total.Add(1)
	return func(err error) {
		if err != nil {
			m.Fail(err)
		}
		m.active.Add(-1)
	}
}

// Fail counts a connection that failed, and remembers why.
func (m *Meter) Fail(err error) {
	if m == nil {
		return
	}
	m.failed.Add(1)
	m.Note(err)
}

// Note remembers what went wrong, without counting it.
func (m *Meter) Note(err error) {
	if m == nil {
		return
	}
	text := err.Error()
	var e *Error
	if errors.As(err, &e) {
		text = e.Error()
	}
	text = time.Now().Format(time.DateTime) + " " + text
	m.lastError.Store(&text)
}

// Counts returns the counts of now.
func (m *Meter) Counts() Counts {
	if m == nil {
		return Counts{}
	}
	c := Counts{
		Active: m.active.Load(), Total: m.total.Load(), Failed: m.failed.Load(),
		In: m.in.Load(), Out: m.out.Load(),
	}
	if e := m.lastError.Load(); e != nil {
		c.LastError = *e
	}
	return c
}

// Count wraps a client's connection so that its bytes are counted.
func (m *Meter) Count(client net.Conn) net.Conn {
	if m == nil {
		return client
	}
	return &countedClient{client, m}
}

// CountPod wraps a pod's connection so that its bytes are counted.
func (m *Meter) CountPod(pod Conn) Conn {
	if m == nil {
		return pod
	}
	return &countedPod{pod, m}
}

type countedClient struct {
	net.Conn
	meter *Meter
}

func (c *countedClient) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.meter.out.Add(int64(n))
	return n, err
}

func (c *countedClient) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.meter.in.Add(int64(n))
	return n, err
}

func (c *countedClient) CloseWrite() error { return closeWrite(c.Conn) }

// NetConn returns what is wrapped.
func (c *countedClient) NetConn() net.Conn { return c.Conn }

type countedPod struct {
	Conn
	meter *Meter
}

func (c *countedPod) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.meter.in.Add(int64(n))
	return n, err
}

func (c *countedPod) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.meter.out.Add(int64(n))
	return n, err
}
