//go:build conformance

package dns_test

import (
	"math/rand/v2"
	"net"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

// A query is a message, and by what it is sent.
type query struct {
	msg    *mdns.Msg
	packet []byte
	tcp    bool
}

// tooLong reports whether the question's name is longer than a name may be,
// which the library packs all the same.
func (q query) tooLong() bool { return len(q.packet) > 12 && nameLen(q.packet[12:]) > 255 }

// nameLen returns how many octets the name that b begins with has.
func nameLen(b []byte) int {
	n := 0
	for b[n] != 0 {
		n += 1 + int(b[n])
	}
	return n + 1
}

// generate returns questions of every kind about names in, at, below, above and
// beside our zones, as well as some that are about no zone of ours.
func generate(r *rand.Rand, count int) []query {
	g := newGenerator(r)
	out := make([]query, 0, count)
	for len(out) < count {
		m := g.message()
		packet, err := m.Pack()
		if err != nil {
			continue
		}
		q := query{msg: m, packet: packet, tcp: g.often(5)}
		if q.tooLong() && g.often(90) {
			continue
		}
		out = append(out, q)
	}
	return out
}

type generator struct {
	*rand.Rand
	apexes  []string
	reverse []string // sorted, so that the same seed gives the same queries
}

func newGenerator(r *rand.Rand) *generator {
	g := &generator{Rand: r}
	for apex := range zones() {
		if strings.HasSuffix(apex, ".arpa.") {
			g.reverse = append(g.reverse, apex)
		}
	}
	slices.Sort(g.reverse)
	for _, n := range names() {
		g.apexes = append(g.apexes, n.Name+".")
	}
	return g
}

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

// often reports true in so many of a hundred cases.
func (g *generator) often(percent int) bool { return g.IntN(100) < percent }

func (g *generator) message() *mdns.Msg {
	m := new(mdns.Msg)
	m.RecursionDesired = g.often(50)
	m.AuthenticatedData, m.CheckingDisabled = g.often(10), g.often(10)
	m.Zero, m.Truncated, m.Authoritative, m.RecursionAvailable = g.often(3), g.often(3), g.often(3), g.often(3)
	if g.often(2) {
		m.Opcode = pick(g, mdns.OpcodeIQuery, mdns.OpcodeStatus, mdns.OpcodeNotify, mdns.OpcodeUpdate, 3, 7, 15)
	}
	m.Question = []mdns.Question{{Name: g.name(), Qtype: g.rrtype(), Qclass: g.class()}}
	if g.often(60) {
		m.Extra = []mdns.RR{g.opt()}
	}
	return m
}

func (g *generator) rrtype() uint16 {
	switch n := g.IntN(100); {
	case n < 30:
		return mdns.TypeA
	case n < 50:
		return mdns.TypeAAAA
	case n < 60:
		return pick(g, mdns.TypeSOA, mdns.TypeNS, mdns.TypePTR)
	case n < 63:
		return mdns.TypeANY
	case n < 64: // asked for a whole zone
		return pick(g, mdns.TypeAXFR, mdns.TypeIXFR)
	case n < 66: // types that are none of data
		return pick(g, mdns.TypeOPT, mdns.TypeTSIG, mdns.TypeTKEY, mdns.TypeMAILA, mdns.TypeMAILB)
	case n < 96:
		return pick(g, mdns.TypeHTTPS, mdns.TypeSVCB, mdns.TypeSRV, mdns.TypeTXT, mdns.TypeMX, mdns.TypeCNAME,
			mdns.TypeDNAME, mdns.TypeDS, mdns.TypeDNSKEY, mdns.TypeRRSIG, mdns.TypeNSEC, mdns.TypeNSEC3, mdns.TypeNSEC3PARAM,
			mdns.TypeCDS, mdns.TypeCAA, mdns.TypeHINFO, mdns.TypeNULL, mdns.TypeNAPTR, mdns.TypeTLSA, mdns.TypeLOC)
	default: // known to nobody, reserved, or not defined yet
		return pick(g, 0, 1000, 65280, 65535, uint16(g.IntN(65536)))
	}
}

func (g *generator) class() uint16 {
	if g.often(96) {
		return mdns.ClassINET
	}
	return pick[uint16](g, mdns.ClassCHAOS, mdns.ClassHESIOD, mdns.ClassANY, mdns.ClassNONE, 0, 1000)
}

func (g *generator) opt() *mdns.OPT {
	o := &mdns.OPT{Hdr: mdns.RR_Header{Name: ".", Rrtype: mdns.TypeOPT}}
	o.SetUDPSize(pick[uint16](g, 0, 100, 511, 512, 513, 600, 1231, 1232, 1233, 4096, 65535))
	o.SetDo(g.often(40))
	if g.often(4) {
		o.SetVersion(pick[uint8](g, 1, 2, 100, 255))
	}
	if g.often(5) {
		o.SetZ(uint16(g.IntN(1 << 15)))
	}
	if g.often(20) {
		o.Option = append(o.Option, pick[mdns.EDNS0](g,
			&mdns.EDNS0_LOCAL{Code: 100, Data: []byte{1, 2}},
			&mdns.EDNS0_LOCAL{Code: 65001},
			&mdns.EDNS0_NSID{Code: mdns.EDNS0NSID},
			&mdns.EDNS0_COOKIE{Code: mdns.EDNS0COOKIE, Cookie: "0123456789abcdef"},
			&mdns.EDNS0_PADDING{Padding: make([]byte, g.IntN(64))},
			&mdns.EDNS0_SUBNET{Code: mdns.EDNS0SUBNET, Family: 1, SourceNetmask: 8, Address: net.IPv4(10, 0, 0, 0)},
		))
	}
	return o
}

func (g *generator) name() string {
	name := pick(g, g.apexes...)
	if g.often(15) {
		name = pick(g, g.reverse...)
	}
	if g.often(10) { // of nobody here, but for what happens to it
		name = pick(g, "example.com.", "local.", ".", "svc.cluster.local.", "77.127.in-addr.arpa.", "localhost.", "version.bind.")
	}
	switch n := g.IntN(10); {
	case n < 3: // at it
	case n < 6:
		for range 1 + g.IntN(3) {
			name = strings.TrimSuffix(g.label()+"."+name, "..")
			if !strings.HasSuffix(name, ".") {
				name += "."
			}
		}
	case n < 8: // above it, or between it and one above
		for range 1 + g.IntN(3) {
			if off, end := mdns.NextLabel(name, 0); !end {
				name = name[off:]
			}
		}
		if g.often(50) && name != "." {
			name = g.label() + "." + name
		}
	default: // beside it
		if off, end := mdns.NextLabel(name, 0); !end {
			name = pick(g, g.label(), "x"+name[:off-1], name[:off-1]+"x", name[1:off-1]) + "." + name[off:]
		}
	}
	name = strings.TrimPrefix(name, ".")
	if name == "" {
		name = "."
	}
	if g.often(30) {
		name = g.mixCase(name)
	}
	return name
}

func (g *generator) label() string {
	return pick(g, "a", "b", "www", "x", "y", "q", "*", "*", "**", "a*", "_tcp", "xn--nxasmq6b", "0",
		`\000`, `\255`, `\.`, `a\.b`, `\032`, `\\`, `\"`, `\@`, strings.Repeat("m", 63), strings.Repeat("m", 62))
}

func (g *generator) mixCase(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'a' <= c && c <= 'z' && g.often(50) {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}
