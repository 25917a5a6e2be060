package rootapi

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// What the helper listens with is plain TCP: not every Linux lets a Multipath TCP socket
// stop listening, which the daemon has to while its service manager has the socket, too.
func TestListensWithPlainTCP(t *testing.T) {
	s := &Server{}
	l, err := s.listenOn(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		protocol, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil || protocol != unix.IPPROTO_TCP {
			t.Errorf("protocol %d, %v; want TCP, %d", protocol, err, unix.IPPROTO_TCP)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
