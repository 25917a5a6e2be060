package dns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// near is how many ports after the one that was asked for are tried.
const near = 16

// anyTries is how often the system is asked for a UDP port whose TCP twin may
// be in use.
const anyTries = 32

// Listeners are the UDP and the TCP socket of one address and port.
type Listeners struct {
	udp *net.UDPConn
	tcp *net.TCPListener
}

// Listen opens both sockets. Where the port cannot be had for either of them,
// it takes the next one that can, or else any; Addr tells which. Port 0 asks
// for any. Where sockets that are given have the port, it takes these. It is an error
// if addr is not a loopback address.
func Listen(addr netip.AddrPort, given ...*Listeners) (*Listeners, error) {
	if !addr.Addr().IsLoopback() {
		return nil, fmt.Errorf("dns: listen on %s: not a loopback address", addr)
	}
	var first error
	if addr.Port() != 0 {
		for port := int(addr.Port()); port <= int(addr.Port())+near && port <= 65535; port++ {
			at := netip.AddrPortFrom(addr.Addr(), uint16(port))
			for _, l := range given {
				if l.Addr() == at {
					return l, nil
				}
			}
			l, err := listen(at)
			if err == nil {
				return l, nil
			}
			if first == nil {
				first = err
			}
		}
	}
	for _, l := range given {
		if l.Addr().Addr() == addr.Addr() {
			return l, nil
		}
	}
	for range anyTries {
		l, err := listen(netip.AddrPortFrom(addr.Addr(), 0))
		if err == nil {
			return l, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("dns: %w", first)
}

// Given are the Listeners of sockets that somebody else has opened. It is an error if
// they are not of one address.
func Given(udp *net.UDPConn, tcp *net.TCPListener) (*Listeners, error) {
	l := &Listeners{udp: udp, tcp: tcp}
	if at := tcp.Addr().(*net.TCPAddr).AddrPort(); at != l.Addr() || !at.Addr().IsLoopback() {
		return nil, fmt.Errorf("dns: given sockets of %v and %v", l.Addr(), at)
	}
	return l, nil
}

// listen opens both sockets on exactly this port, or on one that was free for
// UDP.
func listen(addr netip.AddrPort) (*Listeners, error) {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(localAddr(udp)))
	if err != nil {
		udp.Close()
		return nil, err
	}
	return &Listeners{udp: udp, tcp: tcp}, nil
}

func localAddr(c *net.UDPConn) netip.AddrPort {
	addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// Addr is where both sockets listen.
func (l *Listeners) Addr() netip.AddrPort { return localAddr(l.udp) }

// Sockets are both, for whoever keeps them open.
func (l *Listeners) Sockets() []Socket {
	return []Socket{{l.udp, l.udp.LocalAddr()}, {l.tcp, l.tcp.Addr()}}
}

// A Socket is one of Listeners.
type Socket struct {
	syscall.Conn
	Addr net.Addr
}

// interrupt ends reading and accepting, without what is waiting for that.
func (l *Listeners) interrupt() error {
	err := errors.Join(l.udp.SetReadDeadline(time.Unix(1, 0)), l.tcp.SetDeadline(time.Unix(1, 0)))
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Close closes both sockets. It may be called again.
func (l *Listeners) Close() error {
	err := errors.Join(l.udp.Close(), l.tcp.Close())
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
