package osdns

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

const (
	macHosts     = "##\n# Host Database\n##\n127.0.0.1\tlocalhost\n255.255.255.255\tbroadcasthost\n::1             localhost\n"
	windowsHosts = "# Copyright (c) 1993-2009 Microsoft Corp.\r\n#\r\n#\t127.0.0.1       localhost\r\n10.0.0.7 build # Docker"
	windowsPath  = "/Windows/System32/drivers/etc/hosts"
)

// machines are those that the tests play, with the ladder of each.
func playedMac() (*played, func(machine.System) *Ladder) {
	mac := newPlayed("etc", "var")
	mac.put("/etc/hosts", macHosts)
	return mac, func(s machine.System) *Ladder {
		return &Ladder{System: s, Receipts: "/var/receipts", rungs: macOSRungs(s, "/var/receipts", quiet)}
	}
}

func playedWindows() (*played, func(machine.System) *Ladder) {
	windows := newPlayed("Windows/System32/drivers/etc")
	windows.put(windowsPath, windowsHosts)
	windows.Registry[nrptRules] = map[string]any{}
	othersRule(windows, "{BD0629C2-E6C0-48D6-A78E-D23DE63BC36B}", ".corp.example")
	return windows, func(s machine.System) *Ladder {
		return &Ladder{System: s, Receipts: "/receipts", rungs: windowsRungs(s, "/receipts", windowsPath, quiet)}
	}
}

func TestLadders(t *testing.T) {
	groupPolicy := func(p *played) { p.Registry[nrptPolicy] = map[string]any{} }
	for _, test := range []struct {
		name    string
		machine func() (*played, func(machine.System) *Ladder)
		change  func(*played)
		server  string
		skip    []string
		want    string // the rung
		passed  string // part of why the first one is not it
		hosts   string // what the hosts file has at its end
	}{
		{name: "macOS", machine: playedMac, server: "127.0.0.1:15353", want: "resolver-files"},
		{name: "macOS, which does not ask", machine: playedMac, server: "127.0.0.1:15353", skip: []string{"resolver-files"}, want: "hosts",
			hosts: "# BEGIN tunneld 501\n127.77.0.1 a.local # tunneld 501\n::ffff:127.77.0.1 a.local # tunneld 501\n" +
				"127.77.0.2 b.local # tunneld 501\n::ffff:127.77.0.2 b.local # tunneld 501\n# END tunneld 501\n"},
		{name: "macOS with somebody else's file", machine: playedMac, server: "127.0.0.1:15353", want: "hosts", passed: "somebody else's",
			change: func(p *played) {
				_ = p.system().MakeDir("/etc/resolver")
				p.put("/etc/resolver/b.local", "nameserver 10.0.0.1\n")
			},
			hosts: "127.77.0.2 b.local # tunneld 501\n::ffff:127.77.0.2 b.local # tunneld 501\n# END tunneld 501\n"},
		{name: "Windows", machine: playedWindows, server: "127.0.0.1:53", want: "nrpt"},
		{name: "Windows without port 53", machine: playedWindows, server: "127.0.0.1:15353", want: "hosts", passed: "15353",
			hosts: "10.0.0.7 build # Docker\r\n# BEGIN tunneld 501 (newline added after byte 98)\r\n127.77.0.1 a.local # tunneld 501\r\n127.77.0.2 b.local # tunneld 501\r\n# END tunneld 501\r\n"},
		{name: "Windows with group policy", machine: playedWindows, server: "127.0.0.1:53", change: groupPolicy, want: "hosts", passed: "group policy",
			hosts: "127.77.0.2 b.local # tunneld 501\r\n# END tunneld 501\r\n"},
		{name: "Windows, whose rules do not help", machine: playedWindows, server: "127.0.0.1:53", skip: []string{"nrpt"}, want: "hosts",
			hosts: "127.77.0.2 b.local # tunneld 501\r\n# END tunneld 501\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := t.Context()
			machine, ladder := test.machine()
			if test.change != nil {
				test.change(machine)
			}
			before := machine.clone()
			claim := playedClaim("501", test.server, "a.local", "b.local")
			o, err := ladder(machine.system()).Claim(ctx, claim, test.skip)
			if err != nil {
				t.Fatal(err)
			}
			if o.Rung != test.want {
				t.Errorf("rung %s; want %s", o.Rung, test.want)
			}
			if test.passed != "" && (len(o.Passed) == 0 || !strings.Contains(o.Passed[0].Why, test.passed)) {
				t.Errorf("passed %+v; want a reason with %q", o.Passed, test.passed)
			}
			for path, file := range machine.Files {
				if strings.HasSuffix(path, "/hosts") {
					old, now := string(before.Files[path].Data), string(file.Data)
					if !strings.HasPrefix(now, old) || !strings.HasSuffix(now, test.hosts) || (test.hosts == "") != (now == old) {
						t.Errorf("the hosts file is %q; want what it was, and then %q", now, test.hosts)
					}
				}
			}
			machine.runs = nil
			if _, err := ladder(machine.system()).Claim(ctx, claim, test.skip); err != nil {
				t.Fatal(err)
			}
			if len(machine.runs) > 0 {
				t.Errorf("claimed again, with nothing to do, and run %q", machine.runs)
			}
			if err := ladder(machine.system()).Release(ctx, "501"); err != nil {
				t.Fatal(err)
			}
			same(t, "released", before, machine)
			if len(machine.runs) == 0 {
				t.Error("released, and the caches are as they were")
			}
		})
	}
}

// A claim that steps down, and one that steps up again, leave nothing of the other
// rung; nor does a process that ends anywhere on its way.
func TestLaddersKilled(t *testing.T) {
	for _, test := range []struct {
		name    string
		machine func() (*played, func(machine.System) *Ladder)
		first   string
	}{
		{"macOS", playedMac, "resolver-files"},
		{"Windows", playedWindows, "nrpt"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := t.Context()
			machine, ladder := test.machine()
			before := machine.clone()
			claim := playedClaim("501", "127.0.0.1:53", "a.local", "*.b.local")
			use := func(n int, do func(*Ladder) error) bool {
				return survives(t, func() error { return do(ladder(killedAt(machine.system(), n))) })
			}
			up := func(l *Ladder) error { _, err := l.Claim(ctx, claim, nil); return err }
			down := func(l *Ladder) error { _, err := l.Claim(ctx, claim, []string{test.first}); return err }
			release := func(l *Ladder) error { return l.Release(ctx, "501") }
			const whole = 1 << 20
			states := make(map[string]*played)
			for name, do := range map[string]func(*Ladder) error{"up": up, "down": down} {
				use(whole, do)
				states[name] = withoutReceipt(machine)
				use(whole, release)
				same(t, "released", before, machine)
			}
			for n, done := 0, false; !done && !t.Failed(); n++ {
				use(whole, up)
				done = use(n, down)
				use(whole, down)
				same(t, "stepped down", states["down"], withoutReceipt(machine))
				done = use(n, up) && done
				use(whole, up)
				same(t, "stepped up", states["up"], withoutReceipt(machine))
				use(n, down)
				use(whole, release)
				same(t, "released while stepping down", before, machine)
				use(whole, down)
				use(n, up)
				done = use(n, release) && done
				use(whole, release)
				same(t, "released while stepping up", before, machine)
				if t.Failed() {
					t.Errorf("ended at change %d", n)
				}
			}
		})
	}
}

// Whatever fails, the names are claimed by one rung and by no other, or by none.
func TestLaddersFail(t *testing.T) {
	for _, test := range []struct {
		name    string
		machine func() (*played, func(machine.System) *Ladder)
		first   string
	}{
		{"macOS", playedMac, "resolver-files"},
		{"Windows", playedWindows, "nrpt"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := t.Context()
			machine, ladder := test.machine()
			before := machine.clone()
			claim := playedClaim("501", "127.0.0.1:53", "a.local", "*.b.local")
			states := make(map[string]*played)
			for _, skip := range [][]string{nil, {test.first}} {
				o, err := ladder(machine.system()).Claim(ctx, claim, skip)
				if err != nil {
					t.Fatal(err)
				}
				states[o.Rung] = withoutReceipt(machine)
				if err := ladder(machine.system()).Release(ctx, "501"); err != nil {
					t.Fatal(err)
				}
			}
			states[""] = withoutReceipt(before)
			stepped := 0
			for n, failed := 0, true; failed && !t.Failed(); n++ {
				failed = false
				steps := n
				o, err := ladder(machine.system().Before(func(what string) error {
					if steps--; steps == -1 {
						failed = true
						return errors.New("no space left: " + what)
					}
					return nil
				})).Claim(ctx, claim, nil)
				if err != nil {
					o.Rung = ""
				}
				if o.Rung == "hosts" {
					stepped++
				}
				got := withoutReceipt(machine)
				if o.Rung == "" {
					delete(got.Files, inside(ladder(machine.system()).Receipts))
				}
				same(t, fmt.Sprintf("claimed by %q when change %d failed", o.Rung, n), states[o.Rung], got)
				if err := ladder(machine.system()).Release(ctx, "501"); err != nil {
					t.Error(err)
				}
				same(t, "released", before, machine)
			}
			if stepped == 0 {
				t.Error("no failure made it step down")
			}
		})
	}
}

// withoutReceipt is what is on the machine, but for the receipt, which remembers
// more the more has happened.
func withoutReceipt(p *played) *played {
	c := p.clone()
	maps.DeleteFunc(c.Files, func(path string, _ *fstest.MapFile) bool { return strings.HasSuffix(path, "/501.json") })
	return c
}

// The lines of others stay, whenever they come.
func TestHostsOfOthers(t *testing.T) {
	for _, machine := range []func() (*played, func(machine.System) *Ladder){playedMac, playedWindows} {
		played, ladder := machine()
		rungs := ladder(played.system()).rungs
		hosts := rungs[len(rungs)-1].(hosts)
		t.Run(hosts.path, func(t *testing.T) {
			before := played.clone()
			old := string(before.Files[hosts.path[1:]].Data)
			claims := []Claim{playedClaim("501", "127.0.0.1:53", "a.local"), playedClaim("502", "127.0.0.1:53", "b.local")}
			if err := errors.Join(hosts.apply(t.Context(), claims[0]), hosts.apply(t.Context(), claims[1])); err != nil {
				t.Fatal(err)
			}
			added := string(played.Files[hosts.path[1:]].Data) + "10.0.0.1 more" + hosts.eol
			played.put(hosts.path, added)
			if err := errors.Join(hosts.remove(t.Context(), "501"), hosts.remove(t.Context(), "502")); err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSuffix(old, hosts.eol) + hosts.eol + "10.0.0.1 more" + hosts.eol
			if diff := cmp.Diff(want, string(played.Files[hosts.path[1:]].Data)); diff != "" {
				t.Errorf("the file (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHostsOfOthersKilled(t *testing.T) {
	claims := []Claim{
		playedClaim("501", "127.0.0.1:53", "a.local", "b.local"),
		playedClaim("501", "127.0.0.1:53", "b.local"),
	}
	mac, _ := playedMac()
	t.Run("macOS", func(t *testing.T) {
		killed(t, mac, func(s machine.System) rung { return macOSRungs(s, "/var", quiet)[1] }, claims...)
	})
	windows, _ := playedWindows()
	t.Run("Windows", func(t *testing.T) {
		killed(t, windows, func(s machine.System) rung { return windowsRungs(s, "/receipts", windowsPath, quiet)[1] }, claims...)
	})
}

func TestBothFamilies(t *testing.T) {
	addrs := func(list ...string) []netip.Addr {
		a := make([]netip.Addr, 0, 4)
		for _, s := range list {
			a = append(a, netip.MustParseAddr(s))
		}
		return a
	}
	names := []Name{
		{Name: "four.local", Addrs: addrs("127.77.0.1", "127.77.0.2")},
		{Name: "both.local", Addrs: addrs("127.77.0.3", "::1")},
		{Name: "six.local", Addrs: addrs("::1")},
		{Name: "none.local"},
	}
	want := []string{
		"127.77.0.1 four.local", "127.77.0.2 four.local",
		"::ffff:127.77.0.1 four.local", "::ffff:127.77.0.2 four.local",
		"127.77.0.3 both.local", "::1 both.local",
		"::1 six.local",
	}
	if diff := cmp.Diff(want, separateLines(bothFamilies(names))); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if spare := names[0].Addrs[:3][2]; spare.IsValid() {
		t.Error("the argument was changed")
	}
}
