package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/isolate"
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
	if _, err := os.Lstat(Temporary(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file: %v; want that it is gone", err)
	}
}

func TestReplaceKeepsWhatTheFileHad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "old", 0o664)
	write(t, Temporary(path), "what a crash has left", 0o600)
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
	if err := New().SwapFile(path, []byte("old"), []byte("new")); err != nil {
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
	if err := New().ReplaceFile(path, []byte("new")); err != nil {
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
		if err := New().SwapFile(path, old, []byte("new")); !errors.Is(err, ErrChanged) {
			t.Errorf("error %v; want %v", err, ErrChanged)
		}
		content(t, path, "theirs")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := New().SwapFile(path, []byte{}, []byte("new")); !errors.Is(err, ErrChanged) {
		t.Errorf("error %v; want %v", err, ErrChanged)
	}
}

// A file with two names has the same content by both afterwards.
func TestReplaceOfAFileWithTwoNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "the old content", 0o644)
	if err := os.Link(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	if err := New().ReplaceFile(path, []byte("the new one")); err != nil {
		t.Fatal(err)
	}
	content(t, path, "the new one")
	content(t, path+"2", "the new one")
}

// In containers, the hosts file is often a mount point, and what is around it may be
// read-only.
func TestReplaceOfAMountPoint(t *testing.T) {
	if !isolate.Test(t) {
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
	if err := New().SwapFile(path, []byte("old"), []byte("old and new")); err != nil {
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
	if err := New().SwapFile(path, []byte("old and new"), []byte("old")); err != nil {
		t.Fatal(err)
	}
	content(t, path, "old")

	// And where the file is read-only itself, it is an error, and what it was.
	if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := New().SwapFile(path, []byte("old"), []byte("new")); !errors.Is(err, unix.EROFS) {
		t.Errorf("error %v; want %v", err, unix.EROFS)
	}
	content(t, path, "old")
}

func TestLinks(t *testing.T) {
	if !isolate.Test(t) {
		return
	}
	const name = "tunneld-1z141z3"
	s := New()
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
	if err := s.AddLink(name); !errors.Is(err, ErrForeignLink) {
		t.Errorf("error %v; want %v", err, ErrForeignLink)
	}
	if err := s.RemoveLink(name); !errors.Is(err, ErrForeignLink) {
		t.Errorf("error %v; want %v", err, ErrForeignLink)
	}
}

// On a disk that is full, what was in the file is in it still, also where it cannot be
// replaced, and nothing is beside it.
func TestReplaceOnAFullDisk(t *testing.T) {
	if !isolate.Test(t) {
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
	if err := New().SwapFile(path, []byte(old), full); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v; want %v", err, unix.ENOSPC)
	}
	content(t, path, old)
	if err := os.Link(path, path+"2"); err != nil { // so it is written to in place
		t.Fatal(err)
	}
	if err := New().SwapFile(path, []byte(old), full); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("in place: error %v; want %v", err, unix.ENOSPC)
	}
	content(t, path, old)
}
