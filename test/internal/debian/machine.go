//go:build linux

// Package debian has machines for tests that need a whole system: a Debian in a
// container that was booted like a machine, with its own systemd and network, and
// whose changes are gone with it. It takes root, systemd-nspawn and, the first time,
// debootstrap and the network.
package debian

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

// The users of a machine.
const (
	Root  = 0
	Dev   = 1000 // whose daemon it is
	Other = 1001 // nobody's friend
)

// Programs is where a machine has Options.Programs.
const Programs = "/opt/names/"

// Options say which machine to boot. All but the suite may be left out.
type Options struct {
	Suite Suite
	// Packages are those that it has besides the usual ones.
	Packages []string
	// Programs is a directory of this system, which all users of the machine can
	// read at Programs.
	Programs string
	// Uplink gives it a network: an interface up0, at whose other end, and only
	// there, are the programs of Machine.Outside, at UplinkAddress. It comes up with
	// the machine. Without, there is loopback only.
	Uplink bool
}

// The network of a machine that has one.
const (
	UplinkAddress = "192.0.2.1" // of whoever is outside
	Address       = "192.0.2.2" // its own
)

// A Machine is one that has booted. What changes in it is in memory, and gone with
// it.
type Machine struct {
	T *testing.T
	// Env is added to the environment of programs.
	Env []string
	// Explain is a script that prints what a failure may come from, besides the
	// journal.
	Explain string

	*container
}

// container is what all views of a machine share.
type container struct {
	leader   int    // its init
	outside  int    // a process of ours that is outside of it, at the other end of its network
	programs string // Options.Programs
	// tree is what it was made from, and upper, as seen from there, what differs.
	tree, upper string
	// boots has the init of each boot that has come to its end; it is closed with the
	// machine.
	boots   <-chan int
	console string
	digests map[string]string // of files' contents, by what tells that they are the same
}

var machines atomic.Uint32

// Boot starts a machine, which ends with the test.
func Boot(t *testing.T, o Options) *Machine {
	t.Helper()
	tree := o.Suite.tree(t, o.Packages)
	dir := t.TempDir()
	// init says when everything has started, and nspawn passes it on.
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	console, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()

	name := fmt.Sprintf("names-%d-%d", os.Getpid(), machines.Add(1))
	cmd := withCgroups(dir, "/"+name, o.script(), append([]string{dir, tree, "systemd-nspawn"}, o.arguments(dir, name)...)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.LocalAddr().String(),
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1") // new systems want it, old ones can, whatever the host has
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // the machine shuts down then
	boots := make(chan int)
	m := &Machine{T: t, container: &container{boots: boots, console: console.Name(), programs: o.Programs, tree: tree, upper: filepath.Join(dir, "memory/upper"), digests: make(map[string]string)}}
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
		notify.Close()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	m.outside = cmd.Process.Pid
	done := make(chan struct{})
	go func() {
		defer close(done)
		watchBoots(notify, boots, t.Context().Done())
	}()
	t.Cleanup(func() {
		if t.Failed() && m.leader != 0 {
			m.In(t).LogState()
		}
		cmd.Process.Kill()
		if m.leader != 0 {
			syscall.Kill(m.leader, syscall.SIGKILL)
		}
		<-ended
		<-done
		await.Until(t, "the machine's cgroup to be removed", func() bool {
			return withCgroups(dir, "/"+name, `find "$1" -depth -type d -exec rmdir {} +`).Run() == nil
		})
	})
	m.awaitBoot()
	return m
}

// withCgroups prepares a shell script in whose own view the cgroups are mounted,
// however the host has them, and whose first argument is where the one of that
// path is.
func withCgroups(dir, path, script string, args ...string) *exec.Cmd {
	at := filepath.Join(dir, "cgroups")
	mount := fmt.Sprintf("mkdir -p %[1]s; mount -t cgroup2 cgroup2 %[1]s; ", at)
	return exec.Command("unshare", append([]string{"--mount", "sh", "-euc", mount + script, "sh", at + path}, args...)...)
}

// bootScript boots a machine, and again for as long as it wants to: its arguments are
// its cgroup, a directory, the tree, and nspawn with its arguments. The tree is
// covered by memory that outlives a boot. Each boot has a cgroup of its own: several
// systemds in the same one would take each other's services for their own.
const bootScript = `
cgroup=$1 dir=$2 tree=$3
shift 3
mkdir "$cgroup"
cd "$dir" # whose name may have what options of mount may not
mkdir memory root
mount -t tmpfs -o mode=755 tmpfs memory
mkdir memory/upper memory/work
mount -t overlay -o "lowerdir=$tree,upperdir=memory/upper,workdir=memory/work" overlay root
%s
boot=0
status=133
while [ "$status" = 133 ]; do
	boot=$((boot + 1))
	mkdir "$cgroup/$boot"
	status=0
	sh -euc 'echo $$ >"$0/cgroup.procs"; exec setpriv --pdeathsig TERM "$@"' "$cgroup/$boot" "$@" || status=$?
done
exit "$status"`

// uplinkScript makes the network that is outside, and has the machine join it.
const uplinkScript = `
ip link set lo up
ip link add name outside type bridge
ip address add ` + UplinkAddress + `/24 dev outside
ip link set outside up
units=root/etc/systemd/system
mkdir -p "$units/sysinit.target.wants"
cat >"$units/uplink.service" <<'END'
[Unit]
DefaultDependencies=no
Before=network-pre.target systemd-networkd.service
Wants=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -euc 'ip link set host0 name up0; ip address add ` + Address + `/24 dev up0; ip link set up0 up; ip route add default via ` + UplinkAddress + `'
END
ln -s ../uplink.service "$units/sysinit.target.wants/"`

// script is what boots the machine.
func (o Options) script() string {
	if !o.Uplink {
		return fmt.Sprintf(bootScript, "")
	}
	// The namespace is made here, where the mounts are private already.
	return `exec unshare --net sh -euc '` + strings.ReplaceAll(fmt.Sprintf(bootScript, uplinkScript), "'", `'\''`) + `' sh "$@"`
}

// arguments are those of nspawn.
func (o Options) arguments(dir, name string) []string {
	args := []string{
		"--directory=" + filepath.Join(dir, "root"), "--boot", "--machine=" + name,
		"--register=no", "--keep-unit", "--notify-ready=yes",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
	}
	if o.Uplink {
		args = append(args, "--network-bridge=outside")
	} else {
		args = append(args, "--private-network")
	}
	if o.Programs != "" {
		args = append(args, "--bind-ro="+o.Programs+":"+filepath.Clean(Programs))
	}
	return args
}

// awaitBoot waits until the machine has booted.
func (m *Machine) awaitBoot() {
	m.T.Helper()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	ok := false
	select {
	case m.leader, ok = <-m.boots:
	case <-limit.C:
	}
	if !ok {
		text, _ := os.ReadFile(m.console)
		m.T.Fatalf("the machine does not boot:\n%s", Tail(text))
	}
}

// watchBoots reads what inits tell until the socket is closed, whether anybody wants to
// know or not: an init whose words nobody reads does nothing else any more. Each boot's
// init, by its process id, is sent to boots, which is closed in the end.
func watchBoots(notify *net.UnixConn, boots chan<- int, nobody <-chan struct{}) {
	defer close(boots)
	leader := 0
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(buf[:n])) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); {
			case key == "X_NSPAWN_LEADER_PID":
				leader, _ = strconv.Atoi(value)
			case key == "READY" && value == "1" && leader != 0: // and it says so again after a reload
				select {
				case boots <- leader:
				case <-nobody:
				}
				leader = 0
			}
		}
	}
}

// Reboot has the machine end everything in order, and boots it again with the disk
// that it had.
func (m *Machine) Reboot() {
	m.T.Helper()
	m.Run(Root, "systemctl", "--no-block", "reboot")
	m.awaitBoot()
}

// LogState logs what a failure may come from.
func (m *Machine) LogState() {
	m.T.Helper()
	for _, script := range []string{"journalctl --no-pager --lines=200 --output=short-monotonic", m.Explain} {
		out, _ := m.Command(context.Background(), Root, "sh", "-c", script).CombinedOutput()
		m.T.Logf("%s:\n%s", script, out)
	}
}

// In is the same machine for a subtest.
func (m *Machine) In(t *testing.T) *Machine {
	sub := *m
	sub.T = t
	return &sub
}

// Path is where a file of the machine is to be found from outside. Links in it
// lead astray.
func (m *Machine) Path(inside string) string {
	return fmt.Sprintf("/proc/%d/root%s", m.leader, inside)
}

// Command prepares a program that runs in the machine.
func (m *Machine) Command(ctx context.Context, uid int, program string, args ...string) *exec.Cmd {
	id := strconv.Itoa(uid)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(m.leader), "--all",
		"--setuid", id, "--setgid", id, "--", program}, args...)...)
	name := map[int]string{Root: "root", Dev: "dev", Other: "other"}[uid]
	home := "/home/" + name
	if uid == Root {
		home = "/root"
	}
	cmd.Env = append([]string{"HOME=" + home, "USER=" + name, "LOGNAME=" + name, "SHELL=/bin/bash",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, m.Env...)
	return cmd
}

// Outside runs one of Options.Programs at the other end of the machine's network,
// until the test ends. It waits until the program says that it has started, as
// sd_notify(3) does.
func (m *Machine) Outside(program string, args ...string) {
	m.T.Helper()
	dir := m.T.TempDir()
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		m.T.Fatal(err)
	}
	defer ready.Close()
	cmd := exec.CommandContext(m.T.Context(), "nsenter", append([]string{"--target", strconv.Itoa(m.outside), "--net", "--", filepath.Join(m.programs, program)}, args...)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.LocalAddr().String())
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		m.T.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait()
		ready.Close() // nobody need wait for it
	}()
	m.T.Cleanup(func() { <-ended })
	ready.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := ready.Read(make([]byte, 4096)); err != nil {
		m.T.Fatalf("start %s outside of the machine: %v\n%s", program, err, errOut.String())
	}
}

// Run runs a program as the user, which must succeed, and returns what it
// prints.
func (m *Machine) Run(uid int, program string, args ...string) string {
	m.T.Helper()
	out, err := m.Try(uid, program, args...)
	if err != nil {
		m.T.Fatalf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return out
}

// Try runs a program as the user, and returns what it prints. The error has what it
// prints to standard error.
func (m *Machine) Try(uid int, program string, args ...string) (string, error) {
	cmd := m.Command(m.T.Context(), uid, program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimSpace(out.String()), err
}

// Script runs a shell script as root.
func (m *Machine) Script(text string) string {
	m.T.Helper()
	return m.Run(Root, "sh", "-euc", text)
}

// Service starts one of Programs as a service of the machine's, and waits until it
// says that it has started, if it is one that does. Its properties are those of
// systemd.service(5).
func (m *Machine) Service(unit string, properties []string, program string, args ...string) {
	m.T.Helper()
	run := []string{"--quiet", "--collect", "--unit=" + unit}
	for _, p := range properties {
		run = append(run, "--property="+p)
	}
	m.Run(Root, "systemd-run", append(append(run, Programs+program), args...)...)
}

// Write writes a file of the machine's, with its directory, which is root's.
func (m *Machine) Write(path, text string) {
	m.T.Helper()
	if err := os.MkdirAll(filepath.Dir(m.Path(path)), 0o755); err != nil {
		m.T.Fatal(err)
	}
	if err := os.WriteFile(m.Path(path), []byte(text), 0o644); err != nil {
		m.T.Fatal(err)
	}
}
