package osdns

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// The ways of macOS and of Windows. None of them has been tried on a machine of
// its own yet: the tests play one.

const macOSHosts = "/etc/hosts"

func macOSRungs(sys machine.System, receipts string, log *slog.Logger) []rung {
	return []rung{
		newResolverFiles(sys, filepath.Join(receipts, "resolver-directory"), log),
		hosts{
			System: sys,
			path:   macOSHosts,
			lines:  func(names []Name) []string { return separateLines(bothFamilies(names)) },
			eol:    "\n",
			flush:  func(ctx context.Context) { flushMacOS(ctx, sys, log) },
		},
	}
}

// windowsRungs takes the path of the hosts file, which is in the directory of the
// system.
func windowsRungs(sys machine.System, receipts, hostsFile string, log *slog.Logger) []rung {
	return []rung{
		newNRPT(sys, filepath.Join(receipts, "nrpt-key"), log),
		hosts{
			System: sys,
			path:   hostsFile,
			lines:  separateLines,
			eol:    "\r\n",
			flush:  func(ctx context.Context) { flushWindows(ctx, sys, log) },
		},
	}
}

// separateLines are the lines of a hosts file with a name each: Windows passes over
// what is beyond the ninth, and to macOS each but the first is another name for the
// first one.
func separateLines(names []Name) []string {
	var lines []string
	for _, n := range names {
		lines = append(lines, hostsLines([]Name{n})...)
	}
	return lines
}

// bothFamilies gives names without an IPv6 address one that leads to the same
// place, over IPv4 (RFC 4291, section 2.5.5.2). macOS asks the network by multicast
// for the address of a .local name that the hosts file does not have, and waits for
// 5 s. ::1 would end that, too, but a forward listens on its own address only, so
// raw ports would be refused there.
func bothFamilies(names []Name) []Name {
	names = slices.Clone(names)
	for i, n := range names {
		if slices.ContainsFunc(n.Addrs, func(a netip.Addr) bool { return !a.Is4() }) {
			continue
		}
		n.Addrs = slices.Clone(n.Addrs)
		for _, a := range n.Addrs {
			n.Addrs = append(n.Addrs, netip.AddrFrom16(a.As16()))
		}
		names[i] = n
	}
	return names
}

func flushMacOS(ctx context.Context, sys machine.System, log *slog.Logger) {
	flush(ctx, sys, log, [][]string{
		{"dscacheutil", "-flushcache"},
		{"killall", "-HUP", "mDNSResponder"}, // it reads the hosts file again, too
	})
}

func flushWindows(ctx context.Context, sys machine.System, log *slog.Logger) {
	flush(ctx, sys, log, [][]string{
		// The DNS client reads its rules again. Some builds are said to do so by
		// themselves, and to take no such order.
		{"sc", "control", "dnscache", "paramchange"},
		{"ipconfig", "/flushdns"},
	})
}

// flush makes a system forget what it has noted of names, by running each of the
// commands. That it cannot is no reason to give up: it forgets by itself, and
// whoever claims names looks them up.
func flush(ctx context.Context, sys machine.System, log *slog.Logger, commands [][]string) {
	for _, c := range commands {
		if _, err := sys.Run(ctx, c[0], c[1:]...); err != nil {
			log.Info("the system may remember names as they were", "command", c, "err", err)
		}
	}
}
