package netwatch

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/isolate"
)

// ip runs lines of commands of ip(8), and skips the test if this kernel lacks
// the kind of interface.
func ip(t *testing.T, commands string) {
	t.Helper()
	for line := range strings.Lines(commands) {
		args := strings.Fields(line)
		if len(args) == 0 {
			continue
		}
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			if strings.Contains(string(out), "Unknown device type") {
				t.Skipf("%s: %s", line, out)
			}
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}

// uplink is an interface that leads somewhere. It is a virtual one, so it
// matters because of its route only.
const uplink = `
	link set lo up
	link add up0 type veth peer name isp0
	link set isp0 up
	addr add 192.0.2.2/24 dev up0
	link set up0 up
	route add default via 192.0.2.1`

func TestDescribe(t *testing.T) {
	if !isolate.Test(t) {
		return
	}
	ip(t, uplink)
	describeNow := func() string {
		t.Helper()
		d, err := describe()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	await.Until(t, "a carrier", func() bool { return strings.Contains(describeNow(), "link up0") })
	tests := []struct {
		name, do string
		changes  bool
	}{
		{"an address on loopback", "addr add 127.77.0.1/8 dev lo", false},
		{"a network of containers", `
			link add br0 type bridge
			addr add 172.18.0.1/16 dev br0
			link set br0 up
			link add veth0 type veth peer name veth1
			link set veth0 master br0 up
			link set veth1 up`, false},
		{"a route to a container", "route add 172.19.0.2/32 dev veth0", false},
		{"its end", `
			link del veth0
			link del br0`, false},
		{"another gateway", "route replace default via 192.0.2.3", true},
		{"another address", "addr add 192.0.2.4/24 dev up0", true},
		{"that goes", "addr del 192.0.2.4/24 dev up0", true},
		{"an IPv6 address", "addr add 2001:db8::2/64 dev up0 nodad", true},
		{"an address for its link only", "addr add fe80::2/64 dev up0 nodad", false},
		{"a route of a VPN", "route add 10.0.0.0/8 via 192.0.2.9", true},
		{"a route in another table", "route add default via 192.0.2.9 table 51820", true},
		{"a route that leads nowhere", "route add unreachable 198.51.100.0/24", true},
		{"a route for one source only", "route add 203.0.113.0/24 via 192.0.2.9 src 192.0.2.2", true},
		{"a tunnel", `
			tuntap add tun0 mode tun
			addr add 10.9.0.2/32 dev tun0
			link set tun0 up`, true},
		{"no network", "link set up0 down", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := describeNow()
			ip(t, tt.do)
			after := describeNow()
			if (after != before) != tt.changes {
				t.Errorf("before:\n%s\nafter:\n%s\nwant a change: %v", before, after, tt.changes)
			}
		})
	}
}

func TestListen(t *testing.T) {
	if !isolate.Test(t) {
		return
	}
	told := make(chan string, 100)
	w := &Watcher{Changed: func(what string) { told <- what }}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	// The first change may come before Run has looked.
	tries := 0
	ip(t, uplink)
	await.Until(t, "a change to be told", func() bool {
		if tries++; tries%100 == 0 {
			ip(t, "addr add 192.0.2.5/24 dev up0\naddr del 192.0.2.5/24 dev up0")
			ip(t, "route replace default via 192.0.2."+[]string{"1", "3"}[tries/100%2])
		}
		return len(told) > 0
	})
	for len(told) > 0 {
		<-told
	}
	ip(t, "route replace default via 192.0.2.7")
	select {
	case what := <-told:
		if what != "network" {
			t.Errorf("told %q; want network", what)
		}
	case <-time.After(30 * time.Second):
		t.Error("a new gateway is not noticed")
	}
}
