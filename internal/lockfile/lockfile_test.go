package lockfile_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/tunneld/tunneld/internal/lockfile"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := lockfile.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	// Locks belong to open files, so a second one in this process will do.
	if _, err := lockfile.Lock(path); !errors.Is(err, lockfile.ErrLocked) {
		t.Errorf("second lock: %v; want ErrLocked", err)
	}
	release()
	again, err := lockfile.Lock(path)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again()
}
