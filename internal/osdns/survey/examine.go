// Package survey finds out, without privileges and without a change, how this system
// finds names: whom its programs ask, in which order, and who listens there.
package survey

import "net/netip"

// Findings are what anybody, without privileges, can see of how this system finds
// names. What could not be found out has its zero value.
type Findings struct {
	// ResolvConf is the file that resolv.conf is in the end, and Nameservers are
	// those in it.
	ResolvConf  string
	Nameservers []string
	// Resolver is who the first of them is: "systemd-resolved", "dnsmasq", or empty
	// for another.
	Resolver string
	// Hosts is the "hosts:" line of nsswitch.conf; empty if there is none, as with
	// musl.
	Hosts string
	// FilesFirst: the hosts file is read before anybody is asked.
	FilesFirst bool
	// Avahi: it runs, or would be started by who asks.
	Avahi bool
	// MDNSEnds: names of two labels in .local end at Avahi, which runs, and are
	// asked of nobody else after that.
	MDNSEnds bool
	// Resolved is systemd's resolver; nil if it does not run.
	Resolved *ResolvedFindings
	// Caches are programs that run and remember what was found, "nscd" and "sssd".
	Caches []string
	// Listeners are who listens on the ports of DNS and mDNS, 53 and 5353.
	Listeners []Listener
}

// ResolvedFindings are what systemd's resolver says of itself, in its own words.
type ResolvedFindings struct {
	Version      int
	Mode         string // of resolv.conf: stub, uplink, static, foreign, missing
	StubListener string // no, udp, tcp, yes
	MulticastDNS string // no, resolve, yes
}

// A Listener is a socket that others can send to.
type Listener struct {
	Network string // "udp" or "tcp"
	Addr    netip.AddrPort
	UID     int
	// PID and Program are zero where we may not see whose it is.
	PID     int
	Program string
}
