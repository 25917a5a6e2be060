//go:build !linux

package netwatch

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// describe describes the addresses by which other machines can be reached.
func describe() (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	var lines []string
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 || l.Flags&net.FlagRunning == 0 {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue // it is gone again
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				lines = append(lines, fmt.Sprintf("addr %v on %s", p, l.Name))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}
