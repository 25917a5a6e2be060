package dns_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/dns"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// serve runs s on a free port for the length of the test.
func serve(t testing.TB, s *dns.Server) netip.AddrPort {
	t.Helper()
	l, err := dns.Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr()
}

func exchange(t testing.TB, network string, addr netip.AddrPort, q *mdns.Msg) *mdns.Msg {
	t.Helper()
	c := &mdns.Client{Net: network, Timeout: 10 * time.Second}
	r, _, err := c.Exchange(q, addr.String())
	if err != nil {
		t.Fatalf("%s: %v", network, err)
	}
	if r.Id != q.Id || !r.Response {
		t.Fatalf("no reply to the query:\n%v", r)
	}
	return r
}

func dial(t *testing.T, network string, addr netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDropsStrangers(t *testing.T) {
	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	for from, want := range map[string]bool{
		"127.0.0.1": true, "127.77.31.4": true, "::1": true, "::ffff:127.0.0.1": true,
		"192.0.2.1": false, "169.254.1.1": false, "2001:db8::1": false, "fe80::1%lo": false, "::ffff:192.0.2.1": false,
	} {
		if got := dns.Reply(s, nil, raw(t, 0), netip.MustParseAddr(from), dns.UDPSize) != nil; got != want {
			t.Errorf("reply to %s is %v; want %v", from, got, want)
		}
	}
}

func TestManyQueriesOnOneConnection(t *testing.T) {
	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	c := &mdns.Conn{Conn: dial(t, "tcp", serve(t, s))}
	// Pipelined: all are sent before the first reply is read.
	const n = 300
	for i := range n {
		q := new(mdns.Msg).SetQuestion("task-api.local.", mdns.TypeA)
		q.Id = uint16(i)
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		r, err := c.ReadMsg()
		if err != nil {
			t.Fatalf("reply %d: %v", i, err)
		}
		if int(r.Id) != i || len(r.Answer) != 1 {
			t.Fatalf("reply %d:\n%v", i, r)
		}
	}
}

func TestZeroServerRefuses(t *testing.T) {
	s := new(dns.Server)
	addr := serve(t, s)
	q := new(mdns.Msg).SetQuestion("task-api.local.", mdns.TypeA)
	if r := exchange(t, "udp", addr, q); r.Rcode != mdns.RcodeRefused {
		t.Errorf("without a zone: %v", r)
	}
	z := dns.NewZone(served())
	s.SetZone(z)
	if r := exchange(t, "udp", addr, q); len(r.Answer) != 1 || s.Zone() != z {
		t.Errorf("with a zone: %v", r)
	}
	s.SetZone(nil)
	if r := exchange(t, "udp", addr, q); r.Rcode != mdns.RcodeRefused || s.Zone().Len() != 0 {
		t.Errorf("with the zone gone: %v", r)
	}
}

func TestRefusedIsTold(t *testing.T) {
	asked := make(chan string, 1)
	s := &dns.Server{Refused: func(name string) { asked <- name }}
	s.SetZone(dns.NewZone(served()))
	addr := serve(t, s)
	tests := []struct {
		ask          string
		qtype, class uint16
		want         string
	}{
		{"Control.Example.", mdns.TypeA, mdns.ClassINET, "control.example."},
		{"printer.local.", mdns.TypeAAAA, mdns.ClassINET, "printer.local."},
		{"local.", mdns.TypeSOA, mdns.ClassINET, "local."},
		{"version.bind.", mdns.TypeTXT, mdns.ClassCHAOS, "version.bind."},
		{"task-api.local.", mdns.TypeA, mdns.ClassINET, ""},
		{"task-api.local.", mdns.TypeAXFR, mdns.ClassINET, ""},
		{"task-api.local.", mdns.TypeA, mdns.ClassANY, ""},
		{"a.nothing.local.", mdns.TypeA, mdns.ClassINET, ""},
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range tests {
			q := new(mdns.Msg).SetQuestion(tt.ask, tt.qtype)
			q.Question[0].Qclass = tt.class
			exchange(t, network, addr, q)
			got := ""
			select { // it is told before the reply
			case got = <-asked:
			default:
			}
			if got != tt.want {
				t.Errorf("%s, %s of %s: told %q; want %q", network, mdns.TypeToString[tt.qtype], tt.ask, got, tt.want)
			}
		}
	}
}

func TestStats(t *testing.T) {
	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	want := dns.Stats{}
	for _, tt := range odd(t) {
		switch dns.Reply(s, nil, tt.packet, loopback, dns.UDPSize); tt.rcode {
		case -1: // no query, no reply
		case mdns.RcodeSuccess:
			want.NoError++
		case mdns.RcodeRefused:
			want.Refused++
		default:
			want.Other++
		}
	}
	addr := serve(t, s)
	for _, network := range []string{"udp", "tcp"} {
		exchange(t, network, addr, new(mdns.Msg).SetQuestion("a.nothing.local.", mdns.TypeA))
		want.NXDomain++
	}
	if got := s.Stats(); got != want || got.Total() != want.NoError+want.NXDomain+want.Refused+want.Other || want.Refused == 0 {
		t.Errorf("stats are %+v; want %+v", got, want)
	}
}

// The race detector watches here.
func TestZoneIsSwappedUnderLoad(t *testing.T) {
	s := &dns.Server{Log: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	zones := []*dns.Zone{
		dns.NewZone([]dns.Name{{Name: "a.local", Addrs: addrs("127.77.1.1", "127.77.1.2")}}),
		dns.NewZone([]dns.Name{{Name: "a.local", Addrs: addrs("127.77.2.1", "127.77.2.2")}}),
	}
	s.SetZone(zones[0])
	addr := serve(t, s)
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				s.SetZone(zones[i%2])
			}
		}
	})
	for range 200 {
		r := exchange(t, "udp", addr, new(mdns.Msg).SetQuestion("a.local.", mdns.TypeA))
		if len(r.Answer) != 2 || r.Answer[0].(*mdns.A).A[2] != r.Answer[1].(*mdns.A).A[2] {
			t.Errorf("an answer from two zones: %v", r.Answer)
		}
	}
	close(stop)
	swapping.Wait()
}

// TestShutdown stops a server that has TCP clients in every state: one that
// never wrote, one in the middle of a message, one that was answered, and one
// that does not read its replies.
func TestShutdown(t *testing.T) {
	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	l, err := dns.Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()

	silent := dial(t, "tcp", l.Addr())
	partial := dial(t, "tcp", l.Addr())
	if _, err := partial.Write([]byte{0, 40, 1, 2}); err != nil {
		t.Fatal(err)
	}
	answered := &mdns.Conn{Conn: dial(t, "tcp", l.Addr())}
	if err := answered.WriteMsg(new(mdns.Msg).SetQuestion("task-api.local.", mdns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if _, err := answered.ReadMsg(); err != nil {
		t.Fatal(err)
	}
	deaf := dial(t, "tcp", l.Addr())
	flood(t, deaf)

	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Serve did not return")
	}
	for name, c := range map[string]net.Conn{"silent": silent, "partial": partial} {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s connection is still open: %v", name, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	again, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(l.Addr()))
	if err != nil {
		t.Fatalf("the port is still taken: %v", err)
	}
	again.Close()
}

// flood writes queries with large answers until neither side can write any
// more, which is when the server is stuck in its write.
func flood(t *testing.T, c net.Conn) {
	t.Helper()
	q, err := new(mdns.Msg).SetQuestion("many.local.", mdns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	q = bytes.Repeat(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...), 1000)
	for {
		if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(q); err != nil {
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Fatal(err)
			}
			return
		}
	}
}

func TestServeEndsWhenListenersClose(t *testing.T) {
	l, err := dns.Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- new(dns.Server).Serve(context.Background(), l) }()
	dial(t, "tcp", l.Addr())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %v; want what says that the socket is closed", err)
	}
}

func TestTooManyConnections(t *testing.T) {
	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	addr := serve(t, s)
	ask := func(c net.Conn) error {
		dc := &mdns.Conn{Conn: c}
		if err := dc.WriteMsg(new(mdns.Msg).SetQuestion("task-api.local.", mdns.TypeA)); err != nil {
			return err
		}
		_, err := dc.ReadMsg()
		return err
	}
	var held []net.Conn
	for {
		c := dial(t, "tcp", addr)
		if ask(c) != nil {
			break
		}
		if held = append(held, c); len(held) > 1000 {
			t.Fatal("1000 connections are served")
		}
	}
	held[0].Close()
	await.Until(t, "a place that was freed", func() bool { return ask(dial(t, "tcp", addr)) == nil })
}
