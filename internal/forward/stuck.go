package forward

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// stuckAfter is how long the pod may take nothing until the client is looked at,
// again and again.
const stuckAfter = time.Second

// A StuckWatch looks after the client of an upload. While the pod takes nothing,
// nobody reads from the client, and so nobody sees it go: but it may have reset
// its connection, and the pod's would stay for as long as the pod likes. A
// client that has only closed its socket is another matter: what it has sent is
// the pod's to take. Its methods may be called on nil, which watches nothing.
type StuckWatch struct {
	client *net.TCPConn
	gone   func()
	look   *time.Timer
	waits  atomic.Bool
}

// NewStuckWatch watches client between Begin and End. gone is called, in a
// goroutine of its own, when it has reset its connection meanwhile. It is nil
// where client has no TCP connection.
func NewStuckWatch(client net.Conn, gone func()) *StuckWatch {
	conn, ok := tcpConn(client)
	if !ok {
		return nil
	}
	w := &StuckWatch{client: conn, gone: gone}
	w.look = time.AfterFunc(stuckAfter, w.check)
	w.look.Stop()
	return w
}

// Begin says that the pod has something to take.
func (w *StuckWatch) Begin() {
	if w != nil {
		w.waits.Store(true)
		w.look.Reset(stuckAfter)
	}
}

// End says that it has been taken, or that nobody waits for that.
func (w *StuckWatch) End() {
	if w != nil {
		w.waits.Store(false)
		w.look.Stop()
	}
}

func (w *StuckWatch) check() {
	switch {
	case !w.waits.Load():
	case isReset(w.client):
		w.gone()
	default:
		w.look.Reset(stuckAfter)
	}
}

// A watchedWriter is the pod's side of an upload, with a watch over its client.
type watchedWriter struct {
	io.Writer
	watch *StuckWatch
}

func (w watchedWriter) Write(p []byte) (int, error) {
	w.watch.Begin()
	defer w.watch.End()
	return w.Writer.Write(p)
}
