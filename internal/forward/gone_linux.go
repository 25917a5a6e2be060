package forward

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Of linux/inet_diag.h, in the host's byte order but for addresses and ports.
const (
	diagRequestLen = 56 // struct inet_diag_req_v2
	diagInode      = 68 // where struct inet_diag_msg has it
	diagLen        = 72
	anyState       = 0xffffffff
)

// isGone reports whether the peer of a connection, which is on this machine, has
// closed its socket for good: the kernel knows, and TCP does not say. It is
// false where that cannot be found out.
func isGone(c *net.TCPConn) bool {
	local, remote := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
	if !local.IsValid() || !remote.Addr().IsLoopback() {
		return false
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// The kernel answers before the request's send returns.
	if err := unix.Sendto(fd, diagRequest(remote, local), unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false
	}
	answer := make([]byte, 1024)
	n, _, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT)
	if err != nil {
		return false
	}
	return diagSaysGone(answer[:n])
}

// diagRequest asks for the socket at one end of a connection; peer is the other.
func diagRequest(end, peer netip.AddrPort) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+diagRequestLen)
	native := binary.NativeEndian
	native.PutUint32(b, uint32(len(b)))
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST)
	r := b[unix.SizeofNlMsghdr:]
	r[0] = unix.AF_INET
	if end.Addr().Unmap().Is6() {
		r[0] = unix.AF_INET6
	}
	r[1] = unix.IPPROTO_TCP
	native.PutUint32(r[4:], anyState)
	binary.BigEndian.PutUint16(r[8:], end.Port())
	binary.BigEndian.PutUint16(r[10:], peer.Port())
	copy(r[12:28], end.Addr().Unmap().AsSlice())
	copy(r[28:44], peer.Addr().Unmap().AsSlice())
	native.PutUint64(r[48:], ^uint64(0)) // no cookie
	return b
}

// diagSaysGone reads the answer: the socket is there, for its last exchange or
// its TIME_WAIT, and no process has it. That there is none says nothing: the
// kernel also says so where it cannot look, or where the client is behind NAT.
func diagSaysGone(b []byte) bool {
	if len(b) < unix.SizeofNlMsghdr+diagLen || binary.NativeEndian.Uint16(b[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return false
	}
	return binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr+diagInode:]) == 0
}
