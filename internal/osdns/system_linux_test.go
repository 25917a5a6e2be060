package osdns

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isolated names the variable that a test finds in namespaces of its own.
const isolated = "TUNNELD_TEST_ISOLATED"

// isolate runs the test again in namespaces of its own, of mounts and of the
// network, and reports whether it is there. It takes root.
func isolate(t *testing.T) bool {
	t.Helper()
	if os.Getenv(isolated) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("namespaces take root")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skip(err) // root of a container
	}
	t.Logf("\n%s", out)
	switch {
	case err != nil:
		t.Error(err)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()+" "):
		t.Skip("the test in the namespaces skipped itself")
	}
	return false
}

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
	if _, err := os.Lstat(temporary(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file: %v; want that it is gone", err)
	}
}

func TestReplaceKeepsWhatTheFileHad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "old", 0o664)
	write(t, temporary(path), "what a crash has left", 0o600)
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 1234, 5678
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	err := unix.Setxattr(path, "user.tunneld", []byte("a label"), 0)
	labels := err == nil
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	if err := NewSystem().SwapFile(path, []byte("old"), []byte("new")); err != nil {
		t.Fatal(err)
	}
	content(t, path, "new")
	var info unix.Stat_t
	if err := unix.Stat(path, &info); err != nil {
		t.Fatal(err)
	}
	if int(info.Uid) != uid || int(info.Gid) != gid || info.Mode&0o7777 != 0o664 {
		t.Errorf("owner %d:%d, mode %o; want %d:%d, 664", info.Uid, info.Gid, info.Mode&0o7777, uid, gid)
	}
	label := make([]byte, 100)
	if n, err := unix.Getxattr(path, "user.tunneld", label); labels && string(label[:max(n, 0)]) != "a label" {
		t.Errorf("the label is %q, %v", label[:max(n, 0)], err)
	}
}

func TestReplaceNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	if err := NewSystem().ReplaceFile(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	content(t, path, "new")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v; want 0644", info.Mode())
	}
}

func TestSwapOfAFileThatWasChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "theirs", 0o644)
	for _, old := range [][]byte{[]byte("old"), {}, nil} {
		if err := NewSystem().SwapFile(path, old, []byte("new")); !errors.Is(err, errChanged) {
			t.Errorf("error %v; want %v", err, errChanged)
		}
		content(t, path, "theirs")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := NewSystem().SwapFile(path, []byte{}, []byte("new")); !errors.Is(err, errChanged) {
		t.Errorf("error %v; want %v", err, errChanged)
	}
}

// A file with two names has the same content by both afterwards.
func TestReplaceOfAFileWithTwoNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "the old content", 0o644)
	if err := os.Link(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	if err := NewSystem().ReplaceFile(path, []byte("the new one")); err != nil {
		t.Fatal(err)
	}
	content(t, path, "the new one")
	content(t, path+"2", "the new one")
}

// In containers, the hosts file is often a mount point, and what is around it may be
// read-only.
func TestReplaceOfAMountPoint(t *testing.T) {
	if !isolate(t) {
		return
	}
	dir := t.TempDir()
	path, elsewhere := filepath.Join(dir, "etc", "hosts"), filepath.Join(dir, "hosts")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, path, "under it", 0o644)
	write(t, elsewhere, "old", 0o644)
	if err := unix.Mount(elsewhere, path, "", unix.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(path, unix.MNT_DETACH)
	if err := NewSystem().SwapFile(path, []byte("old"), []byte("old and new")); err != nil {
		t.Fatal(err)
	}
	content(t, path, "old and new")
	content(t, elsewhere, "old and new")

	etc := filepath.Dir(path)
	if err := unix.Mount(etc, etc, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(etc, unix.MNT_DETACH)
	if err := unix.Mount("", etc, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := NewSystem().SwapFile(path, []byte("old and new"), []byte("old")); err != nil {
		t.Fatal(err)
	}
	content(t, path, "old")

	// And where the file is read-only itself, it is an error, and what it was.
	if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := NewSystem().SwapFile(path, []byte("old"), []byte("new")); !errors.Is(err, unix.EROFS) {
		t.Errorf("error %v; want %v", err, unix.EROFS)
	}
	content(t, path, "old")
	h := hosts{System: NewSystem(), path: path, lines: hostsLines, eol: "\n"}
	if err := h.remove(t.Context(), "1000"); err != nil {
		t.Errorf("to remove nothing from what is read-only: %v", err)
	}
}

func TestHostsBehindALink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hosts")
	write(t, filepath.Join(dir, "real"), "x\n", 0o644)
	if err := os.Symlink("real", path); err != nil {
		t.Fatal(err)
	}
	h := hosts{System: NewSystem(), path: path, lines: hostsLines, eol: "\n"}
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
	s := NewSystem()
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

func TestLinks(t *testing.T) {
	if !isolate(t) {
		return
	}
	const name = "tunneld-1z141z3"
	s := NewSystem()
	if _, err := s.LinkIsOurs(name); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("error %v; want %v", err, fs.ErrNotExist)
	}
	for range 2 { // a second time mends what is missing
		if err := s.AddLink(name); errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		if ours, err := s.LinkIsOurs(name); !ours || err != nil {
			t.Errorf("ours: %v, %v", ours, err)
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		if len(addrs) != 1 || addrs[0].IPNet.String() != dummyAddr.String() {
			t.Errorf("addresses %v; want %v only", addrs, &dummyAddr)
		}
		if err := netlink.AddrDel(l, &addrs[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RemoveLink(name); err != nil {
		t.Fatal(err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(links, func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, "tunneld") }); i >= 0 {
		t.Errorf("%s is left", links[i].Attrs().Name)
	}

	// One of the same name, whose other end has another than ours.
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "theirs"}); err != nil {
		t.Fatal(err)
	}
	if ours, err := s.LinkIsOurs(name); ours || err != nil {
		t.Errorf("ours: %v, %v; want false", ours, err)
	}
	if err := s.AddLink(name); !errors.Is(err, errForeignLink) {
		t.Errorf("error %v; want %v", err, errForeignLink)
	}
	if err := s.RemoveLink(name); !errors.Is(err, errForeignLink) {
		t.Errorf("error %v; want %v", err, errForeignLink)
	}
}

func TestLinkNames(t *testing.T) {
	for owner, want := range map[string]string{"0": "tunneld-0", "1000": "tunneld-rs", "4294967295": "tunneld-1z141z3", "4294967296": "", "x": ""} {
		got, err := linkName(owner)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("owner %s: %q, %v; want %q", owner, got, err, want)
		}
		if len(got) >= unix.IFNAMSIZ || len(peerName(got)) >= unix.IFNAMSIZ || got != "" && peerName(got) == got {
			t.Errorf("%q and %q are no names for both ends", got, peerName(got))
		}
	}
}

func TestLookup(t *testing.T) {
	if _, err := program("getent"); err != nil {
		t.Skip(err)
	}
	if !isolate(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "127.77.0.1 a.local b.local\n127.77.0.2 c.local\n", 0o644)
	switchPath := filepath.Join(t.TempDir(), "nsswitch.conf")
	write(t, switchPath, "hosts: files\n", 0o644)
	for from, to := range map[string]string{path: hostsPath, switchPath: nsswitchPath} {
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			t.Skip(err)
		}
	}
	got, err := Lookup(t.Context(), "b.local", "missing.local", "--help", "", "c.local", "a.local", "a.local")
	if err != nil {
		t.Fatal(err)
	}
	one, two := []netip.Addr{netip.MustParseAddr("127.77.0.1")}, []netip.Addr{netip.MustParseAddr("127.77.0.2")}
	want := map[string][]netip.Addr{"a.local": one, "b.local": one, "c.local": two}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if got, err := Lookup(t.Context()); len(got) != 0 || err != nil {
		t.Errorf("no names: %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lookup(ctx, "a.local"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want %v", err, context.Canceled)
	}
}

// On a disk that is full, what was in the file is in it still, also where it cannot be
// replaced, and nothing is beside it.
func TestReplaceOnAFullDisk(t *testing.T) {
	if !isolate(t) {
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=12k"); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path := filepath.Join(dir, "hosts")
	old := "ours\n" + strings.Repeat("theirs\n", 1000)
	full := []byte(strings.Repeat("ours\n", 1500) + strings.Repeat("theirs\n", 1000))
	write(t, path, old, 0o644)
	if err := NewSystem().SwapFile(path, []byte(old), full); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v; want %v", err, unix.ENOSPC)
	}
	content(t, path, old)
	if err := os.Link(path, path+"2"); err != nil { // so it is written to in place
		t.Fatal(err)
	}
	if err := NewSystem().SwapFile(path, []byte(old), full); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("in place: error %v; want %v", err, unix.ENOSPC)
	}
	content(t, path, old)
}
