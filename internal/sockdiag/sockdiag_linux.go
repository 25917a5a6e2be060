package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Of linux/inet_diag.h, in the host's byte order but for addresses and ports.
const (
	requestLen = 56 // struct inet_diag_req_v2
	uidAt      = 64 // where struct inet_diag_msg has it
	inodeAt    = 68
	answerLen  = 72
	anyState   = 0xffffffff
)

// Of finds the peer of a connection. The error may be ErrUnknown.
func Of(c *net.TCPConn) (Peer, error) {
	local, remote := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
	if !local.IsValid() || !remote.Addr().IsLoopback() {
		return Peer{}, ErrUnknown
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return Peer{}, fmt.Errorf("ask for a socket: %w", err)
	}
	defer unix.Close(fd)
	// The kernel answers before the request's send returns.
	if err := unix.Sendto(fd, request(remote, local), unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return Peer{}, fmt.Errorf("ask for a socket: %w", err)
	}
	answer := make([]byte, 1024)
	n, _, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT)
	if err != nil {
		return Peer{}, fmt.Errorf("ask for a socket: %w", err)
	}
	return parse(answer[:n])
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), uint16(tcp.Port))
}

// request asks for the socket at one end of a connection; peer is the other.
func request(end, peer netip.AddrPort) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+requestLen)
	native := binary.NativeEndian
	native.PutUint32(b, uint32(len(b)))
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST)
	r := b[unix.SizeofNlMsghdr:]
	r[0] = unix.AF_INET
	if end.Addr().Is6() {
		r[0] = unix.AF_INET6
	}
	r[1] = unix.IPPROTO_TCP
	native.PutUint32(r[4:], anyState)
	binary.BigEndian.PutUint16(r[8:], end.Port())
	binary.BigEndian.PutUint16(r[10:], peer.Port())
	copy(r[12:28], end.Addr().AsSlice())
	copy(r[28:44], peer.Addr().AsSlice())
	native.PutUint64(r[48:], ^uint64(0)) // no cookie
	return b
}

func parse(b []byte) (Peer, error) {
	if len(b) < unix.SizeofNlMsghdr+answerLen || binary.NativeEndian.Uint16(b[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return Peer{}, ErrUnknown
	}
	m := b[unix.SizeofNlMsghdr:]
	return Peer{
		UID:   binary.NativeEndian.Uint32(m[uidAt:]),
		Owned: binary.NativeEndian.Uint32(m[inodeAt:]) != 0,
	}, nil
}
