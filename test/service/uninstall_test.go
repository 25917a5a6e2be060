//go:build service

package service

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
)

// progress is a line that install and uninstall print for a change that they are
// through with.
var progress = regexp.MustCompile(`^(done|is there|left as it is|restarted|undone|kept) `)

// A killer ends a program without a chance to do anything: after so many lines of its
// progress, or, if that is 0, after a time.
type killer struct {
	lines int
	after time.Duration
	// alone leaves what it has started to itself, which may go on.
	alone bool
}

func (k killer) String() string {
	what := "with all that it has started"
	if k.alone {
		what = "alone"
	}
	if k.lines > 0 {
		return fmt.Sprintf("after %d changes, %s", k.lines, what)
	}
	return fmt.Sprintf("after %v, %s", k.after, what)
}

// kill runs a program as root and kills it. It reports whether the program had not
// ended by then, and how long it ran.
func (m *machine) kill(k killer, program string, args ...string) (killed bool, took time.Duration) {
	m.T.Helper()
	cmd := m.Command(m.T.Context(), root, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 30 * time.Second // what it has started may have its output
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		m.T.Fatal(err)
	}
	var errOut strings.Builder
	cmd.Stderr = &errOut
	began := time.Now()
	if err := cmd.Start(); err != nil {
		m.T.Fatal(err)
	}
	if k.lines == 0 {
		timer := time.AfterFunc(k.after, func() { k.strike(cmd) })
		defer timer.Stop()
	}
	lines, seen := bufio.NewScanner(stdout), 0
	for lines.Scan() {
		if progress.MatchString(lines.Text()) {
			if seen++; seen == k.lines {
				k.strike(cmd)
			}
		}
	}
	err = cmd.Wait()
	took = time.Since(began)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false, took
	case errors.As(err, &exit) && (!exit.Exited() || exit.ExitCode() == 128+int(syscall.SIGKILL)):
		return true, took
	}
	m.T.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, errOut.String())
	return false, 0
}

// strike kills it. The program is a child of the one that brought it into the machine.
func (k killer) strike(cmd *exec.Cmd) {
	if !k.alone {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		return
	}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", cmd.Process.Pid))
	for _, child := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(child); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// Whatever moment an installation is killed at, and whatever moment its removal is,
// all of it can be taken out.
func TestKilled(t *testing.T) {
	onOne(t, func(m *machine) {
		m.installPackage(oldVersion)
		m.checkKilled()
		if soak {
			m.Run(root, "apt-get", "purge", "-y", "-q", "tunneld")
			m.tunneld = opt + "plain/tunneld"
			m.checkKilled()
		}
	})
}

func (m *machine) checkKilled() {
	before := m.snapshot()
	install := []string{"install", "--yes", "--user", "dev"}
	remove := []string{"uninstall", "--yes", "--user", "dev"}
	check := func(what string, k killer) {
		m.uninstall()
		await.Until(m.T, "what was killed, and what it had started, to end", func() bool { return m.processes() == "" })
		m.checkSame(fmt.Sprintf("uninstalled after %s was killed %v,", what, k), before)
		if m.T.Failed() {
			m.T.FailNow() // while what has happened is the last that has
		}
	}
	kills := 0
	var took, tookRemove time.Duration
	for lines := 1; ; lines++ {
		k := killer{lines: lines, alone: lines%2 == 0}
		var killed bool
		if killed, took = m.kill(k, m.tunneld, install...); !killed {
			break
		}
		check("install", k)
		kills++
	}
	m.T.Logf("install was killed after each of %d changes", kills)
	if kills < 5 {
		m.T.Error("these are not all")
	}
	for lines := 1; ; lines++ { // it is installed now
		k := killer{lines: lines, alone: lines%2 == 0}
		var killed bool
		killed, tookRemove = m.kill(k, m.tunneld, remove...)
		check("uninstall", k)
		if !killed {
			break
		}
		m.install()
		kills++
	}
	moments := 10
	if soak {
		moments = 50
	}
	kills = 0
	random := rand.New(rand.NewPCG(6, 6))
	for i := range moments {
		k := killer{after: time.Duration(random.Int64N(int64(took))), alone: i%2 == 0}
		killed, _ := m.kill(k, m.tunneld, install...)
		check("install", k)
		if killed {
			kills++
		}
		if i%5 != 0 {
			continue
		}
		m.install()
		k = killer{after: time.Duration(random.Int64N(int64(tookRemove))), alone: i%2 == 0}
		if killed, _ := m.kill(k, m.tunneld, remove...); killed {
			kills++
		}
		check("uninstall", k)
	}
	m.T.Logf("and %d times at any moment", kills)
	// What was begun can be finished, too.
	m.kill(killer{lines: 4}, m.tunneld, install...)
	m.install()
	m.add()
	m.checkWorks()
	m.uninstall("--purge")
	m.checkSame("after uninstall --purge", before)
}

// An installation can be taken out whatever has become of it.
func TestUninstall(t *testing.T) {
	const remove = "tunneld uninstall --yes --user dev"
	tests := []struct {
		name   string
		plain  bool     // it is installed without a package
		script string   // what happens before
		remove string   // and how it is taken out
		says   []string // what has to be said
		stays  []string // with what is below
		may    []string // stay, too
		after  string   // takes away what stays
	}{
		{name: "nothing has happened"},
		{name: "without a package", plain: true},
		{name: "copies were installed over the package", script: opt + "plain/tunneld install --yes --user dev"},
		{name: "the daemon is dead", script: "systemctl kill --signal=KILL " + daemonUnit + "; systemctl stop " + daemonUnit},
		{name: "the daemon is masked", script: "systemctl mask --quiet --now " + daemonUnit, after: "systemctl unmask --quiet " + daemonUnit, stays: []string{"/etc/systemd/system/" + daemonUnit}},
		// What was the user's before is not known then, and stays; that is said.
		{name: "the receipts are gone", script: "rm -r /var/lib/tunneld", stays: []string{"/home/dev/.local"}, after: "rm -r /home/dev/.local"},
		{name: "the receipts are gone, and there is no package", plain: true, script: "rm -r /var/lib/tunneld", stays: []string{"/home/dev/.local"}, may: []string{"/usr/local/libexec"}, after: "rm -r /home/dev/.local; rmdir /usr/local/libexec || :"},
		{name: "the daemon's state is gone", script: "systemctl stop " + daemonUnit + "; rm /home/dev/.local/state/tunneld/*.pem /home/dev/.local/state/tunneld/*.json"},
		{name: "another version has taken over", script: "dpkg -i --force-confold " + opt + "tunneld_" + newVersion + ".deb", after: "dpkg -i " + opt + "tunneld_" + oldVersion + ".deb"},
		{
			name: "the policy was edited", script: "sed -i 's/127.77/127.78/' " + policy,
			says: []string{policy}, stays: []string{"/etc/tunneld"}, after: "rm -r /etc/tunneld",
		},
		{
			name: "a unit was edited", plain: true, script: "echo '# mine' >>/etc/systemd/system/tunneld@.service",
			says: []string{"/etc/systemd/system/tunneld@.service"}, stays: []string{"/etc/systemd/system/tunneld@.service"}, after: "rm /etc/systemd/system/tunneld@.service",
		},
		{
			name: "a drop-in was added", script: "mkdir /etc/systemd/system/tunneld@.service.d; printf '[Service]\\nNice=1\\n' >/etc/systemd/system/tunneld@.service.d/mine.conf",
			stays: []string{"/etc/systemd/system/tunneld@.service.d"}, after: "rm -r /etc/systemd/system/tunneld@.service.d",
		},
		{name: "the removal of the package", remove: "apt-get remove -y -q tunneld", after: "dpkg -i " + opt + "tunneld_" + oldVersion + ".deb"},
		{name: "the purge of the package", remove: "apt-get purge -y -q tunneld", after: "dpkg -i " + opt + "tunneld_" + oldVersion + ".deb"},
	}
	onOne(t, func(m *machine) {
		for _, packaged := range []bool{false, true} {
			var bare, before map[string]string
			begin := func() {
				bare = m.snapshot()
				m.tunneld = opt + "plain/tunneld"
				if packaged {
					m.installPackage(oldVersion)
					m.tunneld = "/usr/bin/tunneld"
				}
				before = m.snapshot()
			}
			begin()
			for _, test := range tests {
				if test.plain == packaged {
					continue
				}
				ok := m.T.Run(test.name, func(t *testing.T) {
					m := m.in(t)
					m.install()
					m.add()
					m.Script(test.script)
					o := m.outcome(root, "sh", "-c", cmp.Or(test.remove, remove))
					t.Log(o.text)
					if o.status != 0 {
						t.Errorf("exit status %d", o.status)
					}
					for _, says := range test.says {
						if !strings.Contains(o.text, says) {
							t.Errorf("%s is not spoken of", says)
						}
					}
					want := maps.Clone(before)
					if test.remove != "" {
						want = bare
					}
					after := m.snapshot()
					drop(after, configDir)
					if strings.Contains(test.script, "dpkg") {
						want, after = upgraded(want), upgraded(after)
					}
					for _, path := range test.stays {
						if after[path] == "" {
							t.Errorf("%s is gone", path)
						}
						drop(after, path)
					}
					for _, path := range test.may {
						delete(after, path)
					}
					m.checkDifference("afterwards", want, after)
					m.Script("rm -rf " + configDir + "\n" + test.after)
					m.checkSame("in the end", before)
				})
				if !ok { // the others begin with one that is as it should be
					m = newMachine(m.T, m.env)
					begin()
				}
			}
		}
	})
}
