package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dummyAddr is what an interface of ours has for an address, since systemd's
// resolver uses none without: the one that is reserved for those who need an
// address and shall never be spoken to (RFC 7600, section 4.8). The /32 makes no
// route.
var dummyAddr = net.IPNet{IP: net.IPv4(192, 0, 0, 8).To4(), Mask: net.CIDRMask(32, 32)}

const noAddresses = 1 // IN6_ADDR_GEN_MODE_NONE

// peerName is what the other end of a pair is called. That both names are as they
// are is how ours are known: the kernel makes both at once.
func peerName(name string) string { return strings.Replace(name, "-", "_", 1) }

func linkIndex(name string) (int32, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", name, err)
	}
	return int32(l.Attrs().Index), nil
}

// findLink returns the two ends of a pair of ours.
func findLink(name string) (ends []netlink.Link, err error) {
	l, err := netlink.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, fmt.Errorf("link %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	if l.Type() != "veth" {
		return nil, nil
	}
	peer, err := netlink.LinkByIndex(l.Attrs().ParentIndex)
	if errors.As(err, &none) || err == nil && peer.Attrs().Name != peerName(name) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return []netlink.Link{l, peer}, nil
}

func linkIsOurs(name string) (bool, error) {
	ends, err := findLink(name)
	return ends != nil, err
}

func addLink(name string) error {
	ends, err := findLink(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peerName(name)})
		if err != nil {
			return fmt.Errorf("add link %s: %w", name, err)
		}
		ends, err = findLink(name)
	}
	if err != nil {
		return err
	}
	if ends == nil {
		return fmt.Errorf("add link %s: %w", name, ErrForeignLink)
	}
	for _, end := range ends {
		// No address of its own, which it would tell its other end about. Where
		// there is no IPv6, there is none to be had.
		if err := netlink.LinkSetIP6AddrGenMode(end, noAddresses); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("link %s: no IPv6 addresses: %w", name, err)
		}
	}
	// Who asks for this machine's own name gets all its addresses, those of a
	// narrower scope last. Of one for the link alone the resolver would take no
	// notice.
	addr := &netlink.Addr{IPNet: &dummyAddr, Scope: unix.RT_SCOPE_SITE}
	if err := netlink.AddrReplace(ends[0], addr); err != nil {
		return fmt.Errorf("link %s: add address %v: %w", name, &dummyAddr, err)
	}
	for _, end := range ends {
		if err := netlink.LinkSetUp(end); err != nil {
			return fmt.Errorf("link %s: set up: %w", name, err)
		}
	}
	return nil
}

func removeLink(name string) error {
	ends, err := findLink(name)
	if err != nil {
		return err
	}
	if ends == nil {
		return fmt.Errorf("remove link %s: %w", name, ErrForeignLink)
	}
	if err := netlink.LinkDel(ends[0]); err != nil {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}
