package osdns

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/isolate"
	"github.com/tunneld/tunneld/internal/osdns/machine"
)

func write(t *testing.T, path, data string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// content fails the test unless the file has that content, and nothing of ours is
// beside it.
func content(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("content %q; want %q", got, want)
	}
	if _, err := os.Lstat(machine.Temporary(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file: %v; want that it is gone", err)
	}
}

func TestHostsBehindALink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hosts")
	write(t, filepath.Join(dir, "real"), "x\n", 0o644)
	if err := os.Symlink("real", path); err != nil {
		t.Fatal(err)
	}
	h := hosts{System: machine.New(), path: path, lines: hostsLines, eol: "\n"}
	if err := h.apply(t.Context(), claim("1000", "a.local")); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(path); to != "real" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	content(t, filepath.Join(dir, "real"), "x\n# BEGIN tunneld 1000\n127.77.0.1 a.local # tunneld 1000\n# END tunneld 1000\n")
	if err := h.remove(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	content(t, filepath.Join(dir, "real"), "x\n")
}

// Who writes to the hosts file while we do keeps what he has written.
func TestHostsChangedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "x\n", 0o644)
	s := machine.New()
	swap := s.SwapFile
	others := []string{"x\ny\n", "z\n"}
	s.SwapFile = func(path string, old, data []byte) error {
		if len(others) > 0 {
			write(t, path, others[0], 0o644)
			others = others[1:]
		}
		return swap(path, old, data)
	}
	h := hosts{System: s, path: path, lines: hostsLines, eol: "\n"}
	if err := h.apply(t.Context(), claim("1000", "a.local")); err != nil {
		t.Fatal(err)
	}
	content(t, path, "z\n# BEGIN tunneld 1000\n127.77.0.1 a.local # tunneld 1000\n# END tunneld 1000\n")
}

// Where the hosts file is read-only, as in some containers, there is nothing of ours in
// it, and that is no error.
func TestHostsReadOnly(t *testing.T) {
	if !isolate.Test(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "theirs", 0o644)
	dir := filepath.Dir(path)
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	h := hosts{System: machine.New(), path: path, lines: hostsLines, eol: "\n"}
	if err := h.remove(t.Context(), "1000"); err != nil {
		t.Errorf("to remove nothing from what is read-only: %v", err)
	}
	content(t, path, "theirs")
}

func TestLinkNames(t *testing.T) {
	for owner, want := range map[string]string{"0": "tunneld-0", "1000": "tunneld-rs", "4294967295": "tunneld-1z141z3", "4294967296": "", "x": ""} {
		got, err := linkName(owner)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("owner %s: %q, %v; want %q", owner, got, err, want)
		}
		if len(got) >= unix.IFNAMSIZ || got != "" && !strings.Contains(got, "-") {
			t.Errorf("%q is no name for both ends", got)
		}
	}
}
