package launchd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

// ErrNoSession: the user is not logged in, so there is no launchd domain to run an
// agent in.
var ErrNoSession = errors.New("the user is not logged in: what is installed starts at the next login")

// What launchctl exits with, errors of launchd's own besides those of errno: it says
// more in words, which change from one version to the next.
const (
	exitNoProcess   = 3   // bootout: there is nothing to stop
	exitBusy        = 5   // bootstrap: also while a job of that label is being stopped
	exitInProgress  = 36  // bootout: it is being stopped
	exitAlready     = 37  // bootstrap: it is there
	exitNoDomain    = 112 // print
	exitNoService   = 113 // print, bootout
	exitUnsupported = 125 // there is no session of that kind
)

// patience is how long a job may take to start, or to end.
const patience = 15 * time.Second

// interval is how often it is looked whether it has.
const interval = 100 * time.Millisecond

// Services is the launchd of a Mac, for the jobs of one user: a setup.Services. It
// is asked with launchctl(1). What it says of a job that was disabled or enabled by
// hand, launchd keeps for ever; so it is told neither unless the user has.
type Services struct {
	UID  string
	Home string
	// Programs are those of the system.
	Programs program.Programs
	// AsUser runs a program as the user. Nothing in the home directory is changed
	// otherwise.
	AsUser func(ctx context.Context, path string, args ...string) error
	// Root is put before all paths that are not in the home; empty outside of tests.
	Root string
}

// A job is one of tunneld's.
type job struct {
	label string
	// plist is where launchd reads its definition, and source of what that is a copy;
	// empty: of none.
	plist, source string
	// domains are where it may run, the best first.
	domains []string
	// onDemand says that launchd listens for it.
	onDemand bool
}

func (s Services) job(name string) (job, error) {
	switch name {
	case AgentLabel:
		return job{
			label: name, plist: agentPath(s.Home), source: s.Root + agentSource(s.UID),
			// The session of who sits at the machine, and what there is for who comes
			// over SSH.
			domains: []string{"gui/" + s.UID, "user/" + s.UID},
		}, nil
	case HelperLabel(s.UID):
		return job{label: name, plist: s.Root + helperPath(s.UID), domains: []string{"system"}, onDemand: true}, nil
	}
	return job{}, fmt.Errorf("%s is no job of user %s", name, s.UID)
}

// State implements setup.Services.
func (s Services) State(ctx context.Context, name string) (setup.ServiceState, error) {
	var state setup.ServiceState
	j, err := s.job(name)
	if err != nil {
		return state, err
	}
	if state.Enabled, err = j.defined(); err != nil {
		return state, err
	}
	for _, domain := range j.domains {
		loaded, running, err := s.look(ctx, domain, j.label)
		if err != nil {
			return state, err
		}
		state.Active = state.Active || running || loaded && j.onDemand
	}
	if disabled, err := s.disabled(ctx, j); err != nil || disabled != "" {
		state.Enabled = false
		return state, err
	}
	return state, nil
}

// defined reports whether launchd will read the definition, and the one that is
// installed.
func (j job) defined() (bool, error) {
	have, err := contents(j.plist)
	if err != nil || have == nil || j.source == "" {
		return have != nil, err
	}
	want, err := contents(j.source)
	return want == nil || bytes.Equal(have, want), err
}

// contents is what a regular file holds; nil if there is none.
func contents(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return nil, nil
	}
	return os.ReadFile(path)
}

// Enable implements setup.Services.
func (s Services) Enable(ctx context.Context, name string) error { return s.start(ctx, name, false) }

// Restart implements setup.Services.
func (s Services) Restart(ctx context.Context, name string) error { return s.start(ctx, name, true) }

// start has a job run by its present definition. If again is set, it is ended first
// in any case.
func (s Services) start(ctx context.Context, name string, again bool) error {
	j, err := s.job(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	defined, err := j.defined()
	if err != nil {
		return err
	}
	if !defined {
		if err := s.define(ctx, j); err != nil {
			return err
		}
	}
	if again || !defined {
		if err := s.stop(ctx, j); err != nil {
			return err
		}
	}
	if disabled, err := s.disabled(ctx, j); err != nil {
		return err
	} else if disabled != "" {
		if err := s.launchctl(ctx, nil, "enable", disabled+"/"+j.label); err != nil {
			return err
		}
	}
	return s.bootstrap(ctx, j)
}

// define puts the definition where launchd reads it at the next login.
func (s Services) define(ctx context.Context, j job) error {
	if j.source == "" {
		return fmt.Errorf("%s is missing", j.plist)
	}
	if err := s.AsUser(ctx, "/bin/mkdir", "-p", filepath.Dir(j.plist)); err != nil {
		return err
	}
	return s.AsUser(ctx, "/usr/bin/install", "-m", "644", j.source, j.plist)
}

// bootstrap has launchd know the job, unless it does, and waits until it is active.
func (s Services) bootstrap(ctx context.Context, j job) error {
	domain, err := s.domain(ctx, j)
	if err != nil {
		return err
	}
	kicked := false
	var refused error
	err = s.until(ctx, "start "+j.label, func() (bool, error) {
		active, loaded := false, false
		for _, d := range j.domains {
			here, running, err := s.look(ctx, d, j.label)
			if err != nil {
				return false, err
			}
			loaded, active = loaded || here, active || running || here && j.onDemand
		}
		switch {
		case active:
			return true, nil
		case !loaded:
			kicked = true
			// It says no more than that it is busy for most of what can be wrong.
			_, err := s.run(ctx, "bootstrap", domain, j.plist)
			if code, ok := exitCode(err); ok && (code == exitBusy || code == exitAlready) {
				refused, err = err, nil
			}
			return false, err
		case !kicked: // it was there, and waits for its turn after a crash
			kicked = true
			return false, s.launchctl(ctx, []int{exitNoService, exitAlready}, "kickstart", domain+"/"+j.label)
		}
		return false, nil
	})
	if err != nil && refused != nil {
		return fmt.Errorf("%w; %w", err, refused)
	}
	return err
}

// Disable implements setup.Services.
func (s Services) Disable(ctx context.Context, name string) error {
	j, err := s.job(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	if err := s.stop(ctx, j); err != nil {
		return err
	}
	if j.onDemand {
		return s.release(ctx)
	}
	return s.forget(ctx, j)
}

// release has the helper take back what was claimed: launchd runs nothing when a job
// is ended.
func (s Services) release(ctx context.Context) error {
	helper := s.Root + programPath("tunneld-helper")
	if _, err := os.Stat(helper); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	_, err := s.Programs.Run(ctx, program.Command{Path: helper, Args: []string{"release", "--uid", s.UID}, Limit: 2 * time.Minute})
	return err
}

// forget removes the copy of the definition, if it still is one, and what running has
// left.
func (s Services) forget(ctx context.Context, j job) error {
	have, err := contents(j.plist)
	if err != nil {
		return err
	}
	if same, err := j.defined(); err != nil {
		return err
	} else if have != nil && !same {
		return fmt.Errorf("%s was changed since it was installed: look at it, and remove it", j.plist)
	}
	return s.AsUser(ctx, "/bin/rm", "-rf", j.plist, Log(s.Home), socketDir(s.Home))
}

// stop ends a job wherever it runs, and has launchd forget it until the next login.
func (s Services) stop(ctx context.Context, j job) error {
	for _, domain := range j.domains {
		loaded, _, err := s.look(ctx, domain, j.label)
		if err != nil {
			return err
		}
		if !loaded {
			continue
		}
		if err := s.launchctl(ctx, []int{exitNoProcess, exitInProgress, exitNoService}, "bootout", domain+"/"+j.label); err != nil {
			return err
		}
		if err := s.until(ctx, "stop "+j.label, func() (bool, error) {
			loaded, _, err := s.look(ctx, domain, j.label)
			return !loaded, err
		}); err != nil {
			return err
		}
	}
	return nil
}

// domain is the best one for the job of those that there are.
func (s Services) domain(ctx context.Context, j job) (string, error) {
	for _, domain := range j.domains {
		_, err := s.run(ctx, "print", domain)
		if err == nil {
			return domain, nil
		}
		if code, ok := exitCode(err); !ok || !slices.Contains([]int{exitNoDomain, exitNoService, exitUnsupported}, code) {
			return "", err
		}
	}
	return "", fmt.Errorf("user %s: %w", s.UID, ErrNoSession)
}

// look tells whether launchd knows a job, and whether it runs.
func (s Services) look(ctx context.Context, domain, label string) (loaded, running bool, err error) {
	out, err := s.run(ctx, "print", domain+"/"+label)
	if err == nil {
		return true, runs(out), nil
	}
	if code, ok := exitCode(err); ok && slices.Contains([]int{exitNoDomain, exitNoService, exitUnsupported}, code) {
		return false, false, nil
	}
	return false, false, err
}

// runs reads what print says of a job.
func runs(out []byte) bool {
	for line := range bytes.Lines(out) {
		if key, value, ok := strings.Cut(string(bytes.TrimSpace(line)), " = "); ok && key == "state" {
			return value == "running"
		}
	}
	return false
}

// disabled is the domain in which the user has said that the job shall not start;
// empty if there is none.
func (s Services) disabled(ctx context.Context, j job) (string, error) {
	for _, domain := range j.domains {
		out, err := s.run(ctx, "print-disabled", domain)
		if code, ok := exitCode(err); ok && slices.Contains([]int{exitNoDomain, exitNoService, exitUnsupported}, code) {
			continue
		}
		if err != nil {
			return "", err
		}
		if listed(out, j.label) {
			return domain, nil
		}
	}
	return "", nil
}

// listed reads what print-disabled says: "true" up to macOS 12, "disabled" since.
func listed(out []byte, label string) bool {
	for line := range bytes.Lines(out) {
		key, value, ok := strings.Cut(string(bytes.TrimSpace(line)), " => ")
		if ok && strings.Trim(key, `"`) == label {
			return value == "true" || value == "disabled"
		}
	}
	return false
}

// launchctl runs a command that may also exit with one of the codes in fine.
func (s Services) launchctl(ctx context.Context, fine []int, args ...string) error {
	_, err := s.run(ctx, args...)
	if code, ok := exitCode(err); ok && slices.Contains(fine, code) {
		return nil
	}
	return err
}

func (s Services) run(ctx context.Context, args ...string) ([]byte, error) {
	path, err := s.Programs.Find("launchctl")
	if err != nil {
		return nil, err
	}
	out, err := s.Programs.Run(ctx, program.Command{Path: path, Args: args})
	if err != nil {
		return nil, fmt.Errorf("launchctl %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// exitCode is what a program that ran has ended with.
func exitCode(err error) (int, bool) {
	ended, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err)
	if !ok || ended.ExitCode() < 0 {
		return 0, false
	}
	return ended.ExitCode(), true
}

// until asks again and again until done reports true.
func (s Services) until(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: it has not come to that within %v", what, patience)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: it has not come to that within %v", what, patience)
		}
	}
}
