//go:build conformance

package dns_test

import (
	"slices"

	mdns "github.com/miekg/dns"
)

// A difference is one between a rival and us that is meant. docs/dns.md has the
// same list.
type difference struct {
	name  string
	rival string // empty: both
	why   string
	// is reports whether it can be expected in the replies to q. Where theirs
	// is none, it is empty.
	is    func(q query, ours, theirs *mdns.Msg) bool
	parts []string // of a reply that differ, then
}

var differences = []difference{
	{
		name:  "zone transfer",
		why:   "we refuse it; they say NOTAUTH or NOTIMP where it cannot be done at all",
		is:    func(q query, ours, _ *mdns.Msg) bool { return transfer(q) && ours.Rcode == mdns.RcodeRefused },
		parts: []string{"rcode", "question"},
	},
	{
		name: "ANY",
		why:  "RFC 8482 section 4.1 lets each choose the set with which it answers",
		is: func(q query, ours, theirs *mdns.Msg) bool {
			return q.msg.Question[0].Qtype == mdns.TypeANY && ours.Rcode == theirs.Rcode && len(ours.Answer) > 0
		},
		parts: []string{"answer", "additional", "TC"},
	},
	{
		name: "class ANY",
		why:  "we refuse what is not of the class IN; they answer with what they have in it",
		is: func(q query, ours, theirs *mdns.Msg) bool {
			return q.msg.Question[0].Qclass == mdns.ClassANY && ours.Rcode == mdns.RcodeRefused
		},
		parts: []string{"rcode", "AA", "answer", "authority", "additional"},
	},
	{
		name:  "other class",
		rival: "NSD",
		why:   "it refuses it without repeating the question",
		is: func(q query, ours, theirs *mdns.Msg) bool {
			return q.msg.Question[0].Qclass != mdns.ClassINET && theirs.Rcode == mdns.RcodeRefused && len(theirs.Question) == 0
		},
		parts: []string{"question"},
	},
	{
		name: "opcode",
		why:  "we look at nothing behind the header of what is no query (RFC 8906 section 3.1.4 wants no more than NOTIMP); they know NOTIFY and UPDATE, and repeat the question",
		is: func(q query, ours, theirs *mdns.Msg) bool {
			return q.msg.Opcode != mdns.OpcodeQuery && ours.Rcode == mdns.RcodeNotImplemented
		},
		parts: []string{"rcode", "AA", "question", "OPT"},
	},
	{
		name: "addresses of the name server",
		why:  "they add them to an answer to NS, where they may be useful (RFC 1034 section 4.3.2); nobody asks us that to find a server",
		is: func(q query, ours, theirs *mdns.Msg) bool {
			return q.msg.Question[0].Qtype == mdns.TypeNS && len(ours.Answer) == 1 && !slices.ContainsFunc(theirs.Extra, func(rr mdns.RR) bool {
				t := rr.Header().Rrtype
				return t != mdns.TypeA && t != mdns.TypeAAAA && t != mdns.TypeOPT
			})
		},
		parts: []string{"additional"},
	},
	{
		name:  "DO in BADVERS",
		rival: "NSD",
		why:   "it does not repeat it; RFC 3225 section 3 has no exception",
		is:    func(_ query, ours, theirs *mdns.Msg) bool { return theirs.Rcode == mdns.RcodeBadVers },
		parts: []string{"OPT"},
	},
	{
		name:  "flags of an error",
		rival: "NSD",
		why:   "it leaves the query's flags in it; RFC 1035 section 4.1.1 wants Z clear, and RFC 4035 section 3.1.6 CD",
		is: func(q query, ours, theirs *mdns.Msg) bool {
			return q.msg.Opcode != mdns.OpcodeQuery || theirs.Rcode != mdns.RcodeSuccess && theirs.Rcode != mdns.RcodeNameError
		},
		parts: []string{"AA", "TC", "RA", "Z", "CD"},
	},
	{
		name:  "type 0",
		rival: "Knot DNS",
		why:   "it says NOTIMP, which is about opcodes (RFC 8906 section 3.1.2); to us it is a type without data",
		is: func(q query, ours, theirs *mdns.Msg) bool {
			return q.msg.Question[0].Qtype == 0 && theirs.Rcode == mdns.RcodeNotImplemented
		},
		parts: []string{"rcode", "AA", "authority"},
	},
	{
		name:  "name that is too long",
		rival: "Knot DNS",
		why:   "it does not reply; FORMERR tells the client what is wrong",
		is: func(_ query, ours, theirs *mdns.Msg) bool {
			return !theirs.Response && ours.Rcode == mdns.RcodeFormatError
		},
		parts: []string{"reply"},
	},
}

func transfer(q query) bool {
	t := q.msg.Question[0].Qtype
	return t == mdns.TypeAXFR || t == mdns.TypeIXFR
}
