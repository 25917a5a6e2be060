package kube

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitSilence is for net.Dialer.Control: what was sent on the connection must
// be acknowledged, and taken, within limit, else it ends. A kernel that cannot
// do that goes by its own limits.
func limitSilence(limit time.Duration) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
		})
	}
}
