package machine

import (
	"os"
	"syscall"
)

// New returns this machine.
func New() System {
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
