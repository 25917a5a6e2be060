package survey

import (
	"context"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

const mdnsFirst = "hosts: files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns\n"

func TestParseNsswitch(t *testing.T) {
	type sources = []Source
	only := []string{success}
	for _, test := range []struct {
		name, file, line string
		want             sources
		ok               bool
	}{
		{name: "empty"},
		{name: "no hosts", file: "passwd: files\n# hosts: dns\n"},
		{name: "plain", file: "passwd: x\n hosts :  files\tdns # and no more\n", line: "files dns", want: sources{{"files", only}, {"dns", only}}, ok: true},
		{name: "returns", file: "hosts: mdns4_minimal [NOTFOUND=return] dns", line: "mdns4_minimal [NOTFOUND=return] dns", want: sources{{"mdns4_minimal", []string{success, NotFound}}, {"dns", only}}, ok: true},
		{name: "not", file: "hosts: resolve [!UNAVAIL=return]", line: "resolve [!UNAVAIL=return]", want: sources{{"resolve", []string{success, NotFound, tryAgain}}}, ok: true},
		{name: "close together", file: "hosts:files[success=continue TRYAGAIN=return]dns", line: "files[success=continue TRYAGAIN=return]dns", want: sources{{"files", []string{tryAgain}}, {"dns", only}}, ok: true},
		{name: "not closed", file: "hosts: files [NOTFOUND=return", line: "files [NOTFOUND=return", want: sources{{"files", []string{success, NotFound}}}, ok: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, line, ok := parseNsswitch([]byte(test.file))
			if ok != test.ok || line != test.line {
				t.Errorf("line %q, %v; want %q, %v", line, ok, test.line, test.ok)
			}
			for _, s := range slices.Concat(got, test.want) {
				slices.Sort(s.returns)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(Source{})); diff != "" {
				t.Errorf("sources (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseNsswitch(f *testing.F) {
	f.Add([]byte(mdnsFirst))
	f.Add([]byte("hosts: [ ]x[]"))
	f.Fuzz(func(t *testing.T, file []byte) {
		sources, line, ok := parseNsswitch(file)
		if !ok && (sources != nil || line != "") {
			t.Errorf("%v of %q, which is no line", sources, line)
		}
		for _, s := range sources {
			if s.Name == "" || strings.ContainsAny(s.Name, " \t[") {
				t.Errorf("%q is no source", s.Name)
			}
		}
	})
}

func TestParseSocket(t *testing.T) {
	for _, test := range []struct {
		name, line string
		want       string
		uid        int
		inode      string
	}{
		{name: "head", line: "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops"},
		{name: "udp", line: " 1: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 1234 2 00000000 0", want: "127.0.0.53:53", uid: 101, inode: "1234"},
		{name: "tcp6", line: " 0: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1", want: "[::1]:53", inode: "77"},
		{name: "a connection", line: " 0: 0100007F:0035 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 77 1"},
		{name: "nonsense", line: " 0: 0100007:0035 x 0A 0 0 0 0 0 0 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, inode, ok := parseSocket(test.line)
			if ok != (test.want != "") {
				t.Fatalf("ok %v", ok)
			}
			if ok && (l.Addr.String() != test.want || l.UID != test.uid || inode != test.inode) {
				t.Errorf("%v, uid %d, inode %s; want %s, %d, %s", l.Addr, l.UID, inode, test.want, test.uid, test.inode)
			}
		})
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add(" 1: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 1234 2 00000000 0")
	f.Fuzz(func(t *testing.T, line string) {
		if l, _, ok := parseSocket(line); ok && !l.Addr.IsValid() {
			t.Errorf("%v", l)
		}
	})
}

// What this machine has is found without privileges, and without harm.
func TestExamineThisMachine(t *testing.T) {
	Examine(t.Context())
}

// A machine is played: it has these files, and these services.
type played struct {
	files    map[string]string
	resolved int    // the version of systemd's resolver; 0: it does not run
	dnsmasq  string // the state of its unit
}

func (p played) system() machine.System {
	root := make(fstest.MapFS)
	for path, data := range p.files {
		root[path[1:]] = &fstest.MapFile{Data: []byte(data)}
	}
	return machine.System{
		ReadFile: func(path string) ([]byte, error) { return root.ReadFile(path[1:]) },
		ReadDir:  func(path string) ([]fs.DirEntry, error) { return root.ReadDir(path[1:]) },
		ReadLink: func(path string) (string, error) { return root.ReadLink(path[1:]) },
		ResolvedVersion: func(context.Context) (int, error) {
			if p.resolved == 0 {
				return 0, machine.ErrNoResolved
			}
			return p.resolved, nil
		},
		ResolvedProperty: func(_ context.Context, name string) (string, error) {
			return map[string]string{"ResolvConfMode": "stub", "DNSStubListener": "yes", "MulticastDNS": "resolve"}[name], nil
		},
		ServiceState: func(context.Context, string) (string, int, error) { return p.dnsmasq, 77, nil },
	}
}

func TestExamine(t *testing.T) {
	stub := played{resolved: 252, files: map[string]string{
		ResolvConf:   "nameserver 127.0.0.53\noptions edns0\n",
		nsswitchPath: mdnsFirst,
		unixSockets: "Num RefCount Protocol Flags Type St Inode Path\n" +
			"0: 00000002 00000000 00010000 0001 01 1 /run/avahi-daemon/socket\n" +
			"1: 00000002 00000000 00010000 0001 01 2 /run/nscd/socket\n",
	}}
	got := examine(t.Context(), stub.system())
	want := Findings{
		ResolvConf: "/etc/resolv.conf", Nameservers: []string{"127.0.0.53"}, Resolver: "systemd-resolved",
		Hosts: "files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns", FilesFirst: true, Avahi: true, MDNSEnds: true,
		Resolved: &ResolvedFindings{Version: 252, Mode: "stub", StubListener: "yes", MulticastDNS: "resolve"},
		Caches:   []string{"nscd"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	forwarder := played{dnsmasq: "active", files: map[string]string{
		ResolvConf:         "nameserver 127.0.0.1\n",
		nsswitchPath:       "hosts: files dns\n",
		"/proc/77/cmdline": "/usr/sbin/dnsmasq\x00-7\x00/etc/dnsmasq.d,.dpkg-dist\x00",
	}}
	if got := examine(t.Context(), forwarder.system()).Resolver; got != "dnsmasq" {
		t.Errorf("resolver %q; want dnsmasq", got)
	}
}
