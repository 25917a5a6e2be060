//go:build linux

package debian

// Scripts that have a machine look names up in one of the usual ways, over its
// interface up0, from a DNS server that is at UplinkAddress. They hold after a reboot,
// too.
const (
	// PlainDNS asks the DNS server.
	PlainDNS = resolvConf + `
sed -i 's/^hosts:.*/hosts: files dns/' /etc/nsswitch.conf
`
	// Avahi has avahi run, and publish a name.
	Avahi = `
echo ` + PrinterAddress + ` ` + Printer + ` >>/etc/avahi/hosts
systemctl enable --quiet --now avahi-daemon
`
	// MDNS asks avahi for what is in .local, and nobody else.
	MDNS = resolvConf + Avahi + `
sed -i 's/^hosts:.*/hosts: files mdns4_minimal [NOTFOUND=return] dns/' /etc/nsswitch.conf
`
	// Resolved asks systemd-resolved. That does not start if its socket for the
	// system's news overflows meanwhile ("No buffer space available").
	Resolved = `
mkdir -p /etc/systemd/network
printf '[Match]\nName=up0\n[Network]\nAddress=` + Address + `/24\nDNS=` + UplinkAddress + `\n' >/etc/systemd/network/up0.network
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
sed -i 's/^hosts:.*/hosts: files resolve [!UNAVAIL=return] dns/' /etc/nsswitch.conf
systemctl enable --quiet --now systemd-networkd
systemctl enable --quiet systemd-resolved
systemctl start systemd-resolved || systemctl start systemd-resolved
`
	resolvConf = `
rm -f /etc/resolv.conf # a link of systemd-resolved's
echo nameserver ` + UplinkAddress + ` >/etc/resolv.conf
`
)

// What avahi publishes.
const Printer, PrinterAddress = "vm-printer.local", "192.0.2.77"
