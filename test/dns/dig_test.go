//go:build conformance

package dns_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A digging is a query as dig sends it, with what must be in the reply.
type digging struct {
	name   string
	args   string // ZONE is a name of ours, BIG one of 100 addresses
	status string
	soa    bool   // the answer is an SOA record; false: there must be none
	flags  string // all that are set
	edns   string // all that the OPT says, but for its size; empty: no OPT
}

// iscBattery are the queries that ISC publishes to show whether a server knows
// EDNS (kb.isc.org, "Testing EDNS Compatibility with dig"), with what it
// expects.
var iscBattery = []digging{
	{"plain DNS", "+norec +noedns soa ZONE", "NOERROR", true, "qr aa", ""},
	{"plain EDNS", "+norec +edns=0 soa ZONE", "NOERROR", true, "qr aa", "version: 0, flags:"},
	{"unknown version", "+norec +edns=100 +noednsneg soa ZONE", "BADVERS", false, "qr", "version: 0, flags:"},
	{"unknown option", "+norec +ednsopt=100 soa ZONE", "NOERROR", true, "qr aa", "version: 0, flags:"},
	{"unknown flag", "+norec +ednsflags=0x80 soa ZONE", "NOERROR", true, "qr aa", "version: 0, flags:"},
	{"DO", "+norec +dnssec soa ZONE", "NOERROR", true, "qr aa", "version: 0, flags: do"},
	{"truncated", "+norec +dnssec +bufsize=512 +ignore dnskey ZONE", "NOERROR", false, "qr aa", "version: 0, flags: do"},
	{"unknown version and option", "+norec +edns=100 +noednsneg +ednsopt=100 soa ZONE", "BADVERS", false, "qr", "version: 0, flags:"},
}

// rfc8906 are the queries of RFC 8906 section 8, by its numbers, with the
// responses that it demands. Z is flag "MBZ" in dig's words, and none has it.
var rfc8906 = []digging{
	{"8.1.1 zone", "+noedns +noad +norec soa ZONE", "NOERROR", true, "qr aa", ""},
	{"8.1.2 unknown type", "+noedns +noad +norec type1000 ZONE", "NOERROR", false, "qr aa", ""},
	{"8.1.3.1 CD", "+noedns +noad +norec +cd soa ZONE", "NOERROR", true, "qr aa", ""},
	{"8.1.3.2 AD", "+noedns +norec +ad soa ZONE", "NOERROR", true, "qr aa", ""},
	{"8.1.3.3 reserved bit", "+noedns +noad +norec +zflag soa ZONE", "NOERROR", true, "qr aa", ""},
	{"8.1.3.4 recursive", "+noedns +noad +rec soa ZONE", "NOERROR", true, "qr aa rd", ""},
	{"8.1.4 unknown opcode", "+noedns +noad +opcode=15 +norec +header-only ZONE", "NOTIMP", false, "qr", ""},
	{"8.1.5 TCP", "+noedns +noad +norec +tcp soa ZONE", "NOERROR", true, "qr aa", ""},
	{"8.2.1 EDNS", "+nocookie +edns=0 +noad +norec soa ZONE", "NOERROR", true, "qr aa", "version: 0, flags:"},
	{"8.2.2 version", "+nocookie +edns=1 +noednsneg +noad +norec soa ZONE", "BADVERS", false, "qr", "version: 0, flags:"},
	{"8.2.3 option", "+nocookie +edns=0 +noad +norec +ednsopt=100 soa ZONE", "NOERROR", true, "qr aa", "version: 0, flags:"},
	{"8.2.4 flag", "+nocookie +edns=0 +noad +norec +ednsflags=0x40 soa ZONE", "NOERROR", true, "qr aa", "version: 0, flags:"},
	{"8.2.5 version and flag", "+nocookie +edns=1 +noednsneg +noad +norec +ednsflags=0x40 soa ZONE", "BADVERS", false, "qr", "version: 0, flags:"},
	{"8.2.6 version and option", "+nocookie +edns=1 +noednsneg +noad +norec +ednsopt=100 soa ZONE", "BADVERS", false, "qr", "version: 0, flags:"},
	{"8.2.7 truncated, as written", "+norec +dnssec +bufsize=512 +ignore dnskey ZONE", "NOERROR", false, "qr aa", "version: 0, flags: do"},
	// Our zones have no DNSKEY, so what really is too long is asked for, too.
	{"8.2.7 truncated", "+norec +dnssec +bufsize=512 +ignore a BIG", "NOERROR", false, "qr aa tc", "version: 0, flags: do"},
	{"8.2.8 DO", "+nocookie +edns=0 +noad +norec +dnssec soa ZONE", "NOERROR", true, "qr aa", "version: 0, flags: do"},
	{"8.2.9 version and DO", "+nocookie +edns=1 +noednsneg +noad +norec +dnssec soa ZONE", "BADVERS", false, "qr", "version: 0, flags: do"},
	{"8.2.10 defined options", "+edns=0 +noad +norec +cookie +nsid +expire +subnet=0.0.0.0/0 soa ZONE", "NOERROR", true, "qr aa", "version: 0, flags:"},
	// Section 3.2.7, which has no query of its own.
	{"3.2.7 EDNS over TCP", "+edns=0 +noad +norec +tcp soa ZONE", "NOERROR", true, "qr aa", "version: 0, flags:"},
	{"3.1.5 truncated, then TCP", "+noedns +noad +norec a BIG", "NOERROR", false, "qr aa", ""},
}

func TestISCBattery(t *testing.T) { digAll(t, iscBattery) }

func TestRFC8906(t *testing.T) { digAll(t, rfc8906) }

// digAll asks for a name of each kind: one that has a zone below it, one
// without data, and a reverse name.
func digAll(t *testing.T, queries []digging) {
	addr := serve(t)
	for _, zone := range []string{"task-api.local", "nothing.local", "0.1.77.127.in-addr.arpa"} {
		for _, q := range queries {
			t.Run(zone+"/"+q.name, func(t *testing.T) { q.check(t, addr, zone) })
		}
	}
}

var (
	digStatus   = regexp.MustCompile(`(?m)^;; ->>HEADER<<- opcode: (\w+), status: (\w+), id: \d+$`)
	digFlags    = regexp.MustCompile(`(?m)^;; flags:([^;]*); QUERY: \d+, ANSWER: (\d+), AUTHORITY: (\d+), ADDITIONAL: (\d+)$`)
	digEDNS     = regexp.MustCompile(`(?m)^; EDNS: (.*); udp: 1232$`)
	digOption   = regexp.MustCompile(`(?m)^; (OPT=|COOKIE|NSID|CLIENT-SUBNET|EXPIRE).*$`)
	digSOA      = regexp.MustCompile(`(?m)^;; ANSWER SECTION:\n\S+\s+1\s+IN\s+SOA\s.*$`)
	digComplain = regexp.MustCompile(`(?m)^;; (Warning|communications error|Got bad packet).*$`)
)

func (q digging) check(t *testing.T, addr netip.AddrPort, zone string) {
	args := []string{"@" + addr.Addr().String(), "-p", fmt.Sprint(addr.Port()), "+time=20", "+tries=1"}
	args = append(args, strings.Fields(strings.NewReplacer("ZONE", zone, "BIG", "many.local").Replace(q.args))...)
	out, err := exec.Command(program(t, "dig"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("dig %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	defer func() {
		if t.Failed() {
			t.Logf("dig %s\n%s", strings.Join(args, " "), out)
		}
	}()
	_, reply, ok := strings.Cut(string(out), ";; Got answer:\n")
	if !ok {
		t.Fatal("no reply")
	}
	status, flags := digStatus.FindStringSubmatch(reply), digFlags.FindStringSubmatch(reply)
	if status == nil || flags == nil {
		t.Fatal("no header in what dig says")
	}
	if status[2] != q.status {
		t.Errorf("status %s; want %s", status[2], q.status)
	}
	if got := strings.TrimSpace(flags[1]); got != q.flags {
		t.Errorf("flags %q; want %q", got, q.flags)
	}
	edns := ""
	if m := digEDNS.FindStringSubmatch(reply); m != nil {
		edns = m[1]
	}
	if edns != q.edns {
		t.Errorf("EDNS %q; want %q", edns, q.edns)
	}
	if m := digOption.FindString(reply); m != "" {
		t.Errorf("an option in the reply: %s", m)
	}
	if m := digComplain.FindString(reply); m != "" {
		t.Errorf("dig complains: %s", m)
	}
	if got := digSOA.MatchString(reply); got != q.soa {
		t.Errorf("an SOA record as the answer is %v; want %v", got, q.soa)
	}
	if counts := flags[2:]; q.status == "NOTIMP" && (status[1] != "RESERVED15" || !slices.Equal(counts, []string{"0", "0", "0"})) {
		t.Errorf("opcode %s, sections of %v; want the same opcode and nothing", status[1], counts)
	}
}
