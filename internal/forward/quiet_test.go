package forward

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A connection may be drained for as long as bytes move, or an answer is owed.
func TestDrain(t *testing.T) {
	tests := []struct {
		name  string
		every time.Duration // how often something moves; 0: never
		owed  bool
		until time.Duration // the owed answer comes, or nothing moves any more
		want  time.Duration // when it is cut, give or take a look
	}{
		{"nothing moves", 0, false, 0, quietEnd},
		{"bytes move", drainLook, false, 2 * time.Second, 2*time.Second + quietEnd},
		{"bytes move too seldom", 2 * quietEnd, false, time.Minute, quietEnd},
		{"an answer is owed", 0, true, 2 * time.Second, 2 * time.Second},
		{"it takes too long", 0, true, time.Minute, 0},
		{"bytes move for too long", quietEnd / 2, false, time.Minute, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var after time.Duration
				p := new(port)
				conn := new(transfer)
				conn.cut = func() {
					if after == 0 {
						after = time.Since(began)
						go p.end(conn) // as serve does
					}
				}
				conn.owed.Store(tt.owed)
				p.begin(conn)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				go func() {
					end := time.After(tt.until)
					var tick <-chan time.Time
					if tt.every > 0 {
						ticker := time.NewTicker(tt.every)
						defer ticker.Stop()
						tick = ticker.C
					}
					for {
						select {
						case <-tick:
							conn.moves.Add(1)
						case <-end:
							conn.owed.Store(false)
							return
						case <-ctx.Done():
							return
						}
					}
				}()
				drain(ctx, map[Spec]*port{{}: p})
				if after < tt.want-drainLook || after > tt.want+2*drainLook {
					t.Errorf("cut after %v; want %v (0: not by drain)", after, tt.want)
				}
				if over := ctx.Err() != nil; over != (tt.want == 0) {
					t.Errorf("it waited until its end: %v", over)
				}
			})
		})
	}
}
