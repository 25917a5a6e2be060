package osdns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRefused(t *testing.T) {
	good := Claim{Owner: "1000", Server: netip.MustParseAddrPort("127.0.0.1:15353"), Names: []Name{{Name: "task-api.local", Addrs: []netip.Addr{netip.MustParseAddr("127.77.31.4")}}}}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	name := func(s string) func(*Claim) { return func(c *Claim) { c.Names[0].Name = s } }
	addr := func(s string) func(*Claim) {
		return func(c *Claim) { c.Names[0].Addrs = append(c.Names[0].Addrs, netip.MustParseAddr(s)) }
	}
	for _, test := range []struct {
		name   string
		change func(*Claim)
	}{
		{"no owner", func(c *Claim) { c.Owner = "" }},
		{"an owner who is no id", func(c *Claim) { c.Owner = "../1000" }},
		{"an owner who is below zero", func(c *Claim) { c.Owner = "-1" }},
		{"no server", func(c *Claim) { c.Server = netip.AddrPort{} }},
		{"a server elsewhere", func(c *Claim) { c.Server = netip.MustParseAddrPort("192.0.2.1:53") }},
		{"a server without a port", func(c *Claim) { c.Server = netip.MustParseAddrPort("127.0.0.1:0") }},
		{"a top-level domain", name("local")},
		{"no name", name("")},
		{"the cluster's domain", name("cluster.local")},
		{"all Services", name("svc.cluster.local")},
		{"a namespace", name("task-api.svc.cluster.local")},
		{"upper case", name("Task-api.local")},
		{"a final dot", name("task-api.local.")},
		{"a wildcard", name("*.task-api.local")},
		{"an empty label", name("task-api..local")},
		{"a newline", name("task-api.local\n10.0.0.1 x.local")},
		{"a slash", name("a/b.local")},
		{"a dash first", name("-a.local")},
		{"a comment", name("a#b.local")},
		{"too long", name(strings.Repeat("a.", 125) + "local")},
		{"a label that is too long", name(strings.Repeat("a", 64) + ".local")},
		{"no address", func(c *Claim) { c.Names[0].Addrs = nil }},
		{"an address elsewhere", addr("10.0.0.1")},
		{"any address", addr("0.0.0.0")},
		{"an address with a zone", addr("::1%lo")},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := good
			c.Names = []Name{{Name: good.Names[0].Name, Addrs: []netip.Addr{good.Names[0].Addrs[0]}}}
			test.change(&c)
			if err := c.check(); err == nil {
				t.Fatal("it is not refused")
			}
			l := Ladder{rungs: []rung{}}
			if _, err := l.Claim(t.Context(), c, nil); err == nil {
				t.Error("the ladder does not refuse it")
			}
		})
	}
	for _, ok := range []string{"a.b", "task-api.task-api.svc.cluster.local", "pod-0.task-api.task-api.svc.cluster.local", "x.notcluster.local", "_a.b.local", strings.Repeat("a", 63) + ".local"} {
		c := good
		c.Names = []Name{{Name: ok, Addrs: good.Names[0].Addrs}}
		if err := c.check(); err != nil {
			t.Error(err)
		}
	}
}

func TestRoutes(t *testing.T) {
	var names []Name
	for _, n := range []string{"pod-0.a.local", "a.local", "b.local", "xb.local", "a.local", "x.y.b.local", "a.localhost"} {
		names = append(names, Name{Name: n})
	}
	if diff := cmp.Diff([]string{"a.local", "b.local", "xb.local", "a.localhost"}, routes(names)); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}
