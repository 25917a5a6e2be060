//go:build trust

package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/await"
)

const (
	// scratch is where a machine keeps what it is made from.
	scratch = "/mnt/"
	// opt is where it has the programs.
	opt = "/opt/tunneld-trust/"
	// path is everybody's $PATH.
	path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// covered are the directories whose changes go to memory.
var covered = []string{"/etc", "/usr", "/opt", "/var/lib", "/var/cache", "/var/log"}

// A user is who a program runs as.
type user struct {
	uid        int
	name, home string
}

var (
	root = user{0, "root", "/root"}
	dev  = user{31001, "dev", "/home/dev"} // who runs the daemon
)

// runtime is the user's directory for sockets.
func (u user) runtime() string { return "/run/user/" + strconv.Itoa(u.uid) }

// A machine is this Debian as a test sees it that is in namespaces of its own.
// What changes in it is in memory, and gone with it.
type machine struct {
	t *testing.T
	// env is added to the environment of programs.
	env []string
}

// boot covers what may change, and makes a user who may use sudo. The test must be
// in its namespaces.
func boot(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t}
	// Registered first, so that it comes last.
	t.Cleanup(m.killAll)
	if err := cover(); err != nil {
		t.Fatal(err)
	}
	os.Setenv("PATH", path)
	m.script(`
ip link set lo up
echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
printf '127.0.0.1\tlocalhost %s\n::1\tlocalhost\n' "$(hostname)" >/etc/hosts
sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf
ln -s ` + opt + `tunneld ` + opt + `tunnelctl /usr/local/bin/`)
	m.addUser(dev)
	m.script(`
echo 'dev ALL=(ALL) NOPASSWD: SETENV: ALL' >/etc/sudoers.d/dev
chmod 440 /etc/sudoers.d/dev
echo 'Defaults !lecture' >/etc/sudoers.d/lecture
update-ca-certificates 2>&1`) // what others left undone is none of ours
	return m
}

// cover mounts what a test may write to over what the machine has.
func cover() error {
	mount := func(kind, on, options string) error {
		if err := unix.Mount(kind, on, kind, 0, options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", kind, on, err)
		}
		return nil
	}
	if err := mount("tmpfs", scratch, "mode=755"); err != nil {
		return err
	}
	for _, dir := range covered {
		lower, upper, work := layers(dir)
		for _, d := range []string{lower, upper, work} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(dir, lower, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("keep %s: %w", dir, err)
		}
		if err := mount("overlay", dir, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(opt, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(os.Getenv(programsVariable), opt, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the programs: %w", err)
	}
	for dir, mode := range map[string]string{"/root": "700", "/home": "755", "/run": "755", "/tmp": "1777", "/dev/shm": "1777"} {
		if err := mount("tmpfs", dir, "mode="+mode); err != nil {
			return err
		}
	}
	// The rest is not to be changed, not even by mistake.
	for _, dir := range []string{"/", "/dev"} {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", dir, err)
		}
	}
	return nil
}

// layers are where a covered directory is kept, and what was changed in it.
func layers(dir string) (lower, upper, work string) {
	name := strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-")
	return filepath.Join(scratch, "lower", name), filepath.Join(scratch, "upper", name), filepath.Join(scratch, "work", name)
}

// addUser adds a user to the machine, with a home.
func (m *machine) addUser(u user) {
	m.t.Helper()
	m.script(fmt.Sprintf("useradd --uid %[1]d --create-home --shell /bin/bash %[2]s; install -d -m 700 -o %[1]d -g %[1]d %[3]s", u.uid, u.name, u.runtime()))
}

// killAll ends everything that runs on the machine.
func (m *machine) killAll() {
	await.Until(m.t, "all programs of the machine to end", func() bool {
		left := others()
		for pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(left) == 0
	})
}

// others are all processes of the machine but this one, each with its program's name.
func others() map[int]string {
	found := make(map[int]string)
	own, _ := os.Readlink("/proc/self/ns/mnt")
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		pid, _ := strconv.Atoi(filepath.Base(p))
		// Those that have ended, and only nobody has waited for them, have no namespace.
		if ns, err := os.Readlink(p + "/ns/mnt"); err != nil || ns != own || pid == os.Getpid() {
			continue
		}
		name, _ := os.ReadFile(p + "/comm")
		found[pid] = strings.TrimSpace(string(name))
	}
	return found
}

// in is the same machine for a subtest.
func (m *machine) in(t *testing.T) *machine {
	sub := *m
	sub.t = t
	return &sub
}

// with is the same machine for programs that find this in their environment.
func (m *machine) with(env ...string) *machine {
	sub := *m
	sub.env = append(sub.env[:len(sub.env):len(sub.env)], env...)
	return &sub
}

// command prepares a program.
func (m *machine) command(ctx context.Context, u user, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "/tmp"
	cmd.Env = append([]string{
		"HOME=" + u.home, "USER=" + u.name, "LOGNAME=" + u.name, "PATH=" + path, "LANG=C.UTF-8", "SHELL=/bin/bash",
	}, m.env...)
	if u != root {
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+u.runtime())
	}
	id := uint32(u.uid)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}, Setsid: true}
	cmd.WaitDelay = 5 * time.Second // its children may have its output
	return cmd
}

// An outcome is how a program ended.
type outcome struct {
	status      int
	out, errOut string
}

func (o outcome) String() string {
	return fmt.Sprintf("exit status %d\n%s%s", o.status, o.out, o.errOut)
}

// try runs a program.
func (m *machine) try(u user, program string, args ...string) outcome {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := m.command(ctx, u, program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		m.t.Fatalf("%s %s: %v, %v", program, strings.Join(args, " "), err, ctx.Err())
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// run runs a program that must succeed, and returns what it prints.
func (m *machine) run(u user, program string, args ...string) string {
	m.t.Helper()
	o := m.try(u, program, args...)
	if o.status != 0 {
		m.t.Fatalf("%s %s: %v", program, strings.Join(args, " "), o)
	}
	return strings.TrimSpace(o.out)
}

// script runs a shell script as root.
func (m *machine) script(text string) string {
	m.t.Helper()
	return m.run(root, "sh", "-euc", text)
}

// write writes a file, with its directory.
func (m *machine) write(path, text string, mode fs.FileMode) {
	m.t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), mode)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}
