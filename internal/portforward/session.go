package portforward

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// readAhead is for frames' heads; what is larger is read into a lease's buffer.
const readAhead = 4 << 10

// maxErrorText bounds what is kept of an error stream.
const maxErrorText = 4 << 10

const (
	// openWait is how long a new lease's streams wait for its first bytes, and
	// cutWait how long the end of a settled one waits for the next lease.
	openWait = 500 * time.Microsecond
	cutWait  = 5 * time.Millisecond
)

// lastStreamID is where a session stops being reused: stream identifiers must
// not wrap.
const lastStreamID = 1<<31 - 1024

// A session is one upgraded connection to a pod. It carries one lease at a time,
// or several, if it may be shared. run must be running for anything to be
// received.
type session struct {
	conn net.Conn
	// The following are for whoever's turn it is to read: run, or the owner of the
	// lease.
	in    *bufio.Reader
	frame frameHeader // what is being read
	left  int         // bytes of it that are still to be read

	ctx    context.Context // done when the session is dead; its cause is why
	cancel context.CancelCauseFunc

	// sending is a lock that can be waited for with a deadline; it guards out,
	// queued, opening, and the order of frames on conn.
	sending chan struct{}
	out     []byte
	queued  []byte         // frames that go before the next ones
	opening []*Lease       // whose first frames are among them
	flush   *time.Timer    // sends them if there are no next ones
	late    sync.WaitGroup // see sendBy

	seen    atomic.Int64  // when something last came, Unix ns; 0 if nothing has
	carried atomic.Int64  // when data last came or was taken by the lease's owner, Unix ns
	stalled atomic.Int64  // when the reader last waited for the lease's owner to read, Unix ns
	pings   atomic.Uint64 // sent so far; only changed with sending held
	dropped atomic.Int64  // bytes for nobody

	mu       sync.Mutex // guards the following
	lease    *Lease
	seats    []seat   // if it may be shared: one for each of the server's workers; see share.go
	behind   bool     // the reader waits for the only lease on it
	resets   []*Lease // to be sent
	nextID   uint32   // client streams and pings are odd
	nextPing uint32
	requests int
	goneAway bool // the server wants no new streams
	pongs    map[uint32]chan struct{}

	scratch []byte // the reader's

	echo chan uint32   // the server's own pings, for keepalive to answer
	soon chan struct{} // cap 1: keepalive shall ping now
}

func newSession(conn net.Conn) *session {
	s := &session{
		conn:     conn,
		in:       bufio.NewReaderSize(conn, readAhead),
		sending:  make(chan struct{}, 1),
		nextID:   1,
		nextPing: 1,
		pongs:    make(map[uint32]chan struct{}),
		echo:     make(chan uint32, 4),
		soon:     make(chan struct{}, 1),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.flush = time.AfterFunc(time.Hour, func() {
		s.send(nil, s.appendResets)
	})
	s.flush.Stop()
	s.carried.Store(time.Now().UnixNano())
	return s
}

// run reads frames until the connection ends, but for those that a lease's owner
// reads for itself.
func (s *session) run() {
	defer s.late.Wait()
	for {
		l, err := s.advance()
		switch {
		case err != nil:
			s.fail(fmt.Errorf("%w: %w", ErrLinkDead, err))
			return
		case l == nil:
		case l.frames > 1 && l.unread.Load() == 0 && l.turn.lend(): // many connections have one answer
			<-l.turn.back
		default:
			if err := s.deliver(l); err != nil {
				s.fail(fmt.Errorf("%w: %w", ErrLinkDead, err))
				return
			}
		}
	}
}

// fail closes the connection and ends what leases there are. The first cause
// stays.
func (s *session) fail(cause error) {
	s.mu.Lock()
	if s.isDead() {
		s.mu.Unlock()
		return
	}
	leases := s.leases()
	s.cancel(cause)
	s.mu.Unlock()

	for _, l := range leases {
		l.finish(cause)
	}
	s.flush.Stop()
	s.conn.Close()
}

// leases are all that there are; mu is held.
func (s *session) leases() (all []*Lease) {
	if s.lease != nil {
		all = append(all, s.lease)
	}
	for i := range s.seats {
		if l := s.seats[i].lease; l != nil {
			all = append(all, l)
		}
	}
	return all
}

func (s *session) isDead() bool { return s.ctx.Err() != nil }

// cause is why the session is dead; nil if it is not.
func (s *session) cause() error { return context.Cause(s.ctx) }

// An Outdater is a net.Conn that may be outdated: it still works, but what Dial
// returns is better by now, so it should not be kept for another lease.
type Outdater interface{ Outdated() bool }

// usable reports whether the session can take another lease.
func (s *session) usable() bool {
	if c, ok := s.conn.(Outdater); ok && c.Outdated() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.isDead() && !s.goneAway && s.nextID < lastStreamID
}

// advance reads on, but for bytes that are for a lease's owner: of those, there
// are left, and it returns the lease. Whatever it does can be repeated when a
// deadline has interrupted it.
func (s *session) advance() (*Lease, error) {
	if s.left == 0 {
		if err := s.readHeader(); err != nil {
			return nil, err
		}
	}
	if s.left == 0 {
		return nil, nil
	}
	l := s.leaseOf(s.frame.stream)
	switch {
	case l == nil: // the tail of a stream that is over, or of a frame of no use
		n, err := s.in.Discard(s.left)
		s.left -= n
		if !s.frame.control {
			s.dropped.Add(int64(n))
		}
		return nil, err
	case s.frame.stream == l.errorID:
		return nil, s.readErrorText(l)
	}
	return l, nil
}

// readHeader reads a frame's header, and what matters of a control frame.
func (s *session) readHeader() error {
	b, err := s.in.Peek(frameHeaderLen)
	if err != nil {
		return err
	}
	s.seen.Store(time.Now().UnixNano())
	h, err := parseFrameHeader(b)
	if err != nil {
		return err
	}
	if h.control {
		return s.readControl(h)
	}
	s.in.Discard(frameHeaderLen)
	s.frame, s.left = h, h.length
	if l := s.leaseOf(h.stream); l != nil && h.stream == l.dataID && h.length > 0 {
		l.frames++
		l.received.Add(int64(h.length))
	}
	if h.length == 0 {
		s.endOfFrame()
	}
	return nil
}

// endOfFrame passes on what else a data frame may say.
func (s *session) endOfFrame() {
	l := s.leaseOf(s.frame.stream)
	switch {
	case l == nil || !s.frame.fin():
	case s.frame.stream == l.dataID:
		l.remoteFin()
	default:
		l.errorFin()
	}
}

// deliver hands what is left of a frame to the lease's owner, all of it or what
// fits into a buffer at a time, since each handing over costs a system call.
// That it waits for a buffer to be free is the back-pressure. What the owner of
// a closed lease did not read is left to advance.
func (s *session) deliver(l *Lease) error {
	if l.inbox != nil {
		return s.deposit(l)
	}
	for s.left > 0 {
		buf := l.freeBuffer(s.left)
		if buf == nil {
			s.frame.stream = 0 // which is nobody's
			return nil
		}
		for got := 0; got < len(buf); {
			n, err := s.read(buf[got:])
			if err != nil {
				return err
			}
			got += n
		}
		l.unread.Add(1)
		l.chunks <- buf // there is room for all of them
	}
	s.endOfFrame()
	return nil
}

// read reads some of what is left of a frame, whose end is endOfFrame's to note.
func (s *session) read(p []byte) (int, error) {
	n, err := s.in.Read(p[:min(len(p), s.left)])
	if n > 0 {
		now := time.Now().UnixNano()
		s.seen.Store(now)
		s.carried.Store(now)
		s.left -= n
	}
	return n, err
}

func (s *session) readErrorText(l *Lease) error {
	text := make([]byte, min(s.left, maxErrorText))
	n, err := s.in.Read(text)
	l.errorText = append(l.errorText, text[:min(n, maxErrorText-len(l.errorText))]...)
	if s.left -= n; s.left == 0 {
		s.endOfFrame()
	}
	return err
}

func (s *session) readControl(h frameHeader) error {
	b, err := s.in.Peek(frameHeaderLen + min(8, h.length))
	if err != nil {
		return err
	}
	body := b[frameHeaderLen:]
	if len(body) < 4 {
		return fmt.Errorf("spdy: control frame %d of %d bytes", h.kind, h.length)
	}
	word := binary.BigEndian.Uint32(body)
	s.in.Discard(len(b))
	s.frame, s.left = h, h.length-len(body)
	id := word &^ (1 << 31)
	switch h.kind {
	case typeSynReply:
		if l := s.leaseOf(id); l != nil && h.fin() && id == l.dataID {
			l.remoteFin()
		}
	case typeRstStream:
		if l := s.leaseOf(id); l != nil {
			l.reset()
		}
	case typePing:
		s.readPing(word)
	case typeGoAway:
		s.mu.Lock()
		s.goneAway = true
		s.mu.Unlock()
	}
	return nil // the rest (settings, headers, window updates) is of no use to us
}

// readPing takes the answer to one of our pings, or passes one of theirs to
// keepalive: the reader must never wait for the writer, which may wait for the
// pod to read.
func (s *session) readPing(id uint32) {
	if id%2 == 0 {
		select {
		case s.echo <- id:
		default: // nobody needs that many answers
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered(id)
	if pong, ok := s.pongs[id]; ok {
		close(pong)
		delete(s.pongs, id)
	}
}

func (s *session) leaseOf(stream uint32) *Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease != nil && (s.lease.dataID == stream || s.lease.errorID == stream) {
		return s.lease
	}
	for i := range s.seats {
		if l := s.seats[i].lease; l != nil && (l.dataID == stream || l.errorID == stream) {
			return l
		}
	}
	return nil
}

// send writes the frames that build appends, in one Write with those that are
// queued. It gives up waiting to begin when late is closed.
func (s *session) send(late <-chan struct{}, build func(dst []byte) []byte) error {
	if err := s.lock(late); err != nil {
		return err
	}
	defer func() { <-s.sending }()
	return s.write(build)
}

// sendBy is send that returns when late is closed, even if the Write still waits
// for the far end to read. It then goes on, and build must not mind to be late.
func (s *session) sendBy(late <-chan struct{}, build func(dst []byte) []byte) error {
	sent := make(chan error, 1)
	s.mu.Lock()
	if s.isDead() { // run may not wait any more
		s.mu.Unlock()
		return s.cause()
	}
	s.late.Go(func() { sent <- s.send(late, build) })
	s.mu.Unlock()
	select {
	case err := <-sent:
		return err
	case <-late:
		return os.ErrDeadlineExceeded
	}
}

// write is send for who holds sending.
func (s *session) write(build func(dst []byte) []byte) error {
	for _, l := range s.opening {
		if !l.depart() {
			return s.cause()
		}
	}
	clear(s.opening)
	s.opening = s.opening[:0]
	s.out = build(append(s.out[:0], s.queued...))
	s.queued = s.queued[:0]
	if len(s.out) == 0 {
		return nil
	}
	if _, err := s.conn.Write(s.out); err != nil {
		if cause := s.cause(); cause != nil {
			return cause // it was closed under our hands
		}
		err = fmt.Errorf("%w: %w", ErrLinkDead, err)
		s.fail(err)
		return err
	}
	return nil
}

// queue has the frames that build appends go with the next ones, or at latest
// after a while: each Write costs a wake-up in every server on the way. It gives
// up waiting to begin when late is closed.
func (s *session) queue(late <-chan struct{}, while time.Duration, build func(dst []byte) []byte) error {
	if err := s.lock(late); err != nil {
		return err
	}
	defer func() { <-s.sending }()
	if s.isDead() {
		return s.cause()
	}
	s.queued = build(s.queued)
	s.flush.Reset(while)
	return nil
}

// lock waits for sending, and takes it.
func (s *session) lock(late <-chan struct{}) error {
	select {
	case s.sending <- struct{}{}:
		return nil
	case <-s.ctx.Done():
		return s.cause()
	case <-late:
		return os.ErrDeadlineExceeded
	}
}

// open starts the stream pair of a new lease without waiting for the server's
// replies: it handles the frames of a stream in order, so bytes may follow at
// once, and a refusal is told on the error stream. As a rule the owner has bytes
// to send, and they go together.
func (s *session) open(port uint16) (*Lease, error) {
	s.mu.Lock()
	if s.isDead() || s.goneAway {
		s.mu.Unlock()
		return nil, ErrLinkDead
	}
	first := s.requests == 0
	errorID, dataID := s.streamIDs()
	l := newLease(s, errorID, dataID)
	request := strconv.Itoa(s.requests)
	s.requests++
	s.lease = l
	s.carried.Store(time.Now().UnixNano())
	s.mu.Unlock()

	portText := strconv.Itoa(int(port))
	err := s.queue(nil, openWait, func(dst []byte) []byte {
		s.opening = append(s.opening, l)
		return appendStreams(dst, l, first, portText, request)
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// appendStreams opens the streams of a lease. We never write on the error
// stream: it is born half-closed.
func appendStreams(dst []byte, l *Lease, first bool, port, request string) []byte {
	dst = appendSynStream(dst, l.errorID, flagFin, first,
		"streamtype", "error", "port", port, "requestid", request)
	return appendSynStream(dst, l.dataID, 0, false,
		"streamtype", "data", "port", port, "requestid", request)
}

// release ends a lease that is over at both ends, or one whose seat it leaves.
func (s *session) release(l *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOpen(l) {
		t := s.seatOf(l)
		t.taken, t.lease, t.leaving = false, nil, true
	}
	if s.lease == l {
		s.lease = nil
	}
}
