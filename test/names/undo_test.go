//go:build names

package names

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/test/internal/debian"
)

// A step is something that is done to a machine's names, as arguments of the
// program ladder.
type step []string

func claimStep(skip string, names ...string) step {
	return append(step{"claim", "127.0.0.1:" + strconv.Itoa(ourDNSPort), "127.77.0.1", skip}, names...)
}

var releaseStep = step{"release"}

// args are those of the program ladder, which is killed before the change with that
// number; 0: it is not killed.
func (s step) args(kill int) []string {
	return append([]string{"/var/lib/tunneld-helper/receipts", strconv.Itoa(dev), strconv.Itoa(kill)}, s...)
}

// ladder does a step as tunneld-helper does, and is killed before that change. It
// reports whether it was.
func (m *machine) ladder(kill int, s step) (killed bool) {
	m.T.Helper()
	return m.isKilled("ladder", s.args(kill)...)
}

// ladderUntil does a step, and is killed after a time.
func (m *machine) ladderUntil(after time.Duration, s step) (killed bool) {
	m.T.Helper()
	return m.isKilled("timeout", append([]string{"--signal=KILL", fmt.Sprintf("%.6f", after.Seconds()), "ladder"}, s.args(0)...)...)
}

// isKilled runs a program as root, which must succeed or be killed.
func (m *machine) isKilled(program string, args ...string) bool {
	m.T.Helper()
	cmd := m.Command(m.T.Context(), root, program, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && (!exit.Exited() || exit.ExitCode() == 128+int(syscall.SIGKILL)) {
		return true
	}
	if err != nil {
		m.T.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return false
}

// Whatever moment tunneld-helper is killed at, all can be taken back.
func TestUndo(t *testing.T) {
	inEach(t, func(m *machine) {
		m.installHelper()
		m.Script("mkdir -p /var/lib/tunneld-helper")
		first, second := claimStep("-", ourName, "one.local"), claimStep("-", "two.local", ourName, "three.local")
		type scenario struct {
			name   string
			before []step
			killed step
		}
		scenarios := []scenario{
			{"first claim", nil, first},
			{"claim of other names", []step{first}, second},
			{"release", []step{first}, releaseStep},
		}
		if m.env.rung != "hosts" { // which is the last
			next := claimStep(m.env.rung, ourName, "one.local")
			scenarios = append(scenarios, scenario{"change of the rung", []step{first}, next})
		}
		for _, s := range scenarios {
			m.T.Run(s.name, func(t *testing.T) { m.in(t).checkUndo(s.before, s.killed) })
		}
	})
}

// checkUndo kills a step before each of its changes, and then at moments that are
// spread over the time that it takes. Each time, it takes all back: as the
// removal of the helper does, or as the next run of the daemon does.
func (m *machine) checkUndo(before []step, killed step) {
	recoveries := []struct {
		name string
		do   func()
	}{
		{"release", m.releaseByHelper},
		{"claim and release", func() { m.ladder(0, claimStep("-", ourName)); m.ladder(0, releaseStep) }},
	}
	ask := func() map[string]string {
		answers := m.answers(glibc, []string{"www.example.com", "gone.invalid", "198.51.100.7", "localhost"})
		if !m.env.late {
			maps.Copy(answers, m.answers(pureGo, []string{ourName})) // nobody is there who would answer
		}
		return answers
	}
	found, answers := m.snapshot(), ask()
	check := func(recovery int, when string) {
		recoveries[recovery].do()
		m.checkSame(found)
		if diff := debian.Differences(answers, ask()); diff != "" {
			m.T.Errorf("names do not resolve as before:\n%s", diff)
		}
		if m.T.Failed() {
			m.LogState() // while what has happened is the last that has
			m.T.Fatalf("%s after a kill %s", recoveries[recovery].name, when)
		}
	}
	prepare := func() {
		for _, s := range before {
			m.ladder(0, s)
		}
	}
	var took time.Duration
	for i := range recoveries {
		for change := 1; ; change++ {
			prepare()
			began := time.Now()
			was := m.ladder(change, killed)
			took = time.Since(began)
			check(i, fmt.Sprintf("before change %d", change))
			if !was {
				m.T.Logf("%s after each of %d kills", recoveries[i].name, change-1)
				break
			}
		}
	}
	moments := 10
	if soak {
		moments = 100
	}
	kills := 0
	for i := range moments {
		prepare()
		if m.ladderUntil(took*time.Duration(i+1)/time.Duration(moments), killed) {
			kills++
		}
		check(i%len(recoveries), fmt.Sprintf("at moment %d of %d", i, moments))
	}
	m.T.Logf("and after %d kills at any moment", kills)
}

// releaseByHelper takes back what was claimed as the removal of the helper does.
func (m *machine) releaseByHelper() {
	m.T.Helper()
	if _, err := m.Try(root, "/usr/libexec/tunneld-helper", "release", "--uid", strconv.Itoa(dev)); err != nil {
		m.T.Errorf("tunneld-helper release: %v", err)
	}
}

// What somebody else writes to the hosts file while our names are there stays,
// and what of theirs was there before, too.
func TestUndoKeepsWhatOthersWrote(t *testing.T) {
	m := newPlainMachine(t)
	m.installHelper()
	m.Script("mkdir -p /var/lib/tunneld-helper; echo 192.0.2.50 mine.test >>/etc/hosts; cp /etc/hosts /root/before")
	for name, edit := range map[string]string{
		"before ours": "1i192.0.2.51 theirs.test",
		"after ours":  "$a192.0.2.51 theirs.test",
		"removed":     "/mine.test/d",
	} {
		t.Run(name, func(t *testing.T) {
			m := m.in(t)
			m.Script("cat /root/before >/etc/hosts; sed '" + edit + "' /root/before >/root/want")
			m.ladder(0, claimStep("-", ourName))
			m.Script("grep -q " + ourName + " /etc/hosts; sed -i '" + edit + "' /etc/hosts")
			m.releaseByHelper()
			m.Script("diff /root/want /etc/hosts")
		})
	}
}

// A hosts file is what it was however odd it is: with its mode, owner and
// attributes, and mounted from elsewhere, as containers have it.
func TestUndoOddHostsFiles(t *testing.T) {
	trait := func(file string) string {
		return regexp.MustCompile(` [0-9]+ bytes [0-9a-f]+`).ReplaceAllString(file, "")
	}
	for name, change := range map[string]string{
		"mode, owner and attributes": "chmod 0640 /etc/hosts; chown 42:dev /etc/hosts; setfattr -n user.note -v mine /etc/hosts",
		"mounted":                    "cp /etc/hosts /root/hosts; mount --bind /root/hosts /etc/hosts",
		"a link":                     "mkdir /etc/dir; mv /etc/hosts /etc/dir/hosts; ln -s dir/hosts /etc/hosts",
		"without a final newline":    `printf '192.0.2.50 mine.test' >>/etc/hosts`,
		"not there":                  "rm /etc/hosts",
		"empty":                      ": >/etc/hosts",
	} {
		t.Run(name, func(t *testing.T) {
			m := newPlainMachine(t)
			m.startCluster()
			m.installHelper()
			m.Script(change)
			found := m.snapshot()
			m.startDaemon()
			m.Run(dev, "tunnelctl", "add", service, "--wait")
			m.checkRung()
			during := m.snapshot()
			if got := m.answers(pureGo, []string{ourName})[ourName]; got != m.forward(service).Address {
				t.Errorf("%s is %s", ourName, got)
			}
			if was := found["/etc/hosts"]; was != "" && trait(during["/etc/hosts"]) != trait(was) {
				t.Errorf("meanwhile the hosts file is %s; it was %s", during["/etc/hosts"], was)
			}
			m.stopDaemon()
			m.checkSame(found)
		})
	}
}

// A daemon that is killed, at whatever moment, leaves nothing that its next run
// does not take back.
func TestKilledDaemon(t *testing.T) {
	inEach(t, func(m *machine) {
		m.startCluster()
		m.installHelper()
		found := m.snapshot()
		m.startDaemon()
		m.Run(dev, "tunnelctl", "add", service, "--wait")
		m.checkRung()
		m.killDaemon()
		kills := 5
		if soak {
			kills = 50
		}
		for i := range kills {
			m.Script("systemctl start tunneld")
			<-time.NewTimer(time.Duration(i) * 25 * time.Millisecond).C // the moment is what the test is about
			m.killDaemon()
		}
		m.startDaemon()
		m.checkRung()
		if got := m.answers(glibc, []string{ourName})[ourName]; got != m.forward(service).Address {
			m.T.Errorf("%s is %s", ourName, got)
		}
		m.stopDaemon()
		m.checkSame(found)
	})
}

// Taking the helper out takes back what it did, though the daemon is dead.
func TestUninstallHelper(t *testing.T) {
	inEach(t, func(m *machine) {
		m.startCluster()
		found := m.snapshot()
		m.installHelper()
		m.startDaemon()
		m.Run(dev, "tunnelctl", "add", service, "--wait")
		m.checkRung()
		m.killDaemon()
		m.Script(fmt.Sprintf(`
systemctl disable --quiet --now tunneld-helper@%d.socket
rm -r /etc/tunneld/helper /usr/libexec/tunneld-helper /etc/systemd/system/tunneld-helper@.s* /var/lib/tunneld-helper
rmdir /etc/tunneld
systemctl daemon-reload`, dev))
		m.checkSame(found)
		m.checkGone()
	})
}
