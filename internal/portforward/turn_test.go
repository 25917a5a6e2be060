package portforward

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A conversation is a lease whose owner has the turn to read, and its far end.
type conversation struct {
	*Lease
	far net.Conn
}

// newConversation is for a synctest bubble.
func newConversation(t *testing.T) conversation {
	t.Helper()
	near, far := net.Pipe()
	s := newSession(near)
	l, err := s.open(80)
	if err != nil {
		t.Fatal(err)
	}
	l.done = func(l *Lease, _ bool) { s.release(l) }
	c := conversation{l, far}
	var running sync.WaitGroup
	running.Go(s.run)
	running.Go(func() { io.Copy(io.Discard, far) })
	t.Cleanup(func() {
		s.fail(ErrClosed)
		far.Close()
		running.Wait()
	})
	for _, text := range []string{"the first", "the second"} {
		c.say(t, text, 0)
	}
	if !l.turn.isIdle() {
		t.Fatal("an owner that waits for its second frame has not got the turn")
	}
	return c
}

// say has the far end send a frame while the owner waits for it.
func (c conversation) say(t *testing.T, text string, flags byte) {
	t.Helper()
	read := make(chan struct{})
	p := make([]byte, 100)
	var n int
	var err error
	go func() {
		defer close(read)
		n, err = c.Read(p)
	}()
	synctest.Wait()
	c.frame(c.dataID, flags, text)
	<-read
	if string(p[:n]) != text || err != nil {
		t.Fatalf("read %q, %v; want %q", p[:n], err, text)
	}
}

func (c conversation) frame(stream uint32, flags byte, text string) {
	c.far.Write(append(appendDataHeader(nil, stream, flags, len(text)), text...))
}

// readBack returns what a Read that has begun now returns.
func (c conversation) readBack() <-chan error {
	result := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		result <- err
	}()
	return result
}

func TestTurnEndsWithTheStream(t *testing.T) {
	tests := []struct {
		name string
		end  func(c conversation)
		want error
	}{
		{"at once", func(c conversation) {
			c.frame(c.errorID, flagFin, "")
			c.frame(c.dataID, flagFin, "")
		}, io.EOF},
		{"when the error stream says nothing", func(c conversation) { c.frame(c.dataID, flagFin, "") }, io.EOF},
		{"by a reset", func(c conversation) { c.far.Write(appendRstStream(nil, c.dataID)) }, io.ErrUnexpectedEOF},
		{"by a refusal", func(c conversation) {
			c.frame(c.errorID, 0, "connection refused")
			c.far.Write(appendRstStream(nil, c.dataID))
		}, ErrRefused},
		{"with the link", func(c conversation) { c.far.Close() }, ErrLinkDead},
		{"by its owner", func(c conversation) { c.Close() }, net.ErrClosed},
		{"by a deadline", func(c conversation) { c.SetReadDeadline(time.Now().Add(time.Second)) }, os.ErrDeadlineExceeded},
		{"by a deadline in the past", func(c conversation) { c.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newConversation(t)
				ended := c.readBack()
				synctest.Wait()
				tt.end(c)
				if err := <-ended; !errors.Is(err, tt.want) {
					t.Errorf("read: %v; want %v", err, tt.want)
				}
			})
		})
	}
}

// Nothing is lost where a deadline interrupts, and the next read goes on.
func TestTurnAfterADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConversation(t)
		frame := append(appendDataHeader(nil, c.dataID, 0, 5), "hello"...)
		for i := range frame {
			c.SetReadDeadline(time.Now().Add(time.Second))
			ended := c.readBack()
			synctest.Wait()
			if i < frameHeaderLen {
				c.far.Write(frame[i : i+1])
				if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("read after %d bytes of a header: %v", i+1, err)
				}
				continue
			}
			c.far.Write(frame[i : i+1])
			if err := <-ended; err != nil {
				t.Fatalf("read of byte %d: %v", i, err)
			}
		}
		c.SetReadDeadline(time.Time{})
		c.say(t, "and on", 0)
	})
}

// The session can be read when a lease is over, wherever its owner is.
func TestTurnIsTakenBack(t *testing.T) {
	t.Run("from an owner that does not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newConversation(t)
			c.Close()
			c.mustAnswer(t)
		})
	})
	t.Run("from one that waits for its client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newConversation(t)
			stuck := make(stuckWriter)
			var copying sync.WaitGroup
			defer copying.Wait()
			defer close(stuck)
			copying.Go(func() { c.WriteTo(stuck) })
			synctest.Wait()
			c.frame(c.dataID, 0, "more than it takes")
			synctest.Wait()
			c.Close()
			c.mustAnswer(t)
		})
	})
	t.Run("in the middle of a frame", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newConversation(t)
			ended := c.readBack()
			synctest.Wait()
			c.far.Write(append(appendDataHeader(nil, c.dataID, 0, 5), "he"...))
			<-ended
			c.Close()
			c.far.Write([]byte("llo"))
			c.mustAnswer(t)
			if got := c.session.dropped.Load(); got != 4 {
				t.Errorf("dropped %d bytes; want 4", got)
			}
		})
	})
}

// mustAnswer has the far end answer a ping, which somebody must read.
func (c conversation) mustAnswer(t *testing.T) {
	t.Helper()
	id, pong := c.session.expectPong()
	c.far.Write(appendPing(nil, id))
	synctest.Wait()
	if !isClosed(pong) {
		t.Fatal("nobody reads from the session any more")
	}
}

// A stuckWriter blocks until it is closed.
type stuckWriter chan struct{}

func (w stuckWriter) Write(p []byte) (int, error) {
	<-w
	return len(p), nil
}

// An owner that has the turn and does not read is no dead link.
func TestTurnThatIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConversation(t)
		if v, _ := c.session.ping(t.Context(), time.Second); v != unclear {
			t.Errorf("nobody reads: ping says %v; want unclear", v)
		}
		if c.session.waits(0) {
			t.Error("an owner that does not read is said to wait")
		}
		ended := c.readBack()
		synctest.Wait()
		time.Sleep(time.Millisecond)
		if v, _ := c.session.ping(t.Context(), time.Second); v != dead {
			t.Errorf("the owner reads: ping says %v; want dead", v)
		}
		if !c.session.waits(time.Second) {
			t.Error("an owner that reads is not said to wait")
		}
		c.Close()
		<-ended
	})
}

func TestTurnWholeFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConversation(t)
		writes := new(writeLog)
		copied := make(chan error, 1)
		go func() {
			_, err := c.WriteTo(writes)
			copied <- err
		}()
		synctest.Wait()
		large := bytes.Repeat([]byte("x"), maxDataLen+1)
		wire := appendDataHeader(nil, c.dataID, 0, len(large))
		wire = append(wire, large...)
		for len(wire) > 0 { // it comes in pieces
			n := min(len(wire), 5000)
			c.far.Write(wire[:n])
			wire = wire[n:]
		}
		c.frame(c.errorID, flagFin, "")
		c.frame(c.dataID, flagFin, "the last")
		if err := <-copied; err != nil {
			t.Fatal(err)
		}
		want := []int{maxDataLen, 1, len("the last")}
		if len(writes.sizes) != len(want) || writes.sizes[0] != want[0] || writes.sizes[1] != want[1] || writes.sizes[2] != want[2] {
			t.Errorf("writes of %v bytes; want %v", writes.sizes, want)
		}
	})
}

type writeLog struct{ sizes []int }

func (w *writeLog) Write(p []byte) (int, error) {
	w.sizes = append(w.sizes, len(p))
	return len(p), nil
}

// A deadline that was moved just when it passed interrupts a read that it is not
// for. That reads on.
func TestTurnIsInterruptedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConversation(t)
		ended := c.readBack()
		synctest.Wait()
		c.turn.interrupt()
		c.frame(c.dataID, 0, "x")
		if err := <-ended; err != nil {
			t.Errorf("read: %v", err)
		}
	})
}
