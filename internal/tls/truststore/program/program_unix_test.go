//go:build unix

package program

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/leakcheck"
	"github.com/tunneld/tunneld/internal/lockfile"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// script makes a program of that name.
func script(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRun(t *testing.T) {
	t.Setenv("SECRET", "of this process")
	out, err := Real().Run(t.Context(), Command{
		Path: script(t, "good", `cat; echo " $1 $KEY $SECRET $LC_ALL"; echo complaint >&2`),
		Args: []string{"argument"}, Env: []string{"KEY=value"}, Stdin: []byte("input"),
	})
	if want := "input argument value  C\n"; string(out) != want || err != nil {
		t.Errorf("output %q, error %v; want %q", out, err, want)
	}
}

// What a program complains of is told once, in a line, and its name once.
func TestFails(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		finishes   bool
		want       string
	}{
		{"silent", "exit 3", false, "bad: exit status 3"},
		{"to its standard error", "echo it does not; echo work >&2; exit 3", false, "bad: exit status 3: work"},
		{"to its output", "echo it does not; echo work; exit 3", false, "bad: exit status 3: it does not work"},
		{"with its name", "echo bad: no luck >&2; exit 3", false, "bad: exit status 3: no luck"},
		{"as keytool", "echo bad error: no luck >&2; exit 3", false, "bad: exit status 3: no luck"},
		{"at length", "printf '%500d end' 0 >&2; exit 3", false, ""},
		{"to a file", "echo no luck; exit 3", true, "bad: exit status 3: no luck"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Real().Run(t.Context(), Command{Path: script(t, "bad", tt.text), Finishes: tt.finishes})
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 3 {
				t.Fatalf("error %v; want the exit status", err)
			}
			if tt.want != "" && err.Error() != tt.want {
				t.Errorf("error %q; want %q", err, tt.want)
			}
			if len(err.Error()) > 340 || strings.Contains(err.Error(), "\n") {
				t.Errorf("error of %d bytes: %q; want a line", len(err.Error()), err)
			}
		})
	}
}

// What takes too long ends with all that it started.
func TestLimit(t *testing.T) {
	path := script(t, "slow", "sleep 1000 & wait")
	_, err := Real().Run(t.Context(), Command{Path: path, Limit: 50 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "slow has not ended within 50ms") {
		t.Errorf("error %v; want that it has not ended", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Real().Run(ctx, Command{Path: path}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want %v", err, context.Canceled)
	}
}

// A program that two at a time do not bear waits for the other one, and for all that it
// has started, though nobody waits for that any more.
func TestLock(t *testing.T) {
	lock, busy := filepath.Join(t.TempDir(), "lock"), filepath.Join(t.TempDir(), "busy")
	first := exec.Command(script(t, "first", "sleep 1000 3>&9 &\necho $! >"+busy))
	held, err := lockfile.Open(lock)
	if err != nil {
		t.Fatal(err)
	}
	first.ExtraFiles = []*os.File{nil, nil, nil, nil, nil, nil, held} // 9
	if err := first.Run(); err != nil {
		t.Fatal(err)
	}
	held.Close()
	second := Command{Path: script(t, "second", "true"), Lock: lock, Limit: 200 * time.Millisecond}
	if _, err := Real().Run(t.Context(), second); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beside the first one's child it ran: %v", err)
	}
	pid, err := os.ReadFile(busy)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("kill", strings.TrimSpace(string(pid))).Run(); err != nil {
		t.Fatal(err)
	}
	second.Limit = time.Minute
	if _, err := Real().Run(t.Context(), second); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// And who is run holds it.
	holder := Command{Path: script(t, "holder", `test -e /dev/fd/3`), Lock: lock}
	if _, err := Real().Run(t.Context(), holder); err != nil {
		t.Errorf("the lock is not passed on: %v", err)
	}
}

func TestFind(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if path, err := Find("sh"); err != nil || filepath.Base(path) != "sh" {
		t.Errorf("sh: %q, %v; want that of the system", path, err)
	}
	if path, err := Find("no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%q, %v; want %v", path, err, exec.ErrNotFound)
	}
}
