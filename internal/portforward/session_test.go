package portforward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// silent is a session whose far end reads all and answers nothing.
func silent(t *testing.T) (s *session, far net.Conn) {
	near, far := net.Pipe()
	s = newSession(near)
	var running sync.WaitGroup
	running.Go(s.run)
	running.Go(func() { io.Copy(io.Discard, far) })
	t.Cleanup(func() {
		s.fail(ErrClosed)
		far.Close()
		running.Wait()
	})
	return s, far
}

// Silence means death only where nothing else can be the cause of it.
func TestPingWithoutAnAnswer(t *testing.T) {
	data := func(s *session) []byte { return append(appendDataHeader(nil, s.lease.dataID, 0, 1), 'x') }
	pong := func(far net.Conn, from, to uint32) {
		for id := from; id <= to; id += 2 {
			far.Write(appendPing(nil, id))
		}
	}
	tests := []struct {
		name   string
		happen func(t *testing.T, s *session, l *Lease, far net.Conn)
		want   vitality
	}{
		{"nothing was sent", func(*testing.T, *session, *Lease, net.Conn) {}, dead},
		{"little was sent", func(t *testing.T, _ *session, l *Lease, _ net.Conn) { l.Write(make([]byte, 1000)) }, dead},
		{"a queue full of frames was sent", func(t *testing.T, _ *session, l *Lease, _ net.Conn) {
			for range serverQueue {
				l.Write([]byte("x"))
			}
		}, unclear},
		{"much was sent", func(t *testing.T, _ *session, l *Lease, _ net.Conn) { l.Write(make([]byte, onTheWay+1)) }, unclear},
		{"much was sent, and taken", func(t *testing.T, s *session, l *Lease, far net.Conn) {
			l.Write(make([]byte, onTheWay+1))
			time.AfterFunc(time.Second/2, func() { pong(far, 1, 9) })
			if v, err := s.ping(t.Context(), time.Second); v != alive || err != nil {
				t.Errorf("vitality %d, %v; want alive", v, err)
			}
		}, dead},
		{"much was sent, and not all of it was taken", func(t *testing.T, s *session, l *Lease, far net.Conn) {
			l.Write(make([]byte, onTheWay+1))
			time.AfterFunc(time.Second/2, func() { pong(far, 1, 7) })
			if v, err := s.ping(t.Context(), time.Second); v != alive || err != nil {
				t.Errorf("vitality %d, %v; want alive: one worker may wait", v, err)
			}
		}, unclear},
		{"something came, which nobody takes", func(t *testing.T, s *session, _ *Lease, far net.Conn) {
			for range buffers + 1 {
				far.Write(data(s))
			}
		}, unclear},
		{"something came, which is taken late", func(t *testing.T, s *session, l *Lease, far net.Conn) {
			for range buffers {
				far.Write(data(s))
			}
			far.Write(appendDataHeader(nil, l.dataID, 0, 100)) // its bytes may never come
			time.AfterFunc(time.Second/2, func() { l.Read(make([]byte, 1)) })
		}, unclear},
		{"little came, which is taken late", func(t *testing.T, s *session, l *Lease, far net.Conn) {
			far.Write(data(s))
			time.AfterFunc(time.Second/2, func() { l.Read(make([]byte, 1)) })
		}, dead},
		{"something comes", func(t *testing.T, s *session, l *Lease, far net.Conn) {
			time.AfterFunc(time.Second/2, func() { far.Write(data(s)) })
		}, moving},
		{"one of the server's workers answers", func(t *testing.T, s *session, _ *Lease, far net.Conn) {
			time.AfterFunc(time.Second/2, func() { pong(far, 5, 5) })
		}, alive},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, far := silent(t)
				l, err := s.open(80)
				if err != nil {
					t.Fatal(err)
				}
				tt.happen(t, s, l, far)
				synctest.Wait()
				if got, err := s.ping(context.Background(), time.Second); got != tt.want || (err != nil) != (got == dead) {
					t.Errorf("vitality %d, %v; want %d", got, err, tt.want)
				}
			})
		})
	}
}

// An unclear silence is looked into, and only then taken for death.
func TestKeepaliveLooksIntoSilence(t *testing.T) {
	for _, reachable := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := silent(t)
			l, err := s.open(80)
			if err != nil {
				t.Fatal(err)
			}
			l.Write(make([]byte, onTheWay+1))
			var asked atomic.Int32
			var running sync.WaitGroup
			running.Go(func() {
				s.keepalive(time.Second, time.Second, keeper{
					wanted:    func() bool { return true },
					answered:  func() { t.Error("an answer was told of, though there was none") },
					reachable: func(context.Context) bool { asked.Add(1); return reachable },
					gone:      func() bool { return false },
				})
			})
			time.Sleep(10 * time.Second) // of the bubble's own
			if s.isDead() == reachable || asked.Load() == 0 {
				t.Errorf("reachable = %v: dead = %v after %d questions", reachable, s.isDead(), asked.Load())
			}
			s.fail(ErrClosed)
			running.Wait()
		})
	}
}

// What one lease owed is not owed by the next, or by nobody.
func TestDebtsEndWithTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := silent(t)
		for range 2 {
			l, err := s.open(80)
			if err != nil {
				t.Fatal(err)
			}
			l.Write(make([]byte, onTheWay+1))
			if v, _ := s.ping(context.Background(), time.Second); v != unclear {
				t.Errorf("with much sent: vitality %d; want unclear", v)
			}
			s.release(l)
			if v, _ := s.ping(context.Background(), time.Second); v != dead {
				t.Errorf("without a lease: vitality %d; want dead", v)
			}
		}
	})
}

// What still trickles in from a pod that is gone is worth waiting for.
func TestKeepaliveLetsItTrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, far := silent(t)
		l, err := s.open(80)
		if err != nil {
			t.Fatal(err)
		}
		var running sync.WaitGroup
		running.Go(func() {
			s.keepalive(10*time.Second, 2*time.Second, keeper{
				wanted:    func() bool { return true },
				answered:  func() {},
				reachable: func(context.Context) bool { return true },
				gone:      func() bool { return true },
			})
		})
		const size = 40
		running.Go(func() {
			far.Write(appendDataHeader(nil, l.dataID, 0, size))
			for range size {
				time.Sleep(time.Second) // of the bubble's own
				far.Write([]byte("x"))
			}
		})
		if n, err := io.ReadFull(l, make([]byte, size)); err != nil {
			t.Errorf("%d of %d bytes, %v", n, size, err)
		}
		s.fail(ErrClosed)
		running.Wait()
	})
}

// The next ping meets the server's worker that has the lease's data, and not
// the one that has its errors, whatever was sent before.
func TestStreamIDsMeetTheNextPing(t *testing.T) {
	s, _ := silent(t)
	last := uint32(0)
	for i := range uint64(100) {
		s.pings.Add(i % 7)
		errorID, dataID := s.streamIDs()
		if workerOf(dataID) != s.nextPinged() || workerOf(errorID) == workerOf(dataID) {
			t.Errorf("streams %d and %d; the next ping meets worker %d", errorID, dataID, s.nextPinged())
		}
		if errorID%2 != 1 || dataID%2 != 1 || errorID <= last || dataID <= errorID {
			t.Errorf("streams %d and %d after %d; want rising odd ones", errorID, dataID, last)
		}
		last = dataID
	}
}

// The lease of a pod that is gone ends when its owner waits in vain, and not
// while there is something to read.
func TestKeepaliveEndsWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		s := newSession(near)
		var running sync.WaitGroup
		running.Go(s.run)
		sends := make(chan []byte, 1000) // so that reading goes on while it waits
		running.Go(func() { answerPings(far, sends) })
		running.Go(func() {
			for frame := range sends {
				far.Write(frame)
			}
		})
		l, err := s.open(80)
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			s.keepalive(time.Second, time.Second, keeper{
				wanted:    func() bool { return true },
				answered:  func() {},
				reachable: func(context.Context) bool { return true },
				gone:      func() bool { return true },
			})
		})
		sends <- append(appendDataHeader(nil, l.dataID, 0, 2), "hi"...)
		for range 2 {
			time.Sleep(10 * time.Second) // of the bubble's own
			if s.isDead() {
				t.Fatalf("%v, with bytes left to read", s.cause())
			}
			if _, err := l.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.Read(make([]byte, 1)); !errors.Is(err, ErrPodGone) {
			t.Errorf("read: %v; want ErrPodGone", err)
		}
		running.Wait()
	})
}

// answerPings reads all, and answers pings only.
func answerPings(far net.Conn, sends chan<- []byte) {
	defer close(sends)
	for {
		var b [frameHeaderLen]byte
		if _, err := io.ReadFull(far, b[:]); err != nil {
			return
		}
		h, err := parseFrameHeader(b[:])
		if err != nil {
			return
		}
		body := make([]byte, h.length)
		if _, err := io.ReadFull(far, body); err != nil {
			return
		}
		if h.control && h.kind == typePing {
			sends <- append(b[:], body...)
		}
	}
}

// Whatever the server sends, the reader ends or goes on; it does not panic.
func FuzzReadFrames(f *testing.F) {
	f.Add(appendPing(nil, 2))
	f.Add(appendPing(nil, 1))
	f.Add(append(appendDataHeader(nil, 3, flagFin, 5), "hello"...))
	f.Add(append(appendDataHeader(nil, 1, 0, 4), "oops"...))
	f.Add(appendSynStream(nil, 2, 0, true, "a", "b"))
	f.Add([]byte{0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5})
	f.Add([]byte{0x80, 3, 0, 7, 0, 0, 0, 2, 0, 0})
	f.Fuzz(func(t *testing.T, wire []byte) {
		readFrames(t, wire, func(s *session) (*Lease, error) { return s.open(80) })
		readFrames(t, wire, func(s *session) (*Lease, error) {
			s.share()
			return s.openSeat(t.Context(), 80, s.sit())
		})
	})
}

func readFrames(t *testing.T, wire []byte, open func(*session) (*Lease, error)) {
	near, far := net.Pipe()
	s := newSession(near)
	var running sync.WaitGroup
	running.Go(s.run)
	running.Go(func() { io.Copy(io.Discard, far) })
	l, err := open(s)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	running.Go(func() { io.Copy(&got, l) })
	far.Write(wire)
	far.Close()
	running.Wait()
	if !s.isDead() {
		t.Error("it lives on without its connection")
	}
	if got.Len() > len(wire) {
		t.Errorf("%d bytes of %d", got.Len(), len(wire))
	}
}

// deaf is a session whose far end reads nothing.
func deaf(t *testing.T) *session {
	near, far := net.Pipe()
	s := newSession(near)
	var running sync.WaitGroup
	running.Go(s.run)
	t.Cleanup(func() {
		s.fail(ErrClosed)
		far.Close()
		running.Wait()
	})
	return s
}

// A ping that cannot even be written holds up nobody who has to find out why.
func TestPingThatCannotBeWritten(t *testing.T) {
	tests := []struct {
		name   string
		shared bool
	}{{"on a connection of its own", false}, {"on a shared one", true}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := deaf(t)
				if tt.shared {
					s.share()
				}
				var running sync.WaitGroup
				defer running.Wait()
				running.Go(func() {
					s.keepalive(time.Second, time.Second, keeper{
						wanted:    func() bool { return true },
						answered:  func() { t.Error("an answer was told of, though there was none") },
						reachable: func(context.Context) bool { return false },
						gone:      func() bool { return false },
					})
				})
				time.Sleep(5 * time.Second)
				if !s.isDead() {
					t.Error("the session lives on")
					s.fail(ErrClosed)
				}
			})
		})
	}
}

func TestRecycleThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := deaf(t)
		l, err := s.open(80)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan bool, 1)
		go func() { done <- s.recycle(l, time.Second) }()
		time.Sleep(5 * time.Second)
		select {
		case again := <-done:
			if again {
				t.Error("the session may carry another lease")
			}
		default:
			t.Error("it is waited for")
			s.fail(ErrClosed)
			<-done
		}
	})
}

// A write deadline that was moved just when it passed ends no later write.
func TestWriteIsCutLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := deaf(t)
		l, err := s.open(80)
		if err != nil {
			t.Fatal(err)
		}
		l.SetWriteDeadline(time.Now().Add(time.Hour))
		defer l.SetWriteDeadline(time.Time{})
		wrote := make(chan struct{})
		go func() { l.Write([]byte("x")); close(wrote) }()
		synctest.Wait()
		l.cutWrite()
		if s.isDead() {
			t.Error("the session is dead")
		}
		s.fail(ErrClosed)
		<-wrote
	})
}
