package dns_test

import (
	"context"
	"net"
	"net/netip"
	"testing"

	mdns "github.com/miekg/dns"

	"github.com/tunneld/tunneld/internal/dns"
)

// again are the sockets of l once more, as another process would have them.
func again(t *testing.T, l *dns.Listeners) *dns.Listeners {
	t.Helper()
	udp, tcp := dns.Files(t, l)
	packets, err := net.FilePacketConn(udp)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.FileListener(tcp)
	if err != nil {
		t.Fatal(err)
	}
	given, err := dns.Given(packets.(*net.UDPConn), listener.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { given.Close() })
	return given
}

func TestListenTakesWhatIsGiven(t *testing.T) {
	wanted, err := dns.Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	other, err := dns.Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	given := []*dns.Listeners{again(t, other), again(t, wanted)}
	at := wanted.Addr()
	wanted.Close() // the port is still taken
	other.Close()
	tests := []struct {
		name string
		at   netip.AddrPort
		want *dns.Listeners // nil: none of them
	}{
		{"the very port", at, given[1]},
		{"any port", netip.AddrPortFrom(loopback, 0), given[0]},
		{"another address", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), at.Port()), nil},
		{"any port of another address", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), 0), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := dns.Listen(tt.at, given...)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == nil {
				defer got.Close()
				if got == given[0] || got == given[1] {
					t.Errorf("took %v for %v", got.Addr(), tt.at)
				}
			} else if got != tt.want {
				t.Errorf("listens at %v; want what was given, %v", got.Addr(), tt.want.Addr())
			}
		})
	}
}

func TestGivenSocketsOfTwoPorts(t *testing.T) {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: udp.LocalAddr().(*net.UDPAddr).Port})
	if err != nil {
		t.Skipf("somebody has that port: %v", err)
	}
	defer tcp.Close()
	if _, err := dns.Given(udp, tcp); err == nil {
		t.Error("no error")
	}
}

// Whoever asks between two servers of the same sockets is answered by the second.
func TestNextServerAnswersWhatWaits(t *testing.T) {
	l, err := dns.Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	next := again(t, l)
	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	serve := func(l *dns.Listeners) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
		}
	}
	stop := serve(l)
	exchange(t, "udp", next.Addr(), new(mdns.Msg).SetQuestion("task-api.local.", mdns.TypeA))
	stop()
	for _, network := range []string{"udp", "tcp"} {
		c := &mdns.Conn{Conn: dial(t, network, next.Addr())}
		if err := c.WriteMsg(new(mdns.Msg).SetQuestion("task-api.local.", mdns.TypeA)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := c.ReadMsg(); err != nil {
				t.Errorf("%s: %v", network, err)
			}
		}()
	}
	t.Cleanup(serve(next))
}
