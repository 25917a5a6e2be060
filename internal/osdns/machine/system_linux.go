package machine

import "golang.org/x/sys/unix"

// New returns this machine.
func New() System {
	s := files()
	s.ResolvedVersion, s.ResolvedProperty = resolvedVersion, resolvedProperty
	s.LinkIsOurs, s.AddLink, s.RemoveLink, s.SetLinkDNS = linkIsOurs, addLink, removeLink, setLinkDNS
	s.ServiceState, s.ReloadService, s.RestartService = serviceState, reloadService, restartService
	s.Reread = func(pid int) error { return unix.Kill(pid, unix.SIGHUP) }
	return s
}
