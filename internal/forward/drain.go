package forward

import (
	"context"
	"time"
)

const (
	// quietEnd is how long nothing may move on a connection that is drained.
	quietEnd = 500 * time.Millisecond
	// drainLook is how often that is looked at.
	drainLook = 50 * time.Millisecond
)

// drain waits for the ports' connections to end, until ctx is done. One on which
// nothing moves is cut, unless the pod owes an answer: a session that waits for
// its user to type would wait longer than anybody waits for us.
func drain(ctx context.Context, ports map[Spec]*port) {
	if ctx.Err() != nil {
		return
	}
	type look struct {
		moves int64
		since time.Time
	}
	last := make(map[*transfer]look)
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for {
		now, left := time.Now(), 0
		for _, p := range ports {
			p.mu.Lock()
			for t := range p.transfers {
				left++
				moves := t.moves.Load()
				if before, known := last[t]; !known || before.moves != moves {
					last[t] = look{moves, now}
				} else if now.Sub(before.since) >= quietEnd && !t.owed.Load() {
					t.cut()
				}
			}
			p.mu.Unlock()
		}
		if left == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
