// Package await is how tests wait for something that another goroutine or
// process does: for a condition, never for a time.
package await

import (
	"testing"
	"time"
)

// limit is far beyond what any condition takes on a busy machine: reaching it
// means that the condition will not come true.
const limit = 30 * time.Second

// Until waits for ok to report true, and fails the test, naming what it waited
// for, if that does not happen. It calls ok at once and then every few
// milliseconds, on the test's goroutine.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v in vain for %s", limit, what)
		}
	}
}
