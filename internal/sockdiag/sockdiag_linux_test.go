package sockdiag

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a connection within this machine: the client's end, and the server's.
func pair(t *testing.T, listen string) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func TestOf(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(listen, func(t *testing.T) {
			client, server := pair(t, listen)
			want := Peer{UID: uint32(os.Getuid()), Owned: true}
			if got, err := Of(server); err != nil || got != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
			client.Close()
			if got, err := Of(server); err != nil || got.Owned {
				t.Errorf("after it was closed: %+v, %v", got, err)
			}
		})
	}
}

func TestParse(t *testing.T) {
	answer := func(kind uint16, uid, inode byte) []byte {
		b := make([]byte, unix.SizeofNlMsghdr+answerLen)
		b[4], b[5] = byte(kind), byte(kind>>8)
		b[unix.SizeofNlMsghdr+uidAt], b[unix.SizeofNlMsghdr+inodeAt] = uid, inode
		return b
	}
	tests := []struct {
		name   string
		answer []byte
		want   Peer
		err    error
	}{
		{"a process has it", answer(unix.SOCK_DIAG_BY_FAMILY, 5, 7), Peer{UID: 5, Owned: true}, nil},
		{"no process has it", answer(unix.SOCK_DIAG_BY_FAMILY, 0, 0), Peer{}, nil},
		{"an error", answer(unix.NLMSG_ERROR, 5, 7), Peer{}, ErrUnknown},
		{"too short", answer(unix.SOCK_DIAG_BY_FAMILY, 5, 7)[:60], Peer{}, ErrUnknown},
		{"nothing", nil, Peer{}, ErrUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := parse(tt.answer); got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%+v, %v; want %+v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// A client that is bound to its interface is not found.
func TestBoundClientIsUnknown(t *testing.T) {
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
	if got, err := Of(c.(*net.TCPConn)); !errors.Is(err, ErrUnknown) {
		t.Errorf("%+v, %v", got, err)
	}
}

func BenchmarkOf(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if _, err := Of(s.(*net.TCPConn)); err != nil {
			b.Fatal(err)
		}
	}
}
