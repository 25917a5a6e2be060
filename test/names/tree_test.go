//go:build names

package names

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A suite is a Debian that machines are made from.
type suite struct {
	name string
	// like names the suite whose script debootstrap shall use, where it has
	// none for this one.
	like string
}

var (
	bookworm = &suite{name: "bookworm"}              // systemd 252
	trixie   = &suite{name: "trixie"}                // systemd 257
	forky    = &suite{name: "forky", like: "trixie"} // systemd 258 or newer
)

// packages are what every machine has, whether it runs there or not.
var packages = []string{
	"systemd", "systemd-sysv", "systemd-resolved", "dbus", "libnss-resolve",
	"avahi-daemon", "libnss-mdns", "dnsmasq",
	"iproute2", "attr", "bind9-dnsutils", "curl", "ca-certificates", "strace",
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

// tree returns the suite's tree, which nobody writes to. The first time, it is
// made from the network, in less than a minute, and kept in $NAMES_CACHE.
func (s *suite) tree(t *testing.T) string {
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
	recipe := sha256.Sum256([]byte(s.like + strings.Join(packages, ",") + finish))
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", s.name, recipe[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := s.make(cache, dir); err != nil {
		t.Fatalf("make a tree of Debian %s: %v", s.name, err)
	}
	return dir
}

// make builds the tree beside its place: there it is whole, or not at all.
func (s *suite) make(cache, dir string) error {
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
	args := []string{"--mount", "debootstrap", "--variant=minbase", "--include=" + strings.Join(packages, ","), s.name, root, "http://deb.debian.org/debian"}
	if s.like != "" {
		args = append(args, filepath.Join("/usr/share/debootstrap/scripts", s.like))
	}
	if out, err := exec.Command("unshare", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("debootstrap: %w\n%s", err, tail(out))
	}
	if out, err := exec.Command("chroot", root, "sh", "-ec", finish).CombinedOutput(); err != nil {
		return fmt.Errorf("finish: %w\n%s", err, tail(out))
	}
	err = os.Rename(root, dir)
	if errors.Is(err, fs.ErrExist) { // somebody else was faster
		err = nil
	}
	return err
}

// tail is the end of what a program printed.
func tail(out []byte) string {
	const most = 4 << 10
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return string(out)
}
