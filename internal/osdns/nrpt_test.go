package osdns

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

const nrptNote = "/receipts/nrpt-key"

func newWindows() *played { return newPlayed("receipts") }

func playedNRPT(sys machine.System) rung { return newNRPT(sys, nrptNote, quiet) }

// othersRule is a rule as Add-DnsClientNrptRule writes it.
func othersRule(p *played, guid string, names ...string) {
	p.Registry[nrptRules+`\`+guid] = map[string]any{
		"Comment": "", "DisplayName": "", "IPSECCARestriction": "",
		"Version": uint32(2), "ConfigOptions": uint32(8), "GenericDNSServers": "10.0.0.1", "Name": names,
	}
}

func TestNRPT(t *testing.T) {
	ctx, windows := t.Context(), newWindows()
	before := windows.clone()
	r := playedNRPT(windows.system())
	if why, ok := r.fits(ctx, playedClaim("1001", "127.0.0.1:53")); !ok {
		t.Errorf("does not fit: %s", why)
	}
	if err := r.apply(ctx, playedClaim("1001", "127.0.0.1:53", "task-api.local", "*.db.local")); err != nil {
		t.Fatal(err)
	}
	want := before.clone()
	want.put(nrptNote, `HKEY_LOCAL_MACHINE\`+nrptRules+"\n")
	want.Registry[nrptRules] = map[string]any{}
	want.Registry[nrptRules+`\`+nrptKey("1001", "task-api.local")] = map[string]any{
		"Comment": "tunneld, for user 1001", "DisplayName": "tunneld: task-api.local",
		"Version": uint32(2), "ConfigOptions": uint32(8),
		"GenericDNSServers": "127.0.0.1", "Name": []string{"task-api.local"},
	}
	want.Registry[nrptRules+`\`+nrptKey("1001", "db.local")] = map[string]any{
		"Comment": "tunneld, for user 1001", "DisplayName": "tunneld: db.local",
		"Version": uint32(2), "ConfigOptions": uint32(8),
		"GenericDNSServers": "127.0.0.1", "Name": []string{"db.local", ".db.local"},
	}
	same(t, "claimed", want, windows)

	if err := r.apply(ctx, playedClaim("1001", "127.0.0.2:53", "task-api.local")); err != nil {
		t.Fatal(err)
	}
	delete(want.Registry, nrptRules+`\`+nrptKey("1001", "db.local"))
	want.Registry[nrptRules+`\`+nrptKey("1001", "task-api.local")]["GenericDNSServers"] = "127.0.0.2"
	same(t, "another server, a name less", want, windows)

	if err := r.remove(ctx, "1001"); err != nil {
		t.Fatal(err)
	}
	same(t, "released", before, windows)
}

func TestNRPTDoesNotFit(t *testing.T) {
	policy := newWindows()
	policy.Registry[nrptPolicy] = map[string]any{}
	denied := newWindows().system()
	denied.Registry.Keys = func(string) ([]string, error) { return nil, errors.New("access is denied") }
	for _, test := range []struct {
		name         string
		sys          machine.System
		server, want string
	}{
		{"a table of group policy", policy.system(), "127.0.0.1:53", "looks at no other"},
		{"a registry that cannot be read", denied, "127.0.0.1:53", "access is denied"},
		{"a port", newWindows().system(), "127.0.0.1:15353", "15353"},
	} {
		t.Run(test.name, func(t *testing.T) {
			why, ok := playedNRPT(test.sys).fits(t.Context(), playedClaim("1001", test.server, "a.local"))
			if ok || !strings.Contains(why, test.want) {
				t.Errorf("fits %v, %q; want false, and why: %q", ok, why, test.want)
			}
		})
	}
}

// What others have there stays, and what is not ours is not claimed.
func TestNRPTOfOthers(t *testing.T) {
	ctx, windows := t.Context(), newWindows()
	windows.Registry[nrptRules] = map[string]any{}
	othersRule(windows, "{BD0629C2-E6C0-48D6-A78E-D23DE63BC36B}", "corp.example", ".B.local")
	windows.Registry[nrptRules+`\{AD0629C2-E6C0-48D6-A78E-D23DE63BC36B}`] = map[string]any{} // half made
	r := playedNRPT(windows.system())
	if err := r.apply(ctx, playedClaim("1002", "127.0.0.1:53", "c.local")); err != nil {
		t.Fatal(err)
	}
	before := windows.clone()
	for _, name := range []string{"b.local", "corp.example", "c.local"} {
		if err := r.apply(ctx, playedClaim("1001", "127.0.0.1:53", "a.local", name)); err == nil {
			t.Errorf("%s is somebody else's, and was claimed", name)
		}
		same(t, "after "+name, before, windows)
	}
	if err := r.apply(ctx, playedClaim("1001", "127.0.0.1:53", "a.local")); err != nil {
		t.Fatal(err)
	}
	if err := r.remove(ctx, "1001"); err != nil {
		t.Fatal(err)
	}
	same(t, "released", before, windows)
}

// What is as it should be is left alone, and what is not is mended.
func TestNRPTAgain(t *testing.T) {
	ctx, windows := t.Context(), newWindows()
	claim := playedClaim("1001", "127.0.0.1:53", "a.local", "b.local")
	if err := playedNRPT(windows.system()).apply(ctx, claim); err != nil {
		t.Fatal(err)
	}
	want := windows.clone()
	if diff := cmp.Diff([]string{"sc control dnscache paramchange", "ipconfig /flushdns"}, windows.runs); diff != "" {
		t.Errorf("run (-want +got):\n%s", diff)
	}
	windows.runs = nil
	untouched := windows.system().Before(func(what string) error { return errors.New("changed: " + what) })
	if err := playedNRPT(untouched).apply(ctx, claim); err != nil {
		t.Error(err)
	}
	if len(windows.runs) > 0 {
		t.Errorf("nothing to do, and run %q", windows.runs)
	}

	key := func(name string) string { return nrptRules + `\` + nrptKey("1001", name) }
	delete(windows.Registry, key("a.local"))
	windows.Registry[key("b.local")]["GenericDNSServers"] = "10.0.0.1"
	windows.Registry[key("c.local")] = map[string]any{} // left by a crash
	moved := nrptRules + `\{CD0629C2-E6C0-48D6-A78E-D23DE63BC36B}`
	windows.Registry[moved] = map[string]any{"Comment": nrptMark("1001"), "Name": []string{"a.local"}}
	if err := playedNRPT(windows.system()).apply(ctx, claim); err != nil {
		t.Fatal(err)
	}
	same(t, "mended", want, windows)
	if len(windows.runs) == 0 {
		t.Error("mended, and the caches are as they were")
	}
}

func TestNRPTKilled(t *testing.T) {
	claims := []Claim{
		playedClaim("1001", "127.0.0.1:53", "a.local", "b.local"),
		playedClaim("1001", "127.0.0.2:53", "b.local", "*.c.local"),
	}
	t.Run("no rules", func(t *testing.T) { killed(t, newWindows(), playedNRPT, claims...) })
	t.Run("somebody else's key", func(t *testing.T) {
		windows := newWindows()
		windows.Registry[nrptRules] = map[string]any{}
		killed(t, windows, playedNRPT, claims...)
	})
	t.Run("with rules", func(t *testing.T) {
		windows := newWindows()
		windows.Registry[nrptRules] = map[string]any{}
		othersRule(windows, "{BD0629C2-E6C0-48D6-A78E-D23DE63BC36B}", ".corp.example")
		killed(t, windows, playedNRPT, claims...)
	})
}

// The rule of a name is the same one after a restart, and nobody else's.
func TestNRPTKey(t *testing.T) {
	guid := regexp.MustCompile(`^\{[0-9A-F]{8}-[0-9A-F]{4}-8[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}\}$`)
	seen := make(map[string]bool)
	for _, owner := range []string{"1", "10", "1000"} {
		for _, name := range []string{"a.local", "b.local", "0.local", "00.local"} {
			key := nrptKey(owner, name)
			if !guid.MatchString(key) {
				t.Errorf("%s is no GUID of version 8", key)
			}
			if seen[key] {
				t.Errorf("%s is twice there", key)
			}
			seen[key] = true
			if !strings.HasPrefix(key, nrptKeyPrefix(owner)) {
				t.Errorf("%s does not begin with its owner's %s", key, nrptKeyPrefix(owner))
			}
		}
	}
	if got, want := nrptKey("1000", "task-api.local"), "{0E2FF594-B719-8721-9B82-59AC22EA6C69}"; got != want {
		t.Errorf("the key of task-api.local is %s; it was %s, and is there on machines", got, want)
	}
}

// No rule has names, which is when it counts, before it has all else.
func TestNRPTNamesLast(t *testing.T) {
	ctx, windows := t.Context(), newWindows()
	steps := 0
	sys := windows.system().Before(func(what string) error {
		steps++
		for key, values := range windows.Registry {
			if values["Name"] != nil && len(values) < 6 {
				t.Errorf("before %q, %s has %v", what, key, values)
			}
		}
		return nil
	})
	for _, server := range []string{"127.0.0.1:53", "127.0.0.2:53"} {
		if err := playedNRPT(sys).apply(ctx, playedClaim("1001", server, "a.local", "b.local")); err != nil {
			t.Fatal(err)
		}
	}
	if steps < 20 {
		t.Errorf("%d changes; want each to be seen", steps)
	}
}
