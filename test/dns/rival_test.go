//go:build conformance

package dns_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/dns"
)

// names are what all servers serve: zones of their own below one another, with
// and without wildcards, addresses of both families, one, many and none, and
// the longest labels and names that there can be.
func names() []dns.Name {
	addrs := func(n int, more ...string) (out []netip.Addr) {
		for i := range n {
			out = append(out, netip.AddrFrom4([4]byte{127, 77, byte(n), byte(i)}))
		}
		for _, s := range more {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	label := strings.Repeat("l", 63)
	return []dns.Name{
		{Name: "task-api.local", Addrs: addrs(1, "::1"), Wildcard: true},
		{Name: "task-api.localhost", Addrs: addrs(1)},
		{Name: "task-api.task-api.svc.cluster.local", Addrs: addrs(1)},
		{Name: "web-0.web.task-api.svc.cluster.local", Addrs: addrs(2)},
		{Name: "v6.local", Addrs: addrs(0, "::1", "fd00::1", "::1")},
		{Name: "v4.local", Addrs: addrs(3), Wildcard: true},
		{Name: "nothing.local"},
		{Name: "some.local", Addrs: addrs(40), Wildcard: true},
		{Name: "many.local", Addrs: addrs(100)},
		{Name: "x.y.task-api.local", Addrs: addrs(4)},
		{Name: "z.x.y.task-api.local", Addrs: addrs(5), Wildcard: true},
		{Name: "p.q.r.nothing.local", Addrs: addrs(6)},
		{Name: "under_score.a-b.local", Addrs: addrs(7), Wildcard: true},
		{Name: label + ".local", Addrs: addrs(8), Wildcard: true},
		{Name: strings.Join([]string{label, label, label, label[:55], "local"}, "."), Addrs: addrs(9)},
	}
}

// zones are names as zone files would have them, by apex: what is above another
// zone delegates it. They are made here without internal/dns, whose answers
// they are to judge.
func zones() map[string][]mdns.RR {
	out := make(map[string][]mdns.RR)
	add := func(apex, format string, args ...any) {
		rr, err := mdns.NewRR(fmt.Sprintf(format, args...))
		if err != nil {
			panic(err)
		}
		out[apex] = append(out[apex], rr)
	}
	begin := func(apex, ns string) {
		add(apex, "%s 1 IN SOA %[1]s nobody.invalid. 1 3600 1200 604800 1", apex)
		add(apex, "%s 1 IN NS %s", apex, ns)
	}
	for _, n := range names() {
		apex := n.Name + "."
		begin(apex, apex)
		for _, addr := range n.Addrs {
			rrtype := map[bool]string{true: "A", false: "AAAA"}[addr.Is4()]
			add(apex, "%s 1 IN %s %s", apex, rrtype, addr)
			if n.Wildcard {
				add(apex, "*.%s 1 IN %s %s", apex, rrtype, addr)
			}
			reverse, err := mdns.ReverseAddr(addr.String())
			if err != nil {
				panic(err)
			}
			if out[reverse] == nil {
				begin(reverse, apex)
				add(reverse, "%s 1 IN PTR %s", reverse, apex)
			}
		}
	}
	for _, n := range names() {
		apex := n.Name + "."
		for off, end := mdns.NextLabel(apex, 0); !end; off, end = mdns.NextLabel(apex, off) {
			if above := apex[off:]; out[above] != nil {
				add(above, "%s 1 IN NS %[1]s", apex)
				break
			}
		}
	}
	return out
}

// A rival is another name server, with the same zones.
type rival struct {
	name, program string
	args          []string
	config        func(dir string, port int, files map[string]string) string
}

var rivals = []rival{
	{"NSD", "nsd", []string{"-d", "-c"}, nsdConfig},
	{"Knot DNS", "knotd", []string{"-c"}, knotConfig},
}

func nsdConfig(dir string, port int, files map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `server:
  ip-address: 127.0.0.1@%d
  server-count: 1
  username: ""
  database: ""
  zonesdir: %[2]q
  pidfile: "%[2]s/nsd.pid"
  zonelistfile: "%[2]s/zone.list"
  xfrdfile: "%[2]s/xfrd.state"
  xfrdir: %[2]q
  minimal-responses: yes
  rrl-ratelimit: 0
remote-control:
  control-enable: no
`, port, dir)
	for apex, file := range files {
		fmt.Fprintf(&b, "zone:\n  name: %q\n  zonefile: %q\n", apex, file)
	}
	return b.String()
}

func knotConfig(dir string, port int, files map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `server:
  listen: 127.0.0.1@%d
  rundir: %q
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: %[2]q
log:
- target: stderr
  any: warning
template:
- id: default
  zonefile-sync: -1
  zonefile-load: whole
  journal-content: none
zone:
`, port, dir)
	for apex, file := range files {
		fmt.Fprintf(&b, "- domain: %q\n  file: %q\n", apex, file)
	}
	return b.String()
}

// start runs the server for the length of the test and returns its address.
func (r rival) start(t *testing.T) netip.AddrPort {
	t.Helper()
	dir := t.TempDir()
	files := make(map[string]string)
	for apex, rrs := range zones() {
		var b strings.Builder
		for _, rr := range rrs {
			fmt.Fprintln(&b, rr)
		}
		files[apex] = filepath.Join(dir, fmt.Sprintf("%d.zone", len(files)))
		writeFile(t, files[apex], b.String())
	}
	// Others may take the port between this and the server's start.
	l, err := dns.Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr()
	l.Close()
	config := filepath.Join(dir, "config")
	writeFile(t, config, r.config(dir, int(addr.Port()), files))

	var out bytes.Buffer
	cmd := exec.Command(program(t, r.program), append(r.args, config)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	t.Cleanup(func() { // runs when the process is gone
		if t.Failed() {
			t.Logf("%s said:\n%s", r.name, out.String())
		}
	})
	run(t, cmd)
	ask := new(mdns.Msg).SetQuestion("task-api.local.", mdns.TypeSOA)
	c := &mdns.Client{Timeout: time.Second}
	await.Until(t, r.name+" to answer", func() bool {
		reply, _, err := c.Exchange(ask, addr.String())
		return err == nil && reply.Rcode == mdns.RcodeSuccess
	})
	return addr
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run starts a process, and ends it when the test does.
func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
}

// exchange puts a packet to a server and returns its reply, nil if there is
// none. That there is none shows the reply to a query behind it: a server of
// one worker answers in turn.
func exchange(t *testing.T, c net.Conn, packet []byte) []byte {
	t.Helper()
	probe, err := new(mdns.Msg).SetQuestion("task-api.local.", mdns.TypeSOA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	copy(probe, packet[:2])
	probe[0] ^= 0x80
	dc := &mdns.Conn{Conn: c, UDPSize: mdns.MaxMsgSize}
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{packet, probe} {
		if _, err := dc.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	var reply []byte
	for {
		b, err := dc.ReadMsgHeader(nil)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET): // TCP: it has had enough
			return reply
		case err != nil:
			t.Fatalf("neither to % x nor to a query behind it is there a reply: %v", packet, err)
		case bytes.Equal(b[:2], probe[:2]):
			return reply
		case bytes.Equal(b[:2], packet[:2]):
			reply = b
		}
	}
}
