package daemon_test

import (
	"slices"
	"testing"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/daemon"
)

// Where listeners are kept over a restart, names are, too.
func TestNamesStayOverARestart(t *testing.T) {
	h, _ := newNamed(t, app)
	h.stop()
	h.manager = daemon.PlayManager(t)
	h.start(t)
	await.Until(t, "the names to be claimed", func() bool { return len(h.system.has()) == 3 })
	before := h.system.has()
	h.stop()
	if left := h.system.has(); !slices.Equal(left, before) {
		t.Errorf("%v are claimed after the end; want %v", left, before)
	}
}
