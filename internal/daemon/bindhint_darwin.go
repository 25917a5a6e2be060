package daemon

import (
	"fmt"
	"net/netip"
)

// bindHint: macOS has only 127.0.0.1 on its loopback interface until somebody
// adds other addresses.
func bindHint(a netip.Addr) string {
	return fmt.Sprintf("sudo ifconfig lo0 alias %v up", a)
}
