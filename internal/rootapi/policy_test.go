package rootapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/osdns"
)

const goodPolicy = `{"version":1,"uid":1000,"suffixes":["local","localhost","svc.cluster.local"],"addresses":"127.77.0.0/16","sharedPorts":[80,443]}`

func policy(t testing.TB) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(goodPolicy))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParsePolicy(t *testing.T) {
	want := &Policy{
		UID:         1000,
		Suffixes:    []string{"local", "localhost", "svc.cluster.local"},
		Addresses:   netip.MustParsePrefix("127.77.0.0/16"),
		SharedPorts: []uint16{80, 443},
	}
	if diff := cmp.Diff(want, policy(t), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	with := func(key, value string) string {
		fields := make(map[string]json.RawMessage)
		if err := json.Unmarshal([]byte(goodPolicy), &fields); err != nil {
			t.Fatal(err)
		}
		if fields[key] = json.RawMessage(value); value == "" {
			delete(fields, key)
		}
		text, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	bad := []struct{ name, text, says string }{
		{"empty", "", "it is empty"},
		{"no JSON", "uid: 1000", "invalid character"},
		{"cut", goodPolicy[:40], "unexpected EOF"},
		{"a field that is not known", with("shell", `"/bin/sh"`), `unknown field "shell"`},
		{"trailing data", goodPolicy + "{}", "something behind"},
		{"no version", with("version", ""), `"version" is 0 and must be 1`},
		{"no uid, which is not root's", with("uid", ""), `"uid" is missing`},
		{"a uid below 0", with("uid", "-1"), "uid"},
		{"no suffix", with("suffixes", "[]"), "has none"},
		{"the root", with("suffixes", `[""]`), "is not a domain"},
		{"a dot", with("suffixes", `["."]`), "is not a domain"},
		{"a final dot", with("suffixes", `["local."]`), "is not a domain"},
		{"upper case", with("suffixes", `["Local"]`), "is not a domain"},
		{"a line in it", with("suffixes", `["local\nx"]`), "is not a domain"},
		{"a top-level domain", with("suffixes", `["local","com"]`), `suffix "com" is a top-level domain of others`},
		{"an address", with("suffixes", `["0.0.1"]`), "ends in a number"},
		{"reverse look-ups", with("suffixes", `["in-addr.arpa"]`), "infrastructure"},
		{"no addresses", with("addresses", ""), `"addresses" is missing`},
		{"addresses of others", with("addresses", `"10.0.0.0/8"`), "not a range inside"},
		{"more than loopback", with("addresses", `"126.0.0.0/7"`), "not a range inside"},
		{"bits behind", with("addresses", `"127.77.0.1/16"`), "not a range inside"},
		{"mapped addresses", with("addresses", `"::ffff:127.77.0.0/112"`), "not a range inside"},
		{"all of loopback", with("addresses", `"127.0.0.0/8"`), "overlaps 127.0.0.0/16"},
		{"the resolver's address", with("addresses", `"127.0.0.48/28"`), "overlaps 127.0.0.0/16"},
		{"shared port 0", with("sharedPorts", "[0]"), "shared port 0"},
		{"a high shared port", with("sharedPorts", "[8080]"), "shared port 8080"},
	}
	for _, tt := range bad {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParsePolicy([]byte(tt.text))
			if !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v; want ErrPolicy, and %q", err, tt.says)
			}
		})
	}
	for _, newer := range []string{with("version", "2"), `{"version":2,"what":"is new"}`} {
		if _, err := ParsePolicy([]byte(newer)); !errors.Is(err, ErrNewerPolicy) {
			t.Errorf("%s: %v; want ErrNewerPolicy", newer, err)
		}
	}
	for _, suffix := range []string{"test", "internal", "home.arpa", "dev.example.com"} {
		if _, err := ParsePolicy([]byte(with("suffixes", `["`+suffix+`"]`))); err != nil {
			t.Errorf("suffix %s: %v", suffix, err)
		}
	}
}

const hostname = "VM.example.org" // of the tests' machine

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	longest := strings.Repeat(long+".", 3) + strings.Repeat("a", 253-3*64-len(".local")) + ".local"
	allowed := []string{
		"task-api.local", "a.b.c.local", "task-db-0.task-db.local", "1.local", "xn--bcher-kva.local",
		"task-api.localhost",
		"task-api.task-api.svc.cluster.local", "db-0.db.task-api.svc.cluster.local",
		long + ".local", longest, "vm.localhost", "vm.vm.local", "cluster.localhost",
		"mycluster.local", "svc.local",
	}
	refused := []struct{ name, says string }{
		{"", "host name"},
		{".", "host name"},
		{".local", "host name"},
		{"task-api.local.", "host name"},
		{"Task-api.local", "host name"},
		{"task..local", "host name"},
		{"-a.local", "host name"},
		{"a-.local", "host name"},
		{"a_b.local", "host name"},
		{"*.local", "host name"},
		{"~a.local", "host name"},
		{"a b.local", "host name"},
		{"a/../b.local", "host name"},
		{"a\n127.0.0.1 bank.example.local", "host name"},
		{"a\x00.local", "host name"},
		{"a#.local", "host name"},
		{"bücher.local", "host name"},
		{"127.0.0.1", "none of the domains"},
		{long + "a.local", "host name"},
		{"a" + longest, "host name"},
		{"local", "none of the domains"},
		{"localhost", "none of the domains"},
		{"notlocal", "none of the domains"},
		{"task-api.notlocal", "none of the domains"},
		{"example.com", "none of the domains"},
		{"task-api.local.example.com", "none of the domains"},
		{"cluster.local", "SERVICE.NAMESPACE"},
		{"svc.cluster.local", "SERVICE.NAMESPACE"},
		{"task-api.svc.cluster.local", "SERVICE.NAMESPACE"},
		{"pod.cluster.local", "SERVICE.NAMESPACE"},
		{"a.b.pod.cluster.local", "SERVICE.NAMESPACE"},
		{"asvc.cluster.local", "SERVICE.NAMESPACE"},
		{"vm.local", "own"},
		{"vm.example.org", "own"},
	}
	p := policy(t)
	for _, name := range allowed {
		if why := p.checkName(name, hostname); why != "" {
			t.Errorf("%s %s", name, why)
		}
	}
	for _, tt := range refused {
		if why := p.checkName(tt.name, hostname); !strings.Contains(why, tt.says) {
			t.Errorf("%q: %q; want %q", tt.name, why, tt.says)
		}
	}
	// What is below a name goes with it.
	if why := p.checkName("corp.local", "VM.corp.local"); !strings.Contains(why, "own") {
		t.Errorf("the domain that the machine is in: %q; want that it is its own", why)
	}
	if why := p.checkName("x.vm.corp.local", "VM.corp.local") + p.checkName("orp.local", "VM.corp.local"); why != "" {
		t.Error(why)
	}
	// Whatever the suffixes say.
	p.Suffixes = []string{"local", "cluster.local", "svc.cluster.local", "team.svc.cluster.local"}
	for _, name := range []string{"cluster.local", "svc.cluster.local", "team.svc.cluster.local", "x.cluster.local", "vm.local"} {
		if why := p.checkName(name, hostname); why == "" {
			t.Errorf("%s may be claimed", name)
		}
	}
	p.Suffixes = []string{"local"} // does not say that clusters' names are wanted
	if why := p.checkName("a.b.svc.cluster.local", hostname); why == "" {
		t.Error("a cluster's name may be claimed without a suffix for them")
	}
	p.Suffixes = []string{"team.svc.cluster.local"}
	if why := p.checkName("a.team.svc.cluster.local", hostname) + p.checkName("b.a.team.svc.cluster.local", hostname); why != "" {
		t.Error(why)
	}
	if why := p.checkName("a.other.svc.cluster.local", hostname); why == "" {
		t.Error("a name of another namespace may be claimed")
	}
}

func addrs(list ...string) []netip.Addr {
	var as []netip.Addr
	for _, a := range list {
		as = append(as, netip.MustParseAddr(a))
	}
	return as
}

func names(n int) []osdns.Name {
	list := make([]osdns.Name, n)
	for i := range list {
		list[i] = osdns.Name{Name: fmt.Sprintf("n%d.local", i), Addrs: addrs("127.77.0.1")}
	}
	return list
}

func TestRules(t *testing.T) {
	server := netip.MustParseAddrPort("127.0.0.1:15353")
	claim := func(change func(r *request)) *request {
		r := &request{Verb: verbClaim, Server: server, Names: names(2)}
		change(r)
		return r
	}
	to := func(list ...string) *request {
		return claim(func(r *request) { r.Names[1].Addrs = addrs(list...) })
	}
	at := func(s string) *request { return &request{Verb: verbListen, Listen: netip.MustParseAddrPort(s)} }
	from := func(s string) *request {
		return claim(func(r *request) { r.Server = netip.MustParseAddrPort(s) })
	}
	tests := []struct {
		name  string
		r     *request
		says  string // "": allowed
		names []string
	}{
		{"a claim", claim(func(*request) {}), "", nil},
		{"of as many names as may be", claim(func(r *request) { r.Names = names(4096) }), "", nil},
		{"of one more", claim(func(r *request) { r.Names = names(4097) }), "4097 names are more", nil},
		{"of none", claim(func(r *request) { r.Names = nil }), "", nil},
		{"with a wildcard", claim(func(r *request) { r.Names[0].Wildcard = true }), "", nil},
		{"with rungs to skip", claim(func(r *request) { r.Skip = []string{"resolved-link", "hosts"} }), "", nil},
		{"with what is no rung", claim(func(r *request) { r.Skip = []string{"../hosts"} }), `"../hosts" is not the name of a rung`, nil},
		{"with too many", claim(func(r *request) { r.Skip = make([]string, 17) }), "17 rungs", nil},
		{"a name twice", claim(func(r *request) { r.Names[1] = r.Names[0] }), "is there twice", []string{"n0.local"}},
		{"names of others", claim(func(r *request) { r.Names[0].Name, r.Names[1].Name = "example.com", "local" }),
			`the name "example.com" is below none of the domains local, localhost, svc.cluster.local`, []string{"example.com", "local"}},
		{"no address", to(), "has 0 addresses", []string{"n1.local"}},
		{"17 addresses", to(slices.Repeat([]string{"127.77.0.1"}, 17)...), "has 17 addresses", []string{"n1.local"}},
		{"the shared addresses", to("127.0.0.1", "::1", "127.77.255.255"), "", nil},
		{"another loopback address", to("127.77.0.1", "127.78.0.1"), "leads to 127.78.0.1", []string{"n1.local"}},
		{"the machine's resolver", to("127.0.0.53"), "leads to", []string{"n1.local"}},
		{"another machine", to("192.0.2.1"), "leads to", []string{"n1.local"}},
		{"a mapped address", to("::ffff:127.77.0.1"), "leads to", []string{"n1.local"}},
		{"a mapped shared address", to("::ffff:127.0.0.1"), "leads to", []string{"n1.local"}},
		{"an address with a zone", to("::1%lo"), "leads to", []string{"n1.local"}},
		{"an address that is none", claim(func(r *request) { r.Names[1].Addrs = make([]netip.Addr, 1) }), "leads to", []string{"n1.local"}},
		{"a server on ::1", from("[::1]:53"), "", nil},
		{"a server elsewhere", from("192.0.2.1:53"), "not a port of a loopback address", nil},
		{"a server everywhere", from("0.0.0.0:53"), "not a port", nil},
		{"a mapped server", from("[::ffff:127.0.0.1]:53"), "not a port", nil},
		{"a server with a zone", from("[::1%lo]:53"), "not a port", nil},
		{"a server without a port", from("127.0.0.1:0"), "not a port", nil},
		{"no server", claim(func(r *request) { r.Server = netip.AddrPort{} }), "not a port", nil},

		{"release", &request{Verb: verbRelease}, "", nil},

		{"listen", at("127.77.0.1:80"), "", nil},
		{"on any low port there", at("127.77.3.4:1"), "", nil},
		{"on the last", at("127.77.3.4:1023"), "", nil},
		{"on a high port", at("127.77.0.1:1024"), "needs no helper", nil},
		{"on port 0", at("127.77.0.1:0"), "takes an address and a port", nil},
		{"on nothing", &request{Verb: verbListen}, "takes an address", nil},
		{"on a shared port", at("127.0.0.1:443"), "", nil},
		{"on a shared port, IPv6", at("[::1]:80"), "", nil},
		{"on another port of a shared address", at("127.0.0.1:22"), "port 22 of 127.0.0.1 is none of the shared ports", nil},
		{"on another port, IPv6", at("[::1]:53"), "port 53 of ::1", nil},
		{"on all addresses", at("0.0.0.0:80"), "listening on 0.0.0.0 is for none", nil},
		{"on all addresses, IPv6", at("[::]:80"), "listening on ::", nil},
		{"on another loopback address", at("127.0.0.53:53"), "listening on 127.0.0.53", nil},
		{"on another machine's", at("192.0.2.1:80"), "listening on", nil},
		{"on a mapped address", at("[::ffff:127.77.0.1]:80"), "listening on", nil},
		{"with a zone", at("[::1%lo]:80"), "listening on", nil},

		{"an address", &request{Verb: verbAddress, Address: netip.MustParseAddr("127.77.0.9")}, "", nil},
		{"an address of others", &request{Verb: verbAddress, Address: netip.MustParseAddr("10.0.0.1")}, "is not within 127.77.0.0/16", nil},
		{"no address", &request{Verb: verbAddress}, "is not within", nil},

		{"no verb", &request{}, "there is no verb", nil},
		{"another verb", &request{Verb: "exec\n"}, `there is no verb "exec\n"`, nil},
	}
	p := policy(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := p.check(tt.r, hostname)
			switch {
			case tt.says == "" && got != nil:
				t.Error(got)
			case tt.says != "" && got == nil:
				t.Errorf("it is allowed; want %q", tt.says)
			case got != nil:
				if !strings.Contains(got.Reason, tt.says) {
					t.Errorf("%q; want %q", got.Reason, tt.says)
				}
				if diff := cmp.Diff(tt.names, got.Names); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}
