package portforward

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// The server is the public SPDY library (moby/spdystream), which divides a
// connection's streams among workers, each with a queue of frames, and deals
// pings to them in turn. One that waits for a pod to take its bytes answers no
// ping; when its queue is full, too, nothing is read any more.
const (
	serverWorkers = 5
	serverQueue   = 50 // frames
)

// onTheWay is how many bytes a slow network takes in less time than a ping has
// for its answer.
const onTheWay = 64 << 10

// strays is how many bytes for a lease that is over may come until the session
// can take another one.
const strays = 16 << 10

// errNoAnswer is what ping returns when a healthy far end would have answered.
var errNoAnswer = errors.New("no answer to a ping")

// A debt is what was sent of which no ping has shown that the server is done
// with it. The zero value is none.
type debt struct{ frames, bytes atomic.Int64 }

func (d *debt) add(bytes int) {
	d.frames.Add(1)
	d.bytes.Add(int64(bytes))
}

func (d *debt) now() (frames, bytes int64) { return d.frames.Load(), d.bytes.Load() }

func (d *debt) pay(frames, bytes int64) {
	d.frames.Add(-frames)
	d.bytes.Add(-bytes)
}

// debtOfLease is what the lease owes; a session without one owes nothing, since
// it was seen to that the server was done with the last one's.
func (s *session) debtOfLease() *debt {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return new(debt)
	}
	return &s.lease.owed
}

// expectPong registers the next ping.
func (s *session) expectPong() (id uint32, pong <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id = s.pingID()
	answered := make(chan struct{})
	s.pongs[id] = answered
	return id, answered
}

// pingID is the identifier of the next ping; mu is held.
func (s *session) pingID() uint32 {
	id := s.nextPing
	s.nextPing = (s.nextPing + 2) & 0x7fffffff
	return id
}

func (s *session) forgetPong(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pongs, id)
}

// volley sends a ping for each of the server's workers, and returns how many
// were answered before late was closed. An error Is os.ErrDeadlineExceeded if
// they could not even be sent.
func (s *session) volley(late <-chan struct{}) (answered int, err error) {
	var ids []uint32
	var pongs []<-chan struct{}
	for range serverWorkers {
		id, pong := s.expectPong()
		defer s.forgetPong(id)
		ids, pongs = append(ids, id), append(pongs, pong)
	}
	err = s.sendBy(late, func(dst []byte) []byte {
		for _, id := range ids {
			dst = s.appendPing(dst, id)
		}
		return dst
	})
	if err != nil {
		return 0, err
	}
	for _, pong := range pongs {
		select {
		case <-pong:
			answered++
			continue
		default:
		}
		select {
		case <-pong:
			answered++
		case <-s.ctx.Done():
			return answered, s.cause()
		case <-late: // but others may have been answered
		}
	}
	return answered, nil
}

// appendPing appends a ping, or the answer to one of theirs; sending is held.
func (s *session) appendPing(dst []byte, id uint32) []byte {
	s.pings.Add(1)
	return appendPing(dst, id)
}

// cut ends what is left of a settled lease, and reports whether the session may
// carry another one.
func (s *session) cut(l *Lease) bool {
	return s.queue(nil, cutWait, func(dst []byte) []byte { return appendRstStream(dst, l.dataID) }) == nil
}

// recycle ends what is left of a lease, and reports whether the session may
// carry another one: whether the server is done with all that the lease sent.
// If a pod does not take the bytes that are on their way to it, the worker that
// holds them waits, perhaps for ever; a later stream that meets that worker
// would hang. A ping that meets the same worker tells: the next one, as a rule,
// since streamIDs sees to it. What the pod may still send is dropped for as long
// as the runtime lives on, which is a second; where it sends much, the session
// is not worth that.
func (s *session) recycle(l *Lease, timeout time.Duration) bool {
	late, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id, pong := s.expectPong()
	defer s.forgetPong(id)
	err := s.sendBy(late.Done(), func(dst []byte) []byte {
		dst = appendRstStream(dst, l.dataID)
		for workerOf(l.dataID) != s.nextPinged() {
			skip, _ := s.expectPong()
			s.forgetPong(skip)
			dst = s.appendPing(dst, skip)
		}
		return s.appendPing(dst, id)
	})
	if err != nil {
		return false
	}
	select {
	case <-pong:
		return s.dropped.Load()-l.dropped <= strays
	case <-s.ctx.Done():
	case <-late.Done():
	}
	return false
}

// workerOf is the server's worker for a stream, and nextPinged the one that the
// next ping will meet: they are dealt in turn.
func workerOf(stream uint32) uint32   { return stream % serverWorkers }
func (s *session) nextPinged() uint32 { return uint32(s.pings.Load() % serverWorkers) }

// streamIDs chooses the identifiers of a lease's two streams, so that the next
// ping will meet the worker of the data stream. mu is held.
func (s *session) streamIDs() (errorID, dataID uint32) {
	errorID = s.nextID
	for workerOf(errorID) == s.nextPinged() {
		errorID += 2
	}
	s.nextID = errorID + 2
	return errorID, s.nextIDOf(s.nextPinged())
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
// life. Silence is unclear if our side of the connection has waited for the
// lease's owner to read, and while so much was sent that the pod may not take
// that the connection may be full.
func (s *session) ping(ctx context.Context, timeout time.Duration) (vitality, error) {
	if s.mayBeShared() {
		return s.pingShared(ctx, timeout)
	}
	late, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now().UnixNano()
	owed := s.debtOfLease()
	frames, bytes := owed.now()
	answered, err := s.volley(late.Done())
	if answered == serverWorkers {
		owed.pay(frames, bytes)
	}
	if answered > 0 {
		return alive, nil
	}
	return s.judgeSilence(ctx, began, err, frames >= serverQueue || bytes > onTheWay)
}

// judgeSilence is what it means that no ping was answered that was sent when it
// was began, or that none could be, for which err is the reason. full says that
// the connection may be.
func (s *session) judgeSilence(ctx context.Context, began int64, err error, full bool) (vitality, error) {
	switch {
	case ctx.Err() != nil:
		return unclear, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return unclear, nil // a write of the lease waits
	case err != nil:
		return dead, err
	case s.seen.Load() > began:
		return moving, nil
	case s.stalled.Load() > began || s.isLeft() || full:
		return unclear, nil
	}
	return dead, errNoAnswer
}

// A keeper is who keepalive asks and tells.
type keeper struct {
	// wanted reports whether the session is used, or was until lately.
	wanted func() bool
	// answered is told of each sign of life.
	answered func()
	// reachable finds out in another way whether the pod can be reached.
	reachable func(ctx context.Context) bool
	// gone reports whether the pod is known to be.
	gone func() bool
}

// isLeft reports whether the lease's owner has the turn to read, and does not.
func (s *session) isLeft() bool {
	s.mu.Lock()
	l := s.lease
	s.mu.Unlock()
	return l != nil && l.turn.isIdle()
}

// waits reports whether the lease's owner has waited that long for anything
// from the pod.
func (s *session) waits(d time.Duration) bool {
	s.mu.Lock()
	unread := slices.ContainsFunc(s.leases(), (*Lease).hasUnread)
	s.mu.Unlock()
	return !unread && !s.isLeft() && time.Since(time.Unix(0, s.carried.Load())) >= d
}

// keepalive pings every interval, and when soon says so, and fails the session
// when nothing answers within timeout. It returns when the session is dead. What
// answers is not the pod, though: when that is gone, its network may be, too, with
// what it would still have sent, and its connections stay open with nothing to end
// them.
func (s *session) keepalive(interval, timeout time.Duration, k keeper) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case id := <-s.echo:
			s.send(nil, func(dst []byte) []byte { return s.appendPing(dst, id) })
			continue
		case <-s.soon:
		case <-tick.C:
		}
		if !k.wanted() {
			s.fail(ErrClosed)
			return
		}
		if k.gone() && s.waits(interval) {
			s.fail(ErrPodGone)
			return
		}
		v, err := s.ping(s.ctx, timeout)
		if v == unclear && !s.isDead() && !k.reachable(s.ctx) {
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

// PingAll asks every upgraded connection for a sign of life now. It does not
// wait for the answers: what stays silent for PingTimeout is lost.
func (p *Pool) PingAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pc := range p.pods {
		for s := range pc.sessions {
			select {
			case s.soon <- struct{}{}:
			default: // it is about to
			}
		}
	}
}
