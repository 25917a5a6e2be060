package forward

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// replayable is how much of what a client has sent is kept for another pod.
const replayable = 64 << 10

// A replay is the pod's side of a connection. As long as that says that nothing
// was delivered, it can be begun again with another pod, which gets what the
// client has sent so far. There is no way back once the pod has answered, or
// when the client has sent more than is kept.
type replay struct {
	open   func(context.Context) (Conn, error)
	ctx    context.Context
	cancel context.CancelFunc

	settled atomic.Bool // there is no way back
	// sending is a lock that can be waited for until the end. It is held while
	// the pod is written to, unless that is settled, and while another one is
	// looked for. It guards the following.
	sending chan struct{}
	sent    []byte
	ended   bool // by CloseWrite

	resending sync.WaitGroup

	mu     sync.Mutex // guards the following
	pod    Conn
	closed bool
}

// newReplay begins with a pod that open has opened; open may be called again
// until Close. Whoever has it must Close it.
func newReplay(ctx context.Context, pod Conn, open func(context.Context) (Conn, error)) *replay {
	r := &replay{open: open, pod: pod, sending: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r
}

// current is the pod's connection. After settle it stays the same.
func (r *replay) current() Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pod
}

// settle says that the pod has answered.
func (r *replay) settle() {
	if r.settled.Load() || r.settled.Swap(true) {
		return
	}
	select {
	case r.sending <- struct{}{}:
		r.sent = nil
		r.done()
	default: // then the next Write sees to it
	}
}

// Write sends to the pod. What comes of it before that is settled is told by
// reading from the pod.
func (r *replay) Write(p []byte) (int, error) {
	if r.settled.Load() {
		return r.current().Write(p)
	}
	if err := r.turn(); err != nil {
		return 0, err
	}
	defer r.done()
	if len(r.sent)+len(p) > replayable {
		r.settled.Store(true)
	}
	if r.settled.Load() {
		r.sent = nil
		return r.current().Write(p)
	}
	r.sent = append(r.sent, p...)
	r.current().Write(p)
	return len(p), nil
}

// CloseWrite tells the pod that no more bytes will come.
func (r *replay) CloseWrite() error {
	if err := r.turn(); err != nil {
		return err
	}
	defer r.done()
	r.ended = true
	return r.current().CloseWrite()
}

// turn waits until nobody else sends.
func (r *replay) turn() error {
	select {
	case r.sending <- struct{}{}:
		return nil
	case <-r.ctx.Done():
		return net.ErrClosed
	}
}

func (r *replay) done() { <-r.sending }

// again begins anew with another pod, if err, with which the pod's connection
// has ended, allows that. It returns why not.
func (r *replay) again(err error) error {
	if !errors.Is(err, ErrNotDelivered) || r.settled.Load() {
		return err
	}
	r.current().Close() // ends a Write that waits
	if r.turn() != nil {
		return err
	}
	if r.settled.Load() { // that Write was one too many
		r.done()
		return err
	}
	pod, failed := r.open(r.ctx)
	if failed != nil {
		r.done()
		return failed
	}
	if !r.replace(pod) {
		r.done()
		pod.Close()
		return err
	}
	return nil
}

// replace puts another pod in place, unless that is too late, and has it get
// what was sent. In the background, since a pod may want to be read meanwhile.
// The turn to send is the caller's, and passes over.
func (r *replay) replace(pod Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.pod = pod
	r.resending.Go(func() {
		defer r.done()
		if len(r.sent) > 0 {
			pod.Write(r.sent)
		}
		if r.ended {
			pod.CloseWrite()
		}
	})
	return true
}

// Close ends it, and closes the pod's connection. It is idempotent and waits.
func (r *replay) Close() error {
	r.mu.Lock()
	r.closed = true
	pod := r.pod
	r.mu.Unlock()
	r.cancel()
	err := pod.Close()
	r.resending.Wait()
	return err
}
