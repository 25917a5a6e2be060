//go:build names

package names

import (
	"strconv"
	"testing"

	"github.com/tunneld/tunneld/test/internal/debian"
)

// An environment is one way in which a system resolves names.
type environment struct {
	name  string
	suite debian.Suite
	setup string // a script for a machine that has just booted
	// rung is the one that carries our names there.
	rung string
	// bonjour says that names of .local are looked up by multicast, and that the
	// machine publishes one.
	bonjour bool
	// llmnr says that names of one label are looked up by multicast.
	llmnr bool
	// late says that the hosts file is also read by systemd-resolved, which looks
	// every two seconds whether it has changed.
	late bool
}

// uplink is the network that every machine is in, with a DNS server. It is a
// network namespace of its own, so what leaves the machine is really sent.
const uplink = `
ip netns add uplink
ip link add up0 type veth peer name up1 netns uplink
ip address add 192.0.2.2/24 dev up0
ip link set up0 up
ip route add default via 192.0.2.1
ip -n uplink address add 192.0.2.1/24 dev up1
ip -n uplink link set up1 up
ip -n uplink link set lo up
`

const (
	upstreamDNS = debian.UplinkAddress
	printer     = debian.Printer
	printerAddr = debian.PrinterAddress
)

// Setups, besides those that package debian has.
const (
	mdnsAndResolved = debian.Resolved + debian.Avahi + `
sed -i 's/^hosts:.*/hosts: files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns/' /etc/nsswitch.conf
`
	dnsmasq = debian.PlainDNS + `
echo nameserver 127.0.0.1 >/etc/resolv.conf
printf 'no-resolv\nserver=` + upstreamDNS + `\nlisten-address=127.0.0.1\nbind-interfaces\n' >/etc/dnsmasq.d/local.conf
systemctl enable --quiet --now dnsmasq
`
	dnsmasqWary = dnsmasq + `
echo stop-dns-rebind >>/etc/dnsmasq.d/local.conf
systemctl restart dnsmasq
`
)

// environments are those of every run, and further ones of the long form.
func environments() []environment {
	list := []environment{
		{name: "plain", suite: debian.Bookworm, setup: debian.PlainDNS, rung: "hosts"},
		{name: "mdns", suite: debian.Bookworm, setup: debian.MDNS, rung: "hosts", bonjour: true},
		{name: "resolved", suite: debian.Bookworm, setup: debian.Resolved, rung: "resolved-link", llmnr: true},
		{name: "dnsmasq", suite: debian.Bookworm, setup: dnsmasq, rung: "dnsmasq"},
	}
	if soak {
		list = append(list,
			environment{name: "mdns and resolved", suite: debian.Bookworm, setup: mdnsAndResolved, rung: "hosts", bonjour: true, llmnr: true, late: true},
			environment{name: "dnsmasq that fears rebinding", suite: debian.Bookworm, setup: dnsmasqWary, rung: "dnsmasq"},
			environment{name: "trixie mdns", suite: debian.Trixie, setup: debian.MDNS, rung: "hosts", bonjour: true},
			environment{name: "trixie resolved", suite: debian.Trixie, setup: debian.Resolved, rung: "resolved-link", llmnr: true},
			environment{name: "trixie dnsmasq", suite: debian.Trixie, setup: dnsmasq, rung: "dnsmasq"},
			environment{name: "forky mdns", suite: debian.Forky, setup: debian.MDNS, rung: "hosts", bonjour: true},
			environment{name: "forky resolved", suite: debian.Forky, setup: debian.Resolved, rung: "resolved-delegate", llmnr: true},
			environment{name: "forky dnsmasq", suite: debian.Forky, setup: dnsmasq, rung: "dnsmasq"},
		)
	}
	return list
}

// inEach runs a test in each environment, in some at the same time: much of what
// is looked up is waited for.
func inEach(t *testing.T, test func(*machine)) {
	for _, e := range environments() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(e.newMachine(t))
		})
	}
}

// newPlainMachine is for what is the same in all environments.
func newPlainMachine(t *testing.T) *machine { return environments()[0].newMachine(t) }

// newMachine boots a machine of that environment, in a network with a DNS
// server, with a tap on it.
func (e environment) newMachine(t *testing.T) *machine {
	t.Helper()
	m := boot(t, e)
	m.Script(uplink)
	notify := "Type=notify"
	m.Service("upstream", []string{notify, "NetworkNamespacePath=/run/netns/uplink"}, "upstream", upstreamDNS+":53")
	m.Service("tap", []string{notify, "StandardOutput=append:/run/tap"}, "tap", "53", "5353", strconv.Itoa(ourDNSPort))
	m.Script(e.setup)
	return m
}
