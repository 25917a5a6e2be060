package osdns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/osdns/dnsmasqconf"
	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// A box is a machine that is played: its files are below a directory, and its services
// know what they have read when they were last told to read.
type box struct {
	root     string
	resolved int // the version of systemd's resolver; 0: it does not run

	links     map[string]bool // by name: whether it is ours
	linkDNS   map[string][]string
	delegates map[string]string // as last read

	dnsmasq     string // its state
	starts      int
	brokenBy    string            // what in its configuration dnsmasq does not start with
	conf        map[string]string // as read at its start
	servers     string            // as last read
	fullOfLinks error             // what AddLink fails with
}

const (
	dnsmasqPID = 77
	receipts   = "/var/lib/tunneld"
)

// newMachine returns one with these files.
func newMachine(t *testing.T, files map[string]string) *box {
	t.Helper()
	m := &box{root: memory(t), links: map[string]bool{}, linkDNS: map[string][]string{}, delegates: map[string]string{}}
	m.put(t, map[string]string{"/etc/hosts": "127.0.0.1 localhost\n", "/etc/dnsmasq.d/README": "", "/var/lib/other": "", "/run/systemd/other": ""})
	m.put(t, files)
	if _, ok := files["/proc/77/cmdline"]; ok {
		m.dnsmasq = "active"
		m.startDnsmasq()
		m.starts = 0
	}
	return m
}

// memory is a directory in memory, where there is one: each step is made to last,
// and here it need not.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "osdns")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (m *box) put(t *testing.T, files map[string]string) {
	t.Helper()
	for path, data := range files {
		if err := os.MkdirAll(filepath.Dir(m.path(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.path(path), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *box) path(path string) string { return filepath.Join(m.root, path) }

func (m *box) read(path string) string {
	data, err := os.ReadFile(m.path(path))
	if err != nil {
		return ""
	}
	return string(data)
}

// files are all of them, by path, and directories, which end in a slash.
func (m *box) files(t *testing.T) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(m.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, m.root)
		if e.IsDir() {
			files[name+"/"] = ""
			return nil
		}
		files[name] = m.read(name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (m *box) startDnsmasq() error {
	m.starts++
	m.conf = make(map[string]string)
	for _, name := range []string{"/etc/dnsmasq.conf", "/etc/dnsmasq.d/tunneld.conf"} {
		if data := m.read(name); data != "" {
			m.conf[name] = data
		}
	}
	m.dnsmasq = "active"
	for name, data := range m.conf {
		if m.brokenBy != "" && strings.Contains(data, m.brokenBy) {
			m.dnsmasq = "failed"
			return fmt.Errorf("dnsmasq does not like %s", name)
		}
	}
	m.rereadServers()
	return nil
}

func (m *box) rereadServers() {
	m.servers = ""
	for _, data := range m.conf {
		for line := range strings.Lines(data) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "servers-file="); ok {
				m.servers = m.read(path)
			}
		}
	}
}

// forwarded are the domains that dnsmasq asks us about.
func (m *box) forwarded() []string {
	var domains []string
	for line := range strings.Lines(m.servers) {
		if rest, ok := strings.CutPrefix(line, "server=/"); ok {
			domain, _, _ := strings.Cut(rest, "/")
			domains = append(domains, domain)
		}
	}
	return domains
}

// routed are the domains that systemd's resolver asks us about.
func (m *box) routed() []string {
	var domains []string
	for _, name := range slices.Sorted(maps.Keys(m.delegates)) {
		for line := range strings.Lines(m.delegates[name]) {
			if domain, ok := strings.CutPrefix(strings.TrimSpace(line), "Domains=~"); ok {
				domains = append(domains, domain)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.links)) {
		domains = append(domains, m.linkDNS[name]...)
	}
	return domains
}

func (m *box) system() machine.System {
	real := machine.New()
	return machine.System{
		ReadFile:    func(path string) ([]byte, error) { return real.ReadFile(m.path(path)) },
		ReplaceFile: func(path string, data []byte) error { return real.ReplaceFile(m.path(path), data) },
		SwapFile:    func(path string, old, data []byte) error { return real.SwapFile(m.path(path), old, data) },
		RemoveFile:  func(path string) error { return real.RemoveFile(m.path(path)) },
		MakeDir:     func(path string) error { return real.MakeDir(m.path(path)) },
		RemoveDir:   func(path string) error { return real.RemoveDir(m.path(path)) },
		ReadDir:     func(path string) ([]fs.DirEntry, error) { return real.ReadDir(m.path(path)) },
		ReadLink:    func(path string) (string, error) { return real.ReadLink(m.path(path)) },
		ResolvedVersion: func(context.Context) (int, error) {
			if m.resolved == 0 {
				return 0, machine.ErrNoResolved
			}
			return m.resolved, nil
		},
		ResolvedProperty: func(_ context.Context, name string) (string, error) {
			return map[string]string{"ResolvConfMode": "stub", "DNSStubListener": "yes", "MulticastDNS": "resolve"}[name], nil
		},
		LinkIsOurs: func(name string) (bool, error) {
			ours, ok := m.links[name]
			if !ok {
				return false, fs.ErrNotExist
			}
			return ours, nil
		},
		AddLink: func(name string) error {
			if ours, ok := m.links[name]; ok && !ours {
				return machine.ErrForeignLink
			}
			if m.fullOfLinks == nil {
				m.links[name] = true
			}
			return m.fullOfLinks
		},
		RemoveLink: func(name string) error {
			delete(m.links, name)
			delete(m.linkDNS, name)
			return nil
		},
		SetLinkDNS: func(_ context.Context, link string, _ netip.AddrPort, domains []string) error {
			m.linkDNS[link] = domains
			return nil
		},
		ServiceState: func(_ context.Context, unit string) (string, int, error) {
			if unit != dnsmasqconf.Unit || m.dnsmasq == "" {
				return "inactive", 0, nil
			}
			if m.dnsmasq != "active" {
				return m.dnsmasq, 0, nil
			}
			return m.dnsmasq, dnsmasqPID, nil
		},
		Run: func(_ context.Context, name string, args ...string) ([]byte, error) {
			if name != "dnsmasq" || !slices.Contains(args, "--test") {
				return nil, errors.New("no such program")
			}
			for _, name := range []string{"/etc/dnsmasq.conf", "/etc/dnsmasq.d/tunneld.conf"} {
				if m.brokenBy != "" && strings.Contains(m.read(name), m.brokenBy) {
					return nil, errors.New("exit status 1")
				}
			}
			return nil, nil
		},
		ReloadService: func(_ context.Context, unit string) error {
			if unit != resolvedUnit || m.resolved == 0 {
				return errors.New("no such unit")
			}
			m.delegates = make(map[string]string)
			entries, err := real.ReadDir(m.path(delegateDir))
			for _, e := range entries {
				if strings.HasSuffix(e.Name(), delegateExt) {
					m.delegates[e.Name()] = m.read(filepath.Join(delegateDir, e.Name()))
				}
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		},
		RestartService: func(_ context.Context, unit string) error {
			if unit != dnsmasqconf.Unit || m.dnsmasq == "" {
				return errors.New("no such unit")
			}
			return m.startDnsmasq()
		},
		Reread: func(pid int) error {
			if pid != dnsmasqPID {
				return errors.New("no such process")
			}
			m.rereadServers()
			return nil
		},
	}
}

// ladder returns one that claims names on the machine. dies, if it is not nil, is
// asked before each change.
func (m *box) ladder(dies func(what string) error) *Ladder {
	s := m.system()
	if dies != nil {
		s = s.Before(dies)
	}
	return &Ladder{System: s, Receipts: receipts}
}

// The kinds of machines that there are.
var (
	stub = map[string]string{
		"/etc/resolv.conf":   "nameserver 127.0.0.53\noptions edns0\n",
		"/etc/nsswitch.conf": "hosts: files resolve [!UNAVAIL=return] dns\n",
	}
	plain = map[string]string{
		"/etc/resolv.conf":   "nameserver 192.0.2.1\n",
		"/etc/nsswitch.conf": "hosts: files dns\n",
	}
	forwarder = map[string]string{
		"/etc/resolv.conf":   "nameserver 127.0.0.1\n",
		"/etc/nsswitch.conf": "hosts: files dns\n",
		"/proc/77/cmdline":   "/usr/sbin/dnsmasq\x00-7\x00/etc/dnsmasq.d,.dpkg-dist\x00",
	}
)

// with returns files, and more of them.
func with(files map[string]string, more ...string) map[string]string {
	files = maps.Clone(files)
	for i := 0; i < len(more); i += 2 {
		files[more[i]] = more[i+1]
	}
	return files
}

const (
	unixSockets = "/proc/net/unix"
	mdnsFirst   = "hosts: files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns\n"
	avahiListen = "Num RefCount Protocol Flags Type St Inode Path\n0: 00000002 00000000 00010000 0001 01 1 /run/avahi-daemon/socket\n"
)

func claim(owner string, names ...string) Claim {
	c := Claim{Owner: owner, Server: netip.MustParseAddrPort("127.0.0.1:15353")}
	for i, name := range names {
		c.Names = append(c.Names, Name{Name: name, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{127, 77, 0, byte(i + 1)})}})
	}
	return c
}

func TestClaim(t *testing.T) {
	many := make([]string, 300)
	for i := range many {
		many[i] = "n" + strconv.Itoa(i) + ".local"
	}
	for _, test := range []struct {
		name     string
		files    map[string]string
		resolved int
		names    []string
		skip     []string
		want     string
		why      map[string]string // part of why a rung was passed
	}{
		{name: "systemd with delegates", files: stub, resolved: 258, want: "resolved-delegate"},
		{name: "systemd with delegates, without the module", files: with(stub, "/etc/nsswitch.conf", "hosts: files dns"), resolved: 258, want: "resolved-delegate"},
		{name: "systemd with delegates, by the module only", files: with(stub, "/etc/resolv.conf", "nameserver 192.0.2.1"), resolved: 258, want: "resolved-delegate"},
		{name: "systemd without delegates", files: stub, resolved: 252, want: "resolved-link", why: map[string]string{"resolved-delegate": "version 252"}},
		{name: "skipped", files: stub, resolved: 258, skip: []string{"resolved-delegate"}, want: "resolved-link", why: map[string]string{"resolved-delegate": "as asked for"}},
		{name: "all names do not go on a link", files: stub, resolved: 252, names: many, want: "hosts", why: map[string]string{"resolved-link": "takes 256 domains"}},
		{name: "systemd that is too old", files: stub, resolved: 245, want: "hosts"},
		{name: "systemd's resolver runs, and nobody asks it", files: plain, resolved: 258, want: "hosts", why: map[string]string{"resolved-link": "leads to 192.0.2.1"}},
		{name: "Avahi first", files: with(stub, "/etc/nsswitch.conf", mdnsFirst, unixSockets, avahiListen), resolved: 258, want: "hosts", why: map[string]string{"resolved-delegate": "Avahi"}},
		{name: "Avahi first, which does not run", files: with(stub, "/etc/nsswitch.conf", mdnsFirst), resolved: 258, want: "resolved-delegate"},
		{name: "Avahi first, which takes none of the names", files: with(stub, "/etc/nsswitch.conf", mdnsFirst, unixSockets, avahiListen), resolved: 258, names: []string{"a.test", "b.c.local"}, want: "resolved-delegate"},
		{name: "plain", files: plain, want: "hosts", why: map[string]string{"dnsmasq": "leads to 192.0.2.1", "resolved-link": "does not run"}},
		{name: "no nsswitch.conf", files: map[string]string{"/etc/resolv.conf": "nameserver 192.0.2.1"}, want: "hosts"},
		{name: "dnsmasq", files: forwarder, want: "dnsmasq"},
		{name: "dnsmasq by its own file", files: with(forwarder, "/proc/77/cmdline", "dnsmasq\x00", "/etc/dnsmasq.conf", "# x\nconf-dir=/etc/dnsmasq.d/,*.conf\n"), want: "dnsmasq"},
		{name: "dnsmasq that reads no directory", files: with(forwarder, "/proc/77/cmdline", "dnsmasq\x00"), want: "hosts", why: map[string]string{"dnsmasq": "no directory"}},
		{name: "dnsmasq with servers of its own", files: with(forwarder, "/etc/dnsmasq.conf", "servers-file=/etc/mine\n"), want: "hosts", why: map[string]string{"dnsmasq": "/etc/mine"}},
		{name: "dnsmasq behind systemd's resolver", files: with(forwarder, "/etc/nsswitch.conf", stub["/etc/nsswitch.conf"]), resolved: 245, want: "hosts", why: map[string]string{"dnsmasq": "systemd-resolved"}},
		{name: "dnsmasq behind Avahi", files: with(forwarder, "/etc/nsswitch.conf", "hosts: files mdns [NOTFOUND=return] dns", unixSockets, avahiListen), want: "hosts", why: map[string]string{"dnsmasq": "nss-mdns"}},
		{name: "dnsmasq behind nss-mdns, without Avahi", files: with(forwarder, "/etc/nsswitch.conf", "hosts: files mdns [NOTFOUND=return] dns"), want: "hosts", why: map[string]string{"dnsmasq": "nss-mdns"}},
		{name: "something else on 127.0.0.1", files: with(plain, "/etc/resolv.conf", "nameserver 127.0.0.1\n"), want: "hosts", why: map[string]string{"dnsmasq": "does not run"}},
		{name: "files after dns", files: with(plain, "/etc/nsswitch.conf", "hosts: dns files"), want: "", why: map[string]string{"hosts": "dns before"}},
		{name: "files after resolve, which reads the file", files: with(stub, "/etc/nsswitch.conf", "hosts: mymachines resolve [!UNAVAIL=return] files dns"), resolved: 245, want: "hosts"},
		{name: "no files", files: with(plain, "/etc/nsswitch.conf", "hosts: dns"), want: "", why: map[string]string{"hosts": "does not read"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t, test.files)
			m.resolved = test.resolved
			before := m.files(t)
			names := test.names
			if names == nil {
				names = []string{"a.local", "x.a.local", "a.localhost", "b.c.svc.cluster.local"}
			}
			c := claim("1000", names...)
			o, err := m.ladder(nil).Claim(t.Context(), c, test.skip)
			if (err == nil) != (test.want != "") || o.Rung != test.want {
				t.Fatalf("rung %q, %v; want %q", o.Rung, err, test.want)
			}
			for _, p := range o.Passed {
				if part := test.why[p.Rung]; !strings.Contains(p.Why, part) {
					t.Errorf("%s was passed because %q; want %q in it", p.Rung, p.Why, part)
				}
				delete(test.why, p.Rung)
			}
			if len(test.why) > 0 {
				t.Errorf("not passed: %v", test.why)
			}
			m.check(t, o.Rung, c)
			if err == nil {
				after := m.files(t)
				if _, err := m.ladder(nil).Claim(t.Context(), c, test.skip); err != nil {
					t.Errorf("a second time: %v", err)
				}
				if diff := cmp.Diff(after, m.files(t)); diff != "" {
					t.Errorf("a second time (-once +twice):\n%s", diff)
				}
				m.check(t, o.Rung, c)
			}
			if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
				t.Fatal(err)
			}
			m.checkGone(t, before)
		})
	}
}

// check fails the test unless exactly that rung has exactly the claim in force.
func (m *box) check(t *testing.T, rung string, c Claim) {
	t.Helper()
	var hosts, routed, forwarded []string
	switch rung {
	case "hosts":
		hosts = hostsLines(c.Names)
	case "resolved-delegate", "resolved-link":
		routed = resolvedRoutes(c.Names)
	case "dnsmasq":
		forwarded = routes(c.Names)
	}
	var lines []string
	for line := range strings.Lines(m.read("/etc/hosts")) {
		if line, ours := strings.CutSuffix(strings.TrimSpace(line), " # tunneld "+c.Owner); ours {
			lines = append(lines, line)
		}
	}
	if diff := cmp.Diff(hosts, lines); diff != "" {
		t.Errorf("the hosts file (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(routed, m.routed()); diff != "" {
		t.Errorf("systemd's resolver (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(forwarded, m.forwarded()); diff != "" {
		t.Errorf("dnsmasq (-want +got):\n%s", diff)
	}
}

// checkGone fails the test unless the files are those, and no service knows of us.
func (m *box) checkGone(t *testing.T, files map[string]string) {
	t.Helper()
	if diff := cmp.Diff(files, m.files(t)); diff != "" {
		t.Errorf("files (-before +now):\n%s", diff)
	}
	m.check(t, "", claim("1000"))
	if len(m.links) > 0 || len(m.delegates) > 0 {
		t.Errorf("left: links %v, delegates %v", m.links, m.delegates)
	}
	if conf := m.conf["/etc/dnsmasq.d/tunneld.conf"]; conf != "" {
		t.Errorf("dnsmasq still has %q", conf)
	}
	if m.dnsmasq == "failed" {
		t.Error("dnsmasq does not run")
	}
}

var errDied = errors.New("died")

// dying runs do, which dies before its change number k, or in the middle of it, and
// reports whether it came that far.
func (m *box) dying(t *testing.T, k int, midway bool, do func(l *Ladder)) (died bool) {
	t.Helper()
	defer func() {
		switch r := recover(); r {
		case nil:
		case errDied:
			died = true
		default:
			panic(r)
		}
	}()
	n := 0
	do(m.ladder(func(what string) error {
		if n++; n != k {
			return nil
		}
		if path, ok := strings.CutPrefix(what, "write "); ok && midway {
			if err := os.WriteFile(machine.Temporary(m.path(path)), []byte("half a li"), 0o600); err != nil {
				t.Error(err)
			}
		}
		panic(errDied)
	}))
	return false
}

// Whatever the helper was doing when it was killed, what it has done is found, and
// what others have done meanwhile stays.
func TestKilledAtEachStep(t *testing.T) {
	first, second := claim("1000", "a.local", "b.local"), claim("1000", "b.local", "c.local")
	for _, kind := range []struct {
		name     string
		files    map[string]string
		resolved int
	}{
		{"delegate", stub, 262},
		{"link", stub, 252},
		{"dnsmasq", forwarder, 0},
		{"dnsmasq against rebinding", with(forwarder, "/etc/dnsmasq.conf", "stop-dns-rebind\n"), 0},
		{"hosts", plain, 0},
		{"hosts without a final newline", with(plain, "/etc/hosts", "127.0.0.1 localhost"), 0},
	} {
		best := map[string]string{"delegate": "resolved-delegate", "link": "resolved-link", "hosts": "", "hosts without a final newline": ""}[kind.name]
		if best == "" && strings.HasPrefix(kind.name, "dnsmasq") {
			best = "dnsmasq"
		}
		for _, act := range []struct {
			name   string
			before func(ctx context.Context, l *Ladder) error
			do     func(ctx context.Context, l *Ladder)
		}{
			{"first claim", nil, func(ctx context.Context, l *Ladder) { _, _ = l.Claim(ctx, first, nil) }},
			{"other names", claims(first), func(ctx context.Context, l *Ladder) { _, _ = l.Claim(ctx, second, nil) }},
			{"next rung", claims(first), func(ctx context.Context, l *Ladder) { _, _ = l.Claim(ctx, second, []string{best}) }},
			{"release", claims(first), func(ctx context.Context, l *Ladder) { _ = l.Release(ctx, "1000") }},
		} {
			for _, midway := range []bool{false, true} {
				for _, again := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/midway=%v/again=%v", kind.name, act.name, midway, again), func(t *testing.T) {
						for k := 1; ; k++ {
							m := newMachine(t, kind.files)
							m.resolved = kind.resolved
							before := m.files(t)
							if act.before != nil {
								if err := act.before(t.Context(), m.ladder(nil)); err != nil {
									t.Fatal(err)
								}
							}
							if !m.dying(t, k, midway, func(l *Ladder) { act.do(t.Context(), l) }) {
								if k == 1 && best != "" {
									t.Error("nothing was done")
								}
								return
							}
							// At the top, since what is at the end counts if the last line has
							// no newline.
							m.put(t, map[string]string{"/etc/hosts": "10.0.0.1 theirs\n" + m.read("/etc/hosts")})
							if again {
								o, err := m.ladder(nil).Claim(t.Context(), second, nil)
								if err != nil {
									t.Fatalf("died at step %d: %v", k, err)
								}
								m.check(t, o.Rung, second)
							}
							if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
								t.Fatalf("died at step %d: %v", k, err)
							}
							want := maps.Clone(before)
							want["/etc/hosts"] = "10.0.0.1 theirs\n" + before["/etc/hosts"]
							if got := m.read("/etc/hosts"); got == want["/etc/hosts"]+"\n" {
								want["/etc/hosts"] = got // a line was put before ours: the newline stays
							}
							m.checkGone(t, want)
							if t.Failed() {
								t.Fatalf("died at step %d", k)
							}
						}
					})
				}
			}
		}
	}
}

func claims(c Claim) func(context.Context, *Ladder) error {
	return func(ctx context.Context, l *Ladder) error {
		_, err := l.Claim(ctx, c, nil)
		return err
	}
}

func TestTwoOwners(t *testing.T) {
	for _, kind := range []struct {
		name     string
		files    map[string]string
		resolved int
	}{{"delegate", stub, 262}, {"link", stub, 252}, {"dnsmasq", forwarder, 0}, {"hosts", plain, 0}} {
		t.Run(kind.name, func(t *testing.T) {
			m := newMachine(t, kind.files)
			m.resolved = kind.resolved
			before := m.files(t)
			one, two := claim("1000", "a.local"), claim("1001", "b.local")
			if _, err := m.ladder(nil).Claim(t.Context(), one, nil); err != nil {
				t.Fatal(err)
			}
			alone := m.files(t)
			o, err := m.ladder(nil).Claim(t.Context(), two, nil)
			if err != nil {
				t.Fatal(err)
			}
			starts := m.starts
			if err := m.ladder(nil).Release(t.Context(), "1001"); err != nil {
				t.Fatal(err)
			}
			m.check(t, o.Rung, one)
			if m.starts != starts {
				t.Error("dnsmasq was restarted for names of one of two owners")
			}
			if diff := cmp.Diff(alone, m.files(t)); diff != "" {
				t.Errorf("after the second one has gone (-before +now):\n%s", diff)
			}
			if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
				t.Fatal(err)
			}
			m.checkGone(t, before)
		})
	}
}

// A dnsmasq that does not start with what it is told is started without it.
func TestDnsmasqThatDoesNotStart(t *testing.T) {
	m := newMachine(t, forwarder)
	m.brokenBy = "servers-file"
	before := m.files(t)
	c := claim("1000", "a.local")
	o, err := m.ladder(nil).Claim(t.Context(), c, nil)
	if err != nil || o.Rung != "hosts" {
		t.Fatalf("rung %q, %v; want hosts", o.Rung, err)
	}
	m.check(t, "hosts", c)
	if m.dnsmasq != "active" {
		t.Error("dnsmasq does not run")
	}
	if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	m.checkGone(t, before)
}

// Killed while a dnsmasq that does not like what it is told was started, the next
// one brings it back.
func TestDnsmasqThatWasLeftDead(t *testing.T) {
	m := newMachine(t, forwarder)
	before := m.files(t)
	m.dying(t, 5, false, func(l *Ladder) { _, _ = l.Claim(t.Context(), claim("1000", "a.local"), nil) })
	m.brokenBy = "servers-file"
	_ = m.startDnsmasq()
	if m.dnsmasq != "failed" {
		t.Fatal("it did not die before the restart")
	}
	if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	m.checkGone(t, before)
}

// New names are told to dnsmasq by a signal; it is restarted only where it has to be.
func TestDnsmasqIsNotRestartedForNames(t *testing.T) {
	m := newMachine(t, forwarder)
	for _, names := range [][]string{{"a.local"}, {"a.local", "b.local"}, {"c.local"}} {
		if _, err := m.ladder(nil).Claim(t.Context(), claim("1000", names...), nil); err != nil {
			t.Fatal(err)
		}
		m.check(t, "dnsmasq", claim("1000", names...))
	}
	if m.starts != 1 {
		t.Errorf("dnsmasq was restarted %d times; want once", m.starts)
	}
}

// Who was killed may have left a restart under way: what dnsmasq reads then is what
// was in force, so it has to be waited for.
func TestDnsmasqThatIsJustStarting(t *testing.T) {
	m := newMachine(t, forwarder)
	if _, err := m.ladder(nil).Claim(t.Context(), claim("1000", "task-api.local"), nil); err != nil {
		t.Fatal(err)
	}
	s := m.system()
	settled, asked := s.ServiceState, 0
	s.ServiceState = func(ctx context.Context, unit string) (string, int, error) {
		if asked++; asked < 3 {
			return "activating", 0, nil
		}
		return settled(ctx, unit)
	}
	if err := (&Ladder{System: s, Receipts: receipts}).Release(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	if got := m.forwarded(); len(got) > 0 {
		t.Errorf("dnsmasq still asks us for %v", got)
	}
}

// dnsmasq goes by the hosts file as it was when it started, or was told to read it
// again. The one that has nothing to change may follow one that was killed.
func TestDnsmasqReadsHostsAgain(t *testing.T) {
	m := newMachine(t, forwarder)
	s := m.system()
	var seen string
	s.Reread = func(int) error {
		seen = m.read(hostsPath)
		return nil
	}
	l := &Ladder{System: s, Receipts: receipts}
	if o, err := l.Claim(t.Context(), claim("1000", "task-api.local"), []string{"dnsmasq"}); err != nil || o.Rung != "hosts" {
		t.Fatalf("claimed by %q, %v", o.Rung, err)
	}
	if !strings.Contains(seen, "task-api.local") {
		t.Errorf("after the claim, dnsmasq has %q", seen)
	}
	for range 2 {
		seen = "127.77.0.1 task-api.local"
		if err := l.Release(t.Context(), "1000"); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(seen, "task-api.local") {
			t.Error("after the release, dnsmasq has not read the file again")
		}
	}
}

func TestForeignLink(t *testing.T) {
	m := newMachine(t, stub)
	m.resolved = 252
	m.links["tunneld-rs"] = false
	o, err := m.ladder(nil).Claim(t.Context(), claim("1000", "a.local"), nil)
	if err != nil || o.Rung != "hosts" {
		t.Fatalf("rung %q, %v; want hosts", o.Rung, err)
	}
	if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.links["tunneld-rs"]; !ok {
		t.Error("an interface of somebody else's was removed")
	}
}

// What cannot be done on one rung is done on the next, and nothing of the first one
// stays.
func TestApplyFails(t *testing.T) {
	m := newMachine(t, stub)
	m.resolved = 252
	m.fullOfLinks = errors.New("no such kind of interface")
	o, err := m.ladder(nil).Claim(t.Context(), claim("1000", "a.local"), nil)
	if err != nil || o.Rung != "hosts" {
		t.Fatalf("rung %q, %v; want hosts", o.Rung, err)
	}
	if why := o.Passed[1].Why; why != m.fullOfLinks.Error() {
		t.Errorf("passed because %q; want %q", why, m.fullOfLinks)
	}
}

// A claim of which nothing can be done leaves nothing, whatever was there.
func TestNothingFits(t *testing.T) {
	m := newMachine(t, plain)
	before := m.files(t)
	c := claim("1000", "a.local")
	if _, err := m.ladder(nil).Claim(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	o, err := m.ladder(nil).Claim(t.Context(), c, []string{"hosts"})
	if err == nil || len(o.Passed) != 4 {
		t.Errorf("%v, passed %v; want an error, and all passed", err, o.Passed)
	}
	m.checkGone(t, before)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.ladder(nil).Claim(ctx, c, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want %v", err, context.Canceled)
	}
	m.checkGone(t, before)
}

func TestNoNamesIsRelease(t *testing.T) {
	m := newMachine(t, plain)
	before := m.files(t)
	if _, err := m.ladder(nil).Claim(t.Context(), claim("1000", "a.local"), nil); err != nil {
		t.Fatal(err)
	}
	if o, err := m.ladder(nil).Claim(t.Context(), claim("1000"), nil); err != nil || o.Rung != "" {
		t.Errorf("rung %q, %v; want none", o.Rung, err)
	}
	m.checkGone(t, before)
}

// A receipt that cannot be read, or is of a newer program, says nothing: all that is
// marked as the owner's goes.
func TestReceiptThatIsNotRead(t *testing.T) {
	for _, receipt := range []string{"", "{", `{"version": 2, "rungs": []}`, `{"version": 1, "rungs": "hosts"}`} {
		t.Run(receipt, func(t *testing.T) {
			m := newMachine(t, plain)
			before := m.files(t)
			if _, err := m.ladder(nil).Claim(t.Context(), claim("1000", "a.local"), nil); err != nil {
				t.Fatal(err)
			}
			m.put(t, map[string]string{receipts + "/1000.json": receipt})
			if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
				t.Fatal(err)
			}
			m.checkGone(t, before)
		})
	}
}

// The service manager's directory for the receipts stays.
func TestReceiptsDirectoryStays(t *testing.T) {
	m := newMachine(t, with(plain, receipts+"/theirs", ""))
	before := m.files(t)
	if _, err := m.ladder(nil).Claim(t.Context(), claim("1000", "a.local"), nil); err != nil {
		t.Fatal(err)
	}
	if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	m.checkGone(t, before)
}

// The receipt is on disk before anything else is done, and says what may be.
func TestReceiptComesFirst(t *testing.T) {
	m := newMachine(t, plain)
	m.dying(t, 3, false, func(l *Ladder) { _, _ = l.Claim(t.Context(), claim("1000", "a.local"), nil) })
	l := m.ladder(nil)
	got := l.read("1000")
	if !slices.Contains(got.Rungs, "hosts") {
		t.Errorf("the receipt names %v; want hosts", got.Rungs)
	}
	if len(got.Files) != 1 || got.Files[0].SHA256 != l.sum("/etc/hosts") {
		t.Errorf("the receipt has files %v; want that of the hosts file", got.Files)
	}
}

// A name leads to whose it is, and not to who claims it as well, whatever is below it
// too.
func TestNamesOfAnotherOwner(t *testing.T) {
	for _, kind := range []struct {
		name     string
		files    map[string]string
		resolved int
	}{{"delegate", stub, 262}, {"link", stub, 252}, {"dnsmasq", forwarder, 0}, {"hosts", plain, 0}} {
		t.Run(kind.name, func(t *testing.T) {
			m := newMachine(t, kind.files)
			m.resolved = kind.resolved
			before := m.files(t)
			one := claim("1000", "a.local", "b.c.local")
			o, err := m.ladder(nil).Claim(t.Context(), one, nil)
			if err != nil {
				t.Fatal(err)
			}
			alone := m.files(t)
			_, err = m.ladder(nil).Claim(t.Context(), claim("1001", "x.local", "a.local", "y.a.local", "c.local", "b.local"), nil)
			taken, ok := errors.AsType[*TakenError](err)
			if !ok {
				t.Fatalf("error %v; want that names are taken", err)
			}
			if diff := cmp.Diff([]string{"a.local", "y.a.local"}, taken.Names); diff != "" {
				t.Errorf("taken (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(alone, m.files(t)); diff != "" {
				t.Errorf("what was refused has changed something (-before +now):\n%s", diff)
			}
			m.check(t, o.Rung, one)

			// Whose it was gives it back.
			if _, err := m.ladder(nil).Claim(t.Context(), claim("1000", "b.c.local"), nil); err != nil {
				t.Fatal(err)
			}
			if _, err := m.ladder(nil).Claim(t.Context(), claim("1001", "a.local"), nil); err != nil {
				t.Error(err)
			}
			for _, owner := range []string{"1000", "1001"} {
				if err := m.ladder(nil).Release(t.Context(), owner); err != nil {
					t.Fatal(err)
				}
			}
			m.checkGone(t, before)
		})
	}
}

// Where nothing can be noted any more, nothing new is begun; what is noted goes on.
func TestReceiptThatCannotBeWritten(t *testing.T) {
	m := newMachine(t, stub)
	m.resolved = 262
	before := m.files(t)
	full := func(what string) error {
		if strings.HasPrefix(what, "write "+receipts) {
			return errDied
		}
		return nil
	}
	if _, err := m.ladder(full).Claim(t.Context(), claim("1000", "a.local"), nil); err == nil {
		t.Error("something was done that is not noted")
	}
	m.checkGone(t, before)
	if _, err := m.ladder(nil).Claim(t.Context(), claim("1000", "a.local"), nil); err != nil {
		t.Fatal(err)
	}
	c := claim("1000", "a.local", "b.local")
	o, err := m.ladder(full).Claim(t.Context(), c, nil)
	if err != nil {
		t.Errorf("other names by the same rung: %v", err)
	}
	m.check(t, o.Rung, c)
	if err := m.ladder(full).Release(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	m.checkGone(t, before)
}
