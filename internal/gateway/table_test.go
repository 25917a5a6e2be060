package gateway_test

import (
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"github.com/tunneld/tunneld/internal/gateway"
)

var (
	own    = netip.MustParseAddr("127.77.0.1")
	other  = netip.MustParseAddr("127.77.0.2")
	local4 = netip.MustParseAddr("127.0.0.1")
	local6 = netip.MustParseAddr("::1")
)

func TestFindByHostAndAddress(t *testing.T) {
	table := gateway.NewTable([]*gateway.Row{
		{Forward: "a", Scope: own, Hosts: []string{"a.local", "a.localhost", "*.a.local", own.String()}},
		{Forward: "deep", Scope: own, Hosts: []string{"*.deep.a.local"}},
		{Forward: "b", Scope: other, Hosts: []string{"b.local", other.String()}},
	})
	tests := []struct {
		name string
		at   netip.Addr
		host string
		want string // "" means that the host is not served there
	}{
		{"its name", own, "a.local", "a"},
		{"its other name", own, "a.localhost", "a"},
		{"its address", own, "127.77.0.1", "a"},
		{"a name below it", own, "x.a.local", "a"},
		{"a name further below", own, "x.y.a.local", "a"},
		{"the longer wildcard first", own, "x.deep.a.local", "deep"},
		{"a wildcard does not match its own name", own, "deep.a.local", "a"},
		{"somebody else's name", own, "b.local", ""},
		{"somebody else's address", own, "127.77.0.2", ""},
		{"a foreign name", own, "example.com", ""},
		{"a name that ends alike", own, "xa.local", ""},
		{"no name", own, "", ""},
		{"shared address, one", local4, "a.local", "a"},
		{"shared address, another", local4, "b.local", "b"},
		{"shared address, IPv6", local6, "b.local", "b"},
		{"shared address, foreign name", local4, "localhost", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			row, known := table.Find(tt.at, tt.host, httptest.NewRequest("GET", "/", nil))
			got := ""
			if row != nil {
				got = row.Forward
			}
			if got != tt.want || known != (tt.want != "") {
				t.Errorf("Find = %q, %v; want %q", got, known, tt.want)
			}
			if serves := table.Serves(tt.at, tt.host); serves != known {
				t.Errorf("Serves = %v, but Find knows the host: %v", serves, known)
			}
		})
	}
}

// The precedence of HTTPRoute, whatever the order of the rows.
func TestPrecedence(t *testing.T) {
	hosts := []string{"a.local"}
	rows := []*gateway.Row{
		{Forward: "all", Hosts: hosts},
		{Forward: "two headers", Hosts: hosts, Headers: []gateway.Field{{"X", "1"}, {"Y", "1"}}},
		{Forward: "one header", Hosts: hosts, Headers: []gateway.Field{{"X", "1"}}},
		{Forward: "query", Hosts: hosts, Query: []gateway.Field{{"q", "1"}}},
		{Forward: "method", Hosts: hosts, Method: "POST"},
		{Forward: "short prefix", Hosts: hosts, Path: "/a"},
		{Forward: "long prefix", Hosts: hosts, Path: "/a/b/"},
		{Forward: "exact", Hosts: hosts, PathKind: gateway.Exact, Path: "/a/b"},
		{Forward: "wildcard", Hosts: []string{"*.local"}, PathKind: gateway.Exact, Path: "/only-here"},
	}
	tests := []struct {
		method, target string
		header         map[string]string
		want           string
	}{
		{"GET", "/", nil, "all"},
		{"GET", "/a", nil, "short prefix"},
		{"GET", "/ab", nil, "all"}, // elements, not characters
		{"GET", "/a/c", nil, "short prefix"},
		{"GET", "/a/b", nil, "exact"},
		{"GET", "/a/b/", nil, "long prefix"},
		{"GET", "/a/b/c", nil, "long prefix"},
		{"POST", "/", nil, "method"},
		{"POST", "/a", nil, "short prefix"}, // the path counts before the method
		{"GET", "/?q=1", nil, "query"},
		{"GET", "/?q=2", nil, "all"},
		{"GET", "/?q=1", map[string]string{"X": "1"}, "one header"}, // headers before the query
		{"GET", "/", map[string]string{"X": "1", "Y": "1"}, "two headers"},
		{"POST", "/", map[string]string{"X": "1", "Y": "1"}, "method"},
		{"GET", "/only-here", nil, "all"}, // the more specific host first
	}
	for _, reversed := range []bool{false, true} {
		given := slices.Clone(rows)
		if reversed {
			slices.Reverse(given)
		}
		table := gateway.NewTable(given)
		for _, tt := range tests {
			t.Run(tt.method+" "+tt.target, func(t *testing.T) {
				r := httptest.NewRequest(tt.method, tt.target, nil)
				for k, v := range tt.header {
					r.Header.Set(k, v)
				}
				row, _ := table.Find(netip.Addr{}, "a.local", r)
				if row == nil || row.Forward != tt.want {
					t.Errorf("found %+v; want %q", row, tt.want)
				}
			})
		}
	}
}

func TestTiesKeepTheGivenOrder(t *testing.T) {
	table := gateway.NewTable([]*gateway.Row{
		{Forward: "first", Hosts: []string{"a.local"}},
		{Forward: "second", Hosts: []string{"a.local"}},
	})
	if row, _ := table.Find(netip.Addr{}, "a.local", httptest.NewRequest("GET", "/", nil)); row.Forward != "first" {
		t.Errorf("found %q; want the first", row.Forward)
	}
}

func TestEmptyTable(t *testing.T) {
	var table *gateway.Table
	if row, known := table.Find(own, "a.local", httptest.NewRequest("GET", "/", nil)); row != nil || known {
		t.Errorf("an empty table found %+v, %v", row, known)
	}
}

func BenchmarkFind(b *testing.B) {
	var rows []*gateway.Row
	for i := range 500 {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26))
		rows = append(rows, &gateway.Row{Forward: name, Hosts: []string{name + ".local", "*." + name + ".local"}})
	}
	table := gateway.NewTable(rows)
	r := httptest.NewRequest("GET", "/some/path", nil)
	b.ReportAllocs()
	for b.Loop() {
		if row, _ := table.Find(netip.Addr{}, "qk.local", r); row == nil {
			b.Fatal("not found")
		}
	}
}
