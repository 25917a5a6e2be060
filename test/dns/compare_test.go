//go:build conformance

package dns_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// TestAnswersAsOthersDo puts generated questions to us and to the rivals, and
// compares the replies section by section. What differs must be in differences,
// and all that is there must differ: each one for each rival that it is about, and
// each part of it for one of them.
func TestAnswersAsOthersDo(t *testing.T) {
	const seed, count = 4, 20_000
	queries := generate(rand.New(rand.NewPCG(seed, seed)), count)
	ours := serve(t)
	seen := make(map[string]bool) // difference and part
	asked := 0
	for _, r := range rivals {
		t.Run(r.name, func(t *testing.T) {
			asked++
			p := &pair{servers: [2]netip.AddrPort{ours, r.start(t)}}
			defer p.close()
			hits := make(map[string]int)
			alike, unexplained := 0, 0
			for i, q := range queries {
				mine, other := p.ask(t, uint16(i%(1<<15)), q)
				parts := compare(mine, other)
				if len(parts) == 0 {
					alike++
					continue
				}
				for name, explained := range explain(r.name, q, mine, other, parts) {
					hits[name]++
					for _, part := range explained {
						seen[name+", "+part] = true
					}
				}
				if len(parts) == 0 {
					continue
				}
				if unexplained++; unexplained <= 20 {
					t.Errorf("query %d, TCP %v: differs in %v:\n%v\nours:\n%v\n%s's:\n%v", i, q.tcp, parts, q.msg, mine, r.name, other)
				}
			}
			t.Logf("%d queries: %d alike, %d not explained, differences %v", len(queries), alike, unexplained, hits)
			for _, d := range differences {
				if (d.rival == "" || d.rival == r.name) && hits[d.name] == 0 {
					t.Errorf("nothing differs by %q: take it out", d.name)
				}
			}
		})
	}
	for _, d := range differences {
		for _, part := range d.parts {
			if asked == len(rivals) && !seen[d.name+", "+part] {
				t.Errorf("by %q, %s does not differ: take it out", d.name, part)
			}
		}
	}
}

// explain takes out of parts what the differences explain, and returns which
// did what.
func explain(rival string, q query, ours, theirs *mdns.Msg, parts map[string]string) map[string][]string {
	by := make(map[string][]string)
	if theirs == nil {
		theirs = new(mdns.Msg)
	}
	for _, d := range differences {
		if d.rival != "" && d.rival != rival || !d.is(q, ours, theirs) {
			continue
		}
		for _, part := range d.parts {
			if _, ok := parts[part]; ok {
				by[d.name] = append(by[d.name], part)
				delete(parts, part)
			}
		}
	}
	return by
}

// pair asks two servers, ours first.
type pair struct {
	servers [2]netip.AddrPort
	udp     [2]net.Conn
}

func (p *pair) close() {
	for _, c := range p.udp {
		if c != nil {
			c.Close()
		}
	}
}

// errorsAgain is when NSD tells of errors again.
const errorsAgain = 1200 * time.Millisecond

// isError reports whether it is a reply of the kind of which NSD tells some only.
func isError(reply *mdns.Msg) bool {
	return reply != nil && (reply.Rcode == mdns.RcodeNotImplemented || reply.Rcode == mdns.RcodeFormatError)
}

// ask returns the replies to q; theirs is nil if there is none.
func (p *pair) ask(t *testing.T, id uint16, q query) (ours, theirs *mdns.Msg) {
	t.Helper()
	packet := slices.Clone(q.packet)
	binary.BigEndian.PutUint16(packet, id)
	var replies [2]*mdns.Msg
	for i := range p.servers {
		b := p.exchange(t, i, packet, q.tcp)
		// NSD tells no more than 100 errors in a second of its clock, and drops the rest
		// (ERROR_RATELIMIT in its query.c).
		for began := time.Now(); b == nil && i == 1 && isError(replies[0]) && time.Since(began) < errorsAgain; {
			b = p.exchange(t, i, packet, q.tcp)
		}
		if b == nil {
			continue
		}
		replies[i] = new(mdns.Msg)
		if err := replies[i].Unpack(b); err != nil {
			t.Errorf("server %d replied % x to\n%v\n%v", i, b, q.msg, err)
		}
	}
	if replies[0] == nil {
		t.Fatalf("no reply to\n%v", q.msg)
	}
	return replies[0], replies[1]
}

// exchange puts the packet to a server, over UDP from the same port each time.
func (p *pair) exchange(t *testing.T, i int, packet []byte, tcp bool) []byte {
	t.Helper()
	if !tcp && p.udp[i] != nil {
		return exchange(t, p.udp[i], packet)
	}
	c, err := net.Dial(map[bool]string{true: "tcp", false: "udp"}[tcp], p.servers[i].String())
	if err != nil {
		t.Fatal(err)
	}
	if tcp {
		defer c.Close()
	} else {
		p.udp[i] = c
	}
	return exchange(t, c, packet)
}

// compare says in which parts two replies differ, and how. The order of records
// in a section means nothing (RFC 1034 section 3.6), nor does the case of what
// is in them; but an owner is written as it was asked for.
func compare(ours, theirs *mdns.Msg) map[string]string {
	parts := make(map[string]string)
	if theirs == nil {
		parts["reply"] = "they have none"
		return parts
	}
	add := func(part string, a, b any) {
		if a != b {
			parts[part] = fmt.Sprintf("%v, %v", a, b)
		}
	}
	add("rcode", mdns.RcodeToString[ours.Rcode], mdns.RcodeToString[theirs.Rcode])
	add("opcode", ours.Opcode, theirs.Opcode)
	add("AA", ours.Authoritative, theirs.Authoritative)
	add("TC", ours.Truncated, theirs.Truncated)
	add("RD", ours.RecursionDesired, theirs.RecursionDesired)
	add("RA", ours.RecursionAvailable, theirs.RecursionAvailable)
	add("Z", ours.Zero, theirs.Zero)
	add("AD", ours.AuthenticatedData, theirs.AuthenticatedData)
	add("CD", ours.CheckingDisabled, theirs.CheckingDisabled)
	add("question", fmt.Sprint(ours.Question), fmt.Sprint(theirs.Question))
	add("OPT", edns(ours), edns(theirs))
	if ours.Truncated && theirs.Truncated { // the rest is to be ignored: RFC 2181 section 9
		return parts
	}
	add("answer", section(ours.Answer), section(theirs.Answer))
	add("authority", section(ours.Ns), section(theirs.Ns))
	add("additional", section(ours.Extra), section(theirs.Extra))
	return parts
}

// edns is what there is of an OPT, apart from its size and options, which are
// a server's own.
func edns(m *mdns.Msg) string {
	opt := m.IsEdns0()
	if opt == nil {
		return "none"
	}
	return fmt.Sprintf("version %d, DO %v, Z %d", opt.Version(), opt.Do(), opt.Z())
}

func section(rrs []mdns.RR) string {
	var lines []string
	for _, rr := range rrs {
		h := rr.Header()
		if h.Rrtype == mdns.TypeOPT {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s %d %d %d %s", h.Name, h.Ttl, h.Class, h.Rrtype,
			strings.ToLower(strings.TrimPrefix(rr.String(), h.String()))))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
