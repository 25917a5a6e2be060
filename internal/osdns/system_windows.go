package osdns

import (
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

// NewSystem is this machine.
func NewSystem() System {
	return System{
		ReadFile:    os.ReadFile,
		ReplaceFile: func(path string, data []byte) error { return replaceFile(path, data, func() error { return nil }) },
		SwapFile:    swapFile,
		RemoveFile:  os.Remove,
		MakeDir:     func(path string) error { return os.Mkdir(path, 0o755) },
		RemoveDir:   syscall.Rmdir,
		ReadDir:     os.ReadDir,
		ReadLink:    os.Readlink,
		Run:         run,
		Registry:    realRegistry(),
	}
}

// systemRungs are the ways of this system, the best first.
func systemRungs(s System, dir string, log *slog.Logger) []rung {
	return windowsRungs(s, dir, hostsFile(), log)
}

func hostsFile() string { return filepath.Join(systemDirectory(), "drivers", "etc", "hosts") }

// Watched are files whose change may mean that names are no longer found as they
// were.
func Watched() []string { return []string{hostsFile()} }
