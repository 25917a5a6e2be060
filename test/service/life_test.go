//go:build service

package service

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/test/internal/debian"
	"github.com/tunneld/tunneld/test/internal/refusals"
)

const (
	url       = "https://" + service + ".local/health"
	config    = "/home/dev/.config/tunneld/config.yaml"
	configDir = "/home/dev/.config"
)

// A machine's life with tunneld, from the package to its removal.
func TestLife(t *testing.T) {
	inEach(t, func(m *machine) {
		bare := m.snapshot()
		m.installPackage(oldVersion)
		before := m.snapshot()
		m.step("install", func(m *machine) {
			m.install()
			m.add()
			m.checkWorks()
		})
		first := m.identity()
		m.check("daemon", func(m *machine) { m.checkDaemon() })
		m.check("helper", func(m *machine) { m.checkHelper() })
		m.check("crashes", func(m *machine) { m.checkCrashes() })
		m.check("restart", func(m *machine) {
			m.underLoad(func() { m.Run(root, "systemctl", "restart", daemonUnit) })
		})
		m.check("upgrade", func(m *machine) {
			m.underLoad(func() { m.installPackage(newVersion) })
			want := first
			want.Version = "v" + newVersion
			if diff := cmp.Diff(want, m.identity()); diff != "" {
				m.T.Errorf("after the upgrade (-want +got):\n%s", diff)
			}
		})
		m.step("reboot", func(m *machine) {
			m.Reboot()
			m.awaitNames()
			m.checkWorks()
			want := first
			want.Version = "v" + newVersion
			if diff := cmp.Diff(want, m.identity()); diff != "" {
				m.T.Errorf("after the reboot (-want +got):\n%s", diff)
			}
		})
		m.check("uninstall", func(m *machine) {
			if said := m.uninstall(); !strings.Contains(said, config) {
				m.T.Errorf("uninstall does not say that the configuration is kept:\n%s", said)
			}
			after := m.snapshot()
			if after[config] == "" {
				m.T.Error("uninstall has removed the configuration")
			}
			drop(after, configDir)
			m.checkDifference("after uninstall", upgraded(before), upgraded(after))
		})
		m.check("uninstall again", func(m *machine) {
			before := m.snapshot()
			m.uninstall()
			m.checkSame("after a second uninstall", before)
		})
		m.check("purge", func(m *machine) {
			m.uninstall("--purge")
			m.Script("rmdir " + configDir) // the receipt, which said that it was not there before, is gone
			m.checkDifference("after uninstall --purge", upgraded(before), upgraded(m.snapshot()))
		})
		m.check("purge of the package", func(m *machine) {
			m.Run(root, "apt-get", "purge", "-y", "-q", "tunneld")
			m.checkSame("after the purge of the package", bare)
		})
	})
}

// drop leaves out a path and what is below.
func drop(found map[string]string, path string) {
	maps.DeleteFunc(found, func(name, _ string) bool { return name == path || strings.HasPrefix(name, path+"/") })
}

// upgraded leaves out what another version of the package changes.
func upgraded(found map[string]string) map[string]string {
	found = maps.Clone(found)
	drop(found, "/usr")
	return found
}

// An identity is what everybody on a machine relies on.
type identity struct {
	Version     string
	Name        string
	Address     string
	Hostnames   []string
	Fingerprint string
}

func (m *machine) identity() identity {
	m.T.Helper()
	s := m.status()
	id := identity{Version: s.Version, Fingerprint: m.Run(dev, "sh", "-euc", "tunnelctl trust --pem | sha256sum")}
	for _, f := range s.Forwards {
		if f.Name == service {
			id.Name, id.Address, id.Hostnames = f.Name, f.Address, f.Hostnames
		}
	}
	if id.Name == "" {
		m.T.Fatalf("there is no forward %s: %+v", service, s)
	}
	return id
}

// A tally is what the program load says of one client's requests.
type tally struct {
	Done    int
	Failed  []string
	Slowest time.Duration
}

// underLoad does something while clients fetch all the time. None of their requests
// may fail, and all must work afterwards.
func (m *machine) underLoad(do func()) {
	m.T.Helper()
	cmd := m.Command(m.T.Context(), dev, opt+"load", url)
	cmd.Env = append(cmd.Env, "GODEBUG=netdns=cgo")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		m.T.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		m.T.Fatal(err)
	}
	do()
	m.awaitNames()
	m.checkWorks()
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		m.T.Fatalf("load: %v", err)
	}
	var result struct{ Fresh, Kept tally }
	if err := json.Unmarshal([]byte(out.String()), &result); err != nil {
		m.T.Fatalf("load: %v\n%s", err, out.String())
	}
	for name, t := range map[string]tally{"new connections": result.Fresh, "a kept connection": result.Kept} {
		m.T.Logf("%s: %d requests, the slowest %v", name, t.Done, t.Slowest)
		if t.Done == 0 || len(t.Failed) > 0 {
			m.T.Errorf("%s: %d requests were answered, %d failed:\n%s", name, t.Done, len(t.Failed), strings.Join(t.Failed[:min(5, len(t.Failed))], "\n"))
		}
	}
}

// daemonPID is the daemon's process id in the machine; 0 if it does not run.
func (m *machine) daemonPID() int {
	m.T.Helper()
	pid, err := strconv.Atoi(m.Run(root, "systemctl", "show", "--property=MainPID", "--value", daemonUnit))
	if err != nil {
		m.T.Fatal(err)
	}
	return pid
}

// checkCrashes kills the daemon, several times in a row. It comes back, and serves who
// has come meanwhile.
func (m *machine) checkCrashes() {
	crashes := 5
	if soak {
		crashes = 20
	}
	var slowest time.Duration
	for range crashes {
		pid := m.daemonPID()
		began := time.Now()
		m.Run(root, "systemctl", "kill", "--signal=KILL", "--kill-who=main", daemonUnit)
		m.checkWorks() // it was asked for while there was no daemon
		served := time.Since(began)
		await.Until(m.T, "another daemon", func() bool { now := m.daemonPID(); return now != 0 && now != pid })
		slowest = max(slowest, served)
		m.status()
	}
	m.T.Logf("of %d crashes, the slowest took %v from the kill to the answer of a request that came then", crashes, slowest)
	m.awaitNames()
}

// checkDaemon looks at what the daemon is, and may do.
func (m *machine) checkDaemon() {
	pid := m.daemonPID()
	proc := m.Path("/proc/" + strconv.Itoa(pid))
	text, err := os.ReadFile(proc + "/status")
	if err != nil {
		m.T.Fatal(err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Join(strings.Fields(value), " ")
	}
	for key, want := range map[string]string{
		"Uid": "1000 1000 1000 1000", "Gid": "1000 1000 1000 1000", "NoNewPrivs": "1",
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
	} {
		if fields[key] != want {
			m.T.Errorf("%s of the daemon: %q; want %q", key, fields[key], want)
		}
	}
	m.checkListeners(pid)
	if got := m.Run(root, "stat", "--format=%a %u:%g", "/run/tunneld/1000"); got != "700 1000:1000" {
		m.T.Errorf("the runtime directory: %s; want 700, the user's", got)
	}
	if found := m.Run(root, "find", "/home/dev", "-not", "-user", "dev"); found != "" {
		m.T.Errorf("somebody else's files in the user's home:\n%s", found)
	}
	if _, err := m.Try(other, "tunnelctl", "--socket", "/run/tunneld/1000/tunneld.sock", "status"); err == nil {
		m.T.Error("another user gets to the daemon")
	}
	// What the user cannot read, the daemon does not read for them.
	o := m.outcome(dev, "env", "KUBECONFIG=/home/other/.kube/config", "tunnelctl", "add", service, "--name", "stolen")
	if o.status != 1 || !strings.Contains(o.text, "permission denied") {
		m.T.Errorf("with another user's kubeconfig: exit status %d\n%s", o.status, o.text)
	}
	m.T.Log(m.checkExposure(daemonUnit, 3.0))
}

const none = "0000000000000000"

// checkExposure has systemd judge a unit's sandbox: 0 is a closed one, 10 none.
func (m *machine) checkExposure(unit string, most float64) string {
	m.T.Helper()
	text := m.Run(root, "systemd-analyze", "security", "--no-pager", unit)
	match := regexp.MustCompile(`Overall exposure level[^:]*: ([0-9.]+).*`).FindStringSubmatch(text)
	if match == nil {
		m.T.Fatalf("systemd-analyze: %s", text)
	}
	if level, err := strconv.ParseFloat(match[1], 64); err != nil || level > most {
		m.T.Errorf("%s; want %.1f at most", match[0], most)
	}
	return match[0]
}

// checkListeners wants every socket that the process listens on to be on loopback.
func (m *machine) checkListeners(pid int) {
	m.T.Helper()
	proc := m.Path("/proc/" + strconv.Itoa(pid))
	own := make(map[string]bool)
	entries, err := os.ReadDir(proc + "/fd")
	if err != nil {
		m.T.Fatal(err)
	}
	for _, e := range entries {
		to, _ := os.Readlink(filepath.Join(proc, "fd", e.Name()))
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	listeners := 0
	for _, kind := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6"} {
		text, err := os.ReadFile(filepath.Join(proc, "net", kind))
		if err != nil {
			m.T.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			const local, remote, state, inode = 1, 2, 3, 9
			if len(fields) <= inode || !own[fields[inode]] {
				continue
			}
			const listens = "0A"
			connected := strings.Trim(fields[remote], "0:") != ""
			if strings.HasPrefix(kind, "tcp") && fields[state] != listens || connected {
				continue
			}
			listeners++
			if !isLoopback(fields[local]) {
				m.T.Errorf("the daemon listens on %s %s", kind, fields[local])
			}
		}
	}
	if listeners < 5 { // two of the gateway's on the forward's address, a raw port, DNS twice
		m.T.Errorf("the daemon has %d listeners", listeners)
	}
}

// isLoopback tells of an address as /proc/net has it: 32-bit words of this machine's
// byte order, which for tests is little-endian.
func isLoopback(addr string) bool {
	host, _, _ := strings.Cut(addr, ":")
	switch len(host) {
	case 8:
		return strings.HasSuffix(host, "7F")
	case 32:
		return host == "00000000000000000000000001000000" || strings.HasPrefix(host, "0000000000000000FFFF0000") && strings.HasSuffix(host, "7F")
	}
	return false
}

// checkHelper looks at what the helper does, refuses, and that it ends.
func (m *machine) checkHelper() {
	const socket = "/run/tunneld-helper/1000.sock"
	state := func() map[string]string {
		found := m.Files("/etc")
		maps.Copy(found, m.Network())
		return found
	}
	before := state()
	refusals.Check(m.Machine, socket)
	m.checkDifference("after what the helper refuses,", before, state())
	m.checkWorks()

	gone := func() bool { out, _ := m.Try(root, "systemctl", "is-active", helperUnit); return out == "inactive" }
	await.Until(m.T, "the helper to end", gone)
	m.Trace(helperUnit, helper+" serve --policy "+policy)
	m.Run(dev, "tunnelctl", "add", service, "--name", "second", "--wait")
	m.awaitNames()
	m.Run(dev, "tunnelctl", "rm", "second")
	m.Run(root, "systemctl", "restart", daemonUnit)
	m.awaitNames()
	used := time.Now()
	await.Until(m.T, "the helper to end", gone)
	if took := time.Since(used); took > 10*time.Second {
		m.T.Errorf("the helper ended %v after its use", took)
	}
	users := regexp.MustCompile(`^/(home|root|run/user)\b|kube`)
	for _, path := range m.Traced(policy) {
		if users.MatchString(path) {
			m.T.Errorf("the helper touches %s", path)
		}
	}
	m.Script("rm -r /run/systemd/system/" + helperUnit + ".d; systemctl daemon-reload")
	m.checkWorks()
}

// checkDifference fails the test if two snapshots differ.
func (m *machine) checkDifference(when string, before, after map[string]string) {
	m.T.Helper()
	if diff := debian.Differences(before, after); diff != "" {
		m.T.Errorf("%s it is not as it was before:\n%s", when, diff)
	}
}
