package machine

import (
	"os"

	"golang.org/x/sys/unix"
)

// New returns this machine.
func New() System {
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
