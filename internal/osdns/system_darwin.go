package osdns

import (
	"log/slog"
	"os"

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
	}
}

// systemRungs are the ways of this system, the best first.
func systemRungs(s System, dir string, log *slog.Logger) []rung { return macOSRungs(s, dir, log) }

// Watched are files whose change may mean that names are no longer found as they
// were.
func Watched() []string { return []string{macOSHosts, resolverDir} }
