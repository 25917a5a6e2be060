//go:build !linux

package lookup

import (
	"context"
	"net"
	"net/netip"
)

// Names resolves names as the programs of this system do. A name that does not
// resolve is not in the result. It blocks for as long as the system takes, or
// until ctx is done.
//
// On macOS and Windows Go's resolver asks the operating system, as all programs
// do, whether it was built with cgo or not.
func Names(ctx context.Context, names ...string) (map[string][]netip.Addr, error) {
	return each(ctx, net.DefaultResolver.LookupNetIP, names)
}
