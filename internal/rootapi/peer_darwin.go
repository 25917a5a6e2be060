package rootapi

import (
	"net"

	"golang.org/x/sys/unix"
)

// socketPrefix is what the sockets of all users' helpers begin with. It names no
// directory of ours: /var/run is empty after a start, and launchd makes none.
const socketPrefix = "/var/run/tunneld-helper."

// peerUID is who made the other end: whoever connected, or whoever listens.
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Xucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}
