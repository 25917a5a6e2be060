package rootapi

import (
	"net"

	"golang.org/x/sys/unix"
)

// socketPrefix is what the sockets of all users' helpers begin with.
const socketPrefix = "/run/tunneld-helper/"

// peerUID is who made the other end: whoever connected, or whoever listens.
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}
