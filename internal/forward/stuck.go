package forward

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// stuckAfter is how long a write to the pod waits until the client is looked
// at, again and again.
const stuckAfter = time.Second

// A watchedWriter is the pod's side of an upload. While the pod takes nothing,
// nobody reads from the client, and so nobody sees it go: but it may have reset
// its connection, and the pod's would stay for as long as the pod likes. A
// client that has only closed its socket is another matter: what it has sent is
// the pod's to take.
type watchedWriter struct {
	io.Writer
	client *net.TCPConn
	gone   func() // ends the write
	look   *time.Timer
	waits  atomic.Bool
}

// watched returns up, with a watch over client. gone is called when that has
// reset its connection while a write waits.
func watched(up io.Writer, client net.Conn, gone func()) io.Writer {
	conn, ok := tcpConn(client)
	if !ok {
		return up
	}
	w := &watchedWriter{Writer: up, client: conn, gone: gone}
	w.look = time.AfterFunc(stuckAfter, w.check)
	w.look.Stop()
	return w
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	w.waits.Store(true)
	w.look.Reset(stuckAfter)
	n, err := w.Writer.Write(p)
	w.waits.Store(false)
	w.look.Stop()
	return n, err
}

func (w *watchedWriter) check() {
	switch {
	case !w.waits.Load():
	case isReset(w.client):
		w.gone()
	default:
		w.look.Reset(stuckAfter)
	}
}
