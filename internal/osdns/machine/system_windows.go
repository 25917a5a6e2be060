package machine

import (
	"os"
	"syscall"
)

// New returns this machine.
func New() System {
	s := files()
	s.Registry = realRegistry()
	return s
}

func removeFile(path string) error { return os.Remove(path) }

func makeDir(path string) error { return os.Mkdir(path, 0o755) }

func removeDir(path string) error { return syscall.Rmdir(path) }
