package setup

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A plan is shown to who may not read what it is about.
func TestLookAsAUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	w := newWorld(t)
	secret := []Item{FileItem("service", "/etc/secret", 0o600, nil, "")}
	w.apply(w.machine("1000"), secret)
	if err := os.Chmod(w.root, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := w.root; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread() // of which this is
	defer runtime.UnlockOSThread()
	if _, err := unix.SetfsuidRetUid(65534); err != nil {
		t.Fatal(err)
	}
	defer unix.SetfsuidRetUid(0)
	standing, err := w.machine("1000").Look(t.Context(), secret)
	if err != nil || !standing[0].Done || standing[0].Blocked != "" {
		t.Errorf("%+v, %v", standing, err)
	}
}
