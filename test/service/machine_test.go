//go:build service

package service

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/test/internal/debian"
)

// The users of a machine.
const (
	root  = debian.Root
	dev   = debian.Dev // for whom it is installed
	other = debian.Other
)

const (
	service     = "task-api"
	daemonUnit  = "tunneld@1000.service"
	helperUnit  = "tunneld-helper@1000.service"
	socketUnit  = "tunneld-helper@1000.socket"
	helper      = "/usr/libexec/tunneld-helper"
	policy      = "/etc/tunneld/helper/1000.json"
	receipt     = "/var/lib/tunneld/install/1000.json"
	opt         = debian.Programs
	kubeconfig  = "/home/dev/.kube/config"
	nssDatabase = "/home/dev/.pki/nssdb"
)

// An environment is one way in which a system resolves names.
type environment struct {
	name  string
	suite debian.Suite
	setup string // a script for a machine that has just booted
	rung  string // carries our names there
}

// environments are those of every run, and further ones of the long form.
func environments() []environment {
	list := []environment{
		{"resolved", debian.Bookworm, debian.Resolved, "resolved-link"},
		{"mdns", debian.Bookworm, debian.MDNS, "hosts"},
	}
	if soak {
		list = append(list,
			environment{"trixie resolved", debian.Trixie, debian.Resolved, "resolved-link"},
			environment{"trixie mdns", debian.Trixie, debian.MDNS, "hosts"},
		)
	}
	return list
}

// inEach runs a test in each environment, on a machine of its own. Much of what tests
// do is to wait, so some run at the same time.
func inEach(t *testing.T, test func(*machine)) {
	t.Parallel()
	for _, e := range environments() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(newMachine(t, e))
		})
	}
}

// onOne runs a test on one machine, or on one for each suite in the long form: for
// what is the same however names resolve.
func onOne(t *testing.T, test func(*machine)) {
	t.Parallel()
	list := environments()
	for _, e := range []environment{list[0], list[len(list)-1]} {
		if e.suite == debian.Bookworm && e.name != list[0].name {
			continue
		}
		t.Run(string(e.suite), func(t *testing.T) {
			t.Parallel()
			test(newMachine(t, e))
		})
	}
}

// A machine is one that was booted for a test, with a cluster in its network.
type machine struct {
	*debian.Machine
	env     environment
	tunneld string // is run to install it
}

// newMachine boots a machine with two users, of whom one has a kubeconfig and may use
// sudo.
func newMachine(t *testing.T, e environment) *machine {
	t.Helper()
	m := &machine{env: e, tunneld: "/usr/bin/tunneld", Machine: debian.Boot(t, debian.Options{
		Suite: e.suite, Packages: []string{"sudo", "libnss3-tools"}, Programs: programs, Uplink: true,
	})}
	m.Explain = `cat /etc/hosts ` + receipt + `; ls -lR /etc/tunneld /var/lib/tunneld* /run/tunneld* /home/dev/.config /home/dev/.local; systemctl --all --no-pager list-units "tunneld*"`
	config := filepath.Join(t.TempDir(), "kubeconfig")
	m.Outside("upstream", debian.UplinkAddress+":53")
	m.Outside("cluster", config, debian.UplinkAddress+":6443")
	m.Script(e.setup + `
echo '127.0.1.1 names' >>/etc/hosts
printf 'dev ALL=(ALL) NOPASSWD: ALL\nDefaults !lecture\n' >/etc/sudoers.d/dev
chmod 440 /etc/sudoers.d/dev
chmod 700 /home/dev /home/other
update-ca-certificates 2>&1 # what the tree left undone is none of ours
`)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	for uid, home := range map[int]string{dev: "/home/dev", other: "/home/other"} {
		m.writeAs(uid, home+"/.kube/config", string(text))
	}
	m.Run(dev, "sh", "-euc", "mkdir -p "+nssDatabase+"; certutil -N --empty-password -d sql:"+nssDatabase)
	return m
}

// in is the same machine for a subtest.
func (m *machine) in(t *testing.T) *machine {
	sub := *m
	sub.Machine = m.Machine.In(t)
	return &sub
}

// step is a subtest on the same machine, without which the rest makes no sense.
func (m *machine) step(name string, test func(*machine)) {
	m.T.Helper()
	if !m.T.Run(name, func(t *testing.T) { test(m.in(t)) }) {
		m.T.FailNow()
	}
}

// check is a subtest on the same machine, which leaves it as it is.
func (m *machine) check(name string, test func(*machine)) {
	m.T.Helper()
	m.T.Run(name, func(t *testing.T) { test(m.in(t)) })
}

// writeAs writes a file of a user's, which nobody else can read.
func (m *machine) writeAs(uid int, path, text string) {
	m.T.Helper()
	cmd := m.Command(m.T.Context(), uid, "sh", "-euc", `umask 077; mkdir -p "$(dirname "$0")"; cat >"$0"`, path)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.T.Fatalf("write %s: %v\n%s", path, err, out)
	}
}

// An outcome is how a program ended.
type outcome struct {
	status int
	text   string // what it printed
}

// outcome runs a program, however it ends.
func (m *machine) outcome(uid int, program string, args ...string) outcome {
	m.T.Helper()
	out, err := m.Command(m.T.Context(), uid, program, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.T.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	if err == nil {
		return outcome{0, string(out)}
	}
	return outcome{exit.ExitCode(), string(out)}
}

// installPackage installs the package of that version, without a network.
func (m *machine) installPackage(version string) {
	m.T.Helper()
	m.Run(root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q", opt+"tunneld_"+version+".deb")
}

// install installs tunneld for the user, with root's means.
func (m *machine) install(args ...string) {
	m.T.Helper()
	m.Run(root, m.tunneld, append([]string{"install", "--yes", "--user", "dev"}, args...)...)
}

// uninstall takes it out, and returns what that says.
func (m *machine) uninstall(args ...string) string {
	m.T.Helper()
	o := m.outcome(root, m.tunneld, append([]string{"uninstall", "--yes", "--user", "dev"}, args...)...)
	if o.status != 0 {
		m.T.Errorf("uninstall: exit status %d\n%s", o.status, o.text)
	}
	return o.text
}

// add adds the forward, and waits until all is there that a browser needs.
func (m *machine) add() {
	m.T.Helper()
	m.Run(dev, "tunnelctl", "add", service, "--wait")
	m.awaitNames()
}

// awaitNames waits until names are claimed in the way that is expected.
func (m *machine) awaitNames() {
	m.T.Helper()
	var s status.Status
	await.Until(m.T, "the system to ask for our names", func() bool {
		s = m.status()
		return s.DNS.Rung != "" && s.DNS.Hint == ""
	})
	if s.DNS.Rung != m.env.rung {
		m.T.Errorf("names are claimed by %s (%s; passed %+v); want %s", s.DNS.Rung, s.DNS.Why, s.DNS.Passed, m.env.rung)
	}
}

// status asks the daemon, once it answers.
func (m *machine) status() (s status.Status) {
	m.T.Helper()
	await.Until(m.T, "the daemon to answer", func() bool {
		out, err := m.Try(dev, "tunnelctl", "status", "-o", "json")
		return err == nil && json.Unmarshal([]byte(out), &s) == nil
	})
	return s
}

// checkWorks fetches what a browser would, without any help.
func (m *machine) checkWorks() {
	m.T.Helper()
	m.checkFetch(dev, "https://"+service+".local/health")
}

func (m *machine) checkFetch(uid int, url string) {
	m.T.Helper()
	got, err := m.Try(uid, "curl", "-sS", "--fail", "--max-time", "40", url)
	if err != nil || got != `{"status": "healthy"}` {
		m.T.Errorf("curl %s: %s, %v", url, got, err)
	}
}

// caches are what the system writes for itself, which says nothing about us: what
// systemd, apt and dpkg remember, and logs.
func caches() []string {
	return []string{"/var/lib/systemd", "/var/lib/apt", "/var/lib/dpkg", "/var/cache", "/var/log", "/var/tmp"}
}

// snapshot describes all that an installation might change, but for times: each file
// of the system and of all homes that is not what it was when the machine was made; what is in trust stores, whose files are written anew
// each time; network interfaces and resolvers; and units of ours.
func (m *machine) snapshot() map[string]string {
	m.T.Helper()
	found := m.Changed("/etc", "/usr", "/opt", "/var", "/root", "/home", "/srv")
	maps.DeleteFunc(found, func(path, _ string) bool {
		return slices.ContainsFunc(caches(), func(cache string) bool { return path == cache || strings.HasPrefix(path, cache+"/") })
	})
	for _, name := range []string{"cert9.db", "key4.db"} {
		delete(found, filepath.Join(nssDatabase, name))
	}
	found["certificates of "+nssDatabase] = m.Run(dev, "certutil", "-L", "-d", "sql:"+nssDatabase)
	maps.Copy(found, m.Network())
	found["units"] = m.Run(root, "systemctl", "--all", "--no-legend", "--plain", "list-units", "tunneld*")
	found["processes"] = m.processes()
	return found
}

// processes are the names of those of ours that run.
func (m *machine) processes() string {
	m.T.Helper()
	return m.Script(`cat /proc/[0-9]*/status 2>/dev/null | awk '/^Name:/ { name = $2 } /^State:/ && name ~ /^tunne/ && $2 != "Z" { print name }'`)
}

// checkSame fails the test if something is left in the machine, or missing.
func (m *machine) checkSame(when string, before map[string]string) {
	m.T.Helper()
	if diff := debian.Differences(before, m.snapshot()); diff != "" {
		m.T.Errorf("%s it is not as it was before:\n%s", when, diff)
	}
}
