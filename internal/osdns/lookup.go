package osdns

import (
	"context"
	"net/netip"
)

// Lookup resolves names as the programs of this system do, through its libc:
// Go's own resolver takes other ways, and would find what others do not. A name
// that does not resolve is not in the result. It blocks for as long as the
// system takes, or until ctx is done.
func Lookup(ctx context.Context, names ...string) (map[string][]netip.Addr, error) {
	panic("to be written")
}
