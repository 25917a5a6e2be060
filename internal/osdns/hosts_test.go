package osdns

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/osdns/hostsfile"
)

func TestHostsLines(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.77.31.4"), netip.MustParseAddr("::1")
	names := []Name{{Name: "b.local", Addrs: []netip.Addr{v4, v6}}, {Name: "a.local", Addrs: []netip.Addr{v4}}}
	if diff := cmp.Diff([]string{"127.77.31.4 b.local a.local", "::1 b.local"}, hostsLines(names)); diff != "" {
		t.Errorf("hostsLines (-want +got):\n%s", diff)
	}

	names = nil
	for i := range 45 {
		names = append(names, Name{Name: fmt.Sprintf("n%d.local", i), Addrs: []netip.Addr{v4}})
	}
	if got := len(hostsLines(names)); got != 3 {
		t.Errorf("45 names on %d lines; want 3", got)
	}
	names = nil
	for i := range 15 {
		names = append(names, Name{Name: fmt.Sprintf("n%d.%s.local", i, strings.Repeat("x.", 100)), Addrs: []netip.Addr{v4}})
	}
	file := hostsfile.Put(nil, strings.Repeat("9", 20), hostsLines(names), "\n")
	for line := range bytes.Lines(file) {
		if len(line) > 1001 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}
