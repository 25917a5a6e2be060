package portforward

import (
	"context"
	"math"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// Several leases share an upgraded connection where there are as many of those
// as there may be. SPDY has no flow control, so three rules keep one lease from
// holding up another:
//
//   - Each lease has one of the server's workers for its data, which waits for
//     its pod and for no other; the errors of all have the last, which waits for
//     none.
//   - What is sent to a worker is bounded, so that its queue never fills, since
//     then the server would read nothing any more. Pings are the acknowledgement.
//   - What has come is kept for the lease's owner, so that our reader waits for
//     none, or not for long; but not without bound: then that lease alone is cut.
//
// Whether a connection may be shared is settled while nobody uses it, and a
// lease that has one to itself keeps it so.

const (
	// maxShared is how many leases an upgraded connection can have.
	maxShared = serverWorkers - 1
	// errorWorker handles the error streams of all.
	errorWorker = 0

	// window is how many frames of a lease may be on their way to a worker that
	// is not known to have taken them, and maxPings how many pings. With the
	// streams' beginning and end, that is less than serverQueue.
	window   = 16
	maxPings = 30

	// patience is how long the reader waits in all for an owner who lags behind
	// while others are on the connection. What comes adds to it again: whoever
	// reads steady bytes a second, or is slow for a moment only, is not cut.
	patience = 500 * time.Millisecond
	steady   = 16 << 20
)

// A seat is a lease's part in a connection that may be shared, and what is
// known of the server's worker for it.
type seat struct {
	taken   bool   // by a lease, which may not be open yet
	lease   *Lease // once it is
	leaving bool   // it is closed, and the worker may not be done with it

	sent, done tally  // what the worker was sent, and what it is known to have taken
	marks      []mark // pings that it has not answered, the oldest first
	wake       chan struct{}
}

// A tally counts frames, without pings, and the data in them.
type tally struct{ frames, bytes int64 }

func (t *tally) add(bytes int) { t.frames++; t.bytes += int64(bytes) }

// A mark is a ping, and what the worker had been sent before it: its answer
// shows that the worker has taken that.
type mark struct {
	id     uint32
	before tally
}

// uncovered is how many frames no ping was sent after.
func (t *seat) uncovered() int64 {
	if len(t.marks) > 0 {
		return t.sent.frames - t.marks[len(t.marks)-1].before.frames
	}
	return t.sent.frames - t.done.frames
}

func (t *seat) isFree() bool { return !t.taken && !t.leaving && t.sent.frames == t.done.frames }

// next is closed when the worker has answered again.
func (t *seat) next() <-chan struct{} {
	if t.wake == nil {
		t.wake = make(chan struct{})
	}
	return t.wake
}

// share has a session without a lease take several from now on, and unshare one
// at a time again.
func (s *session) share() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seats = make([]seat, serverWorkers)
}

func (s *session) unshare() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seats = nil
}

// A vacancy is how well a session can take another lease.
type vacancy struct {
	free   bool // there is a seat
	behind bool // its only lease keeps the reader waiting, and would be cut
	leases int
}

func (s *session) vacancy() (v vacancy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.free = s.hasSeat() > 0
	v.behind = s.behind
	for i := range s.seats {
		if s.seats[i].taken {
			v.leases++
		}
	}
	return v
}

// hasSeat returns a seat that is free, or 0; mu is held.
func (s *session) hasSeat() int {
	if s.seats == nil || s.isDead() || s.goneAway || s.nextID >= lastStreamID || s.isClogged() {
		return 0
	}
	for i := errorWorker + 1; i < serverWorkers; i++ {
		if s.seats[i].isFree() {
			return i
		}
	}
	return 0
}

// sit takes a seat for a lease that openSeat will open; it returns 0 if there is
// none.
func (s *session) sit() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.hasSeat()
	if i == 0 {
		return 0
	}
	s.seats[i].taken = true
	if s.behind { // whoever holds up the reader is not alone any more
		for j := range s.seats {
			if l := s.seats[j].lease; l != nil {
				l.inbox.poke()
			}
		}
	}
	return i
}

// stand gives a seat back, whose worker may not be done with it. It reports
// whether nobody has one now, and then whether all workers are done.
func (s *session) stand(i int) (empty, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seats[i].taken, s.seats[i].leaving = false, false
	empty, done = true, true
	for j := errorWorker + 1; j < serverWorkers; j++ {
		empty = empty && !s.seats[j].taken && !s.seats[j].leaving
		done = done && s.seats[j].isFree()
	}
	return empty, done
}

// openSeat is open for a lease that has a seat. The streams are numbered when
// they are sent, since their numbers must rise.
func (s *session) openSeat(ctx context.Context, port uint16, i int) (*Lease, error) {
	portText := strconv.Itoa(int(port))
	var l *Lease
	err := s.queue(ctx.Done(), openWait, func(dst []byte) []byte {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.isDead() || s.goneAway {
			return dst
		}
		first, request := s.requests == 0, strconv.Itoa(s.requests)
		s.requests++
		errorID := s.nextIDOf(errorWorker)
		l = newLease(s, errorID, s.nextIDOf(uint32(i)))
		l.inbox = newInbox()
		l.patience = patience
		s.seats[i].lease = l
		s.opening = append(s.opening, l)
		s.seats[errorWorker].sent.add(0)
		s.seats[i].sent.add(0)
		s.carried.Store(time.Now().UnixNano())
		return appendStreams(dst, l, first, portText, request)
	})
	if err == nil && l == nil {
		err = ErrLinkDead
	}
	return l, err
}

// nextIDOf is the identifier of the next stream for a worker; mu is held.
func (s *session) nextIDOf(worker uint32) uint32 {
	id := s.nextID
	for workerOf(id) != worker {
		id += 2
	}
	s.nextID = id + 2
	return id
}

// seatOf is the seat of a lease that was not closed, or is still leaving; mu is
// held.
func (s *session) seatOf(l *Lease) *seat { return &s.seats[workerOf(l.dataID)] }

// isOpen reports whether a lease has its seat still; mu is held.
func (s *session) isOpen(l *Lease) bool { return s.seats != nil && s.seatOf(l).lease == l }

// sendPart sends a frame of a lease with a seat, if its worker may get another
// one. Else wait is closed when that is worth another try.
func (s *session) sendPart(late <-chan struct{}, l *Lease, part []byte) (wait <-chan struct{}, err error) {
	if err := s.lock(late); err != nil {
		return nil, err
	}
	defer func() { <-s.sending }()
	if err := l.writeErr(); err != nil { // it must not come after its end
		return nil, err
	}
	open := true
	err = s.write(func(dst []byte) []byte {
		s.mu.Lock()
		if open = s.isOpen(l); !open {
			s.mu.Unlock()
			return dst
		}
		t := s.seatOf(l)
		if s.mayWrite(t) {
			t.sent.add(len(part))
		} else {
			wait = t.next()
		}
		ask := t.uncovered() >= window/2
		s.mu.Unlock()
		if wait == nil {
			dst = append(appendDataHeader(dst, l.dataID, 0, len(part)), part...)
		}
		if ask {
			dst, _ = s.appendRound(dst)
		}
		return dst
	})
	if err == nil && !open {
		err = net.ErrClosed // meanwhile; its seat may be gone
	}
	return wait, err
}

// mayWrite reports whether a lease may send another frame; mu is held. Pings are
// dealt in turn, so each also queues up before the workers that wait for their
// pods, and when one has as many as it may, there can be no more. Then those
// write on without that are known not to wait: one lease that is stuck does not
// hold them up. Only if such a one gets stuck, too, may all be.
func (s *session) mayWrite(t *seat) bool {
	return t.sent.frames-t.done.frames < window || s.isClogged() && len(t.marks) == 0
}

// isClogged reports whether there can be no pings; mu is held.
func (s *session) isClogged() bool {
	for i := range s.seats {
		if len(s.seats[i].marks) >= maxPings {
			return true
		}
	}
	return false
}

// sendEnd sends an end of a lease with a seat: a last frame, which never waits.
func (s *session) sendEnd(late <-chan struct{}, l *Lease, build func(dst []byte) []byte) error {
	return s.send(late, func(dst []byte) []byte {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.isOpen(l) {
			return dst
		}
		s.seatOf(l).sent.add(0)
		return build(dst)
	})
}

// appendRound appends a ping for each worker, unless the session is clogged, and
// returns the one that the errors' worker will answer, or 0; sending is held.
func (s *session) appendRound(dst []byte) (_ []byte, id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seats == nil || s.isClogged() {
		return dst, 0
	}
	for range serverWorkers {
		next := s.pingID()
		t := &s.seats[s.nextPinged()]
		t.marks = append(t.marks, mark{next, t.sent})
		if s.nextPinged() == errorWorker {
			id = next
		}
		dst = s.appendPing(dst, next)
	}
	return dst, id
}

// answered notes that a worker has taken what it was sent before a ping; mu is
// held. Each worker answers in order.
func (s *session) answered(ping uint32) {
	if s.seats == nil {
		return
	}
	for i := range s.seats {
		t := &s.seats[i]
		at := slices.IndexFunc(t.marks, func(m mark) bool { return m.id == ping })
		if at < 0 {
			continue
		}
		if before := t.marks[at].before; before.frames > t.done.frames {
			t.done = before
		}
		t.marks = slices.Delete(t.marks, 0, at+1)
		if t.wake != nil {
			close(t.wake)
			t.wake = nil
		}
		return
	}
}

// leave ends what is left of a lease with a seat, and waits until the worker is
// done with it, or not much longer.
func (s *session) leave(l *Lease, timeout time.Duration) {
	late, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	var last int64
	err := s.send(late.Done(), func(dst []byte) []byte {
		s.mu.Lock()
		t := s.seatOf(l)
		t.sent.add(0)
		last = t.sent.frames
		s.mu.Unlock()
		dst, _ = s.appendRound(appendRstStream(dst, l.dataID))
		return dst
	})
	for err == nil {
		s.mu.Lock()
		t := s.seatOf(l)
		done, next := t.done.frames >= last, t.next()
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-next:
		case <-late.Done():
			return
		}
	}
}

// cutSeat is leave for a lease that is settled: its worker need not be asked.
func (s *session) cutSeat(l *Lease, timeout time.Duration) {
	late, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	s.queue(late.Done(), cutWait, func(dst []byte) []byte {
		s.mu.Lock()
		defer s.mu.Unlock()
		t := s.seatOf(l)
		t.sent.add(0)
		t.done = t.sent
		return appendRstStream(dst, l.dataID)
	})
}

// deposit is deliver for a lease with a seat: the reader does not wait for its
// owner while others are on the connection.
func (s *session) deposit(l *Lease) error {
	if s.scratch == nil {
		s.scratch = make([]byte, maxDataLen)
	}
	for s.left > 0 {
		n, err := s.read(s.scratch)
		if err != nil {
			return err
		}
		if s.awaitRoom(l, n) {
			l.inbox.put(s.scratch[:n])
		} else {
			s.dropped.Add(int64(n))
		}
	}
	s.endOfFrame()
	return nil
}

// awaitRoom reports whether n more bytes may be kept for the lease's owner, who
// is waited for if nobody else is on the connection: back-pressure hurts nobody
// else then. If there are others, patience has an end, and the lease is cut.
func (s *session) awaitRoom(l *Lease, n int) bool {
	for !isClosed(l.finished) {
		if l.inbox.fits(n) {
			l.patience = min(l.patience+time.Duration(n)*time.Second/steady, patience)
			return true
		}
		began := time.Now()
		limit := l.patience
		alone := s.fallBehind(l)
		switch {
		case alone:
			limit = math.MaxInt64
		case limit <= 0:
			s.cutOff(l)
			return false
		}
		s.stalled.Store(math.MaxInt64)
		enough := time.NewTimer(limit)
		select {
		case <-l.inbox.room:
		case <-l.finished:
		case <-enough.C:
		}
		enough.Stop()
		s.stalled.Store(time.Now().UnixNano())
		s.catchUp()
		if !alone {
			l.patience -= time.Since(began)
		}
	}
	return false
}

// fallBehind reports whether the lease, for whose owner the reader has to wait,
// is alone on the connection; if so, it is known who is in the way of others.
func (s *session) fallBehind(l *Lease) (alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.seats {
		if s.seats[i].taken && s.seats[i].lease != l {
			return false
		}
	}
	s.behind = true
	return true
}

func (s *session) catchUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behind = false
}

// cutOff ends a lease whose owner is too slow. The reader must not wait to send
// the reset.
func (s *session) cutOff(l *Lease) {
	l.finish(ErrTooSlow)
	s.mu.Lock()
	s.resets = append(s.resets, l)
	s.mu.Unlock()
	s.flush.Reset(0)
}

// appendResets appends the resets of leases that were cut off; sending is held.
func (s *session) appendResets(dst []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.resets {
		if s.isOpen(l) {
			s.seatOf(l).sent.add(0)
			dst = appendRstStream(dst, l.dataID)
		}
	}
	s.resets = nil
	return dst
}

// pingShared is ping for a connection that may be shared. The errors' worker
// waits for no pod, so that its silence means something. If there can be no
// pings, what comes for the leases has to do.
func (s *session) pingShared(ctx context.Context, timeout time.Duration) (vitality, error) {
	late, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now().UnixNano()
	var sent atomic.Uint32
	pong := make(chan struct{})
	err := s.sendBy(late.Done(), func(dst []byte) []byte {
		dst, id := s.appendRound(dst)
		if sent.Store(id); id != 0 {
			s.mu.Lock()
			s.pongs[id] = pong
			s.mu.Unlock()
		}
		return dst
	})
	id := sent.Load()
	defer s.forgetPong(id)
	if err == nil && id == 0 && !s.mayBeShared() {
		return s.ping(ctx, timeout) // all have left meanwhile
	}
	if err == nil {
		select {
		case <-pong:
			return alive, nil
		case <-s.ctx.Done():
			err = s.cause()
		case <-late.Done():
		}
	}
	return s.judgeSilence(ctx, began, err, id == 0 || s.owesMuch())
}

// owesMuch reports whether so much was sent that the connection may be full.
func (s *session) owesMuch() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var owed tally
	for i := range s.seats {
		t := &s.seats[i]
		owed.frames += t.sent.frames - t.done.frames
		owed.bytes += t.sent.bytes - t.done.bytes
	}
	return owed.frames >= serverQueue || owed.bytes > onTheWay
}

// mayBeShared reports whether it is one for several leases.
func (s *session) mayBeShared() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seats != nil
}
