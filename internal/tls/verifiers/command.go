package verifiers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

// A command is how a program is started.
type command struct {
	args []string
	// env is added to this process's environment, and replaces what has the same name.
	env   []string
	stdin string
	// dir is where it runs; empty: where this process does, which relative paths in the
	// environment go from.
	dir string
}

// An end is what became of a program.
type end struct {
	// status is its exit status, and negative if it has none: it could not be started,
	// or a signal ended it.
	status int
	// how says that in words.
	how string
	// killed is true if it was ended because the time was over.
	killed         bool
	stdout, stderr string
}

// absentStatus is the exit status of our scripts for "there is nobody to ask":
// EX_UNAVAILABLE of sysexits.h.
const absentStatus = 69

// killedDelay is for how long processes that a program has left, or that were
// killed, may keep its output open.
const killedDelay = time.Second

// run runs a program until it ends, until ctx is done, or until settled is closed,
// and then ends all that it has started.
func (c command) run(ctx context.Context, program string, settled <-chan struct{}) end {
	// The program is ended with the thread that started it: see attributes. So that must
	// not end before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	limited := ctx
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, program, c.args...)
	cmd.Dir = c.dir
	cmd.Env = append(environment(os.Environ()), c.env...)
	if c.stdin != "" {
		cmd.Stdin = strings.NewReader(c.stdin)
	}
	var stdout, stderr head
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = killedDelay
	family := newFamily(cmd)
	defer family.end()
	cmd.Cancel = func() error { family.end(); return os.ErrProcessDone }
	if err := cmd.Start(); err != nil {
		return end{status: -1, how: err.Error()}
	}
	family.started()

	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-settled:
			stop()
		case <-ctx.Done():
		}
	})
	err := cmd.Wait()
	over := limited.Err() != nil
	stop()
	watch.Wait()

	ended := end{status: cmd.ProcessState.ExitCode(), how: cmd.ProcessState.String(), killed: over, stdout: stdout.String(), stderr: stderr.String()}
	if err != nil && ended.how == "" {
		ended.how = err.Error()
	}
	return ended
}

// fetched is the end of what was done in this process.
func fetched(ctx context.Context, err error) end {
	if err == nil {
		return end{}
	}
	return end{status: 1, how: err.Error(), killed: ctx.Err() != nil, stderr: err.Error()}
}

// environment adds to an environment that 127.0.0.1 is not reached by a proxy.
// Some programs know the one spelling and some the other.
func environment(env []string) []string {
	const us = "127.0.0.1"
	all := append([]string(nil), env...)
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		value := us
		for _, v := range env {
			if old, ok := strings.CutPrefix(v, name+"="); ok && old != "" {
				value = old + "," + us
			}
		}
		all = append(all, name+"="+value)
	}
	return all
}

// A head keeps the beginning of what is written to it.
type head struct{ strings.Builder }

const headSize = 64 << 10

func (h *head) Write(p []byte) (int, error) {
	if room := headSize - h.Len(); room > 0 {
		h.Builder.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// noise is what lines begin with that say nothing: that of Java when it is given
// options by the environment, and that of Firefox.
var noise = []string{"Picked up ", "*** You are running in headless mode"}

// pick finds the line that says most: one with the first thing that is telling, or the
// next, or else the first line.
func pick(output string, telling []string) string {
	lines := strings.Split(output, "\n")
	for _, part := range telling {
		for _, line := range lines {
			if !strings.Contains(line, part) {
				continue
			}
			if _, said, ok := strings.Cut(line, "] "); ok && line[0] == '[' { // process, time, file
				return said
			}
			return line
		}
	}
	for _, line := range lines {
		if strings.TrimSpace(line) != "" && !slices.ContainsFunc(noise, func(n string) bool { return strings.HasPrefix(line, n) }) {
			return line
		}
	}
	return ""
}

// oneLine makes of what a program printed something that can be shown in a line.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.Join(strings.Fields(s), " ")
	const most = 200
	if runes := []rune(s); len(runes) > most {
		return fmt.Sprintf("%s...", string(runes[:most]))
	}
	return s
}
