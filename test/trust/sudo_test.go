//go:build trust

package trust

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/isolate"
)

// said is what tunnelctl may say of a failure: a sentence for each thing that has
// failed, and hints.
var said = regexp.MustCompile(`^(tunnelctl: hint: [^\n]+\n)*(tunnelctl: error: [^\n]+\n(tunnelctl: hint: [^\n]+\n)*)+$`)

// checkSaid fails the test unless the program failed with that status and said so
// in sentences that have these words in them.
func (m *machine) checkSaid(o outcome, status int, words ...string) {
	m.t.Helper()
	if o.status != status || !said.MatchString(o.errOut) {
		m.t.Errorf("%v\nwant exit status %d, sentences, and hints", o, status)
	}
	for _, w := range words {
		if !strings.Contains(o.errOut, w) {
			m.t.Errorf("%v\nwant it to say %q", o, w)
		}
	}
}

// TestSudo has root install for a user, however sudo is set, and shows that nothing
// goes to root's home, and nothing of root's to the user's.
func TestSudo(t *testing.T) {
	t.Parallel()
	if !isolate.Test(t) {
		return
	}
	m := boot(t)
	m.startDaemon()
	m.startBrowsersOnce(dev)
	other := user{31002, "other", "/home/other"}
	m.addUser(other)
	m.script("mkdir -p /root/.pki /root/.mozilla/firefox/some.profile; certutil -N --empty-password -d sql:/root/.mozilla/firefox/some.profile")
	before := m.snapshot()
	userOnly := []string{"--only", "user"} // the rest takes its time, and was seen by then
	for _, c := range []struct {
		name string
		sudo []string
		args []string // of tunnelctl trust
	}{
		{"plain", []string{"sudo"}, nil},
		{"keeps the environment", []string{"env", "XDG_CONFIG_HOME=/home/dev/elsewhere", "sudo", "-E"}, nil},
		{"with root's home", []string{"sudo", "-H"}, userOnly},
		{"with the home of somebody else", []string{"sudo", "HOME=" + other.home, "XDG_DATA_HOME=" + other.home}, userOnly},
		{"with a home that is nowhere", []string{"sudo", "HOME=/nowhere"}, userOnly},
		{"in a home that is not root's to enter", []string{"sh", "-c", `cd && chmod 700 . && exec sudo "$@"`, "sh"}, userOnly},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := m.in(t)
			do := func(args ...string) {
				t.Helper()
				m.run(dev, c.sudo[0], append(slices.Clone(c.sudo[1:]), args...)...)
			}
			do(append([]string{"tunnelctl", "trust", "--yes"}, c.args...)...)
			if refused := clients[0].get(m, dev); refused != "" && c.args == nil {
				t.Errorf("%s does not trust it: %s", clients[0].family, refused)
			}
			m.script("chmod 755 /home/dev") // as at first
			installed := m.snapshot()
			if diff := differences(below(before, "/root", other.home), below(installed, "/root", other.home)); diff != "" {
				t.Errorf("in homes that are not the user's:\n%s", diff)
			}
			if differences(below(before, dev.home), below(installed, dev.home)) == "" {
				t.Error("nothing was installed in the user's home")
			}
			m.checkOwner(dev)
			do(append([]string{"tunnelctl", "trust", "--remove", "--yes"}, c.args...)...)
			m.checkOwner(dev)
			m.script("chmod 755 /home/dev")
			m.checkSame("after a removal", before)
		})
	}
	t.Run("for nobody that there is", func(t *testing.T) {
		m := m.in(t)
		for _, uid := range []string{"4242", "-1", "4294967296", "dev", "0x7919", "31001 "} {
			m.checkSaid(m.with("SUDO_UID="+uid).try(root, "tunnelctl", "trust", "--yes"), 1, "SUDO_UID")
			m.checkSame("after SUDO_UID="+uid, before)
		}
	})
	t.Run("as root", func(t *testing.T) {
		m := m.in(t)
		m.checkSaid(m.try(root, "tunnelctl", "trust", "--yes"), 3) // root has no daemon
		m.checkSame("after that", before)
	})
}

// TestUserWithoutName has a user whom the system's list does not have, as in
// containers.
func TestUserWithoutName(t *testing.T) {
	t.Parallel()
	if !isolate.Test(t) {
		return
	}
	m := boot(t)
	nameless := user{31003, "", "/home/nameless"}
	m.script("install -d -o 31003 -g 31003 " + nameless.home + "; install -d -m 700 -o 31003 -g 31003 " + nameless.runtime())
	d := &daemon{m: m, user: nameless}
	d.start()
	before := m.snapshot()
	m.run(nameless, "tunnelctl", "trust", "--yes")
	if differences(below(before, nameless.home), below(m.snapshot(), nameless.home)) == "" {
		t.Error("nothing was installed in the user's home")
	}
	m.checkOwner(nameless)
	m.run(nameless, "tunnelctl", "trust", "--remove", "--yes")
	m.checkSame("after a removal", before)
	// Root finds no home to do it in.
	m.checkSaid(m.with("SUDO_UID=31003").try(root, "tunnelctl", "trust", "--yes"), 1, "31003")
	m.checkSame("after that", before)
}

// below is what is described below these directories.
func below(described map[string]string, dirs ...string) map[string]string {
	found := maps.Clone(described)
	maps.DeleteFunc(found, func(path, _ string) bool {
		return !slices.ContainsFunc(dirs, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
	})
	return found
}

// checkOwner fails the test if something in the user's home is not theirs.
func (m *machine) checkOwner(u user) {
	m.t.Helper()
	err := filepath.WalkDir(u.home, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != uint32(u.uid) {
			m.t.Errorf("%s is not the user's", path)
		}
		return err
	})
	if err != nil {
		m.t.Error(err)
	}
}
