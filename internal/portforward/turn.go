package portforward

import (
	"net"
	"sync"
	"time"
)

// A turn is the right to read from a session's connection, as far as the owner
// of its lease may have it. An owner that waits for more reads for itself, which
// saves it from being woken for each frame by the session's run. It then keeps
// the turn, whether it reads or not, until the lease ends; frames that are not
// data are handled by whoever reads.
type turn struct {
	conn net.Conn
	lent chan struct{} // cap 1; tells the owner
	back chan struct{} // cap 1; tells run

	mu          sync.Mutex // guards the following
	wanted      bool       // the owner waits
	held        bool       // by the owner
	reading     bool       // and it is at it
	interrupted bool
	over        bool // the lease has ended
}

func newTurn(conn net.Conn) turn {
	return turn{conn: conn, lent: make(chan struct{}, 1), back: make(chan struct{}, 1)}
}

// want says whether the owner waits, and would take the turn.
func (t *turn) want(wanted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wanted = wanted
}

// lend gives the turn to the owner if it waits. The caller must not read until
// it is back.
func (t *turn) lend() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.wanted || t.over {
		return false
	}
	t.wanted, t.held = false, true
	t.lent <- struct{}{}
	return true
}

// begin reports whether the owner has the turn, and may read.
func (t *turn) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reading = t.held
	return t.reading
}

// end is called when the owner does not read any more, for now.
func (t *turn) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reading = false
	t.forgetInterruption()
	if t.over {
		t.giveBack()
	}
}

// resume is called before the owner reads on after an interruption. It must then
// look for the reason once more.
func (t *turn) resume() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetInterruption()
}

// interrupt has the owner's read return, if it is at one.
func (t *turn) interrupt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopReading()
}

// finish takes the turn back for good, as soon as a read has returned.
func (t *turn) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.held && !t.reading {
		t.giveBack()
	}
	t.stopReading()
}

// stopReading needs mu.
func (t *turn) stopReading() {
	if t.reading {
		t.interrupted = true
		t.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// forgetInterruption needs mu.
func (t *turn) forgetInterruption() {
	if t.interrupted {
		t.interrupted = false
		t.conn.SetReadDeadline(time.Time{})
	}
}

// giveBack needs mu.
func (t *turn) giveBack() {
	t.held = false
	t.back <- struct{}{}
}

// isIdle reports whether the owner has the turn and does not read.
func (t *turn) isIdle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held && !t.reading
}
