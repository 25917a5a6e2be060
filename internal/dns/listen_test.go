package dns_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/dns"
)

func TestListen(t *testing.T) {
	tests := []struct {
		name, addr, err string
	}{
		{name: "IPv4", addr: "127.0.0.1:0"},
		{name: "IPv6", addr: "[::1]:0"},
		{name: "elsewhere", addr: "192.0.2.1:0", err: "not a loopback address"},
		{name: "everywhere", addr: "0.0.0.0:0", err: "not a loopback address"},
		{name: "everywhere, IPv6", addr: "[::]:0", err: "not a loopback address"},
		{name: "last port", addr: "127.0.0.1:65535"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := dns.Listen(netip.MustParseAddrPort(tt.addr))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error is %v; want one with %q", err, tt.err)
				}
				return
			}
			if err != nil && strings.HasPrefix(tt.addr, "[") {
				t.Skipf("no IPv6 here: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if l.Addr().Port() == 0 || !l.Addr().Addr().IsLoopback() {
				t.Errorf("Addr is %v", l.Addr())
			}
		})
	}
	t.Run("zero", func(t *testing.T) {
		if _, err := dns.Listen(netip.AddrPort{}); err == nil {
			t.Error("no error")
		}
	})
}

func TestListenMovesOn(t *testing.T) {
	for _, held := range []string{"both", "udp", "tcp"} {
		t.Run(held, func(t *testing.T) {
			l, err := dns.Listen(netip.AddrPortFrom(loopback, 0))
			if err != nil {
				t.Fatal(err)
			}
			wanted := l.Addr()
			if held != "both" {
				l.Close()
			}
			var hold io.Closer = l
			switch held {
			case "udp":
				hold, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(wanted))
			case "tcp":
				hold, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(wanted))
			}
			if err != nil {
				t.Skipf("somebody else took the port: %v", err)
			}
			defer hold.Close()

			moved, err := dns.Listen(wanted)
			if err != nil {
				t.Fatal(err)
			}
			defer moved.Close()
			if held == "tcp" {
				udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(wanted))
				if err != nil {
					t.Fatalf("the UDP half of the wanted port is still held: %v", err)
				}
				udp.Close()
			}
			if moved.Addr() == wanted {
				t.Fatalf("listens on %v, where %s is taken", wanted, held)
			}
			// The next ports are ephemeral here and may be taken, but not all.
			if d := int(moved.Addr().Port()) - int(wanted.Port()); wanted.Port() < 65000 && (d < 1 || d > 16) {
				t.Errorf("moved from %v to %v", wanted, moved.Addr())
			}
		})
	}
}
