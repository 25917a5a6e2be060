// Package machine is what is done to an operating system, and seen of it, so that
// it finds names: files, programs, systemd, network interfaces, Windows' registry. It
// knows neither whose names they are nor why anything is done.
package machine

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// A System is what the rungs do to a machine and see of it: functions, so that a
// test can play any machine, and stop at any step. All that changes something
// goes through here.
type System struct {
	// ReadFile reads a file.
	ReadFile func(path string) ([]byte, error)
	// ReplaceFile writes a whole file such that readers see the old or the new
	// one, and keeps the mode, owner and security label of the one that was
	// there. One that was not gets mode 0644.
	ReplaceFile func(path string, data []byte) error
	// SwapFile is ReplaceFile for a file that others write to: if it is no longer
	// old (nil: not there) right before it would be replaced, nothing is done, and
	// the error is ErrChanged.
	SwapFile func(path string, old, data []byte) error
	// RemoveFile removes a file. That it is not there is fs.ErrNotExist.
	RemoveFile func(path string) error
	// MakeDir makes one directory with mode 0755, and RemoveDir removes it if
	// it is empty.
	MakeDir   func(path string) error
	RemoveDir func(path string) error
	ReadDir   func(path string) ([]fs.DirEntry, error)
	// ReadLink reads a symbolic link; an error if path is none.
	ReadLink func(path string) (string, error)
	// Run runs a program of the system, found in its own directories whatever
	// $PATH says, and returns its standard output.
	Run func(ctx context.Context, name string, args ...string) ([]byte, error)

	// The rest is there on Linux only.

	// ResolvedVersion is the version of systemd's resolver; ErrNoResolved: it does
	// not run. Asking does not start it.
	ResolvedVersion func(ctx context.Context) (int, error)
	// ResolvedProperty is what it says of itself.
	ResolvedProperty func(ctx context.Context, name string) (string, error)
	// LinkIsOurs reports whether a network interface is a pair that AddLink
	// made. fs.ErrNotExist: there is none of that name.
	LinkIsOurs func(name string) (bool, error)
	// AddLink makes a pair of interfaces that lead nowhere, so that the resolver
	// has one of ours to which names can be tied. The other end is called as the
	// first, with an underscore in place of the first dash, which there has to be.
	// RemoveLink removes both. An interface of somebody else is ErrForeignLink.
	AddLink    func(name string) error
	RemoveLink func(name string) error
	// SetLinkDNS makes systemd's resolver ask server for the domains and what is
	// below them, and for nothing else, over that interface.
	SetLinkDNS func(ctx context.Context, link string, server netip.AddrPort, domains []string) error

	// ServiceState is the ActiveState of a systemd unit, and its main process.
	ServiceState func(ctx context.Context, unit string) (state string, pid int, err error)
	// ReloadService and RestartService return when it is done.
	ReloadService  func(ctx context.Context, unit string) error
	RestartService func(ctx context.Context, unit string) error
	// Reread tells a process to read its files again (SIGHUP).
	Reread func(pid int) error

	// Registry is there on Windows only.
	Registry Registry
}

// files is what all systems have: files, and programs.
func files() System {
	return System{
		ReadFile:    os.ReadFile,
		ReplaceFile: func(path string, data []byte) error { return replaceFile(path, data, func() error { return nil }) },
		SwapFile:    swapFile,
		RemoveFile:  removeFile,
		MakeDir:     makeDir,
		RemoveDir:   removeDir,
		ReadDir:     os.ReadDir,
		ReadLink:    os.Readlink,
		Run:         run,
	}
}

// Errors that callers tell apart.
var (
	// ErrChanged: somebody else has written to a file meanwhile.
	ErrChanged = errors.New("it was changed by somebody else meanwhile")
	// ErrNoResolved: there is nobody to ask or to tell.
	ErrNoResolved = errors.New("systemd-resolved does not run")
	// ErrForeignLink: it is left alone.
	ErrForeignLink = errors.New("there is an interface of that name that is not ours")
)

// Before returns the same system, but for a call of step before each change that
// is made to it, with a description that contains what is changed. If step returns
// an error, the change is not made.
func (s System) Before(step func(what string) error) System {
	onPath := func(what string, do func(string) error) func(string) error {
		if do == nil {
			return nil
		}
		return func(path string) error {
			if err := step(what + " " + path); err != nil {
				return err
			}
			return do(path)
		}
	}
	onUnit := func(what string, do func(context.Context, string) error) func(context.Context, string) error {
		if do == nil {
			return nil
		}
		return func(ctx context.Context, unit string) error {
			return onPath(what, func(unit string) error { return do(ctx, unit) })(unit)
		}
	}
	old := s
	s.ReplaceFile = func(path string, data []byte) error {
		return onPath("write", func(path string) error { return old.ReplaceFile(path, data) })(path)
	}
	s.SwapFile = func(path string, before, data []byte) error {
		return onPath("write", func(path string) error { return old.SwapFile(path, before, data) })(path)
	}
	s.RemoveFile = onPath("remove", old.RemoveFile)
	s.MakeDir = onPath("make directory", old.MakeDir)
	s.RemoveDir = onPath("remove directory", old.RemoveDir)
	s.AddLink = onPath("add link", old.AddLink)
	s.RemoveLink = onPath("remove link", old.RemoveLink)
	s.ReloadService = onUnit("reload", old.ReloadService)
	s.RestartService = onUnit("restart", old.RestartService)
	s.Registry = old.Registry.before(step)
	if old.SetLinkDNS != nil {
		s.SetLinkDNS = func(ctx context.Context, link string, server netip.AddrPort, domains []string) error {
			return onPath("set the DNS of link", func(link string) error { return old.SetLinkDNS(ctx, link, server, domains) })(link)
		}
	}
	return s
}

// Real is the file itself, where the path leads to it by links.
func (s System) Real(path string) string {
	for range 8 {
		to, err := s.ReadLink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return path
}

// Discard removes a file that need not be there. On a read-only file system, even
// the removal of what is not there would be an error.
func (s System) Discard(path string) error {
	if _, err := s.ReadFile(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := s.RemoveFile(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
