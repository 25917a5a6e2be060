package rootapi

import (
	"context"
	"net/netip"
)

// addAddress has nothing to do: all of 127.0.0.0/8 is this machine's.
func addAddress(context.Context, netip.Addr) error { return nil }

func removeAddresses(context.Context, netip.Prefix) error { return nil }
