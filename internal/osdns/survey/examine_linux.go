package survey

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/internal/osdns/dnsmasqconf"
	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// Examine looks at how this system finds names. It changes nothing, starts nothing,
// and takes no privileges.
func Examine(ctx context.Context) Findings { return examine(ctx, machine.New()) }

// Files are those that findings come from: not all of them are there, nor all of their
// directories.
func Files() []string {
	return []string{
		nsswitchPath, ResolvConf, dnsmasqconf.Default,
		"/run/systemd/resolve/resolv.conf", "/run/systemd/resolve/stub-resolv.conf",
		"/run" + avahiSocket,
	}
}

func examine(ctx context.Context, s machine.System) Findings {
	f := Findings{ResolvConf: s.Real(ResolvConf), Avahi: AvahiRuns(s), Caches: caches(s), Listeners: listeners(s, 53, 5353)}
	f.Nameservers, _ = NameServers(s)
	sources, line, err := Sources(s)
	if err == nil {
		f.Hosts = line
		_, f.FilesFirst = FilesFirst(s)
		_, sees := MDNSSees(sources, []string{"any.local"}, func(s Source) bool { return s.Name == "dns" || s.Name == "resolve" })
		f.MDNSEnds = sees && f.Avahi
	}
	if version, err := s.ResolvedVersion(ctx); err == nil {
		r := ResolvedFindings{Version: version}
		r.Mode, _ = s.ResolvedProperty(ctx, "ResolvConfMode")
		r.StubListener, _ = s.ResolvedProperty(ctx, "DNSStubListener")
		r.MulticastDNS, _ = s.ResolvedProperty(ctx, "MulticastDNS")
		f.Resolved = &r
	}
	f.Resolver = resolver(ctx, s, f)
	return f
}

// resolver tells who the first name server is.
func resolver(ctx context.Context, s machine.System, f Findings) string {
	if len(f.Nameservers) == 0 {
		return ""
	}
	if IsResolvedStub(f.Nameservers[0]) {
		return "systemd-resolved"
	}
	addr, err := netip.ParseAddr(f.Nameservers[0])
	if err != nil || !addr.IsLoopback() {
		return ""
	}
	if r, err := dnsmasqconf.Find(ctx, s); err == nil && r.PID != 0 {
		return "dnsmasq"
	}
	return ""
}

// caches are those that listen for questions of libc.
func caches(s machine.System) []string {
	file, err := s.ReadFile(unixSockets)
	if err != nil {
		return nil
	}
	var running []string
	for _, c := range []struct{ name, socket string }{{"nscd", "/nscd/socket"}, {"sssd", "/sss/pipes/nss"}} {
		for line := range strings.Lines(string(file)) {
			if strings.HasSuffix(strings.TrimSpace(line), c.socket) {
				running = append(running, c.name)
				break
			}
		}
	}
	return running
}

// listeners are the sockets at the ports, with their processes where we may see them.
func listeners(s machine.System, ports ...uint16) []Listener {
	var found []Listener
	inodes := make(map[string][]int) // to places in found
	for _, network := range []string{"udp", "tcp"} {
		for _, family := range []string{"", "6"} {
			file, err := s.ReadFile("/proc/net/" + network + family)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(file)) {
				l, inode, ok := parseSocket(line)
				if !ok || !slices.Contains(ports, l.Addr.Port()) {
					continue
				}
				l.Network = network
				inodes[inode] = append(inodes[inode], len(found))
				found = append(found, l)
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	processes, err := s.ReadDir("/proc")
	if err != nil {
		return found
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		for _, i := range socketsOf(s, p.Name(), inodes) {
			comm, _ := s.ReadFile("/proc/" + p.Name() + "/comm")
			if found[i].PID == 0 {
				found[i].PID, found[i].Program = pid, strings.TrimSpace(string(comm))
			}
		}
	}
	return found
}

// socketsOf are those of the sockets that a process has.
func socketsOf(s machine.System, pid string, inodes map[string][]int) []int {
	dir := "/proc/" + pid + "/fd"
	files, err := s.ReadDir(dir)
	if err != nil {
		return nil // not ours to see
	}
	var has []int
	for _, f := range files {
		to, err := s.ReadLink(filepath.Join(dir, f.Name()))
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			has = append(has, inodes[strings.TrimSuffix(inode, "]")]...)
		}
	}
	return has
}

// parseSocket reads a line of /proc/net/udp or /proc/net/tcp. ok: somebody can send
// to the socket who has not been spoken to.
func parseSocket(line string) (l Listener, inode string, ok bool) {
	const (
		tcpListen = "0A"
		udpOpen   = "07"
	)
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != tcpListen && fields[3] != udpOpen {
		return l, "", false
	}
	addr, port, ok := strings.Cut(fields[1], ":")
	if !ok {
		return l, "", false
	}
	ip, ok := parseKernelAddr(addr)
	if !ok {
		return l, "", false
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return l, "", false
	}
	uid, err := strconv.Atoi(fields[7])
	if err != nil {
		return l, "", false
	}
	return Listener{Addr: netip.AddrPortFrom(ip, uint16(n)), UID: uid}, fields[9], true
}

// parseKernelAddr reads an address as the kernel prints it: words of 32 bits, each
// in this machine's order.
func parseKernelAddr(s string) (netip.Addr, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.Addr{}, false
	}
	for word := range slices.Chunk(b, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	return netip.AddrFromSlice(b)
}
