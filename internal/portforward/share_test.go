package portforward

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A server deals frames to workers as the public SPDY library does. A worker is
// stuck from the first data for a stream whose pod takes nothing.
type server struct {
	conn  net.Conn
	sends chan []byte // so that reading goes on meanwhile

	mu     sync.Mutex
	turn   uint32                       // of the worker that gets the next ping
	queues [serverWorkers][]frameHeader // that wait for a stuck worker
	pings  [serverWorkers][][]byte      // among them
	stuck  [serverWorkers]bool
	silent map[uint32]bool // streams whose pods take nothing
	full   int             // the longest that a queue was
	got    map[uint32]int  // bytes that pods have taken
	last   uint32          // stream that was opened
	resets map[uint32]bool
}

// shared is a session that may be shared, with its server.
func shared(t *testing.T) (*session, *server) {
	t.Helper()
	near, v := newServer(t)
	s := newSession(near)
	s.share()
	var running sync.WaitGroup
	running.Go(s.run)
	t.Cleanup(func() {
		s.fail(ErrClosed)
		running.Wait()
	})
	return s, v
}

// newServer returns a server, and the client's end of a connection to it.
func newServer(t *testing.T) (near net.Conn, v *server) {
	t.Helper()
	near, far := net.Pipe()
	v = &server{conn: far, sends: make(chan []byte, 10_000), silent: make(map[uint32]bool), got: make(map[uint32]int), resets: make(map[uint32]bool)}
	var running sync.WaitGroup
	running.Go(func() {
		defer close(v.sends)
		v.serve(t)
	})
	running.Go(func() {
		for frame := range v.sends {
			far.Write(frame)
		}
	})
	t.Cleanup(func() {
		far.Close()
		running.Wait()
	})
	return near, v
}

func (v *server) serve(t *testing.T) {
	for {
		var b [frameHeaderLen]byte
		if _, err := io.ReadFull(v.conn, b[:]); err != nil {
			return
		}
		h, err := parseFrameHeader(b[:])
		if err != nil {
			t.Error(err)
			return
		}
		body := make([]byte, h.length)
		if _, err := io.ReadFull(v.conn, body); err != nil {
			return
		}
		v.mu.Lock()
		v.deal(t, h, append(b[:], body...))
		v.mu.Unlock()
	}
}

func (v *server) deal(t *testing.T, h frameHeader, frame []byte) {
	worker := h.stream % serverWorkers
	switch {
	case h.control && h.kind == typePing:
		worker = v.turn
		v.turn = (v.turn + 1) % serverWorkers
	case h.control:
		h.stream = binary.BigEndian.Uint32(frame[frameHeaderLen:])
		worker = h.stream % serverWorkers
		v.resets[h.stream] = v.resets[h.stream] || h.kind == typeRstStream
		if h.kind == typeSynStream {
			if h.stream <= v.last {
				t.Errorf("stream %d is opened after %d", h.stream, v.last)
			}
			v.last = h.stream
		}
	case v.silent[h.stream]:
		v.stuck[worker] = true
	default:
		v.got[h.stream] += h.length
	}
	switch {
	case v.stuck[worker]:
		v.queues[worker] = append(v.queues[worker], h)
		v.full = max(v.full, len(v.queues[worker]))
		if h.control && h.kind == typePing {
			v.pings[worker] = append(v.pings[worker], frame)
		}
	case h.control && h.kind == typePing:
		v.sends <- frame
	}
}

// silence has a lease's pod take nothing, and resume has it take all.
func (v *server) silence(l *Lease) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.silent[l.dataID] = true
}

func (v *server) resume(l *Lease) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.silent, l.dataID)
	w := workerOf(l.dataID)
	for _, h := range v.queues[w] {
		if !h.control {
			v.got[h.stream] += h.length
		}
	}
	for _, ping := range v.pings[w] {
		v.sends <- ping
	}
	v.stuck[w], v.queues[w], v.pings[w] = false, nil, nil
}

func (v *server) taken(l *Lease) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.got[l.dataID]
}

func (v *server) longest() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.full
}

// openSeats opens leases on a session that may be shared.
func openSeats(t *testing.T, s *session, n int) (all []*Lease) {
	t.Helper()
	for range n {
		seat := s.sit()
		if seat == 0 {
			t.Fatal("no seat")
		}
		l, err := s.openSeat(t.Context(), 80, seat)
		if err != nil {
			t.Fatal(err)
		}
		l.done = func(l *Lease, _ bool) { s.release(l) }
		all = append(all, l)
	}
	return all
}

// However much is sent, no queue of the server's becomes full, since then it
// would read nothing more; and a pod that takes nothing holds up no other.
func TestWindow(t *testing.T) {
	const much = 3 << 20
	for n := range 2 * (maxShared - 1) {
		stuck, clogged := n/2+1, n%2
		t.Run(fmt.Sprintf("%d pods take nothing, for long %v", stuck, clogged == 1), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, v := shared(t)
				all := openSeats(t, s, maxShared)
				var sent sync.WaitGroup
				const little = window / 2 * maxDataLen
				for _, l := range all[:stuck] { // one after the other
					v.silence(l)
					if _, err := l.Write(make([]byte, little)); err != nil {
						t.Fatal(err)
					}
					for range maxPings / maxShared {
						s.ping(t.Context(), time.Second)
					}
				}
				for range clogged * maxPings { // so that there can be no more
					s.ping(t.Context(), time.Second)
				}
				for _, l := range all[:stuck] {
					sent.Go(func() {
						if _, err := l.Write(make([]byte, much-little)); err != nil {
							t.Error(err)
						}
					})
				}
				synctest.Wait()
				for range 3 {
					for _, l := range all[stuck:] {
						if _, err := l.Write(make([]byte, much)); err != nil {
							t.Fatal(err)
						}
						for range 500 {
							l.Write([]byte("x"))
						}
					}
					time.Sleep(time.Second)
					s.ping(t.Context(), time.Second)
				}
				if full := v.longest(); full > serverQueue {
					t.Errorf("a queue had %d frames; want no more than %d", full, serverQueue)
				}
				for _, l := range all[stuck:] {
					if n := v.taken(l); n != 3*(much+500) {
						t.Errorf("%d bytes were taken; want %d", n, 3*(much+500))
					}
				}
				for _, l := range all[:stuck] {
					v.resume(l)
				}
				sent.Wait()
				synctest.Wait()
				for _, l := range all[:stuck] {
					if n := v.taken(l); n != much {
						t.Errorf("%d bytes were taken in the end; want %d", n, much)
					}
				}
				if !isIdle(s, all) {
					t.Error("in the end, not all seats are free")
				}
			})
		})
	}
}

// isIdle gives all seats back, and reports whether the session can be used anew.
func isIdle(s *session, all []*Lease) bool {
	empty, done := false, false
	for _, l := range all {
		l.Close()
		s.leave(l, time.Second)
		empty, done = s.stand(int(workerOf(l.dataID)))
	}
	return empty && done
}

// What may wait for a worker, with the pings, fits into its queue.
func TestWindowFits(t *testing.T) {
	if n := window + maxPings + len([]string{"syn", "fin", "rst"}); n > serverQueue {
		t.Errorf("%d frames; want no more than %d", n, serverQueue)
	}
}

// A write that waits for its pod ends with its deadline, with the lease and with
// the connection, and harms nobody.
func TestWaitingWriteEnds(t *testing.T) {
	tests := []struct {
		name string
		end  func(s *session, l *Lease)
		want error
	}{
		{"with its deadline", func(_ *session, l *Lease) { l.SetWriteDeadline(time.Now().Add(time.Second)) }, os.ErrDeadlineExceeded},
		{"with the lease", func(_ *session, l *Lease) { l.Close() }, net.ErrClosed},
		{"with the stream", func(_ *session, l *Lease) { l.reset() }, io.ErrUnexpectedEOF},
		{"with the pod's end", func(_ *session, l *Lease) { l.errorFin(); l.remoteFin() }, io.ErrClosedPipe},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, v := shared(t)
				all := openSeats(t, s, 2)
				v.silence(all[0])
				wrote := make(chan error, 1)
				go func() {
					n, err := all[0].Write(make([]byte, 100*maxDataLen))
					if n != (window-1)*maxDataLen { // its SYN_STREAM counts
						t.Errorf("%d bytes were sent; want %d", n, (window-1)*maxDataLen)
					}
					wrote <- err
				}()
				synctest.Wait()
				tt.end(s, all[0])
				if err := <-wrote; !errors.Is(err, tt.want) {
					t.Errorf("write: %v; want %v", err, tt.want)
				}
				if _, err := all[1].Write([]byte("not harmed")); err != nil {
					t.Errorf("the other one: %v", err)
				}
				synctest.Wait()
				if n := v.taken(all[1]); n != len("not harmed") {
					t.Errorf("the other one: %d bytes were taken", n)
				}
				all[0].Close()
			})
		})
	}
}

// The place of a lease whose pod takes nothing is not free when it is closed, and
// keeps its connection from being used again, but does not end it.
func TestSeatAfterBytesThatNobodyTakes(t *testing.T) {
	for _, resumes := range []bool{false, true} {
		t.Run(fmt.Sprintf("the pod takes them later: %v", resumes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pod := Pod{Name: "a"}
				var v *server
				p := &Pool{MaxPerPod: 1, PingInterval: 10 * time.Second, PingTimeout: time.Second}
				p.Dial = func(context.Context, Pod) (conn net.Conn, err error) {
					conn, v = newServer(t)
					return conn, nil
				}
				defer p.Close()
				open := func() (*Lease, error) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					return p.Open(ctx, pod, 80)
				}
				var all []*Lease
				for range maxShared {
					l, err := open()
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, l)
				}
				stuck := all[0]
				v.silence(stuck)
				wrote := make(chan error, 1)
				go func() {
					_, err := stuck.Write(make([]byte, 1<<20))
					wrote <- err
				}()
				synctest.Wait()
				stuck.Close()
				if err := <-wrote; !errors.Is(err, net.ErrClosed) {
					t.Errorf("write: %v; want net.ErrClosed", err)
				}
				time.Sleep(time.Minute) // of the bubble's own
				if resumes {
					time.AfterFunc(5*time.Second, func() { v.resume(stuck) }) // while the next one waits
				}
				l, err := open()
				if resumes && err != nil || !resumes && !errors.Is(err, ErrBusy) {
					t.Errorf("one more: %v; want ErrBusy: %v", err, !resumes)
				}
				if err == nil {
					all = append(all, l)
				}
				for _, l := range all[1:] {
					if _, err := l.Write([]byte("x")); err != nil {
						t.Error(err)
					}
					l.Close()
				}
				time.Sleep(5 * time.Second)
				if u := p.Usage(pod); u.Leases != 0 || (u.Upgraded == 1) != resumes || u.Idle != u.Upgraded {
					t.Errorf("usage %+v; want the connection kept: %v", u, resumes)
				}
				if _, err := open(); err != nil {
					t.Errorf("in the end: %v", err)
				}
			})
		})
	}
}

// An owner who lags behind for a moment is waited for; one who does not read is
// not, and the connection goes on.
func TestPatience(t *testing.T) {
	tests := []struct {
		name   string
		frames int
		pause  time.Duration // before each chunk is read
		want   error
	}{
		{"who keeps up", 200, 0, io.EOF},
		{"who pauses for moments", 20, 10 * time.Millisecond, io.EOF},
		{"who is steady", 2000, time.Millisecond, io.EOF},
		{"who is slow", 20, 100 * time.Millisecond, ErrTooSlow},
		{"who does not read", 20, time.Hour, ErrTooSlow},
	}
	for _, tt := range tests {
		t.Run("one "+tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, v := shared(t)
				all := openSeats(t, s, 2)
				slow, other := all[0], all[1]
				for i := range tt.frames {
					v.sends <- append(appendDataHeader(nil, slow.dataID, 0, maxDataLen), bytes.Repeat([]byte{byte(i)}, maxDataLen)...)
				}
				v.sends <- appendDataHeader(nil, slow.dataID, flagFin, 0)
				v.sends <- appendDataHeader(nil, slow.errorID, flagFin, 0)
				v.sends <- append(appendDataHeader(nil, other.dataID, 0, 5), "hello"...)
				began := time.Now()
				got := make(chan error, 1)
				go func() {
					var all []byte
					chunk := make([]byte, maxDataLen)
					for {
						time.Sleep(tt.pause)
						n, err := slow.Read(chunk)
						all = append(all, chunk[:n]...)
						if err == nil {
							continue
						}
						for i, b := range all {
							if b != byte(i/maxDataLen) {
								t.Errorf("byte %d is %d", i, b)
								break
							}
						}
						if want := tt.frames * maxDataLen; err == io.EOF && len(all) != want || len(all) < maxUnread {
							t.Errorf("%d bytes, %v", len(all), err)
						}
						got <- err
						return
					}
				}()
				if _, err := io.ReadFull(other, make([]byte, 5)); err != nil {
					t.Error(err)
				}
				if late := time.Since(began); tt.want == ErrTooSlow && late > 2*patience {
					t.Errorf("the other one was held up for %v", late)
				}
				if err := <-got; !errors.Is(err, tt.want) {
					t.Errorf("read: %v; want %v", err, tt.want)
				}
				synctest.Wait()
				v.mu.Lock()
				defer v.mu.Unlock()
				if cut := v.resets[slow.dataID]; cut != (tt.want == ErrTooSlow) || v.resets[other.dataID] {
					t.Errorf("the pod is told of a cut: %v, and of one of the other: %v", cut, v.resets[other.dataID])
				}
			})
		})
	}
}

// Where somebody holds up the reader, others come last, and then he is cut.
func TestJoinsWhoIsBehindLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var behind, busy *session
		pc := &podConns{shared: make(map[*session]struct{})}
		for range 2 {
			s, v := shared(t)
			pc.shared[s] = struct{}{}
			if behind != nil {
				busy = s
				openSeats(t, s, maxShared-1)
				continue
			}
			behind = s
			l := openSeats(t, s, 1)[0]
			for range 20 {
				v.sends <- append(appendDataHeader(nil, l.dataID, 0, maxDataLen), make([]byte, maxDataLen)...)
			}
		}
		time.Sleep(time.Minute) // of the bubble's own
		if pc.roomiest() != busy {
			t.Error("whoever is alone would be cut, though there is another seat")
		}
		openSeats(t, busy, 1)
		if pc.roomiest() != behind {
			t.Error("there is a seat, though somebody is in the way")
		}
		first := behind.leases()[0]
		openSeats(t, behind, 1)
		time.Sleep(time.Minute) // of the bubble's own
		if n, err := io.Copy(io.Discard, first); !errors.Is(err, ErrTooSlow) || n < maxUnread/2 {
			t.Errorf("%d bytes, %v; want what was kept, and ErrTooSlow", n, err)
		}
	})
}

// Silence on a shared connection means death only where nothing else can.
func TestPingShared(t *testing.T) {
	tests := []struct {
		name   string
		happen func(s *session, v *server, all []*Lease)
		want   vitality
	}{
		{"nobody is stuck", func(*session, *server, []*Lease) {}, alive},
		{"one pod takes nothing", func(_ *session, v *server, all []*Lease) {
			v.silence(all[0])
			go all[0].Write(make([]byte, 1<<20))
		}, alive},
		{"one pod has taken nothing for long", func(s *session, v *server, all []*Lease) {
			v.silence(all[0])
			go all[0].Write(make([]byte, 1<<20))
			synctest.Wait()
			for range maxPings {
				s.ping(s.ctx, time.Second)
			}
		}, unclear},
		{"nothing was sent, and nothing comes", func(_ *session, v *server, _ []*Lease) {
			for w := range uint32(serverWorkers) {
				v.stuck[w] = true
			}
		}, dead},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, v := shared(t)
				all := openSeats(t, s, 2)
				all[1].Write([]byte("x"))
				synctest.Wait()
				tt.happen(s, v, all)
				synctest.Wait()
				if got, err := s.ping(t.Context(), time.Second); got != tt.want || (err != nil) != (got == dead) {
					t.Errorf("vitality %d, %v; want %d", got, err, tt.want)
				}
			})
		})
	}
}

// Whatever is put into an inbox comes out again, in order.
func TestInbox(t *testing.T) {
	b := newInbox()
	var put, got []byte
	for i := range 500 {
		part := bytes.Repeat([]byte{byte(i)}, i*37%1500+1)
		put = append(put, part...)
		b.put(part)
		if i%3 == 0 {
			chunk := b.take()
			got = append(got, chunk...)
			b.giveBack(chunk)
		}
	}
	for chunk := b.take(); chunk != nil; chunk = b.take() {
		if len(chunk) > maxDataLen {
			t.Errorf("a chunk of %d bytes", len(chunk))
		}
		got = append(got, chunk...)
		b.giveBack(chunk)
	}
	if !bytes.Equal(got, put) {
		t.Errorf("%d bytes that went in are not the %d that came out", len(put), len(got))
	}
	if !b.isEmpty() || !b.fits(maxUnread) || b.fits(maxUnread+1) {
		t.Error("the inbox is not empty in the end")
	}
}

// A write may come when the seat is gone, if its connection has just been lost.
func TestPartWithoutASeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := shared(t)
		l := openSeats(t, s, 1)[0]
		s.release(l)
		s.stand(int(workerOf(l.dataID)))
		s.unshare()
		if _, err := s.sendPart(nil, l, []byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v; want %v", err, net.ErrClosed)
		}
	})
}

// Why a lease has ended may come after what others are too slow to read.
func TestRefusalBehindSlowOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := shared(t)
		all := openSeats(t, s, maxShared)
		synctest.Wait()
		refused := all[0]
		v.sends <- appendDataHeader(nil, refused.dataID, flagFin, 0)
		for _, slow := range all[1:] {
			for range maxUnread/maxDataLen + 1 {
				v.sends <- append(appendDataHeader(nil, slow.dataID, 0, maxDataLen), make([]byte, maxDataLen)...)
			}
		}
		text := "connection refused"
		v.sends <- append(appendDataHeader(nil, refused.errorID, flagFin, len(text)), text...)
		if _, err := refused.Read(make([]byte, 1)); !errors.Is(err, ErrRefused) {
			t.Errorf("read: %v; want %v", err, ErrRefused)
		}
	})
}
