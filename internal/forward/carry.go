package forward

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/sockdiag"
)

// afterEOF is how long a client may go on sending after the pod has ended its
// side. Container runtimes close both directions about a second after either
// ends, and tell us only then, so what comes later is lost in any case.
const afterEOF = 500 * time.Millisecond

const (
	// firstLook and lastLook are the pauses between looks at a client that has
	// ended its side.
	firstLook = time.Millisecond
	lastLook  = 100 * time.Millisecond
)

// A transfer is a client's connection on its way to a pod, and what one
// direction of it knows of the other.
type transfer struct {
	local      net.Conn
	hold       time.Duration // Set.HoldEnd
	cut        func()        // ends it
	up         *replay
	clientGone atomic.Bool   // before anything of ours was closed
	owed       atomic.Bool   // the pod's side got the last bytes
	moves      atomic.Int64  // reads and writes of the client that had bytes
	downloaded chan struct{} // closed when that direction has ended
}

// carry copies both ways until both directions have ended, and closes local.
// The pod's end of stream, and only that, becomes a clean end for the client;
// anything else becomes RST, so that a cut is never taken for the end. It
// returns what went wrong on the pod's side.
func (t *transfer) carry(up *replay) error {
	t.up, t.downloaded = up, make(chan struct{})
	uploaded := make(chan struct{})
	go func() {
		defer close(uploaded)
		t.upload()
	}()

	err := t.download()
	close(t.downloaded)
	if t.clientGone.Load() {
		err = nil // which is its right
	}
	if err != nil {
		Reset(t.local)
		up.Close()
		<-uploaded
		return err
	}
	end := time.Now().Add(afterEOF)
	t.local.SetReadDeadline(end)
	up.current().SetWriteDeadline(end) // or what nobody reads would wait for ever
	<-uploaded
	return t.local.Close()
}

// download copies from the pod to the client, and passes on the end.
func (t *transfer) download() error {
	toClient := writes{t, nil}
	for {
		_, err := io.Copy(&toClient, t.up.current())
		switch {
		case toClient.err != nil:
			return nil // the client has gone away, which is its right
		case err == nil:
			closeWrite(t.local) // if that fails, the client has gone away
			return nil
		}
		if err := t.up.again(err); err != nil {
			return err
		}
	}
}

// upload copies from the client to the pod, and passes on the end. If the
// client ends abruptly, or has closed its socket, so does the pod's stream. An
// error of the pod's side is download's to see.
func (t *transfer) upload() {
	fromClient := reads{t, nil}
	gone := func() {
		t.clientGone.Store(true)
		t.up.Close()
	}
	err := copyAll(watchedWriter{t.up, NewStuckWatch(t.local, gone)}, &fromClient)
	switch {
	case fromClient.err != nil || err == nil && t.holdEnd():
		gone()
	case err == nil:
		t.up.CloseWrite()
	}
}

// firstBuffer and lastBuffer are the sizes of what a client's bytes are read into.
const (
	firstBuffer = 2 << 10
	lastBuffer  = 32 << 10
)

// copyAll is io.Copy with a buffer that is small until it has been filled: most
// connections never need much, and there may be many.
func copyAll(dst io.Writer, src io.Reader) error {
	buf := make([]byte, firstBuffer)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n == len(buf) && n < lastBuffer:
			buf = make([]byte, 4*n)
		}
	}
}

// holdEnd waits as long as the end of the client's side should not be passed
// on. It reports whether the client has closed its socket, so that nobody is
// left to answer.
func (t *transfer) holdEnd() (gone bool) {
	client, ok := tcpConn(t.local)
	if !ok {
		return false
	}
	end := time.NewTimer(t.hold)
	defer end.Stop()
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		if peer, err := sockdiag.Of(client); err == nil && !peer.Owned {
			return true
		}
		if !t.owed.Load() && pause > firstLook { // a socket that is being closed takes a second look
			return false
		}
		select {
		case <-time.After(pause):
		case <-t.downloaded:
			return false
		case <-end.C:
			return false
		}
	}
}

// writes and reads remember an error of the local side, which io.Copy does not
// tell from one of the other side.
type writes struct {
	*transfer
	err error
}

func (w *writes) Write(p []byte) (int, error) {
	w.up.settle()
	w.owed.Store(false)
	w.moves.Add(1)
	n, err := w.local.Write(p)
	w.err = err
	return n, err
}

type reads struct {
	*transfer
	err error
}

func (r *reads) Read(p []byte) (int, error) {
	n, err := r.local.Read(p)
	if n > 0 {
		r.owed.Store(true)
		r.moves.Add(1)
	}
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// Reset closes a connection with RST where the transport has it, so that its
// peer sees a failure and not an end.
func Reset(c net.Conn) error {
	if conn, ok := tcpConn(c); ok {
		return errors.Join(conn.SetLinger(0), conn.Close())
	}
	return c.Close()
}

// tcpConn is what a connection is over, if that is TCP.
func tcpConn(c net.Conn) (*net.TCPConn, bool) {
	for inner := c; inner != nil; {
		switch conn := inner.(type) {
		case *net.TCPConn:
			return conn, true
		case interface{ NetConn() net.Conn }: // crypto/tls, and our own wrappers
			inner = conn.NetConn()
		default:
			inner = nil
		}
	}
	return nil, false
}

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
