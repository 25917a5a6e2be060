package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/setup"
)

// A trust has tunnelctl put the local CA into the trust stores: a setup.Actor.
type trust struct {
	who     invoker.User
	client  string // tunnelctl, of root's own
	socket  string // of the daemon
	domains []string
	look    func(context.Context) (homeView, error)
	out     io.Writer
}

// Done implements setup.Actor: whether there is anything to take out.
func (t trust) Done(ctx context.Context, _ setup.Change) (bool, error) {
	if _, err := os.Lstat("/var/lib/tunneld-trust/" + t.who.UID); err == nil {
		return true, nil
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return false, err
	}
	v, err := t.look(ctx)
	return v.Trusted, err
}

// Do implements setup.Actor. Some store or other may be out of reach, which is no
// reason to give up.
func (t trust) Do(ctx context.Context, _ setup.Change) (string, error) {
	args := []string{"trust", "--yes"}
	for _, domain := range t.domains {
		args = append(args, "--domain", domain)
	}
	if err := t.tunnelctl(ctx, args...); err != nil {
		return "trust stores: " + err.Error(), nil
	}
	return "", nil
}

// Undo implements setup.Actor.
func (t trust) Undo(ctx context.Context, _ setup.Change) (string, error) {
	args := []string{"trust", "--remove", "--yes"}
	if t.who.Gone {
		args = append(args, "--only", "machine")
	}
	return "", t.tunnelctl(ctx, args...)
}

// An unread passes on what is written to it, and does not mind if nobody reads that.
type unread struct{ to io.Writer }

func (u unread) Write(text []byte) (int, error) {
	_, _ = u.to.Write(text)
	return len(text), nil
}

func (t trust) tunnelctl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, t.client, append([]string{"--socket", t.socket}, args...)...)
	cmd.Dir = "/"
	// It may end in order, and what it has started may hold on to what it prints to.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = rootEnvironment(t.who)
	var errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = unread{t.out}, &errOut
	defer endWithUs(cmd)()
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(errOut.String()); text != "" {
			return fmt.Errorf("%s", strings.ReplaceAll(text, "\n", "; "))
		}
		return fmt.Errorf("tunnelctl %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
