package lookup

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEach(t *testing.T) {
	four, six := netip.MustParseAddr("127.77.0.1"), netip.MustParseAddr("::1")
	mapped := netip.MustParseAddr("::ffff:127.77.0.1")
	broken := errors.New("broken")
	lookup := func(ctx context.Context, network, host string) ([]netip.Addr, error) {
		switch host {
		case "a.local":
			return []netip.Addr{mapped, four}, nil
		case "b.local":
			return []netip.Addr{six, four}, nil
		case "silent.local":
			<-ctx.Done()
			return nil, &net.DNSError{Err: ctx.Err().Error(), Name: host, IsTimeout: true}
		case "broken.local":
			return nil, broken
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	got, err := each(t.Context(), lookup, []string{"a.local", "b.local", "missing.local"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]netip.Addr{"a.local": {four}, "b.local": {four, six}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}

	if _, err := each(t.Context(), lookup, []string{"broken.local", "a.local"}); !errors.Is(err, broken) {
		t.Errorf("error %v; want that of the resolver", err)
	}

	// A name that nobody answers for, until nobody waits any more.
	ctx, cancel := context.WithCancel(t.Context())
	silent := func(ctx context.Context, network, host string) ([]netip.Addr, error) {
		cancel()
		return lookup(ctx, network, host)
	}
	if _, err := each(ctx, silent, []string{"silent.local"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want that of the context", err)
	}
}
