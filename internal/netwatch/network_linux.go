package netwatch

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// listen hears of all links, addresses and routes.
func listen(ctx context.Context, event func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "rtnetlink")
	defer socket.Close()
	groups := unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: uint32(groups)}); err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	return hear(ctx, socket, event) // what the messages say does not matter: describe reads all of it
}

// attrFlags are the bits of an attribute's type that are none: NLA_F_NESTED and
// NLA_F_NET_BYTEORDER.
const attrFlags = 0xc000

// A link is a network interface.
type link struct {
	name    string
	running bool
	matters bool
}

// describe describes the addresses, and the routes, of the interfaces that lead
// to other machines: hardware, tunnels, and those by which a route leads to a
// gateway. What containers and virtual machines have on this machine comes and
// goes, and matters to no connection that leaves it.
func describe() (string, error) {
	links, err := readLinks()
	if err != nil {
		return "", fmt.Errorf("read the links: %w", err)
	}
	routes, err := readRoutes()
	if err != nil {
		return "", fmt.Errorf("read the routes: %w", err)
	}
	for _, r := range routes {
		if l := links[r.link]; l != nil && r.gateway && l.name != "lo" {
			l.matters = true
		}
	}
	var lines []string
	for _, l := range links {
		if l.matters && l.running {
			lines = append(lines, "link "+l.name)
		}
	}
	for _, r := range routes {
		if l := links[r.link]; l == nil || l.matters { // none: it leads nowhere, or to several
			lines = append(lines, "route "+r.text)
		}
	}
	addrs, err := readAddrs()
	if err != nil {
		return "", fmt.Errorf("read the addresses: %w", err)
	}
	for _, a := range addrs {
		if l := links[a.link]; l != nil && l.matters {
			lines = append(lines, fmt.Sprintf("addr %v on %s", a.prefix, l.name))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

// dump asks the kernel for everything of one kind, and calls each with the
// header and the attributes of each answer.
func dump(request, answer uint16, headerLen int, each func(header []byte, attrs map[uint16][]byte)) error {
	all, err := syscall.NetlinkRIB(int(request), unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(all)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if m.Header.Type == answer && len(m.Data) >= headerLen {
			each(m.Data[:headerLen], attributes(m.Data[headerLen:]))
		}
	}
	return nil
}

// attributes splits what follows a header, or what is inside of an attribute.
func attributes(b []byte) map[uint16][]byte {
	attrs := make(map[uint16][]byte)
	for len(b) >= unix.SizeofRtAttr {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < unix.SizeofRtAttr || n > len(b) {
			break
		}
		attrs[kind&^attrFlags] = b[unix.SizeofRtAttr:n]
		b = b[min((n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
	}
	return attrs
}

func number(attr []byte) uint32 {
	if len(attr) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(attr)
}

func readLinks() (map[uint32]*link, error) {
	links := make(map[uint32]*link)
	err := dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, unix.SizeofIfInfomsg, func(h []byte, attrs map[uint16][]byte) {
		index, flags := binary.NativeEndian.Uint32(h[4:]), binary.NativeEndian.Uint32(h[8:])
		_, virtual := attributes(attrs[unix.IFLA_LINKINFO])[unix.IFLA_INFO_KIND]
		links[index] = &link{
			name:    strings.TrimRight(string(attrs[unix.IFLA_IFNAME]), "\x00"),
			running: flags&unix.IFF_UP != 0 && flags&unix.IFF_RUNNING != 0,
			matters: flags&unix.IFF_LOOPBACK == 0 && (!virtual || flags&unix.IFF_POINTOPOINT != 0),
		}
	})
	return links, err
}

type addr struct {
	link   uint32
	prefix netip.Prefix
}

// readAddrs reads the addresses that may be used outside of their link.
func readAddrs() ([]addr, error) {
	var addrs []addr
	err := dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, unix.SizeofIfAddrmsg, func(h []byte, attrs map[uint16][]byte) {
		bits, flags, scope := h[1], uint32(h[2]), h[3]
		if long, ok := attrs[unix.IFA_FLAGS]; ok {
			flags = number(long)
		}
		own := attrs[unix.IFA_LOCAL]
		if own == nil {
			own = attrs[unix.IFA_ADDRESS]
		}
		ip, ok := netip.AddrFromSlice(own)
		if ok && scope < unix.RT_SCOPE_LINK && flags&unix.IFA_F_TENTATIVE == 0 {
			addrs = append(addrs, addr{binary.NativeEndian.Uint32(h[4:]), netip.PrefixFrom(ip, int(bits))})
		}
	})
	return addrs, err
}

type route struct {
	link    uint32 // 0: none, or several
	gateway bool
	text    string // all that matters of it
}

// readRoutes reads the routes of all tables but those to this machine itself.
func readRoutes() ([]route, error) {
	var routes []route
	err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, unix.SizeofRtMsg, func(h []byte, attrs map[uint16][]byte) {
		family, bits, table, kind := h[0], h[1], uint32(h[4]), h[7]
		if long, ok := attrs[unix.RTA_TABLE]; ok {
			table = number(long)
		}
		switch cached := number(h[8:])&unix.RTM_F_CLONED != 0; {
		case cached, table == unix.RT_TABLE_LOCAL, kind == unix.RTN_LOCAL, kind == unix.RTN_BROADCAST, kind == unix.RTN_ANYCAST, kind == unix.RTN_MULTICAST:
			return
		}
		if to, ok := netip.AddrFromSlice(attrs[unix.RTA_DST]); ok && to.IsLinkLocalUnicast() {
			return
		}
		r := route{link: number(attrs[unix.RTA_OIF])}
		r.gateway = attrs[unix.RTA_GATEWAY] != nil || attrs[unix.RTA_VIA] != nil
		r.text = fmt.Sprintf("%d %d %d %x/%d", table, family, kind, attrs[unix.RTA_DST], bits)
		for _, a := range []uint16{unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH, unix.RTA_PREFSRC, unix.RTA_PRIORITY} {
			r.text += fmt.Sprintf(" %x", attrs[a])
		}
		routes = append(routes, r)
	})
	return routes, err
}
