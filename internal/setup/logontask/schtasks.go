package logontask

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

const (
	// patience is how long a task may take to start, or to end; and interval is how
	// often it is looked whether it has.
	patience = 15 * time.Second
	interval = 200 * time.Millisecond
)

// Services is the task scheduler, for the task of one user: a setup.Services. It is
// told with schtasks, and asked with PowerShell.
type Services struct {
	SID          string
	ProgramFiles string
	// Programs are those of the system.
	Programs program.Programs
}

func (s Services) check(name string) error {
	if !isSID(s.SID) || name != TaskName(s.SID) {
		return fmt.Errorf("%s is no task of user %s", name, s.SID)
	}
	return nil
}

// State implements setup.Services.
func (s Services) State(ctx context.Context, name string) (setup.ServiceState, error) {
	if err := s.check(name); err != nil {
		return setup.ServiceState{}, err
	}
	at, err := s.look(ctx)
	return setup.ServiceState{Enabled: at.enabled, Active: at.running}, err
}

// A standing is what the scheduler knows of a task.
type standing struct{ there, enabled, running bool }

// look asks PowerShell, whose answer is in no language: schtasks says in words what a
// task does, and fails alike for one that is not there and for all else. What it says
// that the task ended with changes each time that it is not started again.
func (s Services) look(ctx context.Context) (standing, error) {
	path, err := s.Programs.Find(`WindowsPowerShell\v1.0\powershell`)
	if err != nil {
		return standing{}, err
	}
	out, err := s.Programs.Run(ctx, program.Command{Path: path, Args: []string{
		"-NoProfile", "-NonInteractive", "-Command", fmt.Sprintf(question, TaskName(s.SID)),
	}})
	if err != nil {
		return standing{}, fmt.Errorf("ask for the task: %w", err)
	}
	return parse(out)
}

// question has nothing in it that PowerShell would have to be told how to quote.
const question = `$ErrorActionPreference = 'Stop'; ` +
	`Get-ScheduledTask | Where-Object { $_.TaskPath -eq '\' -and $_.TaskName -eq '%s' } | ` +
	`ForEach-Object { 'task ' + $_.Settings.Enabled + ' ' + [int]$_.State }; 'end'`

// parse reads the answer, which comes to its end.
func parse(out []byte) (standing, error) {
	const running = "4" // of Disabled 1, Queued 2, Ready 3
	var at standing
	words := strings.Fields(string(out))
	if len(words) == 4 && words[0] == "task" {
		at = standing{there: true, enabled: words[1] == "True", running: words[2] == running}
		words = words[3:]
	}
	if len(words) != 1 || words[0] != "end" {
		return standing{}, fmt.Errorf("what PowerShell says of the task cannot be read: %.80q", out)
	}
	return at, nil
}

// Enable implements setup.Services.
func (s Services) Enable(ctx context.Context, name string) error {
	if err := s.check(name); err != nil {
		return err
	}
	if _, err := s.schtasks(ctx, "/Create", "/TN", name, "/XML", definitionPath(s.ProgramFiles, s.SID), "/F"); err != nil {
		return err
	}
	if at, err := s.look(ctx); err != nil || at.running {
		return err
	}
	if _, err := s.schtasks(ctx, "/Run", "/TN", name); err != nil {
		return err
	}
	return s.until(ctx, "start "+name, func(at standing) bool { return at.running })
}

// Restart implements setup.Services.
func (s Services) Restart(ctx context.Context, name string) error {
	if err := s.Stop(ctx, name); err != nil {
		return err
	}
	return s.Enable(ctx, name)
}

// Stop ends the task, if it is there, until Enable: Windows does not let anybody
// replace a program that runs.
func (s Services) Stop(ctx context.Context, name string) error {
	if err := s.check(name); err != nil {
		return err
	}
	if at, err := s.look(ctx); err != nil || !at.there {
		return err
	}
	// It is started each minute.
	if _, err := s.schtasks(ctx, "/Change", "/TN", name, "/DISABLE"); err != nil {
		return err
	}
	if at, err := s.look(ctx); err != nil || !at.running {
		return err
	}
	if _, err := s.schtasks(ctx, "/End", "/TN", name); err != nil {
		return err
	}
	return s.until(ctx, "end "+name, func(at standing) bool { return !at.running })
}

// Disable implements setup.Services.
func (s Services) Disable(ctx context.Context, name string) error {
	if err := s.Stop(ctx, name); err != nil {
		return err
	}
	at, err := s.look(ctx)
	if err != nil || !at.there {
		return err
	}
	_, err = s.schtasks(ctx, "/Delete", "/TN", name, "/F")
	return err
}

func (s Services) schtasks(ctx context.Context, args ...string) ([]byte, error) {
	path, err := s.Programs.Find("schtasks")
	if err != nil {
		return nil, err
	}
	out, err := s.Programs.Run(ctx, program.Command{Path: path, Args: args})
	if err != nil {
		return nil, fmt.Errorf("schtasks %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// until looks again and again until the task is as it should be.
func (s Services) until(ctx context.Context, what string, done func(standing) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		at, err := s.look(ctx)
		switch {
		case err == nil && done(at):
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: it has not come to that within %v", what, patience)
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
