package invoker

import (
	"context"
	"os/exec"
)

// Command is a program that runs as the user, who is the one that this program runs
// as: Windows has no sudo of the kind.
func (u User) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, name, args...)
}

// CheckHome has nothing to find: a home is its user's.
func (u User) CheckHome() error { return nil }
