package osdns

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseNsswitch(t *testing.T) {
	type sources = []source
	only := []string{answerSuccess}
	for _, test := range []struct {
		name, file, line string
		want             sources
		ok               bool
	}{
		{name: "empty"},
		{name: "no hosts", file: "passwd: files\n# hosts: dns\n"},
		{name: "plain", file: "passwd: x\n hosts :  files\tdns # and no more\n", line: "files dns", want: sources{{"files", only}, {"dns", only}}, ok: true},
		{name: "returns", file: "hosts: mdns4_minimal [NOTFOUND=return] dns", line: "mdns4_minimal [NOTFOUND=return] dns", want: sources{{"mdns4_minimal", []string{answerSuccess, answerNotFound}}, {"dns", only}}, ok: true},
		{name: "not", file: "hosts: resolve [!UNAVAIL=return]", line: "resolve [!UNAVAIL=return]", want: sources{{"resolve", []string{answerSuccess, answerNotFound, answerTryAgain}}}, ok: true},
		{name: "close together", file: "hosts:files[success=continue TRYAGAIN=return]dns", line: "files[success=continue TRYAGAIN=return]dns", want: sources{{"files", []string{answerTryAgain}}, {"dns", only}}, ok: true},
		{name: "not closed", file: "hosts: files [NOTFOUND=return", line: "files [NOTFOUND=return", want: sources{{"files", []string{answerSuccess, answerNotFound}}}, ok: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, line, ok := parseNsswitch([]byte(test.file))
			if ok != test.ok || line != test.line {
				t.Errorf("line %q, %v; want %q, %v", line, ok, test.line, test.ok)
			}
			for _, s := range slices.Concat(got, test.want) {
				slices.Sort(s.returns)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(source{})); diff != "" {
				t.Errorf("sources (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseNsswitch(f *testing.F) {
	f.Add([]byte(mdnsFirst))
	f.Add([]byte("hosts: [ ]x[]"))
	f.Fuzz(func(t *testing.T, file []byte) {
		sources, line, ok := parseNsswitch(file)
		if !ok && (sources != nil || line != "") {
			t.Errorf("%v of %q, which is no line", sources, line)
		}
		for _, s := range sources {
			if s.name == "" || strings.ContainsAny(s.name, " \t[") {
				t.Errorf("%q is no source", s.name)
			}
		}
	})
}

func TestParseSocket(t *testing.T) {
	for _, test := range []struct {
		name, line string
		want       string
		uid        int
		inode      string
	}{
		{name: "head", line: "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops"},
		{name: "udp", line: " 1: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 1234 2 00000000 0", want: "127.0.0.53:53", uid: 101, inode: "1234"},
		{name: "tcp6", line: " 0: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1", want: "[::1]:53", inode: "77"},
		{name: "a connection", line: " 0: 0100007F:0035 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 77 1"},
		{name: "nonsense", line: " 0: 0100007:0035 x 0A 0 0 0 0 0 0 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, inode, ok := parseSocket(test.line)
			if ok != (test.want != "") {
				t.Fatalf("ok %v", ok)
			}
			if ok && (l.Addr.String() != test.want || l.UID != test.uid || inode != test.inode) {
				t.Errorf("%v, uid %d, inode %s; want %s, %d, %s", l.Addr, l.UID, inode, test.want, test.uid, test.inode)
			}
		})
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add(" 1: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 1234 2 00000000 0")
	f.Fuzz(func(t *testing.T, line string) {
		if l, _, ok := parseSocket(line); ok && !l.Addr.IsValid() {
			t.Errorf("%v", l)
		}
	})
}

func TestExamine(t *testing.T) {
	m := newMachine(t, with(stub, "/etc/nsswitch.conf", mdnsFirst, unixSockets, avahiListen+"1: 00000002 00000000 00010000 0001 01 2 /run/nscd/socket\n"))
	m.resolved = 252
	s := m.system()
	got := examine(t.Context(), s)
	want := Findings{
		ResolvConf: "/etc/resolv.conf", Nameservers: []string{"127.0.0.53"}, Resolver: "systemd-resolved",
		Hosts: "files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns", FilesFirst: true, Avahi: true, MDNSEnds: true,
		Resolved: &ResolvedFindings{Version: 252, Mode: "stub", StubListener: "yes", MulticastDNS: "resolve"},
		Caches:   []string{"nscd"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if got := examine(t.Context(), newMachine(t, forwarder).system()).Resolver; got != "dnsmasq" {
		t.Errorf("resolver %q; want dnsmasq", got)
	}
}

// What this machine has is found without privileges, and without harm.
func TestExamineThisMachine(t *testing.T) {
	Examine(t.Context())
}
