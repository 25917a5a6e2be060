package portforward

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Whether a lease that is lost was never sent is known, and not guessed.
func TestUnsent(t *testing.T) {
	tests := []struct {
		name   string
		happen func(t *testing.T, l *Lease, far net.Conn)
		want   bool
	}{
		{"lost before the streams were sent", func(_ *testing.T, _ *Lease, far net.Conn) {
			far.Close()
		}, true},
		{"lost when they were sent", func(_ *testing.T, _ *Lease, far net.Conn) {
			time.Sleep(2 * openWait)
			far.Close()
		}, false},
		{"lost after the first bytes", func(t *testing.T, l *Lease, far net.Conn) {
			if _, err := io.WriteString(l, "hello"); err != nil {
				t.Error(err)
			}
			far.Close()
		}, false},
		{"lost after the end, with no bytes", func(_ *testing.T, l *Lease, far net.Conn) {
			l.CloseWrite()
			far.Close()
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, far := silent(t)
				l, err := s.open(80)
				if err != nil {
					t.Fatal(err)
				}
				tt.happen(t, l, far)
				synctest.Wait()
				_, readErr := l.Read(make([]byte, 1))
				_, writeErr := l.Write([]byte("x"))
				for what, err := range map[string]error{"read": readErr, "write": writeErr} {
					if errors.Is(err, net.ErrClosed) {
						continue // a write after the end
					}
					if !errors.Is(err, ErrLinkDead) || errors.Is(err, ErrUnsent) != tt.want {
						t.Errorf("%s: %v; want ErrLinkDead, and ErrUnsent: %v", what, err, tt.want)
					}
				}
			})
		})
	}
}

// A broken conn takes some bytes of a write, if any, and fails.
type brokenConn struct {
	net.Conn
	written atomic.Int64
	takes   error // what a write returns
}

func (c *brokenConn) Write(p []byte) (int, error) {
	c.written.Add(int64(len(p)))
	return 0, c.takes
}

func (c *brokenConn) Close() error { return nil }

// A first write that fails may have got through.
func TestFailedWriteIsNotUnsent(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	s := newSession(&brokenConn{Conn: near, takes: io.ErrClosedPipe})
	l, err := s.open(80)
	if err != nil {
		t.Fatal(err)
	}
	_, writeErr := l.Write([]byte("hello"))
	_, readErr := l.Read(make([]byte, 1))
	for what, err := range map[string]error{"write": writeErr, "read": readErr} {
		if !errors.Is(err, ErrLinkDead) || errors.Is(err, ErrUnsent) {
			t.Errorf("%s: %v; want ErrLinkDead, and nothing about what was sent", what, err)
		}
	}
}

// Whoever was told that nothing was sent sends it elsewhere: it must not be
// sent here afterwards, even if the connection would still take it.
func TestUnsentStaysUnsent(t *testing.T) {
	for range 200 { // what comes first is a matter of luck
		near, far := net.Pipe()
		conn := &brokenConn{Conn: near}
		s := newSession(conn)
		l, err := s.open(80)
		if err != nil {
			t.Fatal(err)
		}
		var racing sync.WaitGroup
		racing.Go(func() { s.fail(ErrLinkDead) })
		racing.Go(func() { l.Write([]byte("hello")) })
		_, err = l.Read(make([]byte, 1))
		unsent, before := errors.Is(err, ErrUnsent), conn.written.Load()
		racing.Wait()
		s.send(nil, func(dst []byte) []byte { return dst })
		if after := conn.written.Load(); unsent && after > 0 {
			t.Fatalf("%d bytes were written when it was said that nothing was, and %d later", before, after)
		}
		near.Close()
		far.Close()
	}
}
