package dns

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

const (
	headerSize = 12
	// ednsSize is what we can take, and the most that we send, in one UDP
	// packet: it fits any path without fragments (DNS flag day 2020).
	ednsSize = 1232
)

// reply returns the answer to one packet, in buf if that is large enough, or
// nil where there must be none: to what is not a query, since two servers
// could talk to each other for ever, and to who is not on this machine. size
// is the longest message that the transport carries.
func (s *Server) reply(buf, packet []byte, from netip.Addr, size int) []byte {
	if !from.Unmap().IsLoopback() || len(packet) < headerSize || packet[2]&0x80 != 0 {
		return nil
	}
	r := &dns.Msg{MsgHdr: dns.MsgHdr{
		Id:               binary.BigEndian.Uint16(packet),
		Response:         true,
		Opcode:           int(packet[2]>>3) & 0xf,
		RecursionDesired: packet[2]&1 != 0,
	}}
	if q := parse(r, packet); q != nil {
		size = s.resolve(r, q, size)
	}
	s.counts.add(r.Rcode)
	r.Truncate(size)
	r.Compress = true
	out, err := r.PackBuffer(buf)
	if err != nil {
		s.logger().Warn("cannot write a reply", "error", err)
		return nil
	}
	return out
}

// parse reads the packet. Where it is no query that can be answered it returns
// nil, with the reason as r's rcode; r then has no question, since the body
// cannot be trusted.
func parse(r *dns.Msg, packet []byte) *dns.Msg {
	if r.Opcode != dns.OpcodeQuery {
		r.Rcode = dns.RcodeNotImplemented
		return nil
	}
	q := new(dns.Msg)
	// Unpack leaves out without an error what the packet is too short for, so
	// the header's counts are compared with what is there. One question: RFC
	// 9619.
	if counts := packet[4:headerSize]; q.Unpack(packet) != nil ||
		len(q.Question) != 1 ||
		len(q.Answer) != int(binary.BigEndian.Uint16(counts[2:])) ||
		len(q.Ns) != int(binary.BigEndian.Uint16(counts[4:])) ||
		len(q.Extra) != int(binary.BigEndian.Uint16(counts[6:])) {
		r.Rcode = dns.RcodeFormatError
		return nil
	}
	return q
}

// resolve completes the reply r to q and returns how long it may be, at most
// size.
func (s *Server) resolve(r, q *dns.Msg, size int) int {
	r.Question = q.Question
	limit := dns.MinMsgSize
	version := uint8(0)
	for _, rr := range q.Extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		if len(r.Extra) > 0 || opt.Hdr.Name != "." { // RFC 6891 section 6.1.1
			r.Rcode = dns.RcodeFormatError
			return min(size, dns.MinMsgSize)
		}
		ours := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		ours.SetUDPSize(ednsSize)
		ours.SetDo(opt.Do()) // RFC 3225 section 3; the zone is unsigned all the same
		r.Extra = []dns.RR{ours}
		limit = min(max(int(opt.UDPSize()), dns.MinMsgSize), ednsSize)
		version = opt.Version()
	}
	if version > 0 {
		r.Rcode = dns.RcodeBadVers
	} else {
		name := strings.ToLower(q.Question[0].Name)
		if ours := s.Zone().answer(r, q.Question[0], name); !ours && s.Refused != nil {
			s.Refused(name)
		}
		s.trace(r)
	}
	if size > ednsSize { // TCP: the OPT's size is about UDP only
		return size
	}
	return min(size, limit)
}

func (s *Server) trace(r *dns.Msg) {
	if s.Log == nil || !s.Log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	s.Log.Debug("answered", "name", r.Question[0].Name, "type", dns.Type(r.Question[0].Qtype).String(),
		"rcode", dns.RcodeToString[r.Rcode], "answers", len(r.Answer))
}
