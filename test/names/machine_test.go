//go:build names

package names

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
)

// opt is where a machine has the programs.
const opt = "/opt/names/"

// The users of a machine.
const (
	root  = 0
	dev   = 1000 // who runs the daemon
	other = 1001 // nobody's friend
)

// A machine is a container that was booted like a machine. What changes in it is
// in memory, and gone with it.
type machine struct {
	t      *testing.T
	env    environment
	leader int // its init
	tapped int // how much of the tap's output has been read
	marks  int // how many queries were sent to know where to read on
}

var machines atomic.Uint32

// boot starts a machine, which ends with the test.
func boot(t *testing.T, s *suite, args ...string) *machine {
	t.Helper()
	tree := s.tree(t)
	dir := t.TempDir()
	// init says when everything has started, and nspawn passes it on.
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	console, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()

	name := fmt.Sprintf("names-%d-%d", os.Getpid(), machines.Add(1))
	cmd := inOwnCgroup(name, dir, "systemd-nspawn", append([]string{
		"--directory=" + tree, "--volatile=overlay", "--boot", "--machine=" + name,
		"--private-network", "--register=no", "--keep-unit", "--notify-ready=yes",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--bind-ro=" + programs + ":" + filepath.Clean(opt),
	}, args...)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.LocalAddr().String(),
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1") // new systems want it, old ones can, whatever the host has
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // on which it shuts the machine down
	m := &machine{t: t}
	ended := make(chan struct{})
	started := make(chan error)
	go func() {
		// The kernel takes the thread's end for its parent's.
		runtime.LockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			m.explain()
		}
		if m.leader != 0 {
			syscall.Kill(m.leader, syscall.SIGKILL)
		}
		cmd.Process.Kill()
		<-ended
		await.Until(t, "the machine's cgroup to be removed", func() bool {
			return withCgroups(dir, `find "$1" -depth -type d -exec rmdir {} +`, "/"+name).Run() == nil
		})
	})
	if m.leader, err = awaitBoot(notify); err != nil {
		text, _ := os.ReadFile(console.Name())
		t.Fatalf("boot a machine: %v\n%s", err, tail(text))
	}
	return m
}

// inOwnCgroup prepares a program that runs in a cgroup of that name: several systemds
// in the same one would take each other's services for their own.
func inOwnCgroup(name, dir, program string, args ...string) *exec.Cmd {
	return withCgroups(dir, `mkdir "$1"; echo $$ >"$1/cgroup.procs"; shift; exec "$@"`, append([]string{"/" + name, program}, args...)...)
}

// withCgroups prepares a shell script in whose own view the cgroups, a path of which
// its first argument is, are mounted on dir/cgroups, however the host has them.
func withCgroups(dir, script string, args ...string) *exec.Cmd {
	at := filepath.Join(dir, "cgroups")
	mount := fmt.Sprintf("mkdir -p %[1]s; mount -t cgroup2 cgroup2 %[1]s; ", at)
	args[0] = at + args[0]
	return exec.Command("unshare", append([]string{"--mount", "sh", "-euc", mount + script, "sh"}, args...)...)
}

// awaitBoot reads from the socket until the machine has booted, and returns the
// process id of its init.
func awaitBoot(notify *net.UnixConn) (leader int, err error) {
	notify.SetReadDeadline(time.Now().Add(2 * time.Minute))
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return leader, err
		}
		for line := range strings.Lines(string(buf[:n])) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); {
			case key == "X_NSPAWN_LEADER_PID":
				if leader, err = strconv.Atoi(value); err != nil {
					return 0, err
				}
			case key == "READY" && value == "1":
				return leader, nil
			}
		}
	}
}

// explain logs what a failure may come from.
func (m *machine) explain() {
	for _, script := range []string{
		"journalctl --no-pager --lines=200 --output=short-monotonic",
		"grep -v ^# /etc/hosts /etc/nsswitch.conf; ip address; ls -lR /etc/dnsmasq.d /run/systemd/dns-delegate.d /var/lib/tunneld-helper",
	} {
		out, _ := m.command(context.Background(), root, "sh", "-c", script).CombinedOutput()
		m.t.Logf("%s:\n%s", script, out)
	}
}

// in is the same machine for a subtest.
func (m *machine) in(t *testing.T) *machine {
	sub := *m
	sub.t = t
	return &sub
}

// path is where a file of the machine is to be found from outside. Links in it
// lead astray.
func (m *machine) path(inside string) string {
	return fmt.Sprintf("/proc/%d/root%s", m.leader, inside)
}

// command prepares a program that runs in the machine.
func (m *machine) command(ctx context.Context, uid int, program string, args ...string) *exec.Cmd {
	home := map[int]string{root: "/root", dev: "/home/dev", other: "/home/other"}[uid]
	id := strconv.Itoa(uid)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(m.leader), "--all",
		"--setuid", id, "--setgid", id, "--", program}, args...)...)
	cmd.Env = []string{"HOME=" + home, "PATH=/opt/names:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TUNNELD_SOCKET=" + socket}
	return cmd
}

// run runs a program as the user, which must succeed, and returns what it
// prints.
func (m *machine) run(uid int, program string, args ...string) string {
	m.t.Helper()
	out, err := m.try(uid, program, args...)
	if err != nil {
		m.t.Fatalf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return out
}

func (m *machine) try(uid int, program string, args ...string) (string, error) {
	cmd := m.command(m.t.Context(), uid, program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimSpace(out.String()), err
}

// script runs a shell script as root.
func (m *machine) script(text string) string {
	m.t.Helper()
	return m.run(root, "sh", "-euc", text)
}

// service starts a program as a service of the machine's, and waits until it
// says that it has started, if it is one that does. Its properties are those of
// systemd.service(5).
func (m *machine) service(unit string, properties []string, program string, args ...string) {
	m.t.Helper()
	run := []string{"--quiet", "--collect", "--unit=" + unit}
	for _, p := range properties {
		run = append(run, "--property="+p)
	}
	m.run(root, "systemd-run", append(append(run, opt+program), args...)...)
}

// write writes a file of the machine's, with its directory.
func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(path)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(path), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}
