package claim

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		// rest is for how long it is not due.
		rest := func() time.Duration {
			began := time.Now()
			for !p.due() {
				time.Sleep(time.Second)
			}
			return time.Since(began)
		}
		row := []time.Duration{0, 0, 0, 20 * time.Second, 40 * time.Second, 80 * time.Second, paceMost, paceMost}
		for round := range 2 {
			for i, want := range row {
				if got := rest(); got != want {
					t.Errorf("round %d: due after %v the %dth time; want %v", round, got, i+1, want)
				}
				p.did()
			}
			time.Sleep(2*paceMost + 1)
		}
	})
}
