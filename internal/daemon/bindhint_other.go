//go:build !darwin

package daemon

import (
	"fmt"
	"net/netip"
)

// bindHint: on the other systems, all of 127.0.0.0/8 is there.
func bindHint(a netip.Addr) string {
	return fmt.Sprintf("see what has the port: ss -ltnp | grep -e %v -e 0.0.0.0", a)
}
