package osdns

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/isolate"
	"github.com/tunneld/tunneld/internal/osdns/machine"
)

func TestLookup(t *testing.T) {
	if _, err := machine.Program("getent"); err != nil {
		t.Skip(err)
	}
	if !isolate.Test(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "127.77.0.1 a.local b.local\n127.77.0.2 c.local\n", 0o644)
	switchPath := filepath.Join(t.TempDir(), "nsswitch.conf")
	write(t, switchPath, "hosts: files\n", 0o644)
	for from, to := range map[string]string{path: hostsPath, switchPath: nsswitchPath} {
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			t.Skip(err)
		}
	}
	got, err := Lookup(t.Context(), "b.local", "missing.local", "--help", "", "c.local", "a.local", "a.local")
	if err != nil {
		t.Fatal(err)
	}
	one, two := []netip.Addr{netip.MustParseAddr("127.77.0.1")}, []netip.Addr{netip.MustParseAddr("127.77.0.2")}
	want := map[string][]netip.Addr{"a.local": one, "b.local": one, "c.local": two}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if got, err := Lookup(t.Context()); len(got) != 0 || err != nil {
		t.Errorf("no names: %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lookup(ctx, "a.local"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want %v", err, context.Canceled)
	}
}
