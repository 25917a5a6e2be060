package portforward

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// maxErrorText bounds what is kept of an error stream.
const maxErrorText = 4 << 10

// lastStreamID is where a session stops being reused: stream identifiers must
// not wrap.
const lastStreamID = 1<<31 - 1024

// errNoAnswer is what ping returns when a healthy far end would have answered.
var errNoAnswer = errors.New("no answer to a ping")

// A session is one upgraded connection to a pod. It carries at most one lease
// at a time. run must be running for anything to be received.
type session struct {
	conn net.Conn
	in   *bufio.Reader
	dead chan struct{} // closed by fail

	// sending is a lock that can be waited for with a deadline; it guards out
	// and the order of frames on conn.
	sending chan struct{}
	out     []byte

	seen    atomic.Int64 // when the last frame began to arrive, Unix ns
	stalled atomic.Bool  // the reader waits for the lease's owner to read

	mu       sync.Mutex // guards the following
	err      error      // why it is dead
	lease    *Lease
	nextID   uint32 // client streams and pings are odd
	nextPing uint32
	requests int
	goneAway bool // the server wants no new streams
	pongs    map[uint32]chan struct{}

	echo chan uint32 // the server's own pings, for keepalive to answer
}

func newSession(conn net.Conn) *session {
	s := &session{
		conn:     conn,
		in:       bufio.NewReaderSize(conn, maxDataLen+frameHeaderLen),
		dead:     make(chan struct{}),
		sending:  make(chan struct{}, 1),
		nextID:   1,
		nextPing: 1,
		pongs:    make(map[uint32]chan struct{}),
		echo:     make(chan uint32, 4),
	}
	s.seen.Store(time.Now().UnixNano())
	return s
}

// run reads frames until the connection ends.
func (s *session) run() {
	for {
		if err := s.readFrame(); err != nil {
			s.fail(fmt.Errorf("%w: %w", ErrLinkDead, err))
			return
		}
	}
}

// fail closes the connection and ends the lease, if there is one. The first
// cause stays.
func (s *session) fail(cause error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = cause
	lease := s.lease
	close(s.dead)
	s.mu.Unlock()

	if lease != nil {
		lease.finish(cause)
	}
	s.conn.Close()
}

// alive reports whether the session can take another lease.
func (s *session) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == nil && !s.goneAway && s.nextID < lastStreamID
}

func (s *session) readFrame() error {
	var b [frameHeaderLen]byte
	if _, err := io.ReadFull(s.in, b[:]); err != nil {
		return err
	}
	s.seen.Store(time.Now().UnixNano())
	h, err := parseFrameHeader(b[:])
	if err != nil {
		return err
	}
	if !h.control {
		return s.readData(h)
	}
	return s.readControl(h)
}

func (s *session) readData(h frameHeader) error {
	lease := s.leaseOf(h.stream)
	switch {
	case lease != nil && h.stream == lease.dataID:
		if err := s.deliver(lease, h.length); err != nil {
			return err
		}
		if h.fin() {
			lease.remoteFin()
		}
	case lease != nil:
		if err := s.readErrorText(lease, h.length); err != nil {
			return err
		}
		if h.fin() {
			lease.errorFin()
		}
	default: // the tail of a stream that is over
		_, err := s.in.Discard(h.length)
		return err
	}
	return nil
}

// deliver hands n bytes to the lease's reader as they arrive and waits until
// they are taken: that waiting is the back-pressure. What the owner of a
// closed lease did not read is dropped.
func (s *session) deliver(l *Lease, n int) error {
	for n > 0 {
		if _, err := s.in.Peek(1); err != nil {
			return err
		}
		s.seen.Store(time.Now().UnixNano())
		chunk, err := s.in.Peek(min(n, s.in.Buffered()))
		if err != nil {
			return err
		}
		s.stalled.Store(true)
		select {
		case l.chunks <- chunk:
		case <-l.finished:
			s.stalled.Store(false)
			_, err := s.in.Discard(n)
			return err
		}
		select {
		case used := <-l.used:
			s.stalled.Store(false)
			s.in.Discard(used)
			n -= used
		case <-s.dead: // the chunk stays as it is: nobody reads into it any more
			return s.cause()
		}
	}
	return nil
}

func (s *session) readErrorText(l *Lease, n int) error {
	keep := min(n, maxErrorText-len(l.errorText))
	text := make([]byte, keep)
	if _, err := io.ReadFull(s.in, text); err != nil {
		return err
	}
	l.errorText = append(l.errorText, text...)
	_, err := s.in.Discard(n - keep)
	return err
}

func (s *session) readControl(h frameHeader) error {
	var b [8]byte
	body := b[:min(len(b), h.length)]
	if _, err := io.ReadFull(s.in, body); err != nil {
		return err
	}
	if _, err := s.in.Discard(h.length - len(body)); err != nil {
		return err
	}
	if len(body) < 4 {
		return fmt.Errorf("spdy: control frame %d of %d bytes", h.kind, h.length)
	}
	id := binary.BigEndian.Uint32(body) &^ (1 << 31)
	switch h.kind {
	case typeSynReply:
		if l := s.leaseOf(id); l != nil && h.fin() && id == l.dataID {
			l.remoteFin()
		}
	case typeRstStream:
		if l := s.leaseOf(id); l != nil && id == l.dataID {
			l.reset()
		}
	case typePing:
		return s.readPing(binary.BigEndian.Uint32(body))
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
func (s *session) readPing(id uint32) error {
	if id%2 == 0 {
		select {
		case s.echo <- id:
		default: // nobody needs that many answers
		}
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if pong, ok := s.pongs[id]; ok {
		close(pong)
		delete(s.pongs, id)
	}
	return nil
}

func (s *session) leaseOf(stream uint32) *Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease != nil && (s.lease.dataID == stream || s.lease.errorID == stream) {
		return s.lease
	}
	return nil
}

// send writes the frames that build appends, in one Write. It gives up waiting
// for its turn when late is closed.
func (s *session) send(late <-chan struct{}, build func(dst []byte) []byte) error {
	select {
	case s.sending <- struct{}{}:
	case <-s.dead:
		return s.cause()
	case <-late:
		return os.ErrDeadlineExceeded
	}
	defer func() { <-s.sending }()
	s.out = build(s.out[:0])
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

func (s *session) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// open starts the stream pair of a new lease without waiting for the server's
// replies: it handles the frames of a stream in order, so bytes may follow at
// once, and a refusal is told on the error stream.
func (s *session) open(port uint16) (*Lease, error) {
	s.mu.Lock()
	if s.err != nil || s.goneAway {
		s.mu.Unlock()
		return nil, ErrLinkDead
	}
	first := s.requests == 0
	l := newLease(s, s.nextID, s.nextID+2)
	request := strconv.Itoa(s.requests)
	s.nextID += 4
	s.requests++
	s.lease = l
	s.mu.Unlock()

	portText := strconv.Itoa(int(port))
	err := s.send(nil, func(dst []byte) []byte {
		// We never write on the error stream: it is born half-closed.
		dst = appendSynStream(dst, l.errorID, flagFin, first,
			"streamtype", "error", "port", portText, "requestid", request)
		return appendSynStream(dst, l.dataID, 0, false,
			"streamtype", "data", "port", portText, "requestid", request)
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// serverWorkers is how many workers the public SPDY library divides a
// connection's streams among. It deals pings to them in turn.
const serverWorkers = 5

// finish ends our direction of a lease whose other directions have ended, and
// reports whether the server is done with all streams that were opened so far.
// If a pod ends its side while bytes are on their way to it, nobody reads them,
// and the worker that holds them waits for ever; a later stream that meets that
// worker would hang. As many pings as there are workers find out.
func (s *session) finish(l *Lease, timeout time.Duration) bool {
	late, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if l.sendFin(late.Done()) != nil {
		return false
	}
	var answers []<-chan struct{}
	var ids []uint32
	for range serverWorkers {
		id, pong := s.expectPong()
		defer s.forgetPong(id)
		ids = append(ids, id)
		answers = append(answers, pong)
	}
	err := s.send(late.Done(), func(dst []byte) []byte {
		for _, id := range ids {
			dst = appendPing(dst, id)
		}
		return dst
	})
	if err != nil {
		return false
	}
	for _, pong := range answers {
		select {
		case <-pong:
		case <-s.dead:
			return false
		case <-late.Done():
			return false
		}
	}
	return true
}

// expectPong registers the next ping.
func (s *session) expectPong() (id uint32, pong <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id = s.nextPing
	s.nextPing = (s.nextPing + 2) & 0x7fffffff
	answered := make(chan struct{})
	s.pongs[id] = answered
	return id, answered
}

func (s *session) forgetPong(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pongs, id)
}

// release ends a lease that is over at both ends.
func (s *session) release(l *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == l {
		s.lease = nil
	}
}

// A vitality is what a ping has found out.
type vitality int

const (
	dead    vitality = iota // nothing answers that should
	unclear                 // nothing answered, which need not mean death
	moving                  // no answer yet, but bytes arrive
	alive                   // it was answered
)

// ping asks the far end, which is the node's container runtime, for a sign of
// life. Silence is unclear while our side of the connection waits for the
// lease's owner to read, and once the lease has sent anything: what the pod
// does not take fills the connection, and before that it holds up one of the
// server's workers, among which pings are dealt in turn.
func (s *session) ping(ctx context.Context, timeout time.Duration) (vitality, error) {
	late, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	id, pong := s.expectPong()
	defer s.forgetPong(id)
	sent := time.Now()
	err := s.send(late.Done(), func(dst []byte) []byte { return appendPing(dst, id) })
	switch {
	case ctx.Err() != nil:
		return unclear, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return unclear, nil // a write of the lease waits
	case err != nil:
		return dead, err
	}
	select {
	case <-pong:
		return alive, nil
	case <-s.dead:
		return dead, s.cause()
	case <-late.Done():
	}
	switch {
	case ctx.Err() != nil:
		return unclear, context.Cause(ctx)
	case s.seen.Load() > sent.UnixNano():
		return moving, nil
	case s.stalled.Load() || s.leaseHasSent():
		return unclear, nil
	}
	return dead, errNoAnswer
}

func (s *session) leaseHasSent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease != nil && s.lease.sent.Load()
}

// A keeper is who keepalive asks and tells.
type keeper struct {
	// wanted reports whether the session is used, or was until lately.
	wanted func() bool
	// answered is told of each sign of life.
	answered func()
	// reachable finds out in another way whether the pod can be reached; ctx is
	// done when the session is dead.
	reachable func(ctx context.Context) bool
}

// keepalive pings every interval, and fails the session when nothing answers
// within timeout. It returns when the session is dead.
func (s *session) keepalive(interval, timeout time.Duration, k keeper) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-s.dead:
			return
		case id := <-s.echo:
			s.send(s.dead, func(dst []byte) []byte { return appendPing(dst, id) })
			continue
		case <-tick.C:
		}
		if !k.wanted() {
			s.fail(ErrClosed)
			return
		}
		v, err := s.ping(context.Background(), timeout)
		if v == unclear && !s.whileAlive(k.reachable) {
			v, err = dead, errNoAnswer
		}
		switch v {
		case alive:
			k.answered()
		case dead:
			s.fail(fmt.Errorf("%w: %w", ErrLinkDead, err))
			return
		}
	}
}

// whileAlive asks a question that nobody wants to know the answer to when the
// session is dead.
func (s *session) whileAlive(ask func(ctx context.Context) bool) bool {
	ctx, cancel := context.WithCancel(context.Background())
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		select {
		case <-s.dead:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() {
		cancel()
		<-answered
	}()
	return ask(ctx)
}
