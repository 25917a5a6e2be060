package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/windows"

	"github.com/tunneld/tunneld/internal/environ"
	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/setup/logontask"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

const (
	// needsRoot: there is no root here. Who may not do something is told by Windows.
	needsRoot = false
	lockPath  = `C:\ProgramData\tunneld-install.lock`
)

func stepNames() []string { return logontask.Steps() }

// programFiles is where only administrators may write.
func programFiles() (string, error) {
	dir, err := windows.KnownFolderPath(windows.FOLDERID_ProgramFiles, windows.KF_FLAG_DEFAULT)
	if err != nil {
		return "", fmt.Errorf("find the directory of programs: %w", err)
	}
	return dir, nil
}

// receipts is where it is noted what was installed. It is not in ProgramData, where
// everybody may make directories.
func receipts(programFiles string) string { return filepath.Join(programFiles, "tunneld-install") }

// installed are the users that have an installation, by their SIDs.
func installed() ([]string, error) {
	dir, err := programFiles()
	if err != nil {
		return nil, err
	}
	return (&setup.Machine{Receipts: receipts(dir)}).Users()
}

// site plans an installation for a Windows machine. To take one out, the user's
// configuration may be bad.
func (i *installation) site(ctx context.Context, who invoker.User, out bool) (*site, error) {
	h := home{who: who, purge: i.purge}
	view, err := i.view(ctx, h, out)
	if err != nil {
		return nil, err
	}
	dir, err := programFiles()
	if err != nil {
		return nil, err
	}
	system, err := windows.GetSystemDirectory()
	if err != nil {
		return nil, fmt.Errorf("find Windows' own programs: %w", err)
	}
	wish := logontask.Wish{
		SID: who.UID, ProgramFiles: dir, System: system,
		State: view.State, Environment: environ.Path(view.State), Missing: view.Missing,
		Domain: view.Domain, Without: i.without,
	}
	if !out {
		if wish.Content, err = programs("tunneld", "tunnelctl"); err != nil {
			return nil, err
		}
	}
	plan, err := logontask.Plan(wish)
	if err != nil {
		return nil, err
	}
	socket, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	h.config = view.Config
	h.capture = func(ctx context.Context) error { _, err := captureOwn(ctx, view.State); return err }
	services := logontask.Services{SID: who.UID, ProgramFiles: dir, Programs: program.Real()}
	return &site{
		plan: plan, steps: without(logontask.Steps(), i.without), view: view, look: h.view,
		before: func(ctx context.Context, standing []setup.Standing) error {
			replaced := func(s setup.Standing) bool { return s.Kind == setup.File && !s.Done }
			if !slices.ContainsFunc(standing, replaced) {
				return nil
			}
			return services.Stop(ctx, logontask.TaskName(who.UID))
		},
		aside: func() error { return stepAside(logontask.ProgramDir(dir)) },
		machine: &setup.Machine{
			UID: who.UID, Receipts: receipts(dir), Progress: i.progress,
			Actors: map[setup.Kind]setup.Actor{
				setup.Service: setup.ServiceActor(services),
				setup.Home:    h,
				setup.Trust: trust{
					who: who, client: logontask.ProgramDir(dir) + `\tunnelctl.exe`, domains: i.domains, out: i.out, look: h.view,
					socket: filepath.Join(socket, "tunneld", "tunneld.sock"),
				},
			},
		},
	}, nil
}

// stepAside moves this program away if it is in the directory: Windows removes none that
// runs, and lets it be moved. What is left of it goes with the next start of the machine.
func stepAside(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours, err := os.Stat(filepath.Join(dir, filepath.Base(self)))
	running, selfErr := os.Stat(self)
	if err != nil || selfErr != nil || !os.SameFile(ours, running) { // which may have several paths
		return nil
	}
	aside := filepath.Join(os.TempDir(), fmt.Sprintf("tunneld-%d.exe", os.Getpid()))
	if err := os.Rename(self, aside); err != nil {
		return withHint(fmt.Errorf("this program cannot take out itself: %w", err), "copy it to another directory, and run it there")
	}
	name, err := windows.UTF16PtrFromString(aside)
	if err == nil {
		err = windows.MoveFileEx(name, nil, windows.MOVEFILE_DELAY_UNTIL_REBOOT)
	}
	_ = err // it is in a directory for what nobody misses
	return nil
}

// rootEnvironment is this process's: it runs as the user.
func rootEnvironment(invoker.User) []string { return os.Environ() }
