package forward

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Only a socket that is there, and that no process has, is gone.
func TestDiagSaysGone(t *testing.T) {
	answer := func(kind uint16, inode byte) []byte {
		b := make([]byte, unix.SizeofNlMsghdr+diagLen)
		b[4], b[5] = byte(kind), byte(kind>>8)
		b[unix.SizeofNlMsghdr+diagInode] = inode
		return b
	}
	tests := []struct {
		name   string
		answer []byte
		want   bool
	}{
		{"a process has it", answer(unix.SOCK_DIAG_BY_FAMILY, 7), false},
		{"no process has it", answer(unix.SOCK_DIAG_BY_FAMILY, 0), true},
		{"an error", answer(unix.NLMSG_ERROR, 0), false},
		{"too short", answer(unix.SOCK_DIAG_BY_FAMILY, 0)[:60], false},
		{"nothing", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := diagSaysGone(tt.answer); got != tt.want {
				t.Errorf("gone = %v; want %v", got, tt.want)
			}
		})
	}
}

// A client that is bound to its interface is not found, and so not gone.
func TestBoundClientIsNotGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := netip.MustParseAddrPort(l.Addr().String())
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.BindToDevice(fd, "lo"); err != nil {
		t.Skipf("bind to lo: %v", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if isGone(c.(*net.TCPConn)) {
		t.Error("it is gone while it is open")
	}
}
