// Package lookup resolves names as all programs of this system do, and without
// privileges: what it finds is what they find.
package lookup

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// maxLookups is how many names are asked for at once: one that nobody answers for
// takes seconds.
const maxLookups = 16

// each is Names by a resolver such as net.Resolver.LookupNetIP. An IPv6
// address that means an IPv4 one is that.
func each(ctx context.Context, lookup func(ctx context.Context, network, host string) ([]netip.Addr, error), names []string) (map[string][]netip.Addr, error) {
	var (
		mu    sync.Mutex // guards found
		found = make(map[string][]netip.Addr, len(names))
		group errgroup.Group
	)
	group.SetLimit(maxLookups)
	for _, name := range names {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			addrs, err := lookup(ctx, "ip", name)
			var missing *net.DNSError
			switch {
			case err == nil:
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.As(err, &missing):
				return nil
			default:
				return err
			}
			for i, a := range addrs {
				addrs[i] = a.Unmap()
			}
			slices.SortFunc(addrs, netip.Addr.Compare)
			mu.Lock()
			defer mu.Unlock()
			found[name] = slices.Compact(addrs)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return found, nil
}
