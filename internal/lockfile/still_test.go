package lockfile

import (
	"os"
	"path/filepath"
	"testing"
)

// A lock is taken again if its file was removed, or replaced, between the opening and
// the locking.
func TestStill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !still(f, path) {
		t.Error("the file is not what its path names")
	}
	second, err := os.Create(path + "2")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if still(second, path) {
		t.Error("another file is taken for it")
	}
	if still(f, path+"3") {
		t.Error("no file is taken for it")
	}
}
