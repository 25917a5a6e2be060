package forward_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/forward"
)

// Shutdown lets a connection finish to which an answer is owed, and cuts those
// that are quiet.
func TestShutdownDrains(t *testing.T) {
	answer := make(chan struct{})
	s := newSet(t, pod(t, func(c *net.TCPConn) {
		ask := make([]byte, 5)
		for {
			if _, err := io.ReadFull(c, ask); err != nil {
				return
			}
			if string(ask) == "query" {
				<-answer
				io.WriteString(c, "row")
				return
			}
			c.Write(ask)
		}
	}))
	s.Apply([]forward.Spec{spec("f")})
	at := addr(t, s, "f")
	idle, query := dial(t, at), dial(t, at)
	exchange(t, idle, "hello")
	io.WriteString(query, "query")
	await.Until(t, "the requests to be there", func() bool { return s.Meters.Of("f").Counts().Out == 10 })

	shut := make(chan struct{})
	go func() {
		defer close(shut)
		s.Shutdown(t.Context())
	}()
	await.Until(t, "the listener to be closed", func() bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the quiet connection ends with %v; want a reset", err)
	}
	close(answer)
	if got, err := io.ReadAll(query); err != nil || string(got) != "row" {
		t.Errorf("the answer that was owed is %q, %v", got, err)
	}
	<-shut
	if counts := s.Meters.Of("f").Counts(); counts.Active != 0 || counts.Failed != 0 {
		t.Errorf("counts %+v; want none left, and nobody to blame", counts)
	}
}

// However much is owed, all connections end when the context does, and not
// cleanly.
func TestShutdownIsBounded(t *testing.T) {
	picking := make(chan struct{})
	mute := pod(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	s := newSet(t, backends{dial: mute.dial, pick: func(ctx context.Context, target forward.Target) (forward.Endpoint, error) {
		if target.Name == "owes" {
			return forward.Endpoint{Target: target}, nil
		}
		close(picking)
		<-ctx.Done()
		return forward.Endpoint{}, &forward.Error{Kind: forward.ErrUnavailable, Err: ctx.Err()}
	}})
	s.Apply([]forward.Spec{spec("owes"), spec("waits")})
	owes, waits := dial(t, addr(t, s, "owes")), dial(t, addr(t, s, "waits"))
	io.WriteString(owes, "query")
	await.Until(t, "the query to be there", func() bool { return s.Meters.Of("owes").Counts().Out == 5 })
	<-picking
	ctx, cancel := context.WithCancel(t.Context())
	shut := make(chan struct{})
	go func() {
		defer close(shut)
		s.Shutdown(ctx)
	}()
	if _, err := waits.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection that waits for a pod ends with %v; want a reset", err)
	}
	select {
	case <-shut:
		t.Error("nobody waited for the answer that was owed")
	default:
	}
	cancel()
	if _, err := owes.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what is cut in the end sees %v; want a reset", err)
	}
	<-shut
}

// A lastMoment accepts one connection more while it is being closed.
type lastMoment struct {
	net.Listener
	closing chan struct{}
	taken   bool
}

func (l *lastMoment) Accept() (net.Conn, error) {
	<-l.closing
	if l.taken {
		return nil, net.ErrClosed
	}
	l.taken = true
	return l.Listener.Accept()
}

func (l *lastMoment) Close() error {
	select {
	case <-l.closing:
	default:
		close(l.closing)
	}
	return nil
}

// What is accepted as Shutdown begins is answered: the client is told by nothing that
// it should have come later.
func TestShutdownServesWhatIsAcceptedAtTheLastMoment(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	s := newSet(t, pod(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 5))
		io.WriteString(c, "row")
	}))
	s.Listen = func(forward.Spec, netip.AddrPort) (net.Listener, error) {
		return &lastMoment{Listener: inner, closing: make(chan struct{})}, nil
	}
	s.Apply([]forward.Spec{spec("f")})
	c := dial(t, inner.Addr().String())
	io.WriteString(c, "query")
	s.Shutdown(t.Context())
	if got, err := io.ReadAll(c); err != nil || string(got) != "row" {
		t.Errorf("the answer is %q, %v", got, err)
	}
}
