// Package program runs programs of the system: with an environment of ours, for a limited time, and
// with what they complain of.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/lockfile"
)

// A Command is a program to be run, and what it is given. It gets no more of this
// process's environment than what cleanEnvironment has.
type Command struct {
	Path string
	Args []string
	// Env has more variables, as KEY=VALUE; later ones win.
	Env   []string
	Stdin []byte
	// Finishes: if this process is killed, it goes on to its end, since it writes to a
	// file. A write to a pipe would kill it half way, and whatever it runs: on Debian
	// that is dpkg, which then has to be mended by hand. What it writes is not returned.
	Finishes bool
	// Lock is a file that is locked from before the program begins until it, and all
	// that it has started, has ended, though this process be killed before; others wait.
	// It is for programs that two at a time do not bear; empty: this one does.
	Lock string
	// Limit is how long it may take, with the waiting; 0 means a minute.
	Limit time.Duration
}

// Programs are those of the system; tests play them.
type Programs struct {
	// Find returns the path of a program of the system. The error is
	// exec.ErrNotFound.
	Find func(name string) (string, error)
	// Run runs one to its end and returns what it wrote to its standard output. The
	// error says what it wrote to the other.
	Run func(ctx context.Context, c Command) ([]byte, error)
}

// Real are the programs that there are.
func Real() Programs { return Programs{Find: Find, Run: run} }

const (
	// programLimit is how long a program may take that usually takes seconds.
	programLimit = time.Minute
	// killedDelay is how long a program that was killed may keep its output open through
	// children.
	killedDelay = time.Second
)

func run(ctx context.Context, c Command) ([]byte, error) {
	limit := c.Limit
	if limit == 0 {
		limit = programLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env = append(cleanEnvironment(), c.Env...)
	cmd.Stdin = bytes.NewReader(c.Stdin)
	cmd.WaitDelay = killedDelay
	var out, said output
	cmd.Stdout, cmd.Stderr = &out, &said
	var file *os.File
	if c.Finishes {
		var err error
		if file, err = os.CreateTemp("", "tunneld-output-"); err != nil {
			return nil, fmt.Errorf("make a file for what %s writes: %w", filepath.Base(c.Path), err)
		}
		_ = os.Remove(file.Name()) // nobody needs its name
		defer file.Close()
		cmd.Stdout, cmd.Stderr = file, file
	}
	ownGroup(cmd)
	if c.Lock != "" {
		lock, err := awaitLock(ctx, c.Lock)
		if err != nil {
			return nil, fmt.Errorf("wait for the end of another %s: %w", filepath.Base(c.Path), err)
		}
		defer lock.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, lock)
	}
	err := cmd.Run()
	if file != nil {
		_, _ = said.ReadFrom(io.NewSectionReader(file, 0, outputLimit))
	}
	if err == nil {
		return out.Bytes(), nil
	}
	name := filepath.Base(c.Path)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return out.Bytes(), fmt.Errorf("%s has not ended within %v: %w", name, limit, context.DeadlineExceeded)
	}
	if ctx.Err() != nil {
		return out.Bytes(), fmt.Errorf("%s: %w", name, ctx.Err())
	}
	if words := lastWords(said.String(), out.String()); words != "" {
		words = strings.TrimPrefix(words, name+": ")
		words = strings.TrimPrefix(words, name+" error: ")
		return out.Bytes(), fmt.Errorf("%s: %w: %s", name, err, words)
	}
	return out.Bytes(), fmt.Errorf("%s: %w", name, err)
}

// lockLook is how often it is looked whether a lock is free.
const lockLook = 50 * time.Millisecond

func awaitLock(ctx context.Context, path string) (*os.File, error) {
	look := time.NewTicker(lockLook)
	defer look.Stop()
	for {
		f, err := lockfile.Open(path)
		if !errors.Is(err, lockfile.ErrLocked) {
			return f, err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// output is what a program wrote, as far as it is reasonable: some, when they cannot ask, ask for ever.
type output struct{ bytes.Buffer }

const outputLimit = 64 << 20

func (o *output) Write(p []byte) (int, error) {
	if o.Len() < outputLimit {
		o.Buffer.Write(p)
	}
	return len(p), nil
}

// lastWords is what a program that failed said, in one line of at most 300 bytes: what
// it wrote to its standard error, or else to its output, where keytool complains.
func lastWords(said ...string) string {
	for _, s := range said {
		if words := strings.Join(strings.Fields(s), " "); words != "" {
			if len(words) > 300 {
				words = "... " + strings.ToValidUTF8(words[len(words)-300:], "")
			}
			return words
		}
	}
	return ""
}
