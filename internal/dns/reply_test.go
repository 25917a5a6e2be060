package dns_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/tunneld/tunneld/internal/dns"
)

func TestEDNS(t *testing.T) {
	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	addr := serve(t, s)

	tests := []struct {
		name, ask string
		opt       *mdns.OPT
		rcode     int
		do        bool
	}{
		{name: "plain", ask: "task-api.local.", opt: opt(1232, 0)},
		{name: "DO", ask: "task-api.local.", opt: do(opt(1232, 0)), do: true},
		{name: "version 1", ask: "task-api.local.", opt: opt(1232, 1), rcode: mdns.RcodeBadVers},
		{name: "version 255 of a foreign name", ask: "example.com.", opt: opt(1232, 255), rcode: mdns.RcodeBadVers},
		{name: "unknown option", ask: "task-api.local.", opt: opt(1232, 0, &mdns.EDNS0_LOCAL{Code: 65001, Data: []byte{1}})},
		{name: "cookie", ask: "task-api.local.", opt: opt(1232, 0, &mdns.EDNS0_COOKIE{Code: mdns.EDNS0COOKIE, Cookie: "0123456789abcdef"})},
		{name: "client subnet", ask: "task-api.local.", opt: opt(1232, 0, &mdns.EDNS0_SUBNET{Code: mdns.EDNS0SUBNET, Family: 1, SourceNetmask: 8, Address: net.IPv4(10, 0, 0, 0)})},
		{name: "unknown flags", ask: "task-api.local.", opt: flags(opt(1232, 0), 0x3fff)},
		{name: "tiny", ask: "task-api.local.", opt: opt(0, 0)},
		{name: "NXDOMAIN", ask: "a.nothing.local.", opt: opt(4096, 0), rcode: mdns.RcodeNameError},
		{name: "REFUSED", ask: "example.com.", opt: opt(4096, 0), rcode: mdns.RcodeRefused},
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range tests {
			t.Run(network+"/"+tt.name, func(t *testing.T) {
				q := new(mdns.Msg).SetQuestion(tt.ask, mdns.TypeA)
				q.Extra = []mdns.RR{tt.opt}
				r := exchange(t, network, addr, q)
				if r.Rcode != tt.rcode {
					t.Errorf("rcode %d; want %d", r.Rcode, tt.rcode)
				}
				if tt.rcode == mdns.RcodeBadVers && len(r.Answer)+len(r.Ns) > 0 {
					t.Errorf("an answer besides BADVERS:\n%v", r)
				}
				got := r.IsEdns0()
				if got == nil || len(r.Extra) != 1 {
					t.Fatalf("not one OPT:\n%v", r)
				}
				if got.Version() != 0 || len(got.Option) != 0 || got.UDPSize() != dns.UDPSize || got.Z() != 0 || got.Do() != tt.do {
					t.Errorf("OPT is %v", got)
				}
			})
		}
	}
}

func opt(size uint16, version uint8, options ...mdns.EDNS0) *mdns.OPT {
	o := &mdns.OPT{Hdr: mdns.RR_Header{Name: ".", Rrtype: mdns.TypeOPT}, Option: options}
	o.SetUDPSize(size)
	o.SetVersion(version)
	return o
}

func do(o *mdns.OPT) *mdns.OPT {
	o.SetDo()
	return o
}

func flags(o *mdns.OPT, z uint16) *mdns.OPT {
	o.SetZ(z)
	return o
}

func TestTruncation(t *testing.T) {
	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	addr := serve(t, s)

	tests := []struct {
		name    string
		network string
		size    uint16 // of the OPT; 0: none
		limit   int
		whole   bool
	}{
		{"udp", "udp", 0, 512, false},
		{"udp, tiny OPT", "udp", 100, 512, false},
		{"udp, 900", "udp", 900, 900, false},
		{"udp, 1232", "udp", 1232, 1232, false},
		{"udp, more than we send", "udp", 65535, 1232, false},
		{"tcp", "tcp", 0, mdns.MaxMsgSize, true},
		{"tcp, whatever the OPT says", "tcp", 512, mdns.MaxMsgSize, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := new(mdns.Msg).SetQuestion("many.local.", mdns.TypeA)
			if tt.size > 0 {
				q.Extra = []mdns.RR{opt(tt.size, 0)}
			}
			c := &mdns.Client{Net: tt.network, Timeout: 10 * time.Second, UDPSize: mdns.MaxMsgSize}
			r, _, err := c.Exchange(q, addr.String())
			if err != nil {
				t.Fatal(err)
			}
			r.Compress = true
			if r.Len() > tt.limit {
				t.Errorf("reply has %d bytes; want at most %d", r.Len(), tt.limit)
			}
			if r.Truncated == tt.whole || (len(r.Answer) == 100) != tt.whole {
				t.Errorf("TC %v with %d of 100 addresses", r.Truncated, len(r.Answer))
			}
			if (r.IsEdns0() != nil) != (tt.size > 0) {
				t.Errorf("OPT is %v", r.IsEdns0())
			}
		})
	}
}

// raw is a query for the A record of task-api.local with its header's flags
// and counts replaced.
func raw(t testing.TB, flags uint16, counts ...uint16) []byte {
	t.Helper()
	b, err := (&mdns.Msg{
		MsgHdr:   mdns.MsgHdr{Id: 0xbeef},
		Question: []mdns.Question{{Name: "task-api.local.", Qtype: mdns.TypeA, Qclass: mdns.ClassINET}},
	}).Pack()
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint16(b[2:], flags)
	for i, n := range counts {
		binary.BigEndian.PutUint16(b[4+2*i:], n)
	}
	return b
}

// odd are packets that are not ordinary queries, with the rcode of the reply,
// or -1 where there must be none.
func odd(t testing.TB) []oddPacket {
	pack := func(m *mdns.Msg) []byte {
		m.Id = 0xbeef
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	question := func(name string, qtype, class uint16) *mdns.Msg {
		return &mdns.Msg{Question: []mdns.Question{{Name: name, Qtype: qtype, Qclass: class}}}
	}
	twice := question("task-api.local.", mdns.TypeA, mdns.ClassINET)
	twice.Question = append(twice.Question, twice.Question[0])
	options := question("task-api.local.", mdns.TypeA, mdns.ClassINET)
	options.Extra = []mdns.RR{opt(1232, 0), opt(1232, 0)}
	named := question("task-api.local.", mdns.TypeA, mdns.ClassINET)
	named.Extra = []mdns.RR{&mdns.OPT{Hdr: mdns.RR_Header{Name: "task-api.local.", Rrtype: mdns.TypeOPT}}}
	notify := new(mdns.Msg).SetNotify("task-api.local.")
	update := new(mdns.Msg).SetUpdate("task-api.local.")
	whole := raw(t, 0)

	return []oddPacket{
		{"plain", whole, mdns.RcodeSuccess},
		{"Z, AD and CD set", raw(t, 0x0070), mdns.RcodeSuccess},
		{"TC set", raw(t, 0x0200), mdns.RcodeSuccess},
		{"a response", raw(t, 0x8000), -1},
		{"a response of another opcode", raw(t, 0xa000), -1},
		{"empty", nil, -1},
		{"eleven bytes", whole[:11], -1},
		{"header only, one question claimed", whole[:12], mdns.RcodeFormatError},
		{"no question", pack(new(mdns.Msg)), mdns.RcodeFormatError},
		{"two questions", pack(twice), mdns.RcodeFormatError},
		{"a question cut short", whole[:len(whole)-1], mdns.RcodeFormatError},
		{"65535 questions claimed", raw(t, 0, 65535), mdns.RcodeFormatError},
		{"a record claimed", raw(t, 0, 1, 0, 0, 1), mdns.RcodeFormatError},
		{"a name that points at itself", append(whole[:12:12], 0xc0, 12, 0, 1, 0, 1), mdns.RcodeFormatError},
		{"two OPT", pack(options), mdns.RcodeFormatError},
		{"OPT with an owner", pack(named), mdns.RcodeFormatError},
		{"NOTIFY", pack(notify), mdns.RcodeNotImplemented},
		{"UPDATE", pack(update), mdns.RcodeNotImplemented},
		{"STATUS", raw(t, 2<<11), mdns.RcodeNotImplemented},
		{"IQUERY without a body", raw(t, 1<<11, 0)[:12], mdns.RcodeNotImplemented},
		{"opcode 15", raw(t, 15<<11), mdns.RcodeNotImplemented},
		{"CHAOS", pack(question("version.bind.", mdns.TypeTXT, mdns.ClassCHAOS)), mdns.RcodeRefused},
		{"CHAOS of a served name", pack(question("task-api.local.", mdns.TypeA, mdns.ClassCHAOS)), mdns.RcodeRefused},
		{"class ANY", pack(question("task-api.local.", mdns.TypeA, mdns.ClassANY)), mdns.RcodeRefused},
	}
}

type oddPacket struct {
	name   string
	packet []byte
	rcode  int
}

func TestOddPackets(t *testing.T) {
	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	addr := serve(t, s)
	for _, tt := range odd(t) {
		t.Run("udp/"+tt.name, func(t *testing.T) {
			c := dial(t, "udp", addr)
			// The reply to the query behind it shows that there was none to
			// the packet: one socket's packets are answered in order.
			probe := raw(t, 0)
			binary.BigEndian.PutUint16(probe, 0x1234)
			for _, b := range [][]byte{tt.packet, probe} {
				if _, err := c.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			buf := make([]byte, 4096)
			for _, want := range []oddPacket{{"packet", tt.packet, tt.rcode}, {"probe", probe, mdns.RcodeSuccess}} {
				if want.rcode < 0 {
					continue
				}
				n, err := c.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				checkOdd(t, want, buf[:n])
			}
		})
		t.Run("tcp/"+tt.name, func(t *testing.T) {
			c := dial(t, "tcp", addr)
			if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(tt.packet))), tt.packet...)); err != nil {
				t.Fatal(err)
			}
			var length [2]byte
			if _, err := io.ReadFull(c, length[:]); err != nil {
				if tt.rcode >= 0 || !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				return
			}
			b := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
			if tt.rcode < 0 {
				t.Fatalf("answered with % x", b)
			}
			checkOdd(t, tt, b)
		})
	}
}

func checkOdd(t *testing.T, sent oddPacket, reply []byte) {
	t.Helper()
	r := new(mdns.Msg)
	if err := r.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	if r.Id != binary.BigEndian.Uint16(sent.packet) || !r.Response || r.Rcode != sent.rcode || r.Opcode != int(sent.packet[2]>>3) {
		t.Errorf("%s: reply\n%v\nwant rcode %s", sent.name, r, mdns.RcodeToString[sent.rcode])
	}
	if r.Zero || r.AuthenticatedData || r.CheckingDisabled || r.RecursionDesired || r.RecursionAvailable || r.Truncated {
		t.Errorf("%s: flags\n%v", sent.name, r)
	}
	if ok := sent.rcode == mdns.RcodeSuccess; r.Authoritative != ok || (len(r.Answer) == 1) != ok {
		t.Errorf("%s: reply\n%v", sent.name, r)
	}
}
