// Package dns answers authoritatively for the names that the daemon serves,
// and refuses every other question: it never recurses, forwards or caches.
//
// Making the operating system ask it is somebody else's work.
package dns

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// ttl, in seconds, is both how long an answer may be kept and, as the SOA's
// minimum (RFC 2308), how long the lack of one may: a name that comes or goes
// is seen within a second even through a cache, and asking again costs nothing
// on loopback.
const ttl = 1

// A Name is one name that we are authoritative for. It is the apex of a zone
// of its own, so that we claim neither its parent nor its siblings.
type Name struct {
	// Name is fully qualified, with or without the final dot, in any case:
	// "task-api.local".
	Name string
	// Addrs are answered in this order, IPv4 to A and IPv6 to AAAA. A name
	// without addresses exists, and has no data.
	Addrs []netip.Addr
	// Wildcard gives every name below it the same addresses (RFC 4592).
	Wildcard bool
}

// Equal reports whether two names are the same, with the same data.
func (n Name) Equal(other Name) bool {
	return n.Name == other.Name && n.Wildcard == other.Wildcard && slices.Equal(n.Addrs, other.Addrs)
}

// A Zone is an immutable set of names. A nil Zone is empty.
type Zone struct {
	nodes map[string]*node // by lower-case name with the final dot
	names int              // of nodes, those that were asked for by name
}

// A node is a name that exists.
type node struct {
	apex     bool // false: it exists only because a served name is below it
	wildcard bool
	a, aaaa  []net.IP
	ptr      string // a reverse name's target
	ns       string // the apex's name server; empty means the apex itself
}

// NewZone returns the zone of these names and of the reverse names of their
// addresses. Of equal names the first wins; of the names with one address, the
// first is what its reverse name points to.
//
// Names that are malformed, and those with a single label, are left out:
// whoever answers for "local" takes it from mDNS, for the whole machine.
func NewZone(names []Name) *Zone {
	z := &Zone{nodes: make(map[string]*node)}
	var reverse []Name
	for _, n := range names {
		n.Name = strings.ToLower(dns.Fqdn(n.Name))
		if validName(n.Name) && z.nodes[n.Name] == nil {
			z.nodes[n.Name] = newNode(n)
			z.names++
			reverse = append(reverse, n)
		}
	}
	for _, n := range reverse {
		for _, addr := range n.Addrs {
			z.addReverse(addr, n.Name)
		}
	}
	z.addEmpty()
	return z
}

// Len is how many names the zone was made of; reverse names do not count.
func (z *Zone) Len() int {
	if z == nil {
		return 0
	}
	return z.names
}

func newNode(n Name) *node {
	out := &node{apex: true, wildcard: n.Wildcard}
	for i, addr := range n.Addrs {
		addr = addr.Unmap()
		switch {
		case slices.Contains(n.Addrs[:i], n.Addrs[i]): // RFC 2181 section 5
		case addr.Is4():
			out.a = append(out.a, addr.AsSlice())
		case addr.Is6():
			out.aaaa = append(out.aaaa, addr.AsSlice())
		}
	}
	return out
}

func (z *Zone) addReverse(addr netip.Addr, name string) {
	reverse, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil || z.nodes[reverse] != nil {
		return
	}
	z.nodes[reverse] = &node{apex: true, ptr: name, ns: name}
}

// addEmpty adds what lies between a served name and a served name above it.
// Such names exist without data (RFC 4592 section 2.2.2): NXDOMAIN for them
// would deny the served name below them (RFC 8020).
func (z *Zone) addEmpty() {
	names := make([]string, 0, len(z.nodes))
	for name := range z.nodes {
		names = append(names, name)
	}
	for _, name := range names {
		var between []string
		for off, end := dns.NextLabel(name, 0); !end; off, end = dns.NextLabel(name, off) {
			if z.nodes[name[off:]] != nil {
				for _, empty := range between {
					z.nodes[empty] = &node{}
				}
				break
			}
			between = append(between, name[off:])
		}
	}
}

// validName reports whether name, lower case and with its final dot, is a host
// name (or has underscores, as Kubernetes' and service names may) of at least
// two labels.
func validName(name string) bool {
	labels := strings.Split(strings.TrimSuffix(name, "."), ".")
	return len(name) <= 254 && len(labels) >= 2 && !slices.ContainsFunc(labels, func(label string) bool {
		return label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		})
	})
}

// find looks up a lower-case name. It returns the node that has its data, nil
// where there is no such name, and the offset in name of the apex that it is
// under, negative where it is under none.
func (z *Zone) find(name string) (n *node, apex int) {
	if z == nil {
		return nil, -1
	}
	child := 0 // the label before off
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		closest := z.nodes[name[off:]]
		if closest == nil {
			child = off
			continue
		}
		switch {
		case off == 0:
			n = closest
		// What the wildcard itself is above cannot match it (RFC 4592
		// section 4.4).
		case closest.wildcard && (child == 0 || name[child:off] != "*."):
			n = closest
		}
		if !closest.apex {
			off = z.apexAbove(name, off)
		}
		return n, off
	}
	return nil, -1
}

// apexAbove returns the offset of the nearest apex above the one in the
// lower-case name, negative where there is none.
func (z *Zone) apexAbove(name string, off int) int {
	for {
		above, end := dns.NextLabel(name, off)
		if end {
			return -1
		}
		if n := z.nodes[name[above:]]; n != nil && n.apex {
			return above
		}
		off = above
	}
}

// answer completes the reply r to the question q, whose name in lower case is
// name. It reports whether that is under one of ours.
func (z *Zone) answer(r *dns.Msg, q dns.Question, name string) (ours bool) {
	n, apex := z.find(name)
	if apex < 0 || q.Qclass != dns.ClassINET || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		r.Rcode = dns.RcodeRefused
		return apex >= 0
	}
	r.Authoritative = true
	if apex == 0 && q.Qtype == dns.TypeDS {
		// What there is about a zone's keys is said by the zone above it (RFC
		// 4035 section 3.1.4.1), if that is ours.
		if above := z.apexAbove(name, 0); above > 0 {
			apex = above
		}
	}
	switch {
	case n == nil:
		r.Rcode = dns.RcodeNameError
	case apex == 0 && q.Qtype == dns.TypeSOA:
		r.Answer = []dns.RR{soa(q.Name)}
	case apex == 0 && q.Qtype == dns.TypeNS:
		target := n.ns
		if target == "" {
			target = q.Name
		}
		r.Answer = []dns.RR{&dns.NS{Hdr: header(q.Name, dns.TypeNS), Ns: target}}
	default:
		r.Answer = n.records(q)
		if len(r.Answer) == 0 && apex == 0 && q.Qtype == dns.TypeANY {
			r.Answer = []dns.RR{soa(q.Name)}
		}
	}
	if len(r.Answer) == 0 {
		r.Ns = []dns.RR{soa(q.Name[apex:])}
	}
	return true
}

// records returns the node's data of the type asked for. To ANY it returns the
// first set that there is (RFC 8482 section 4.1): enough for those who only
// want to see whether something answers.
func (n *node) records(q dns.Question) []dns.RR {
	var rrs []dns.RR
	asked := func(t uint16) bool { return q.Qtype == t || q.Qtype == dns.TypeANY && len(rrs) == 0 }
	if asked(dns.TypeA) {
		for _, ip := range n.a {
			rrs = append(rrs, &dns.A{Hdr: header(q.Name, dns.TypeA), A: ip})
		}
	}
	if asked(dns.TypeAAAA) {
		for _, ip := range n.aaaa {
			rrs = append(rrs, &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: ip})
		}
	}
	if asked(dns.TypePTR) && n.ptr != "" {
		rrs = append(rrs, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: n.ptr})
	}
	return rrs
}

// soa is the authority of an apex. Its master is the apex itself, as is a
// forward name's NS, and its mailbox is nobody's: that is how RFC 6303 section
// 3 writes local zones, so that nothing in one leads to a name elsewhere. (The
// NS of a reverse name is the name that it points to, which is ours too and has
// an address.) Nobody transfers the zone, so the serial number does not count.
func soa(apex string) *dns.SOA {
	return &dns.SOA{
		Hdr: header(apex, dns.TypeSOA), Ns: apex, Mbox: "nobody.invalid.",
		Serial: 1, Refresh: 3600, Retry: 1200, Expire: 604800, Minttl: ttl,
	}
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}
