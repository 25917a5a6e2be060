package forward_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

var notDelivered = &forward.Error{Kind: forward.ErrNotDelivered, Condition: status.Condition{State: status.Degraded, Cause: "pod one is gone, or going"}}

// A fate is what becomes of a connection.
type fate struct {
	sees  int    // bytes, or the end of them, before it says something
	says  string // before it ends
	err   error  // its end
	stuck bool   // it takes nothing
}

// A doomed connection meets its fate.
type doomed struct {
	fate

	mu     sync.Mutex // guards the following
	got    []byte
	ended  bool
	change chan struct{}
	closed chan struct{}
}

func newDoomed(f fate) *doomed {
	return &doomed{fate: f, change: make(chan struct{}), closed: make(chan struct{})}
}

func (d *doomed) see(p []byte, end bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got = append(d.got, p...)
	d.ended = d.ended || end
	close(d.change)
	d.change = make(chan struct{})
}

func (d *doomed) Write(p []byte) (int, error) {
	d.see(p, false)
	if d.stuck {
		<-d.closed
		return 0, net.ErrClosed
	}
	return len(p), nil
}

func (d *doomed) CloseWrite() error {
	d.see(nil, true)
	return nil
}

func (d *doomed) Read(p []byte) (int, error) {
	for {
		d.mu.Lock()
		seen, change := len(d.got) >= d.sees || d.ended, d.change
		d.mu.Unlock()
		if seen {
			break
		}
		select {
		case <-change:
		case <-d.closed:
			return 0, net.ErrClosed
		}
	}
	if d.says != "" {
		n := copy(p, d.says)
		d.says = d.says[n:]
		return n, nil
	}
	return 0, d.err
}

func (d *doomed) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.closed:
	default:
		close(d.closed)
	}
	return nil
}

func (d *doomed) LocalAddr() net.Addr              { return nil }
func (d *doomed) RemoteAddr() net.Addr             { return nil }
func (d *doomed) SetDeadline(time.Time) error      { return nil }
func (d *doomed) SetReadDeadline(time.Time) error  { return nil }
func (d *doomed) SetWriteDeadline(time.Time) error { return nil }
func (d *doomed) Retiring() <-chan struct{}        { return nil }
func (d *doomed) SetIdle(bool)                     {}

// inTurn leads to the conns, one after the other, and then to last. It counts
// its dials.
func inTurn(last backends, conns ...forward.Conn) (b backends, dials func() int) {
	var mu sync.Mutex
	n := 0
	b.pick = last.pick
	b.dial = func(ctx context.Context, e forward.Endpoint) (forward.Conn, error) {
		mu.Lock()
		n++
		i := n - 1
		mu.Unlock()
		if i < len(conns) {
			return conns[i], nil
		}
		return last.dial(ctx, e)
	}
	return b, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// takesAll answers with all that it was sent, once that has ended.
func takesAll(c *net.TCPConn) {
	all, _ := io.ReadAll(c)
	c.Write(all)
}

// What no app has seen is sent to another pod, once, in order, and with its end.
func TestReplay(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16)
	tests := []struct {
		name string
		send []byte
		pods []fate
	}{
		{"nothing was sent", nil, []fate{{err: notDelivered}}},
		{"a request was sent", []byte("request"), []fate{{sees: 7, err: notDelivered}}},
		{"it is told before all was sent", []byte("request"), []fate{{err: notDelivered}}},
		{"as much as is kept", big, []fate{{sees: len(big), err: notDelivered}}},
		{"four pods in a row", []byte("request"), []fate{
			{sees: 7, err: notDelivered}, {err: notDelivered}, {sees: 7, err: notDelivered}, {sees: 1, err: notDelivered},
		}},
		{"a pod that takes nothing", []byte("request"), []fate{{stuck: true, sees: 1, err: notDelivered}}},
		{"two that take nothing", []byte("request"), []fate{{stuck: true, sees: 1, err: notDelivered}, {stuck: true, sees: 1, err: notDelivered}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var conns []forward.Conn
			for _, d := range tt.pods {
				conns = append(conns, newDoomed(d))
			}
			b, dials := inTurn(pod(t, takesAll), conns...)
			s := newSet(t, b)
			s.Apply([]forward.Spec{spec("f")})
			c := dial(t, addr(t, s, "f"))
			if len(tt.send) > 0 {
				c.Write(tt.send)
				await.Until(t, "the next pod to be tried", func() bool { return dials() == len(conns)+1 })
			}
			more := []byte(", and more of it")
			if len(tt.send) == len(big) {
				more = nil // that would be too much
			}
			c.Write(more)
			c.CloseWrite()
			want := append(bytes.Clone(tt.send), more...)
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the last pod got %.60q (%d bytes), %v; want %.60q (%d bytes)", got, len(got), err, want, len(want))
			}
			await.Until(t, "the connection to end", func() bool { return ended(s, 1) })
			if counts := s.Meters.Of("f").Counts(); counts.Failed != 0 || counts.Out != int64(len(want)) {
				t.Errorf("counts %+v; want no failure, and each byte once", counts)
			}
		})
	}
}

// The end that a client sent before is sent again, too.
func TestReplayOfTheEnd(t *testing.T) {
	b, _ := inTurn(pod(t, takesAll), newDoomed(fate{sees: 1000, err: notDelivered})) // that is, until the end
	s := newSet(t, b)
	s.Apply([]forward.Spec{spec("f")})
	c := dial(t, addr(t, s, "f"))
	io.WriteString(c, "all of it")
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "all of it" {
		t.Errorf("the second pod got %q, %v", got, err)
	}
}

// A pod that speaks first is as well replaced by another.
func TestReplayWhereThePodSpeaksFirst(t *testing.T) {
	b, _ := inTurn(pod(t, func(c *net.TCPConn) { io.WriteString(c, "220 hello") }), newDoomed(fate{err: notDelivered}))
	s := newSet(t, b)
	s.Apply([]forward.Spec{spec("f")})
	c := dial(t, addr(t, s, "f"))
	if got, err := io.ReadAll(c); err != nil || string(got) != "220 hello" {
		t.Errorf("read %q, %v", got, err)
	}
}

// What an app may have seen is not sent to another.
func TestNoReplay(t *testing.T) {
	interrupted := &forward.Error{Kind: forward.ErrInterrupted, Condition: status.Condition{Cause: "the connection to pod one was lost"}}
	refused := &forward.Error{Kind: forward.ErrRefused, Condition: status.Condition{Cause: "pod one refuses"}}
	tests := []struct {
		name  string
		send  int
		first fate
	}{
		{"the connection was lost", 7, fate{sees: 7, err: interrupted}},
		{"it was lost before the client sent anything", 0, fate{err: interrupted}},
		{"the port of a pod that stays refused", 7, fate{sees: 7, err: refused}},
		{"an error of no known kind", 7, fate{sees: 7, err: io.ErrUnexpectedEOF}},
		{"the app has answered", 7, fate{sees: 7, says: "x", err: notDelivered}},
		{"more was sent than is kept", 64<<10 + 1, fate{sees: 64<<10 + 1, err: notDelivered}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, dials := inTurn(pod(t, takesAll), newDoomed(tt.first))
			s := newSet(t, b)
			s.Apply([]forward.Spec{spec("f")})
			c, err := net.Dial("tcp", addr(t, s, "f"))
			if err == nil {
				defer c.Close()
				c.SetDeadline(time.Now().Add(30 * time.Second))
				c.Write(make([]byte, tt.send))
				_, err = io.Copy(io.Discard, c)
			} // else it came so early
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client sees %v; want a reset", err)
			}
			await.Until(t, "the connection to end", func() bool { return ended(s, 1) })
			if n := dials(); n != 1 {
				t.Errorf("%d dials; want 1", n)
			}
			if counts := s.Meters.Of("f").Counts(); counts.Failed != 1 {
				t.Errorf("counts %+v; want one failure", counts)
			}
		})
	}
}

// The hold is that of the connection, not of each try.
func TestReplayEndsWithTheHold(t *testing.T) {
	var deadlines []time.Time
	b, dials := inTurn(backends{pick: func(ctx context.Context, target forward.Target) (forward.Endpoint, error) {
		deadline, _ := ctx.Deadline()
		deadlines = append(deadlines, deadline)
		if len(deadlines) < 3 {
			return forward.Endpoint{Target: target}, nil
		}
		return forward.Endpoint{}, &forward.Error{Kind: forward.ErrUnavailable, Err: os.ErrDeadlineExceeded, Condition: status.Condition{Cause: "no pod is left"}}
	}}, newDoomed(fate{sees: 5, err: notDelivered}), newDoomed(fate{sees: 5, err: notDelivered}))
	s := newSet(t, b)
	s.Apply([]forward.Spec{spec("f")})
	c := dial(t, addr(t, s, "f"))
	io.WriteString(c, "hello")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v; want a reset", err)
	}
	await.Until(t, "the connection to end", func() bool { return ended(s, 1) })
	if counts := s.Meters.Of("f").Counts(); counts.Failed != 1 || !bytes.HasSuffix([]byte(counts.LastError), []byte("no pod is left")) {
		t.Errorf("counts %+v; want why there was no other pod", counts)
	}
	if len(deadlines) != 3 || dials() != 2 || !deadlines[0].Equal(deadlines[2]) {
		t.Errorf("%d dials with deadlines %v; want 2, and one deadline", dials(), deadlines)
	}
}

// A client that goes away ends the search for another pod, and so does the
// forward's end.
func TestReplayIsGivenUp(t *testing.T) {
	for _, who := range []string{"the client", "the forward"} {
		t.Run(who, func(t *testing.T) {
			picks, searching := 0, make(chan struct{})
			b, _ := inTurn(backends{pick: func(ctx context.Context, target forward.Target) (forward.Endpoint, error) {
				if picks++; picks == 1 {
					return forward.Endpoint{Target: target}, nil
				}
				close(searching)
				<-ctx.Done()
				return forward.Endpoint{}, &forward.Error{Kind: forward.ErrUnavailable, Err: ctx.Err()}
			}}, newDoomed(fate{sees: 5, err: notDelivered}))
			s := newSet(t, b)
			s.Apply([]forward.Spec{spec("f")})
			c := dial(t, addr(t, s, "f"))
			io.WriteString(c, "hello")
			<-searching
			if who == "the client" {
				forward.Reset(c)
			} else {
				s.Apply(nil)
			}
			await.Until(t, "the connection to end", func() bool { return ended(s, 1) })
			if counts := s.Meters.Of("f").Counts(); counts.Failed != 0 {
				t.Errorf("counts %+v; want nobody to blame", counts)
			}
		})
	}
}
