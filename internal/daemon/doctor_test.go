package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/claim"
	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/dns"
	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/osdns/survey"
	"github.com/tunneld/tunneld/internal/status"
)

func TestDoctorTellsOfTheSurroundings(t *testing.T) {
	resolved := &survey.ResolvedFindings{Version: 252, Mode: "stub", MulticastDNS: "no"}
	multicast := &survey.ResolvedFindings{Version: 252, Mode: "stub", MulticastDNS: "yes"}
	listeners := []survey.Listener{
		{Network: "udp", Addr: netip.MustParseAddrPort("127.0.0.53:53"), UID: 101},
		{Network: "tcp", Addr: netip.MustParseAddrPort("127.0.0.53:53"), UID: 101},
		{Network: "tcp", Addr: netip.MustParseAddrPort("127.0.0.53:53"), UID: 101},
		{Network: "udp", Addr: netip.MustParseAddrPort("0.0.0.0:5353"), PID: 7, Program: "chromium"},
	}
	tests := []struct {
		name string
		got  status.Check
		want status.Check
	}{
		{"no name server", checkResolver(survey.Findings{}), status.Check{Evidence: "nobody: there is no name server in resolv.conf"}},
		{
			"resolved", checkResolver(survey.Findings{ResolvConf: "/run/systemd/resolve/stub-resolv.conf", Nameservers: []string{"127.0.0.53"}, Resolver: "systemd-resolved", Resolved: resolved}),
			status.Check{Evidence: "/run/systemd/resolve/stub-resolv.conf leads to 127.0.0.53, which is systemd-resolved; systemd-resolved 252 runs (resolv.conf: stub, multicast DNS: no)"},
		},
		{"musl", checkNsswitch(survey.Findings{FilesFirst: true}), status.Check{Evidence: "there is no order of sources; the hosts file comes first, then the name server"}},
		{"files first", checkNsswitch(survey.Findings{Hosts: "files dns", FilesFirst: true}), status.Check{Evidence: "hosts: files dns"}},
		{
			"multicast ends it", checkNsswitch(survey.Findings{Hosts: "files mdns4_minimal [NOTFOUND=return] dns", FilesFirst: true, MDNSEnds: true}),
			status.Check{Evidence: "hosts: files mdns4_minimal [NOTFOUND=return] dns; names like task-api.local end at Avahi, so only the hosts file can carry them"},
		},
		{
			"files last", checkNsswitch(survey.Findings{Hosts: "dns files"}),
			status.Check{Result: status.Warn, Evidence: "hosts: dns files; the hosts file does not come first", Fix: "put files first in the hosts line of /etc/nsswitch.conf"},
		},
		{"nobody else", checkMulticast(survey.Findings{Resolved: resolved}), status.Check{Evidence: "nobody else answers for it"}},
		{
			"two others", checkMulticast(survey.Findings{Avahi: true, Resolved: multicast}),
			status.Check{Evidence: "Avahi and systemd-resolved's multicast DNS answers for other names in it, and keeps them: ours are claimed one by one"},
		},
		{"port 53", checkPort(53, listeners), status.Check{Evidence: "udp 127.0.0.53 (a process of user 101), tcp 127.0.0.53 (a process of user 101)"}},
		{"port 5353", checkPort(5353, listeners), status.Check{Evidence: "udp 0.0.0.0 (chromium, process 7)"}},
		{"a free port", checkPort(54, listeners), status.Check{Evidence: "nobody listens on it"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want.Result == "" {
				tt.want.Result = status.OK
			}
			tt.want.Name = tt.got.Name
			if diff := cmp.Diff(tt.want, tt.got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDoctorJudgesANameAndTheClaim(t *testing.T) {
	at := netip.MustParseAddr("127.77.31.4")
	n := &names{claimant: new(claim.Claimant)}
	name := dns.Name{Name: "a.local", Addrs: []netip.Addr{at}}
	right := claim.Resolution{Addrs: name.Addrs, Right: true, Took: 1234567}
	late := right
	late.Took = 5 * time.Second
	wrong := claim.Resolution{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Took: time.Millisecond}
	tests := []struct {
		name string
		got  status.Check
		want status.Check
	}{
		{"right", judge(name, right, true, ""), status.Check{Result: status.OK, Evidence: "127.77.31.4 in 1.2ms"}},
		{"right, late", judge(name, late, true, ""), status.Check{Result: status.Warn, Evidence: "127.77.31.4 in 5s", Fix: "somebody else is asked first, who does not know: see the checks of nsswitch and .local"}},
		{"wrong", judge(name, wrong, true, ""), status.Check{Result: status.Fail, Evidence: "192.0.2.1 in 1ms", Fix: "see which of the checks below explains it"}},
		{"nowhere", judge(name, claim.Resolution{}, true, ""), status.Check{Result: status.Fail, Evidence: "does not resolve (0s)", Fix: "see which of the checks below explains it"}},
		{"not claimed", judge(name, claim.Resolution{}, false, ""), status.Check{Result: status.Warn, Evidence: "does not resolve (0s)", Fix: "curl --resolve a.local:PORT:127.77.31.4"}},
		{
			"refused", judge(name, wrong, true, "it is the machine's own"),
			status.Check{Result: status.Warn, Evidence: "192.0.2.1 in 1ms; it is not claimed: it is the machine's own", Fix: "give the forward another name"},
		},
		{
			"no answer yet", n.checkClaim(status.DNS{}, claim.Report{}),
			status.Check{Result: status.Warn, Evidence: "tunneld-helper has not answered yet", Fix: "ask again in a while"},
		},
		{
			"nothing answers DNS", (&names{err: errors.New("taken")}).checkClaim(status.DNS{}, claim.Report{}),
			status.Check{Result: status.Warn, Evidence: "nothing is claimed, since nothing answers for the names", Fix: "see the check of dns"},
		},
		{
			"no helper", n.checkClaim(status.DNS{}, claim.Report{Asked: true}),
			status.Check{Result: status.Warn, Evidence: "tunneld-helper is not installed, so nothing makes this system ask for the names", Fix: "tunneld install, or use the .localhost URLs"},
		},
		{
			"no way", n.checkClaim(status.DNS{}, claim.Report{Asked: true, Installed: true, Problem: "no way"}),
			status.Check{Result: status.Fail, Evidence: "no way", Fix: "see which of the checks below explains it; until then use the .localhost URLs"},
		},
		{
			"by hosts", n.checkClaim(status.DNS{Rung: "hosts", Why: "it is read first", Passed: []status.Passed{{Rung: "dnsmasq", Why: "does not run"}}}, claim.Report{Asked: true, Installed: true}),
			status.Check{Result: status.OK, Evidence: "by hosts: it is read first; it cannot carry wildcards, so what is below a name does not resolve; not by dnsmasq: does not run"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Name = tt.got.Name
			if diff := cmp.Diff(tt.want, tt.got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDoctorDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := func(ctx context.Context, _ ...string) (map[string][]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		n := &names{claimant: &claim.Claimant{Lookup: silent}}
		var all []dns.Name
		for i := range 1000 {
			all = append(all, dns.Name{Name: fmt.Sprintf("%d.local", i), Addrs: []netip.Addr{netip.MustParseAddr("127.77.31.4")}})
		}
		began := time.Now()
		checks := n.lookAt(t.Context(), all, claim.Report{})
		if took := time.Since(began); took > lookMost {
			t.Errorf("took %v", took)
		}
		if c := checks[0]; c.Evidence != "does not resolve (6s)" {
			t.Errorf("%+v", c)
		}
		if c := checks[999]; c.Result != status.Warn || !strings.HasPrefix(c.Evidence, "was not looked up") || c.Name != "999.local" {
			t.Errorf("%+v", c)
		}
	})
}

func TestDoctorThatCannotLookNamesUp(t *testing.T) {
	blind := func(context.Context, ...string) (map[string][]netip.Addr, error) {
		return nil, errors.New("played to fail")
	}
	n := &names{claimant: &claim.Claimant{Lookup: blind}}
	c := n.look(t.Context(), dns.Name{Name: "a.local"}, claim.Report{})
	if c.Result != status.Fail || c.Evidence != "cannot be looked up: played to fail" {
		t.Errorf("%+v", c)
	}
}

func TestHintsAreTrue(t *testing.T) {
	a := dns.Name{Name: "a.local"}
	right := map[string]claim.Resolution{a.Name: {Right: true}}
	tests := []struct {
		name string
		n    names
		r    claim.Report
		want string
	}{
		{"left alone", names{}, claim.Report{}, "nothing makes this system ask 127.0.0.1:15353 for these names" + otherwise},
		{"not asked yet", names{claimant: new(claim.Claimant)}, claim.Report{}, "this system is not yet made to ask 127.0.0.1:15353 for these names" + otherwise},
		{"not installed", names{claimant: new(claim.Claimant)}, claim.Report{Asked: true}, "nothing makes this system ask 127.0.0.1:15353 for these names, since tunneld-helper is not installed" + otherwise},
		{"failing", names{claimant: new(claim.Claimant)}, claim.Report{Asked: true, Installed: true, Problem: "no way"}, "this system cannot be made to ask 127.0.0.1:15353 for these names" + otherwise},
		{"all refused", names{claimant: new(claim.Claimant)}, claim.Report{Asked: true, Installed: true, Refused: map[string]string{a.Name: "taken"}}, "names that no claim may have do not resolve" + otherwise},
		{"claimed", names{claimant: new(claim.Claimant)}, claim.Report{Asked: true, Installed: true, Outcome: osdns.Outcome{Rung: "hosts"}}, "tunnelctl doctor tells which names do not resolve, and why"},
		{"all is well", names{claimant: new(claim.Claimant)}, claim.Report{Asked: true, Installed: true, Outcome: osdns.Outcome{Rung: "hosts"}, Names: right}, ""},
		{"no DNS", names{err: errors.New("taken")}, claim.Report{}, "nothing answers for these names" + otherwise},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.n.now, tt.n.listen = []dns.Name{a}, netip.MustParseAddrPort("127.0.0.1:15353")
			if got := tt.n.statusOf(config.Default(), tt.r).Hint; got != tt.want {
				t.Errorf("%q; want %q", got, tt.want)
			}
		})
	}
}
