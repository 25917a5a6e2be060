package dns_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/dns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addrs(ss ...string) []netip.Addr {
	out := make([]netip.Addr, 0, len(ss))
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// served are the names that the tests of this package ask for.
func served() []dns.Name {
	many := make([]netip.Addr, 0, 100)
	for i := range 100 {
		many = append(many, netip.AddrFrom4([4]byte{127, 77, 9, byte(i)}))
	}
	return []dns.Name{
		{Name: "task-api.local", Addrs: addrs("127.77.31.4", "::1"), Wildcard: true},
		{Name: "task-api.localhost.", Addrs: addrs("127.77.31.4")},
		{Name: "Task-API.task-api.svc.cluster.local", Addrs: addrs("127.77.31.4")},
		{Name: "TASK-API.LOCAL", Addrs: addrs("127.77.99.99")}, // too late
		{Name: "v6.local", Addrs: addrs("::1", "::1")},
		{Name: "nothing.local"},
		{Name: "many.local", Addrs: many},
		{Name: "x.y.task-api.local", Addrs: addrs("127.77.31.5")},
		{Name: "p.q.r.nothing.local", Addrs: addrs("127.77.31.7")},
		{Name: "local", Addrs: addrs("127.77.31.6")}, // not ours to take
		{Name: "", Addrs: addrs("127.77.31.6")},
		{Name: "a..local", Addrs: addrs("127.77.31.6")},
		{Name: `a\.b.local`, Addrs: addrs("127.77.31.6")},
		{Name: strings.Repeat("x", 64) + ".local", Addrs: addrs("127.77.31.6")},
	}
}

const servedLen = 8

func TestZoneAnswers(t *testing.T) {
	const (
		refused  = mdns.RcodeRefused
		nxdomain = mdns.RcodeNameError
	)
	tests := []struct {
		name, ask string
		qtype     uint16
		rcode     int
		answer    []string // as in a zone file, without TTL and class
		soa       string   // owner of the SOA in the authority section
	}{
		{name: "A", ask: "task-api.local.", qtype: mdns.TypeA, answer: []string{"task-api.local. A 127.77.31.4"}},
		{name: "AAAA", ask: "task-api.local.", qtype: mdns.TypeAAAA, answer: []string{"task-api.local. AAAA ::1"}},
		{name: "case is kept", ask: "tAsK-aPi.LoCaL.", qtype: mdns.TypeA, answer: []string{"tAsK-aPi.LoCaL. A 127.77.31.4"}},
		{name: "case is kept in a denial", ask: "No.nOthing.LOCAL.", qtype: mdns.TypeA, rcode: nxdomain, soa: "nOthing.LOCAL."},
		{name: "name given with a dot", ask: "task-api.localhost.", qtype: mdns.TypeA, answer: []string{"task-api.localhost. A 127.77.31.4"}},
		{name: "name given in upper case", ask: "task-api.task-api.svc.cluster.local.", qtype: mdns.TypeA, answer: []string{"task-api.task-api.svc.cluster.local. A 127.77.31.4"}},
		{name: "AAAA of a v4 name", ask: "task-api.localhost.", qtype: mdns.TypeAAAA, soa: "task-api.localhost."},
		{name: "A of a v6 name", ask: "v6.local.", qtype: mdns.TypeA, soa: "v6.local."},
		{name: "no addresses", ask: "nothing.local.", qtype: mdns.TypeA, soa: "nothing.local."},
		{name: "HTTPS", ask: "task-api.local.", qtype: mdns.TypeHTTPS, soa: "task-api.local."},
		{name: "SVCB", ask: "task-api.local.", qtype: mdns.TypeSVCB, soa: "task-api.local."},
		{name: "SRV", ask: "task-api.local.", qtype: mdns.TypeSRV, soa: "task-api.local."},
		{name: "MX", ask: "task-api.local.", qtype: mdns.TypeMX, soa: "task-api.local."},
		{name: "CNAME", ask: "task-api.local.", qtype: mdns.TypeCNAME, soa: "task-api.local."},
		{name: "DS", ask: "task-api.local.", qtype: mdns.TypeDS, soa: "task-api.local."},
		{name: "DS of a zone below ours", ask: "X.y.task-api.local.", qtype: mdns.TypeDS, soa: "task-api.local."},
		{name: "DS far below ours", ask: "p.q.r.nothing.local.", qtype: mdns.TypeDS, soa: "nothing.local."},
		{name: "unknown type", ask: "task-api.local.", qtype: 65280, soa: "task-api.local."},
		{name: "SOA", ask: "task-api.local.", qtype: mdns.TypeSOA, answer: []string{"task-api.local. SOA task-api.local. nobody.invalid. 1 3600 1200 604800 1"}},
		{name: "NS", ask: "task-api.local.", qtype: mdns.TypeNS, answer: []string{"task-api.local. NS task-api.local."}},
		{name: "ANY is one set", ask: "task-api.local.", qtype: mdns.TypeANY, answer: []string{"task-api.local. A 127.77.31.4"}},
		{name: "ANY of a v6 name", ask: "v6.local.", qtype: mdns.TypeANY, answer: []string{"v6.local. AAAA ::1"}},
		{name: "ANY without addresses", ask: "nothing.local.", qtype: mdns.TypeANY, answer: []string{"nothing.local. SOA nothing.local. nobody.invalid. 1 3600 1200 604800 1"}},

		{name: "wildcard", ask: "tenant.task-api.local.", qtype: mdns.TypeA, answer: []string{"tenant.task-api.local. A 127.77.31.4"}},
		{name: "wildcard, deep", ask: "a.b.C.task-api.local.", qtype: mdns.TypeAAAA, answer: []string{"a.b.C.task-api.local. AAAA ::1"}},
		{name: "wildcard, as such", ask: "*.task-api.local.", qtype: mdns.TypeA, answer: []string{"*.task-api.local. A 127.77.31.4"}},
		{name: "wildcard, other type", ask: "tenant.task-api.local.", qtype: mdns.TypeHTTPS, soa: "task-api.local."},
		{name: "wildcard has no SOA", ask: "tenant.task-api.local.", qtype: mdns.TypeSOA, soa: "task-api.local."},
		{name: "wildcard has no NS", ask: "tenant.task-api.local.", qtype: mdns.TypeNS, soa: "task-api.local."},
		{name: "below the wildcard as such", ask: "a.*.task-api.local.", qtype: mdns.TypeA, rcode: nxdomain, soa: "task-api.local."},
		{name: "an asterisk farther down", ask: "*.a.task-api.local.", qtype: mdns.TypeA, answer: []string{"*.a.task-api.local. A 127.77.31.4"}},
		{name: "zone below a wildcard", ask: "x.y.task-api.local.", qtype: mdns.TypeA, answer: []string{"x.y.task-api.local. A 127.77.31.5"}},
		{name: "below the zone below", ask: "z.x.y.task-api.local.", qtype: mdns.TypeA, rcode: nxdomain, soa: "x.y.task-api.local."},
		{name: "between two zones", ask: "y.task-api.local.", qtype: mdns.TypeA, soa: "task-api.local."},
		{name: "below what is between two zones", ask: "w.y.task-api.local.", qtype: mdns.TypeA, rcode: nxdomain, soa: "task-api.local."},

		{name: "far between two zones", ask: "q.r.nothing.local.", qtype: mdns.TypeA, soa: "nothing.local."},
		{name: "nearer to the upper one", ask: "r.nothing.local.", qtype: mdns.TypeSOA, soa: "nothing.local."},
		{name: "ANY far between two zones", ask: "q.r.nothing.local.", qtype: mdns.TypeANY, soa: "nothing.local."},

		{name: "below a name", ask: "a.task-api.localhost.", qtype: mdns.TypeA, rcode: nxdomain, soa: "task-api.localhost."},
		{name: "far below a name", ask: "a.b.c.nothing.local.", qtype: mdns.TypeAAAA, rcode: nxdomain, soa: "nothing.local."},
		{name: "ANY below a name", ask: "a.nothing.local.", qtype: mdns.TypeANY, rcode: nxdomain, soa: "nothing.local."},

		{name: "the parent", ask: "local.", qtype: mdns.TypeSOA, rcode: refused},
		{name: "the parent of a cluster's name", ask: "cluster.local.", qtype: mdns.TypeA, rcode: refused},
		{name: "its namespace", ask: "task-api.svc.cluster.local.", qtype: mdns.TypeA, rcode: refused},
		{name: "the root", ask: ".", qtype: mdns.TypeNS, rcode: refused},
		{name: "a sibling", ask: "printer.local.", qtype: mdns.TypeA, rcode: refused},
		{name: "a name that ends alike", ask: "my-task-api.local.", qtype: mdns.TypeA, rcode: refused},
		{name: "a dot inside a label", ask: `x\.task-api.local.`, qtype: mdns.TypeA, rcode: refused},
		{name: "a malformed name that was given", ask: `a\.b.local.`, qtype: mdns.TypeA, rcode: refused},
		{name: "elsewhere", ask: "www.example.com.", qtype: mdns.TypeA, rcode: refused},
		{name: "zone transfer", ask: "task-api.local.", qtype: mdns.TypeAXFR, rcode: refused},
		{name: "incremental transfer", ask: "task-api.local.", qtype: mdns.TypeIXFR, rcode: refused},

		{name: "PTR, first name of the address", ask: "4.31.77.127.in-addr.arpa.", qtype: mdns.TypePTR, answer: []string{"4.31.77.127.in-addr.arpa. PTR task-api.local."}},
		{name: "PTR, v6", ask: ip6One, qtype: mdns.TypePTR, answer: []string{ip6One + " PTR task-api.local."}},
		{name: "reverse name, other type", ask: "4.31.77.127.in-addr.arpa.", qtype: mdns.TypeA, soa: "4.31.77.127.in-addr.arpa."},
		{name: "reverse name, NS is ours", ask: "4.31.77.127.in-addr.arpa.", qtype: mdns.TypeNS, answer: []string{"4.31.77.127.in-addr.arpa. NS task-api.local."}},
		{name: "reverse name, ANY", ask: "4.31.77.127.in-addr.arpa.", qtype: mdns.TypeANY, answer: []string{"4.31.77.127.in-addr.arpa. PTR task-api.local."}},
		{name: "below a reverse name", ask: "x.4.31.77.127.in-addr.arpa.", qtype: mdns.TypePTR, rcode: nxdomain, soa: "4.31.77.127.in-addr.arpa."},
		{name: "reverse name of a loser", ask: "99.99.77.127.in-addr.arpa.", qtype: mdns.TypePTR, rcode: refused},
		{name: "reverse name of 127.0.0.1", ask: "1.0.0.127.in-addr.arpa.", qtype: mdns.TypePTR, rcode: refused},
		{name: "reverse zone", ask: "77.127.in-addr.arpa.", qtype: mdns.TypeSOA, rcode: refused},
	}

	s := new(dns.Server)
	s.SetZone(dns.NewZone(served()))
	addr := serve(t, s)
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range tests {
			t.Run(network+"/"+tt.name, func(t *testing.T) {
				q := new(mdns.Msg).SetQuestion(tt.ask, tt.qtype)
				r := exchange(t, network, addr, q)
				if r.Rcode != tt.rcode {
					t.Errorf("rcode %s; want %s", mdns.RcodeToString[r.Rcode], mdns.RcodeToString[tt.rcode])
				}
				if got, want := rrs(t, r.Answer), strings.Join(tt.answer, "\n"); got != want {
					t.Errorf("answer:\n%s\nwant:\n%s", got, want)
				}
				var want string
				if tt.soa != "" {
					want = fmt.Sprintf("%s SOA %[1]s nobody.invalid. 1 3600 1200 604800 1", tt.soa)
				}
				if got := rrs(t, r.Ns); got != want {
					t.Errorf("authority:\n%s\nwant:\n%s", got, want)
				}
				if aa := tt.rcode != refused; r.Authoritative != aa {
					t.Errorf("AA is %v; want %v", r.Authoritative, aa)
				}
				if r.Question[0] != q.Question[0] || len(r.Extra) != 0 || r.Truncated || r.RecursionAvailable || !r.RecursionDesired {
					t.Errorf("unexpected header, question or additional section:\n%v", r)
				}
			})
		}
	}
}

const ip6One = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa."

// rrs writes records in the form that the tests want them, and checks their
// class and TTL on the way.
func rrs(t *testing.T, set []mdns.RR) string {
	t.Helper()
	var out []string
	for _, rr := range set {
		h := rr.Header()
		if h.Class != mdns.ClassINET || h.Ttl > 5 {
			t.Errorf("class or TTL of %v", rr)
		}
		if h.Rrtype == mdns.TypeSOA && h.Ttl > 1 {
			t.Errorf("negative TTL of %v", rr)
		}
		data := strings.TrimPrefix(rr.String(), h.String())
		out = append(out, h.Name+" "+mdns.TypeToString[h.Rrtype]+" "+data)
	}
	return strings.Join(out, "\n")
}

func TestZoneLen(t *testing.T) {
	tests := []struct {
		name string
		zone *dns.Zone
		want int
	}{
		{"nil", nil, 0},
		{"no names", dns.NewZone(nil), 0},
		{"served", dns.NewZone(served()), servedLen},
	}
	for _, tt := range tests {
		if got := tt.zone.Len(); got != tt.want {
			t.Errorf("%s: Len is %d; want %d", tt.name, got, tt.want)
		}
	}
}

func TestFindDoesNotAllocate(t *testing.T) {
	z := dns.NewZone(served())
	for _, name := range []string{"task-api.local.", "a.b.c.task-api.local.", "w.y.task-api.local.", "www.example.com."} {
		if n := testing.AllocsPerRun(100, func() { z.Find(name) }); n != 0 {
			t.Errorf("finding %s allocates %v times", name, n)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	names := make([]dns.Name, 0, 4096)
	for i := range cap(names) {
		names = append(names, dns.Name{Name: fmt.Sprintf("api-%d.local", i), Addrs: addrs("127.77.31.4"), Wildcard: true})
	}
	z := dns.NewZone(names)
	for _, name := range []string{"api-99.local.", "deep.er.api-99.local.", "www.example.com."} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				z.Find(name)
			}
		})
	}
}
