package lookup

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/isolate"
	"github.com/tunneld/tunneld/internal/osdns/machine"
)

func TestNames(t *testing.T) {
	if _, err := machine.Program("getent"); err != nil {
		t.Skip(err)
	}
	if !isolate.Test(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "hosts")
	switchPath := filepath.Join(t.TempDir(), "nsswitch.conf")
	for path, data := range map[string]string{
		path:       "127.77.0.1 a.local b.local\n127.77.0.2 c.local\n",
		switchPath: "hosts: files\n",
	} {
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{path: "/etc/hosts", switchPath: "/etc/nsswitch.conf"} {
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			t.Skip(err)
		}
	}
	got, err := Names(t.Context(), "b.local", "missing.local", "--help", "", "c.local", "a.local", "a.local")
	if err != nil {
		t.Fatal(err)
	}
	one, two := []netip.Addr{netip.MustParseAddr("127.77.0.1")}, []netip.Addr{netip.MustParseAddr("127.77.0.2")}
	want := map[string][]netip.Addr{"a.local": one, "b.local": one, "c.local": two}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if got, err := Names(t.Context()); len(got) != 0 || err != nil {
		t.Errorf("no names: %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Names(ctx, "a.local"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want %v", err, context.Canceled)
	}
}

func TestParseAhosts(t *testing.T) {
	a, b, c := netip.MustParseAddr("127.77.31.4"), netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.1")
	sep := "192.0.2.255     STREAM 192.0.2.255\n192.0.2.255     DGRAM  \n192.0.2.255     RAW    \n"
	for _, test := range []struct {
		name string
		out  string
		want map[string][]netip.Addr
	}{
		{"none", sep + sep + sep, map[string][]netip.Addr{}},
		{"all", "127.77.31.4     STREAM one\n127.77.31.4     DGRAM\n::1     STREAM\n" + sep + "127.0.0.1  STREAM two\n" + sep + "::1 STREAM three\n" + sep, map[string][]netip.Addr{"one": {a, b}, "two": {c}, "three": {b}}},
		{"one by another's name", sep + "127.77.31.4     STREAM one\n" + sep + sep, map[string][]netip.Addr{"two": {a}}},
		{"mapped", "::ffff:127.0.0.1 STREAM one\n127.0.0.1 DGRAM\n" + sep, map[string][]netip.Addr{"one": {c}}},
		{"cut off", "127.77.31.4     STREAM one\n127.77", map[string][]netip.Addr{"one": {a}}},
		{"more than was asked for", sep + sep + sep + "127.77.31.4     STREAM four\n", map[string][]netip.Addr{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := parseAhosts([]string{"one", "two", "three"}, test.out)
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("parseAhosts (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseAhosts(f *testing.F) {
	f.Add("127.77.31.4     STREAM one\n192.0.2.255     STREAM 192.0.2.255\n::1 RAW\n")
	f.Fuzz(func(t *testing.T, out string) {
		for name, addrs := range parseAhosts([]string{"one", "two"}, out) {
			if name != "one" && name != "two" || len(addrs) == 0 {
				t.Errorf("%q: %v", name, addrs)
			}
		}
	})
}
