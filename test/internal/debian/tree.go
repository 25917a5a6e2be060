//go:build linux

package debian

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A Suite is a Debian that machines are made from.
type Suite string

// The suites that the tests know.
const (
	Bookworm Suite = "bookworm" // 12: systemd 252
	Trixie   Suite = "trixie"   // 13: systemd 257
	Forky    Suite = "forky"    // the next: systemd 258 or newer
)

// like names the suite whose script debootstrap shall use, where it may have none
// for this one.
func (s Suite) like() string {
	if s == Forky {
		return string(Trixie)
	}
	return ""
}

// everywhere are the packages that every machine has, whether they run there or not.
func everywhere() []string {
	return []string{
		"systemd", "systemd-sysv", "systemd-resolved", "dbus", "libnss-resolve",
		"avahi-daemon", "libnss-mdns", "dnsmasq",
		"iproute2", "attr", "bind9-dnsutils", "curl", "ca-certificates", "strace",
	}
}

// finish is done to a new tree: two users, and nothing runs but what a test
// starts.
const finish = `
useradd --uid 1000 --create-home --shell /bin/bash dev
useradd --uid 1001 --create-home --shell /bin/bash other
echo names >/etc/hostname
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >/etc/hosts
rm -f /etc/resolv.conf
systemctl disable avahi-daemon.service avahi-daemon.socket dnsmasq systemd-resolved systemd-networkd
systemctl mask console-getty getty.target timers.target systemd-logind systemd-update-utmp systemd-update-utmp-runlevel
`

var building sync.Mutex // one tree at a time

// tree returns the suite's tree with further packages, which nobody writes to. The
// first time, it is made from the network, in about a minute, and kept in
// $NAMES_CACHE.
func (s Suite) tree(t *testing.T, further []string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	cache := os.Getenv("NAMES_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(user, "tunneld-names")
	}
	packages := slices.Concat(everywhere(), further)
	recipe := sha256.Sum256([]byte(s.like() + strings.Join(packages, ",") + finish))
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", s, recipe[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := s.build(cache, dir, packages); err != nil {
		t.Fatalf("make a tree of Debian %s: %v", s, err)
	}
	return dir
}

// build makes the tree beside its place: there it is whole, or not at all.
func (s Suite) build(cache, dir string, packages []string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	root := filepath.Join(work, "root")
	// What debootstrap mounts goes with it, however it ends.
	args := []string{"--mount", "debootstrap", "--variant=minbase", "--include=" + strings.Join(packages, ","), string(s), root, "http://deb.debian.org/debian"}
	if s.like() != "" {
		args = append(args, filepath.Join("/usr/share/debootstrap/scripts", s.like()))
	}
	if out, err := exec.Command("unshare", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("debootstrap: %w\n%s", err, Tail(out))
	}
	if out, err := exec.Command("chroot", root, "sh", "-ec", finish).CombinedOutput(); err != nil {
		return fmt.Errorf("finish: %w\n%s", err, Tail(out))
	}
	err = os.Rename(root, dir)
	if errors.Is(err, fs.ErrExist) { // somebody else was faster
		err = nil
	}
	return err
}

// Tail is the end of what a program printed.
func Tail(out []byte) string {
	const most = 4 << 10
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return string(out)
}
