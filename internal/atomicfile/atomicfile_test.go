package atomicfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tunneld/tunneld/internal/atomicfile"
)

// only fails the test unless the directory holds just that file with that
// content.
func only(t *testing.T, path, content string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("%d files in the directory; want 1: %v", len(entries), entries)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != content {
		t.Errorf("content %q; want %q", got, content)
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := atomicfile.Write(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	only(t, path, "one")
	if err := atomicfile.Write(path, []byte("two"), 0o640); err != nil {
		t.Fatal(err)
	}
	only(t, path, "two")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o640 {
		t.Errorf("mode %v; want 0640", got)
	}
}

func TestFailureChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := atomicfile.Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	err := atomicfile.WriteFunc(path, []byte("new"), 0o600, func(temporary string) error {
		if got, err := os.ReadFile(temporary); err != nil || string(got) != "new" {
			t.Errorf("temporary file: %q, %v", got, err)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("error %v; want that of ready", err)
	}
	only(t, path, "old")
}

func TestDirectoryMissing(t *testing.T) {
	if err := atomicfile.Write(filepath.Join(t.TempDir(), "no", "file"), nil, 0o600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v; want not exist", err)
	}
}
