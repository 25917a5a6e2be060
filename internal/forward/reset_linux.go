package forward

import (
	"net"

	"golang.org/x/sys/unix"
)

// tcpClose is TCP_CLOSE of linux/tcp_states.h: there is no connection any more.
const tcpClose = 7

// isReset reports whether the peer has reset the connection, which a Read would
// tell only after all that came before. It is false where that cannot be found
// out.
func isReset(c *net.TCPConn) (reset bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO)
		reset = err == nil && info.State == tcpClose
	})
	return err == nil && reset
}
