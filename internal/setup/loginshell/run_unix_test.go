//go:build unix

package loginshell

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/invoker"
)

// A home has startup files, and the program that the shell is to run, which writes
// down its environment.
type home struct {
	dir     string
	program string
}

func newHome(t *testing.T, files map[string]string) home {
	t.Helper()
	h := home{dir: t.TempDir()}
	h.program = filepath.Join(h.dir, "it is a program")
	h.write(t, "it is a program", "#!/bin/sh\nenv >"+h.path("environment")+"\necho done\n", 0o755)
	for name, text := range files {
		h.write(t, name, strings.ReplaceAll(text, "$DIR", h.dir), 0o644)
	}
	return h
}

func (h home) path(name string) string { return filepath.Join(h.dir, name) }

func (h home) write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.path(name), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func (h home) shell(path string) Shell {
	return Shell{User: invoker.User{Home: h.dir}, Path: path, Patience: time.Minute}
}

func (h home) environment(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(h.path("environment"))
	if err != nil {
		t.Fatal(err)
	}
	return "\n" + string(text)
}

// What each shell's startup files set arrives, where people have it.
func TestShells(t *testing.T) {
	const posix = "PATH=/mine:$PATH; export PATH\nAWS_PROFILE=dev; export AWS_PROFILE\n"
	interactive := "case $- in *i*) ;; *) return;; esac\n" + posix
	tests := []struct {
		name, program string
		files         map[string]string
	}{
		{"bash", "bash", map[string]string{".bash_profile": ". $DIR/.bashrc\n", ".bashrc": interactive}},
		{"bash with .profile", "bash", map[string]string{".profile": posix}},
		{"sh", "sh", map[string]string{".profile": posix}},
		{"dash", "dash", map[string]string{".profile": "ENV=$DIR/rc; export ENV\n", "rc": posix}},
		{"ksh", "ksh", map[string]string{".profile": "ENV=$DIR/rc; export ENV\n", "rc": posix}},
		{"zsh", "zsh", map[string]string{".zshrc": posix}},
		{"fish", "fish", map[string]string{".config/fish/config.fish": "status is-interactive; or exit\nset -gx PATH /mine $PATH\nset -gx AWS_PROFILE dev\n"}},
		{"tcsh", "tcsh", map[string]string{".cshrc": "setenv PATH /mine:$PATH\n", ".login": "setenv AWS_PROFILE dev\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("XDG_CONFIG_HOME", "")
			path, err := exec.LookPath(tt.program)
			if err != nil {
				t.Skip(err)
			}
			h := newHome(t, tt.files)
			if err := h.shell(path).Exec(t.Context(), "done", h.program); err != nil {
				t.Fatal(err)
			}
			env := h.environment(t)
			for _, want := range []string{"\nPATH=/mine:", "\nAWS_PROFILE=dev\n", "\nHOME=" + h.dir + "\n", "\n" + Marker + "=1\n"} {
				if !strings.Contains(env, want) {
					t.Errorf("no %q in\n%s", want, env)
				}
			}
		})
	}
}

// Whatever startup files do, it comes to an end, and says what went wrong.
func TestStartupFiles(t *testing.T) {
	t.Setenv("SUDO_UID", "1000")
	t.Setenv("SUDO_COMMAND", "/bin/sh")
	const ifInteractive = "case $- in *i*) "
	tests := []struct {
		name, text string
		patience   time.Duration // 0: it must not matter
		want       string        // in the error; empty: none
	}{
		{name: "none"},
		{name: "asks for input", text: "read x\nread y </dev/tty\n"},
		{name: "prints much", text: "i=0; while [ $i -lt 3000 ]; do echo '\x1b[31m0123456789012345678901234567890123456789\xff'; i=$((i+1)); done\n"},
		{name: "fails", text: "false\nno-such-program\n"},
		{name: "has a syntax error when interactive", text: ifInteractive + "eval 'if';; esac\n"},
		{name: "starts something", text: "sleep 1000 & echo $! >$DIR/started\n"},
		{name: "asks in a loop when interactive", text: ifInteractive + "while :; do sleep 0.05; done;; esac\n", patience: 6 * time.Second},
		{name: "becomes another program when interactive", text: ifInteractive + "exec true;; esac\n"},
		{name: "hides what is printed", text: "exec >/dev/null\n", want: "ended before it ran what it was given"},
		{name: "ends", text: "echo 'not today'; exit 3\n", want: "exit status 3): not today"},
		{name: "becomes another program", text: "exec echo tmux\n", want: "sh -l -c ended before it ran what it was given: tmux"},
		{name: "never ends", text: "trap '' TERM INT HUP; while :; do sleep 0.05; done\n", patience: 300 * time.Millisecond, want: "was not done with its startup files after 300ms"},
		{name: "prints for ever", text: "while :; do echo noise; sleep 0.01; done\n", patience: 300 * time.Millisecond, want: "was not done with its startup files"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t, map[string]string{".profile": tt.text})
			s := h.shell("/bin/sh")
			if tt.patience > 0 {
				s.Patience = tt.patience
			}
			err := s.Exec(t.Context(), "done", h.program)
			switch {
			case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Fatalf("%v; want %q", err, tt.want)
			case tt.want == "":
				if env := h.environment(t); strings.Contains(env, "\nSUDO_") {
					t.Errorf("sudo's variables are there:\n%s", env)
				}
			}
			if text, err := os.ReadFile(h.path("started")); err == nil {
				awaitEnd(t, pidIn(t, text))
			}
		})
	}
}

func pidIn(t *testing.T, text []byte) int {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		t.Fatalf("%q is no process: %v", text, err)
	}
	return pid
}

// awaitEnd waits until there is no such process, or it is only waited for.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	await.Until(t, "what it has started to end", func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return syscall.Kill(pid, 0) != nil
		}
		return strings.Contains(string(stat), ") Z ")
	})
}

// An agent that goes its own way is neither waited for nor ended: it is the user's.
func TestAgent(t *testing.T) {
	setsid, err := exec.LookPath("setsid")
	if err != nil {
		t.Skip(err)
	}
	h := newHome(t, map[string]string{".profile": "[ -e $DIR/agent ] || " + setsid + " sh -c 'echo $$ >$DIR/agent; exec sleep 1000' &\nuntil [ -s $DIR/agent ]; do sleep 0.01; done\n"})
	if err := h.shell("/bin/sh").Exec(t.Context(), "done", h.program); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(h.path("agent"))
	if err != nil {
		t.Fatal(err)
	}
	pid := pidIn(t, text)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("it has ended: %v", err)
	}
	awaitEnd(t, pid)
}

// What the program says of its failure is told.
func TestProgramFails(t *testing.T) {
	h := newHome(t, nil)
	h.write(t, "it is a program", "#!/bin/sh\necho 'the disk is full' >&2\nexit 1\n", 0o755)
	err := h.shell("/bin/sh").Exec(t.Context(), "done", h.program)
	if err == nil || !strings.HasSuffix(err.Error(), "(exit status 1): the disk is full") {
		t.Errorf("%v", err)
	}
}

func TestNoShell(t *testing.T) {
	h := newHome(t, nil)
	for _, path := range []string{"/usr/sbin/nologin", "/bin/false", "sh"} {
		if err := h.shell(path).Exec(t.Context(), "done", h.program); !errors.Is(err, ErrNoShell) {
			t.Errorf("%s: %v; want ErrNoShell", path, err)
		}
	}
	err := h.shell(h.path("gone")).Exec(t.Context(), "done", h.program)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v; want that it is not there", err)
	}
	if err := h.shell("").Exec(t.Context(), "done", h.program); err != nil {
		t.Errorf("without one it is /bin/sh: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	h := newHome(t, map[string]string{".profile": "echo $$ >$DIR/running; while :; do sleep 0.05; done\n"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.shell("/bin/sh").Exec(ctx, "done", h.program) }()
	var text []byte
	await.Until(t, "the shell to run", func() bool { text, _ = os.ReadFile(h.path("running")); return len(text) > 1 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want that it was cancelled", err)
	}
	awaitEnd(t, pidIn(t, text))
}

// As root, for another user, it is that user's shell, with nothing of root's.
func TestAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	t.Setenv("SUDO_UID", "65534")
	t.Setenv("SSH_AUTH_SOCK", "/root/agent")
	who, err := invoker.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := newHome(t, nil)
	for dir := h.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.write(t, "it is a program", "#!/bin/sh\n[ -t 0 ] || echo \"$(id -u) $(grep CapEff /proc/self/status | tr -d '\\t') [$SSH_AUTH_SOCK$SUDO_UID]\"\n", 0o755)
	who.Home = h.dir
	s := Shell{User: who, Path: "/bin/sh", Patience: time.Minute}
	if err := s.Exec(t.Context(), "65534 CapEff:0000000000000000 []", h.program); err != nil {
		t.Error(err)
	}
}
