package osdns

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// NewSystem is this machine.
func NewSystem() System {
	return System{
		ReadFile:    os.ReadFile,
		ReplaceFile: func(path string, data []byte) error { return replaceFile(path, data, func() error { return nil }) },
		SwapFile:    swapFile,
		RemoveFile:  removeFile,
		MakeDir:     makeDir,
		RemoveDir:   func(path string) error { return unix.Rmdir(path) },
		ReadDir:     os.ReadDir,
		ReadLink:    os.Readlink,
		Run:         run,

		ResolvedVersion:  resolvedVersion,
		ResolvedProperty: resolvedProperty,
		LinkIsOurs:       linkIsOurs,
		AddLink:          addLink,
		RemoveLink:       removeLink,
		SetLinkDNS:       setLinkDNS,

		ServiceState:   serviceState,
		ReloadService:  reloadService,
		RestartService: restartService,
		Reread:         func(pid int) error { return unix.Kill(pid, unix.SIGHUP) },
	}
}

// systemRungs are the ways of this system, the best first.
func systemRungs(s System, dir string, _ *slog.Logger) []rung {
	return []rung{
		&delegate{s},
		&link{s},
		&dnsmasq{s, dir},
		&hosts{System: s, path: hostsPath, lines: hostsLines, eol: "\n", order: func() (string, bool) { return filesFirst(s) }},
	}
}

const hostsPath = "/etc/hosts"

// directories are those that programs of the system are in; the last one is that
// of NixOS.
var directories = [...]string{"/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin"}

// program finds a program of the system.
func program(name string) (string, error) {
	for _, dir := range directories {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// killedDelay is how long a program that was killed may keep its output open
// through children.
const killedDelay = time.Second

func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	path, err := program(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = killedDelay
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

func makeDir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755) // whatever the umask
}
