package forward

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// afterEOF is how long a client may go on sending after the pod has ended its
// side. Container runtimes close both directions about a second after either
// ends, and tell us only then, so what comes later is lost in any case.
const afterEOF = 500 * time.Millisecond

// carry copies both ways until both directions have ended, and closes local.
// The pod's end of stream, and only that, becomes a clean end for the client;
// anything else becomes RST, so that a cut is never taken for the end. It
// returns what went wrong on the pod's side.
func carry(local net.Conn, up Conn) error {
	var clientGone atomic.Bool // before anything of ours was closed
	uploaded := make(chan struct{})
	go func() {
		defer close(uploaded)
		upload(up, local, &clientGone)
	}()

	err := download(local, up)
	if clientGone.Load() {
		err = nil // which is its right
	}
	if err != nil {
		Reset(local)
		up.Close()
		<-uploaded
		return err
	}
	end := time.Now().Add(afterEOF)
	local.SetReadDeadline(end)
	up.SetWriteDeadline(end) // or what nobody reads would wait for ever
	<-uploaded
	return local.Close()
}

// download copies from the pod to the client, and passes on the end.
func download(local net.Conn, up Conn) error {
	toClient := writes{local, nil}
	if _, err := io.Copy(&toClient, up); err != nil {
		if toClient.err != nil {
			return nil // the client has gone away, which is its right
		}
		return err
	}
	closeWrite(local) // if that fails, the client has gone away
	return nil
}

// upload copies from the client to the pod, and passes on the end. If the
// client ends abruptly, so does the pod's stream. An error of the pod's side is
// download's to see.
func upload(up Conn, local net.Conn, clientGone *atomic.Bool) {
	fromClient := reads{local, nil}
	_, err := io.Copy(up, &fromClient)
	switch {
	case fromClient.err != nil:
		clientGone.Store(true)
		up.Close()
	case err == nil:
		up.CloseWrite()
	}
}

// writes and reads remember an error of the local side, which io.Copy does not
// tell from one of the other side.
type writes struct {
	net.Conn
	err error
}

func (w *writes) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.err = err
	return n, err
}

type reads struct {
	net.Conn
	err error
}

func (r *reads) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// Reset closes a connection with RST where the transport has it, so that its
// peer sees a failure and not an end.
func Reset(c net.Conn) error {
	for inner := c; inner != nil; {
		switch conn := inner.(type) {
		case *net.TCPConn:
			return errors.Join(conn.SetLinger(0), conn.Close())
		case interface{ NetConn() net.Conn }: // crypto/tls, and our own wrappers
			inner = conn.NetConn()
		default:
			inner = nil
		}
	}
	return c.Close()
}

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
