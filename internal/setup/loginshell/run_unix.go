//go:build unix

package loginshell

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/terminal"
)

// run runs the shell once.
func (s Shell) run(ctx context.Context, how invocation, done string) error {
	limit := cmp.Or(s.Patience, patience)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := s.User.Command(limited, s.Path)
	cmd.Args = how
	cmd.Dir = "/"
	cmd.Env = append(environment(cmd.Env), "HOME="+s.User.Home, "SHELL="+s.Path, "TERM=dumb", Marker+"=1")
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	// A session of its own has no terminal to ask at, and is one process group, since
	// without a terminal shells have no jobs.
	cmd.SysProcAttr.Setsid = true
	var said printed
	cmd.Stdout, cmd.Stderr = &said, &said
	// Nothing less ends an interactive shell. What it has started may hold on to the
	// pipe, and is not waited for.
	end := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel, cmd.WaitDelay = end, time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", s.Path, err)
	}
	err := cmd.Wait()
	_ = end() // there may be none left; as long as there is one, the group's number is nobody else's
	ran := strings.Join(how[:len(how)-1], " ")
	switch {
	case said.has(done):
		return nil
	case limited.Err() != nil && ctx.Err() == nil:
		return fmt.Errorf("%s was not done with its startup files after %v", ran, limit)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return fmt.Errorf("%s failed (%w)%s", ran, err, said.last())
	}
	return fmt.Errorf("%s ended before it ran what it was given%s", ran, said.last())
}

// environment is what the shell begins with: nothing of sudo's, or the program would
// take itself for root's. nil is this process's own, as for exec.Cmd.
func environment(env []string) []string {
	if env == nil {
		env = os.Environ()
	}
	return slices.DeleteFunc(slices.Clone(env), func(variable string) bool {
		return strings.HasPrefix(variable, "SUDO_") || strings.HasPrefix(variable, "PKEXEC_")
	})
}

// most is how much is kept of what a shell prints.
const most = 64 << 10

// printed is what was printed last. It is written to until Wait returns, and read
// after that.
type printed struct{ text []byte }

func (p *printed) Write(text []byte) (int, error) {
	p.text = append(p.text, text...)
	if over := len(p.text) - most; over > 0 {
		p.text = slices.Delete(p.text, 0, over)
	}
	return len(text), nil
}

func (p *printed) has(line string) bool {
	for l := range bytes.Lines(p.text) {
		if string(bytes.TrimRight(l, "\r\n")) == line {
			return true
		}
	}
	return false
}

// last is the last line, for an error; it is not trusted to be text.
func (p *printed) last() string {
	lines := bytes.Split(bytes.TrimSpace(p.text), []byte("\n"))
	line := terminal.Printable(string(lines[len(lines)-1]))
	if line == "" {
		return ""
	}
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "")
	}
	return ": " + line
}
