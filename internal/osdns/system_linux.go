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
	d := &dnsmasq{s, dir}
	order := func() (string, bool) { return filesFirst(s) }
	return []rung{
		&delegate{s},
		&link{s},
		d,
		&hosts{System: s, path: hostsPath, lines: hostsLines, eol: "\n", order: order, flush: d.rereadHosts},
	}
}

const hostsPath = "/etc/hosts"
