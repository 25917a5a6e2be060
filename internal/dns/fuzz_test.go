package dns_test

import (
	"encoding/binary"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"github.com/tunneld/tunneld/internal/dns"
)

func FuzzReply(f *testing.F) {
	for _, seed := range odd(f) {
		f.Add(seed.packet, false)
		f.Add(seed.packet, true)
	}
	for _, name := range []string{"task-api.local.", "a.*.task-api.local.", "w.y.task-api.local.", `x\.\000.task-api.local.`, "many.local.", "MaNy.loCal.", "x.exAmple.Com.", ip6One, "."} {
		for _, qtype := range []uint16{mdns.TypeA, mdns.TypeAAAA, mdns.TypeSOA, mdns.TypeNS, mdns.TypeANY, mdns.TypePTR, mdns.TypeAXFR, mdns.TypeOPT} {
			q := new(mdns.Msg).SetQuestion(name, qtype)
			for _, extra := range [][]mdns.RR{nil, {do(opt(600, 0, &mdns.EDNS0_PADDING{Padding: make([]byte, 8)}))}} {
				q.Extra = extra
				b, err := q.Pack()
				if err != nil {
					f.Fatal(err)
				}
				f.Add(b, false)
				f.Add(b, true)
			}
		}
	}
	told := ""
	s := &dns.Server{Refused: func(name string) { told = name }}
	s.SetZone(dns.NewZone(served()))

	f.Fuzz(func(t *testing.T, packet []byte, tcp bool) {
		size := dns.UDPSize
		if tcp {
			size = mdns.MaxMsgSize
		}
		told = ""
		before := s.Stats().Total()
		out := dns.Reply(s, nil, packet, loopback, size)
		query := len(packet) >= 12 && packet[2]&0x80 == 0
		if (out != nil) != query {
			t.Fatalf("reply % x to % x", out, packet)
		}
		if counted := s.Stats().Total() - before; (counted == 1) != query {
			t.Errorf("% x counts as %d", packet, counted)
		}
		if out == nil {
			return
		}
		if len(out) > size {
			t.Errorf("reply of %d bytes; limit %d", len(out), size)
		}
		if binary.BigEndian.Uint16(out) != binary.BigEndian.Uint16(packet) || out[2]&0x80 == 0 || out[2]&0x79 != packet[2]&0x79 {
			t.Errorf("header % x to % x: want ID, opcode and RD kept, and QR", out[:12], packet[:12])
		}
		r := new(mdns.Msg)
		if err := r.Unpack(out); err != nil {
			t.Fatalf("reply % x to % x: %v", out, packet, err)
		}
		if r.RecursionAvailable || r.Zero || r.AuthenticatedData || r.CheckingDisabled {
			t.Errorf("flags of\n%v", r)
		}
		if r.IsEdns0() == nil && !tcp && len(out) > mdns.MinMsgSize {
			t.Errorf("reply of %d bytes to who did not say that it can take them", len(out))
		}
		checkReply(t, packet, r, len(out), tcp)
		if told != "" && (r.Rcode != mdns.RcodeRefused || told != strings.ToLower(r.Question[0].Name)) {
			t.Errorf("told of %q, in the reply\n%v", told, r)
		}
	})
}

// checkReply is about what a reply says, given that it is one.
func checkReply(t *testing.T, packet []byte, r *mdns.Msg, size int, tcp bool) {
	q := new(mdns.Msg)
	broken := q.Unpack(packet) != nil
	if len(r.Question) == 0 {
		if r.Rcode != mdns.RcodeFormatError && r.Rcode != mdns.RcodeNotImplemented || len(r.Answer)+len(r.Ns)+len(r.Extra) > 0 {
			t.Errorf("no question in\n%v", r)
		}
		return
	}
	// With its case, by which clients tell a reply from a forged one.
	if broken || len(r.Question) != 1 || r.Question[0] != q.Question[0] {
		t.Fatalf("question %v; want %v", r.Question, q.Question)
	}
	if opt := q.IsEdns0(); opt != nil && !tcp && size > max(int(opt.UDPSize()), mdns.MinMsgSize) {
		t.Errorf("reply of %d bytes to who takes %d", size, opt.UDPSize())
	}
	if tcp && r.Truncated {
		t.Errorf("truncated:\n%v", r)
	}
	for _, rr := range r.Answer {
		if rr.Header().Name != q.Question[0].Name {
			t.Errorf("an answer about another name:\n%v", r)
		}
	}
	ours := r.Rcode == mdns.RcodeSuccess || r.Rcode == mdns.RcodeNameError
	if r.Authoritative != ours || r.Rcode == mdns.RcodeNameError && len(r.Answer) > 0 {
		t.Errorf("AA or answer of\n%v", r)
	}
	denied := ours && len(r.Answer) == 0 && !r.Truncated
	if denied != (len(r.Ns) == 1 && r.Ns[0].Header().Rrtype == mdns.TypeSOA) || !denied && len(r.Ns) > 0 {
		t.Errorf("authority of\n%v", r)
	}
}

func BenchmarkReply(b *testing.B) {
	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	for name, ask := range map[string]string{"answer": "task-api.local.", "nxdomain": "a.nothing.local.", "refused": "example.com."} {
		packet, err := new(mdns.Msg).SetQuestion(ask, mdns.TypeA).Pack()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 2*dns.UDPSize)
			b.ReportAllocs()
			for b.Loop() {
				dns.Reply(s, buf, packet, loopback, dns.UDPSize)
			}
		})
	}
}
