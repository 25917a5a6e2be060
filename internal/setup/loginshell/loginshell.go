// Package loginshell runs a user's login shell for what it sets, without a terminal
// and without waiting for what it may have in mind.
package loginshell

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/invoker"
)

// ErrNoShell: the user's shell lets nobody in.
var ErrNoShell = errors.New("the user has no login shell")

// Marker is set while a shell is run for its environment, so that startup files may
// leave out what they would do for a person.
const Marker = "TUNNELD_CAPTURE_ENVIRONMENT"

// patience is how long a shell may take to get to the command that it is given.
const patience = 10 * time.Second

// A Shell is a user's login shell.
type Shell struct {
	User invoker.User
	// Path is where it is; empty means what passwd(5) means by that, /bin/sh.
	Path string
	// Patience is how long it may take; 0 means 10 s. It is run up to twice.
	Patience time.Duration
}

// Exec has the shell run its startup files and then, in its own place, a program,
// which must print done on a line of its own when it has succeeded: a shell's exit
// status says little about what became of it. First it is an interactive shell, which
// most people's PATH takes, and if that comes to nothing, another one.
//
// Whatever the shell has started in its process group is ended. The error says what
// went wrong, in the program's words if it has come so far.
func (s Shell) Exec(ctx context.Context, done, program string, args ...string) error {
	if s.Path == "" {
		s.Path = "/bin/sh"
	}
	if !filepath.IsAbs(s.Path) {
		return fmt.Errorf("%w: %q is no path", ErrNoShell, s.Path)
	}
	switch filepath.Base(s.Path) {
	case "nologin", "false", "true", "sync", "halt", "shutdown", "git-shell":
		return fmt.Errorf("%w: it is %s", ErrNoShell, s.Path)
	}
	var failed error
	for _, how := range invocations(s.Path, command(program, args)) {
		err := s.run(ctx, how, done)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed = err
	}
	return failed
}

// An invocation is argv of a shell.
type invocation []string

// invocations are the ways to run a shell, the best first.
func invocations(shell, command string) []invocation {
	switch base := filepath.Base(shell); base {
	case "csh", "tcsh":
		// They take -l only alone, and read .cshrc in any case. A dash in front
		// makes a login shell of each shell there is.
		return []invocation{{"-" + base, "-c", command}, {base, "-c", command}}
	default:
		return []invocation{{base, "-i", "-l", "-c", command}, {base, "-l", "-c", command}}
	}
}

// command is one that every shell understands alike: a shell that runs it becomes the
// program.
func command(program string, args []string) string {
	words := []string{"exec"}
	for _, word := range append([]string{program}, args...) {
		words = append(words, quote(word))
	}
	return strings.Join(words, " ")
}

// plain are the characters that mean nothing to any shell.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@"

// quote leaves alone what needs no quotes, in case that there is a shell with
// others.
func quote(word string) string {
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
