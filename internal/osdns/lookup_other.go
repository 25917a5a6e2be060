//go:build !linux

package osdns

import (
	"context"
	"net"
	"net/netip"
)

// Lookup resolves names as the programs of this system do. A name that does not
// resolve is not in the result. It blocks for as long as the system takes, or
// until ctx is done.
//
// On macOS and Windows Go's resolver asks the operating system, as all programs
// do, whether it was built with cgo or not.
func Lookup(ctx context.Context, names ...string) (map[string][]netip.Addr, error) {
	return lookupEach(ctx, net.DefaultResolver.LookupNetIP, names)
}
