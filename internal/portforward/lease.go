package portforward

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// errorDelay is how long the error stream may stay open after the data stream
// has ended, until that is taken for a clean end. It follows within a
// millisecond from containerd, but on a shared connection the reader may first
// have to wait for the owners of all other leases.
const errorDelay = maxShared * patience

// A Lease is one connection to a port of a pod, with an upgraded connection to
// itself as long as there may be more of them. It is a net.Conn with CloseWrite
// and WriteTo. Its owner must Close it; the upgraded connection is then kept for
// the next lease, unless bytes are stuck on it.
type Lease struct {
	session         *session
	dataID, errorID uint32

	chunks   chan []byte // from the session's run to Read or WriteTo
	free     chan []byte // and back
	unread   atomic.Int32
	turn     turn // to read past them
	finished chan struct{}
	deadline deadline // for reads
	overdue  deadline // for writes
	writing  atomic.Bool
	journey  atomic.Int32 // of its first frames; see depart
	sent     atomic.Int64 // frames with data
	owed     debt
	received atomic.Int64 // bytes, or announced
	dropped  int64        // what the session had dropped when it was closed
	inbox    *inbox       // instead of chunks and free, if it has a seat; see share.go

	// The following are set by the pool before the lease is handed out.
	pod     *podConns
	retired <-chan struct{}
	done    func(l *Lease, clean bool)

	// These are for whose turn it is to read from the session.
	frames                int           // with data
	made                  int           // buffers, other than own
	patience              time.Duration // with an owner who lags behind; see share.go
	errorText             []byte
	dataEnded, errorEnded bool

	reading sync.Mutex // guards the following
	rest    []byte     // of the chunk that was taken last
	chunk   []byte
	own     []byte // a buffer

	closing sync.Once

	mu      sync.Mutex // guards the following
	err     error      // why reading ended; set before finished is closed
	sentFin bool
	closed  bool
}

func newLease(s *session, errorID, dataID uint32) *Lease {
	return &Lease{
		session:  s,
		errorID:  errorID,
		dataID:   dataID,
		turn:     newTurn(s.conn),
		chunks:   make(chan []byte, buffers),
		free:     make(chan []byte, buffers),
		finished: make(chan struct{}),
	}
}

// buffers is how many chunks a lease may have: some are filled while one is
// written, so that not each of them wakes somebody.
const buffers = 4

// freeBuffer waits for a buffer for n bytes, or as many as fit into the
// largest; nil if nobody reads any more. For the session's reader only.
func (l *Lease) freeBuffer(n int) []byte {
	n = min(n, maxDataLen)
	var buf []byte
	select {
	case buf = <-l.free:
	case <-l.finished:
		return nil
	default:
		if l.made < buffers {
			l.made++
			return make([]byte, n) // many connections never need much
		}
		l.session.stalled.Store(math.MaxInt64) // it does
		defer func() { l.session.stalled.Store(time.Now().UnixNano()) }()
		select {
		case buf = <-l.free:
		case <-l.finished:
			return nil
		}
	}
	if cap(buf) < n {
		buf = make([]byte, min(max(n, 2*cap(buf)), maxDataLen))
	}
	return buf[:n]
}

// finish ends reading with err. Only the first call counts.
func (l *Lease) finish(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	close(l.finished)
	l.turn.finish()
}

// The following are called by the session's reader.

// errorFin notes that the server has nothing more to say on the error stream.
func (l *Lease) errorFin() {
	l.errorEnded = true
	if l.dataEnded {
		l.remoteFin()
	}
}

// remoteFin is the pod's end of stream, unless the error stream explains it
// otherwise. containerd ends the data first, and what says why comes after
// that: so it is the end only when the error stream has ended, too.
func (l *Lease) remoteFin() {
	switch {
	case len(l.errorText) > 0:
		l.finish(&StreamError{Text: string(l.errorText)})
	case l.errorEnded:
		l.finish(io.EOF)
	case !l.dataEnded:
		l.dataEnded = true
		time.AfterFunc(errorDelay, func() { l.finish(io.EOF) })
	}
}

// reset is the server's abrupt end of either stream. It resets both after it
// has said why; but a data stream that it has ended already it leaves so.
func (l *Lease) reset() {
	if len(l.errorText) > 0 {
		l.finish(&StreamError{Text: string(l.errorText)})
		return
	}
	l.finish(io.ErrUnexpectedEOF)
}

// Where the first frames of a lease are.
const (
	queued    = iota
	written   // or about to be: some may arrive even if the write fails
	withdrawn // for ever
)

// depart notes that the first frames are about to be written, and reports
// whether they may be.
func (l *Lease) depart() bool {
	return l.journey.CompareAndSwap(queued, written) || l.journey.Load() == written
}

// lost is an error of the lease that says ErrUnsent where that is so. Whoever
// has been told may send the same bytes elsewhere: the first frames, if they
// still wait, are not written any more.
func (l *Lease) lost(err error) error {
	if !errors.Is(err, ErrLinkDead) {
		return err
	}
	if l.journey.CompareAndSwap(queued, withdrawn) || l.journey.Load() == withdrawn {
		return fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	return err
}

// Read implements net.Conn. Besides io.EOF it returns a *StreamError, or an
// error that Is ErrLinkDead, and ErrUnsent if that is so.
func (l *Lease) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	myTurn, err := l.next()
	switch {
	case err != nil:
		return 0, err
	case myTurn:
		chunk, err := l.pull(p)
		return len(chunk), err
	}
	n := copy(p, l.rest)
	l.used(n)
	return n, nil
}

// WriteTo implements io.WriterTo: it writes what arrives straight from the
// receive buffer to w, until the pod's end of stream.
func (l *Lease) WriteTo(w io.Writer) (total int64, err error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	for err == nil {
		var n int
		n, err = l.writeChunk(w)
		total += int64(n)
	}
	if err == io.EOF {
		err = nil
	}
	return total, err
}

func (l *Lease) writeChunk(w io.Writer) (int, error) {
	myTurn, err := l.next()
	switch {
	case err != nil:
		return 0, err
	case myTurn:
		chunk, err := l.pull(nil)
		if err != nil {
			return 0, err
		}
		return w.Write(chunk)
	}
	n, err := w.Write(l.rest)
	l.used(n)
	return n, err
}

// used notes that the owner is done with n bytes of the rest; reading is held.
func (l *Lease) used(n int) {
	l.session.carried.Store(time.Now().UnixNano())
	l.rest = l.rest[n:]
	switch {
	case len(l.rest) > 0:
	case l.inbox != nil:
		l.inbox.giveBack(l.chunk)
	default:
		l.unread.Add(-1)
		l.free <- l.chunk // there is room for all of them
	}
}

// next waits until there is a rest, or until it is the owner's turn to pull;
// reading is held.
func (l *Lease) next() (myTurn bool, err error) {
	timeout := l.deadline.expired()
	if l.inbox != nil {
		return false, l.nextOfInbox(timeout)
	}
	defer l.turn.want(false)
	for len(l.rest) == 0 {
		if isClosed(timeout) {
			return false, os.ErrDeadlineExceeded
		}
		if l.turn.begin() {
			l.session.stalled.Store(time.Now().UnixNano()) // until now, nobody has read
			return true, nil
		}
		l.turn.want(true)
		select {
		case l.chunk = <-l.chunks:
			l.rest = l.chunk
		case <-l.turn.lent: // and not taken back, if nothing has happened since
		case <-l.finished:
			select {
			case l.chunk = <-l.chunks: // it came before the end
				l.rest = l.chunk
			default:
				return false, l.readErr()
			}
		case <-timeout:
			return false, os.ErrDeadlineExceeded
		}
	}
	return false, nil
}

// pull reads from the session what comes next for this lease: into p or, if that
// is nil, a frame or as much of it as fits into a buffer. That costs nobody else
// a wake-up. It ends what turn.begin has begun.
func (l *Lease) pull(p []byte) ([]byte, error) {
	defer l.turn.end()
	timeout := l.deadline.expired()
	wanted, got := 1, 0
	for {
		select {
		case <-l.finished:
			return nil, l.readErr()
		case <-timeout:
			if got == 0 {
				return nil, os.ErrDeadlineExceeded
			}
			return p[:got], nil
		default:
		}
		whose, err := l.session.advance()
		if err == nil && whose == l {
			if p == nil {
				p = l.ownBuffer(l.session.left)
				wanted = len(p)
			}
			var n int
			n, err = l.session.read(p[got:])
			if got += n; got >= wanted {
				if l.session.left == 0 {
					l.session.endOfFrame()
				}
				return p[:got], nil
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			l.turn.resume() // the deadline may have been moved since it passed
		case err != nil:
			l.session.fail(fmt.Errorf("%w: %w", ErrLinkDead, err))
			<-l.finished
		}
	}
}

// ownBuffer is a buffer for n bytes, or as many as fit into the largest.
func (l *Lease) ownBuffer(n int) []byte {
	if n = min(n, maxDataLen); cap(l.own) < n {
		l.own = make([]byte, min(max(n, 2*cap(l.own)), maxDataLen))
	}
	return l.own[:n]
}

// nextOfInbox is next for a lease with a seat: nobody but run reads then.
func (l *Lease) nextOfInbox(timeout <-chan struct{}) error {
	for len(l.rest) == 0 {
		if isClosed(timeout) {
			return os.ErrDeadlineExceeded
		}
		over := isClosed(l.finished) // nothing comes after that
		if chunk := l.inbox.take(); chunk != nil {
			l.chunk, l.rest = chunk, chunk
			break
		}
		if over {
			return l.readErr()
		}
		select {
		case <-l.inbox.ready:
		case <-l.finished:
		case <-timeout:
		}
	}
	return nil
}

// hasUnread reports whether something waits for the owner to read it.
func (l *Lease) hasUnread() bool {
	return l.unread.Load() > 0 || l.inbox != nil && !l.inbox.isEmpty()
}

func (l *Lease) readErr() error {
	l.mu.Lock()
	err := l.err
	l.mu.Unlock()
	return l.lost(err)
}

// Write implements net.Conn. It blocks while the pod does not read, which is
// TCP's own back-pressure. After the pod reset the stream it returns Read's
// error.
func (l *Lease) Write(p []byte) (int, error) {
	if l.inbox != nil {
		return l.writeParts(p)
	}
	l.writing.Store(true)
	defer l.writing.Store(false)
	late := l.overdue.expired()
	total := 0
	for len(p) > 0 {
		if isClosed(late) {
			return total, os.ErrDeadlineExceeded
		}
		if err := l.writeErr(); err != nil {
			return total, l.lost(err)
		}
		part := p[:min(len(p), maxDataLen)]
		l.sent.Add(1)
		err := l.session.send(late, func(dst []byte) []byte {
			l.owed.add(len(part))
			dst = appendDataHeader(dst, l.dataID, 0, len(part))
			return append(dst, part...)
		})
		if err != nil {
			return total, l.lost(err)
		}
		total += len(part)
		p = p[len(part):]
	}
	return total, nil
}

// writeParts is Write for a lease with a seat.
func (l *Lease) writeParts(p []byte) (int, error) {
	late := l.overdue.expired()
	total := 0
	for len(p) > 0 {
		if isClosed(late) {
			return total, os.ErrDeadlineExceeded
		}
		part := p[:min(len(p), maxDataLen)]
		wait, err := l.session.sendPart(late, l, part)
		switch {
		case err != nil:
			return total, l.lost(err)
		case wait == nil:
			l.sent.Add(1)
			total += len(part)
			p = p[len(part):]
			continue
		}
		select {
		case <-wait:
		case <-late:
		case <-l.finished: // sendPart knows how
		}
	}
	return total, nil
}

func (l *Lease) writeErr() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed || l.sentFin:
		return net.ErrClosed
	case l.err == io.EOF && l.inbox != nil:
		return io.ErrClosedPipe // the runtime is gone, and the worker would wait for it
	case l.err != nil && l.err != io.EOF:
		return l.err
	}
	return nil
}

// CloseWrite ends our direction of the stream. Container runtimes give the
// other direction about one second after that and never pass it on to the app
// as the end of its input: port-forward has no true half-close.
func (l *Lease) CloseWrite() error {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return nil
	}
	return l.sendFin(nil)
}

// sendFin ends our direction, once. It gives up when late is closed.
func (l *Lease) sendFin(late <-chan struct{}) error {
	l.mu.Lock()
	sent := l.sentFin
	l.sentFin = true
	l.mu.Unlock()
	if sent {
		return nil
	}
	end := func(dst []byte) []byte { return appendDataHeader(dst, l.dataID, flagFin, 0) }
	if l.inbox != nil {
		return l.session.sendEnd(late, l, end)
	}
	l.writing.Store(true)
	defer l.writing.Store(false)
	return l.session.send(late, end)
}

// Close gives the lease back. It is idempotent and waits.
func (l *Lease) Close() error {
	l.closing.Do(func() {
		l.mu.Lock()
		l.closed = true // before writing is looked at: no Write begins after that
		l.mu.Unlock()
		clean := !l.writing.Load() // else it waits for the pod to take bytes
		l.dropped = l.session.dropped.Load()
		l.finish(net.ErrClosed)
		l.overdue.set(time.Time{}, nil)
		l.done(l, clean)
	})
	return nil
}

// isSettled reports whether the server is certainly done with what was sent,
// and the pod has not much to say: the runtime reads the first frame when it
// has connected to the app, which it has if anything came from there.
func (l *Lease) isSettled() bool {
	received := l.received.Load()
	return l.sent.Load() <= 1 && 0 < received && received <= strays && !l.hasUnread()
}

// Retiring is closed when the pool was told that the pod is going away.
func (l *Lease) Retiring() <-chan struct{} { return l.retired }

// LocalAddr implements net.Conn: our end of the upgraded connection.
func (l *Lease) LocalAddr() net.Addr { return l.session.conn.LocalAddr() }

// RemoteAddr implements net.Conn: the API server's, or the proxy's, end.
func (l *Lease) RemoteAddr() net.Addr { return l.session.conn.RemoteAddr() }

// SetDeadline implements net.Conn.
func (l *Lease) SetDeadline(t time.Time) error {
	l.SetReadDeadline(t)
	return l.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (l *Lease) SetReadDeadline(t time.Time) error {
	l.deadline.set(t, l.turn.interrupt)
	return nil
}

// SetWriteDeadline implements net.Conn. A write that a deadline interrupts
// ends the lease: part of a frame may have been sent, if it has a connection to
// itself.
func (l *Lease) SetWriteDeadline(t time.Time) error {
	l.overdue.set(t, l.cutWrite)
	return nil
}

// cutWrite ends a write that is overdue, unless its deadline was moved meanwhile.
func (l *Lease) cutWrite() {
	if l.writing.Load() && isClosed(l.overdue.expired()) {
		l.session.fail(os.ErrDeadlineExceeded)
	}
}

// A deadline is a point in time that can be moved while somebody waits for it.
// The zero value never expires.
type deadline struct {
	mu    sync.Mutex // guards the following
	timer *time.Timer
	hit   chan struct{}
}

func (d *deadline) expired() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hit == nil {
		d.hit = make(chan struct{})
	}
	return d.hit
}

// set moves the deadline; a zero time takes it away. When it comes, passed is
// called too, if it is not nil.
func (d *deadline) set(t time.Time, passed func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.hit // its function runs or has run
	}
	d.timer = nil
	if d.hit == nil || isClosed(d.hit) {
		d.hit = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	hit := d.hit
	d.timer = time.AfterFunc(time.Until(t), func() {
		close(hit)
		if passed != nil {
			passed()
		}
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
