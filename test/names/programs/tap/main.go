//go:build linux

// Tap prints the DNS queries that leave any program of this machine, one a
// line: to whom, and for what. A try to connect with TCP to a DNS port is
// "tcp" in the place of the name.
//
//	tap PORT...
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"log"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/test/names/programs/internal/notify"
)

func main() {
	var ports []uint16
	for _, arg := range os.Args[1:] {
		port, err := strconv.ParseUint(arg, 10, 16)
		if err != nil {
			log.Fatal(err)
		}
		ports = append(ports, uint16(port))
	}
	if err := run(ports); err != nil {
		log.Fatal(err)
	}
}

func run(ports []uint16) error {
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return err
	}
	if err := notify.Ready(); err != nil {
		return err
	}
	packet := make([]byte, 64<<10)
	out := bufio.NewWriter(os.Stdout)
	for {
		n, from, err := unix.Recvfrom(fd, packet, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		// What goes to this machine itself is seen on its way in, too.
		if link, ok := from.(*unix.SockaddrLinklayer); !ok || link.Pkttype != unix.PACKET_OUTGOING {
			continue
		}
		if line := describe(packet[:n], ports); line != "" {
			fmt.Fprintln(out, line)
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

// describe returns a line for a packet that is of interest, else "".
func describe(packet []byte, ports []uint16) string {
	to, protocol, payload := parseIP(packet)
	if len(payload) < 8 {
		return ""
	}
	at := netip.AddrPortFrom(to, binary.BigEndian.Uint16(payload[2:]))
	if !slices.Contains(ports, at.Port()) {
		return ""
	}
	switch protocol {
	case unix.IPPROTO_TCP:
		const syn, ack = 2, 16
		if len(payload) >= 20 && payload[13]&(syn|ack) == syn {
			return at.String() + "\ttcp\t"
		}
	case unix.IPPROTO_UDP:
		var m dns.Msg
		if err := m.Unpack(payload[8:]); err == nil && !m.Response && len(m.Question) == 1 {
			q := m.Question[0]
			return fmt.Sprintf("%v\t%s\t%s", at, strings.TrimSuffix(strings.ToLower(q.Name), "."), dns.Type(q.Qtype))
		}
	}
	return ""
}

// parseIP returns where a packet goes to, and what it carries. No extension
// headers are expected in front of DNS.
func parseIP(packet []byte) (to netip.Addr, protocol byte, payload []byte) {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		to, _ = netip.AddrFromSlice(packet[16:20])
		if header := int(packet[0]&15) * 4; header <= len(packet) {
			return to, packet[9], packet[header:]
		}
	case len(packet) >= 40 && packet[0]>>4 == 6:
		to, _ = netip.AddrFromSlice(packet[24:40])
		return to, packet[6], packet[40:]
	}
	return netip.Addr{}, 0, nil
}
