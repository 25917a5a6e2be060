//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/rootapi"
)

const nobody = 65534

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("it takes root")
	}
}

// dir is one that everybody may enter, with a path short enough for sockets.
func dir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "helper")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func policyFor(t *testing.T, uid int) string {
	t.Helper()
	return write(t, filepath.Join(dir(t), "policy.json"), fmt.Sprintf(
		`{"version":1,"uid":%d,"suffixes":["local"],"addresses":"127.77.0.0/16","sharedPorts":[80]}`, uid))
}

// ssh is a port that the helper refuses to listen on: a request that reaches
// the rules and changes nothing.
var ssh = netip.MustParseAddrPort("127.0.0.1:22")

// program is the test binary as the program, in a process of its own.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

func TestOwnSocket(t *testing.T) {
	needsRoot(t)
	// The directory is made, too.
	socket := filepath.Join(dir(t), "helpers", "1.sock")
	policy := policyFor(t, nobody)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		ended <- run(ctx, []string{"serve", "--policy", policy, "--socket", socket}, &stderr, &stderr)
	}()
	c := rootapi.Client{Socket: socket}
	await.Until(t, "the helper", func() bool {
		_, err := c.Listen(t.Context(), ssh)
		return errors.Is(err, rootapi.ErrRefused)
	})
	info, err := os.Lstat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o600 || stat.Uid != nobody {
		t.Errorf("the socket is user %d's, of mode %v; want %d and 0600", stat.Uid, info.Mode(), nobody)
	}
	if info, err := os.Stat(filepath.Dir(socket)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("its directory: %v, %v; want mode 0755", info.Mode(), err)
	}
	var second bytes.Buffer
	if got := run(ctx, []string{"serve", "--policy", policy, "--socket", socket}, &second, &second); got != 1 ||
		!strings.Contains(second.String(), "another helper answers there") {
		t.Errorf("a second one: %d, %s", got, &second)
	}
	cancel()
	if got := <-ended; got != 0 {
		t.Errorf("exit status %d; %s", got, &stderr)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}

	// What a helper that was killed has left is in nobody's way; other files are.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if got := run(t.Context(), []string{"serve", "--policy", policy, "--socket", socket, "--idle", "1ms"}, &stderr, &stderr); got != 0 {
		t.Errorf("after one that was killed: %d, %s", got, &stderr)
	}
	file := write(t, filepath.Join(dir(t), "file"), "mine")
	if got := run(t.Context(), []string{"serve", "--policy", policy, "--socket", file}, &stderr, &stderr); got != 1 {
		t.Errorf("in the place of a file: %d, %s", got, &stderr)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "mine" {
		t.Errorf("the file: %q, %v", data, err)
	}
}

// activate runs the program as systemd does, and sends one request to it that
// was there before it.
func activate(t *testing.T, policy string) (stderr string, answer error) {
	t.Helper()
	f, path := passedSocket(t)
	asked := make(chan error, 1)
	go func() {
		c := rootapi.Client{Socket: path}
		_, err := c.Listen(t.Context(), ssh)
		asked <- err
	}()
	cmd := program(t)
	// Only what is run knows its own number.
	cmd.Args = []string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, cmd.Path, "serve", "--policy", policy, "--idle", "100ms"}
	cmd.Path = "/bin/sh"
	cmd.Env = append(cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=connection")
	cmd.ExtraFiles = []*os.File{f}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil { // it ends by itself
		t.Errorf("%v: %s", err, &out)
	}
	f.Close() // nobody else answers
	answer = <-asked
	return out.String(), answer
}

func TestActivation(t *testing.T) {
	needsRoot(t)
	if out, err := activate(t, policyFor(t, os.Getuid())); !errors.Is(err, rootapi.ErrRefused) {
		t.Errorf("%v; want ErrRefused (%s)", err, out)
	}
	// A policy that is no good is told to the client.
	broken := write(t, filepath.Join(dir(t), "1.json"), `{"version":1}`)
	if _, err := activate(t, broken); err == nil || errors.Is(err, rootapi.ErrRefused) || !strings.Contains(err.Error(), `"uid" is missing`) {
		t.Errorf("%v; want what is wrong with the policy", err)
	}
}

// passedSocket is a unix socket that somebody listens on, as a file, and its path.
func passedSocket(t *testing.T) (f *os.File, path string) {
	t.Helper()
	path = filepath.Join(dir(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if f, err = l.File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path
}

// launchd passes the socket as all three standard files.
func TestInetd(t *testing.T) {
	needsRoot(t)
	f, path := passedSocket(t)
	policy := policyFor(t, os.Getuid())
	c := rootapi.Client{Socket: path}
	// The socket outlives whoever serves it.
	for _, all := range []bool{true, false} {
		asked := make(chan error, 1)
		go func() {
			_, err := c.Listen(t.Context(), ssh)
			asked <- err
		}()
		cmd := program(t, "serve", "--inetd", "--policy", policy, "--idle", "100ms")
		var stderr bytes.Buffer
		cmd.Stdin, cmd.Stderr = f, &stderr
		if all {
			cmd.Stdout, cmd.Stderr = f, f
		}
		if err := cmd.Run(); err != nil { // it ends by itself
			t.Errorf("%v: %s", err, &stderr)
		}
		if err := <-asked; !errors.Is(err, rootapi.ErrRefused) {
			t.Errorf("%v; want ErrRefused (%s)", err, &stderr)
		}
		if !all && !strings.Contains(stderr.String(), "refused") {
			t.Errorf("the log is %q; want the refusal where it was told to go", &stderr)
		}
	}
}

func TestInetdPassesNothingOn(t *testing.T) {
	needsRoot(t)
	if runtime.GOOS != "linux" {
		t.Skip("it takes /proc")
	}
	f, path := passedSocket(t)
	cmd := program(t, "serve", "--inetd", "--policy", policyFor(t, os.Getuid()), "--idle", "1m")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f, f, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := rootapi.Client{Socket: path}
	if _, err := c.Listen(t.Context(), ssh); !errors.Is(err, rootapi.ErrRefused) {
		t.Errorf("%v; want ErrRefused", err)
	}
	for fd := range 3 {
		file := fmt.Sprintf("/proc/%d/fd/%d", cmd.Process.Pid, fd)
		if to, err := os.Readlink(file); err != nil || to != os.DevNull {
			t.Errorf("%s is %s, %v; want %s", file, to, err, os.DevNull)
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestFailures(t *testing.T) {
	needsRoot(t)
	broken := write(t, filepath.Join(dir(t), "1.json"), "{")
	newer := write(t, filepath.Join(dir(t), "1.json"), `{"version":9}`)
	none := filepath.Join(dir(t), "none.json")
	socket := filepath.Join(dir(t), "s")
	tests := []struct {
		name   string
		args   []string
		exit   int
		stderr []string
	}{
		{"no socket", []string{"serve", "--policy", policyFor(t, 1)}, 2, []string{"error: no socket has been passed", "hint: systemd does so, or name one with --socket"}},
		{"no standard input", []string{"serve", "--inetd", "--policy", policyFor(t, 1)}, 2, []string{"error: no socket has been passed as standard input", "hint: launchd does so, or name one with --socket"}},
		{"two sockets", []string{"serve", "--inetd", "--socket", socket}, 2, []string{"--inetd and --socket name two sockets"}},
		{"no policy", []string{"serve", "--policy", none, "--socket", socket}, 1, []string{none, "hint: name another with --policy"}},
		{"a broken policy", []string{"serve", "--policy", broken, "--socket", socket}, 1, []string{broken, "hint: docs/helper.md"}},
		{"no user's id", []string{"release", "--uid", "4294967296"}, 2, []string{"--uid 4294967296 is no user's id"}},
		{"a newer policy", []string{"release", "--policy", newer}, 1, []string{newer, "hint: upgrade tunneld-helper"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stderr bytes.Buffer
			if got := run(t.Context(), tt.args, &stderr, &stderr); got != tt.exit {
				t.Errorf("exit status %d; want %d", got, tt.exit)
			}
			for _, want := range tt.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("%s; want %q", &stderr, want)
				}
			}
		})
	}
}

// A directory in which a user can rename things is none for a socket that is given to
// him: what has its name by then need not be the socket.
func TestSocketInAnothersDirectory(t *testing.T) {
	needsRoot(t)
	for _, below := range []string{"", "roots"} {
		theirs := dir(t)
		if err := errors.Join(os.Mkdir(filepath.Join(theirs, "roots"), 0o755), os.Chown(theirs, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
		l, err := listen(filepath.Join(theirs, below, "s"), nobody)
		if err == nil {
			l.Close()
		}
		if want := fmt.Sprintf("directory %s is user %d's", theirs, nobody); err == nil || err.Error() != want {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

func TestNotRoot(t *testing.T) {
	needsRoot(t) // to be somebody else
	cmd := program(t)
	data, err := os.ReadFile(cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = filepath.Join(dir(t), "test") // where everybody may execute it
	if err := os.WriteFile(cmd.Path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	for _, command := range []string{"serve", "release"} {
		again := *cmd
		again.Args = []string{cmd.Path, command}
		out, err := again.CombinedOutput()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if want := "tunneld-helper: error: this takes root: systemd starts it as such, or sudo does\n"; !ok || exit.ExitCode() != 1 || string(out) != want {
			t.Errorf("%s: %v, %s", command, err, out)
		}
	}
}

// The zero System can do nothing at all.
func TestLadderIsOfThisMachine(t *testing.T) {
	if newLadder(nil).System.ReadFile == nil {
		t.Error("the ladder has no system to change")
	}
}
