//go:build names

package names

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/test/internal/debian"
)

const (
	service = "task-api"
	ourName = service + ".local"
	// ownName is what the machine is called, and linkAddress the one of the
	// interface that the rung "resolved-link" makes.
	ownName, linkAddress = "names", "192.0.0.8"
	// quick is how long a look-up of ours may take.
	quick = 50 * time.Millisecond
)

// In every environment, through every kind of resolver, our names lead to where
// they must, at once; no other name is touched; and they are gone when they
// should be.
func TestNames(t *testing.T) {
	inEach(t, func(m *machine) {
		m.startCluster()
		m.installHelper()
		before := m.answers(glibc, append(m.env.others(), ownName))
		if m.env.bonjour && before[printer] != printerAddr {
			m.T.Fatalf("before, %s is %s; want %s", printer, before[printer], printerAddr)
		}
		m.checkGone()
		found := m.snapshot()
		m.startDaemon()
		m.queries()

		m.Run(dev, "tunnelctl", "add", service, "--wait")
		m.checkRung()
		f := m.forward(service)
		m.T.Run("clients", func(t *testing.T) { m.in(t).checkClients(f) })
		m.T.Run("curl", func(t *testing.T) { m.in(t).checkCurl() })
		m.T.Run("other names", func(t *testing.T) { m.in(t).checkOthers(f, before) })
		m.T.Run("order", func(t *testing.T) { m.in(t).checkOrder(f) })

		m.stopDaemon()
		m.checkGone()
		m.checkSame(found)
		if diff := debian.Differences(before, m.answers(glibc, append(m.env.others(), ownName))); diff != "" {
			m.T.Errorf("after the daemon has ended, other names have changed:\n%s", diff)
		}
	})
}

// checkRung waits for the way that the environment's names must be claimed.
func (m *machine) checkRung() {
	m.T.Helper()
	var dns status.DNS
	await.Until(m.T, "the system to ask for our names", func() bool {
		dns = m.status().DNS
		return dns.Rung != "" && dns.Hint == ""
	})
	if dns.Rung != m.env.rung {
		m.T.Errorf("names are claimed by %s (%s; passed %+v); want %s", dns.Rung, dns.Why, dns.Passed, m.env.rung)
	}
	if want := fmt.Sprintf("127.0.0.1:%d", ourDNSPort); dns.Listen != want {
		m.T.Fatalf("DNS on %s; want %s, where the tap is", dns.Listen, want)
	}
}

// checkClients looks names of ours up by each client. The answer must be right
// each time, and 99 of 100 must be quick: in one of three rounds, since the machine
// that the test runs on may have other things to do.
func (m *machine) checkClients(f status.Forward) {
	want := make(map[string]string)
	for _, name := range f.Hostnames {
		if !strings.HasSuffix(name, ".localhost") { // systems have their own mind about it
			want[name] = f.Address
		}
	}
	if m.env.rung != "hosts" {
		want["anything."+ourName] = f.Address
	} else {
		want[f.Address] = ourName // the hosts file leads back, too
	}
	rounds := 300
	if soak {
		rounds = 2000
	}
	names := slices.Sorted(maps.Keys(want))
	for _, c := range clients {
		m.T.Run(c.name, func(t *testing.T) {
			var p50, p99 time.Duration
			for range 3 {
				lookups := m.in(t).lookUp(c, rounds, names...)
				for _, l := range lookups {
					// Go says all the names of an address.
					if first, _, _ := strings.Cut(l.answer, ","); first != want[l.name] {
						t.Fatalf("%s is %s; want %s", l.name, l.answer, want[l.name])
					}
				}
				if p50, p99 = percentile(lookups, 50), percentile(lookups, 99); p99 < quick {
					t.Logf("%d look-ups: median %v, p99 %v", len(lookups), p50, p99)
					return
				}
			}
			t.Errorf("median %v, p99 %v; want less than %v", p50, p99, quick)
		})
	}
}

// checkCurl fetches from the ports that browsers take, with no help.
func (m *machine) checkCurl() {
	m.T.Helper()
	ca := "/home/dev/ca.pem"
	m.Run(dev, "sh", "-euc", "tunnelctl trust --pem >"+ca)
	for _, url := range []string{"http://" + ourName + "/health", "https://" + ourName + "/health"} {
		if got := m.Run(dev, "curl", "-sS", "--fail", "--max-time", "40", "--cacert", ca, url); got != `{"status": "healthy"}` {
			m.T.Errorf("%s: %s", url, got)
		}
	}
}

// checkOthers looks up a thousand names that are not ours: their answers must be
// what they were, and none may reach us. Nothing of ours may have left the
// machine since queries was last called.
func (m *machine) checkOthers(f status.Forward, before map[string]string) {
	m.T.Helper()
	// The canary, which the daemon makes up, is ours as well.
	canary := regexp.MustCompile(`^tunneld-[0-9a-f]+\.local$`)
	ours := func(q query) bool {
		return canary.MatchString(q.name) || slices.ContainsFunc(f.Hostnames, func(name string) bool {
			return q.name == name || strings.HasSuffix(q.name, "."+name)
		})
	}
	for _, q := range abroad(m.queries()) {
		switch {
		case !ours(q):
		case canary.MatchString(q.name): // others like it must go abroad: it is how leaks are found
		case m.env.rung == "hosts" && q.kind == "AAAA": // who asks for that alone finds none in the file
		default:
			m.T.Errorf("a name of ours was asked for abroad: %v", q)
		}
	}
	now := m.answers(glibc, append(m.env.others(), ownName))
	// A resolver that knows this machine's addresses by itself knows that of our
	// interface, too, as it does those of containers and tunnels.
	now[ownName] = strings.Replace(now[ownName], linkAddress+",", "", 1)
	if diff := debian.Differences(before, now); diff != "" {
		m.T.Errorf("other names have changed:\n%s", diff)
	}
	if got := slices.DeleteFunc(toUs(m.queries()), ours); len(got) > 0 { // the daemon looks at ours
		m.T.Errorf("%d queries for other names reached us, %v first", len(got), got[0])
	}
}

// checkGone wants a name of ours not to resolve.
func (m *machine) checkGone() {
	m.T.Helper()
	gone := func() bool { return strings.HasPrefix(m.answers(pureGo, []string{ourName})[ourName], "!") }
	if m.env.late {
		await.Until(m.T, ourName+" to be gone", gone)
	} else if !gone() {
		m.T.Errorf("%s resolves; want no such name", ourName)
	}
}

// others are a thousand names of all kinds that are not ours.
func (e environment) others() []string {
	var names []string
	for i := range 250 {
		names = append(names, "www.example.com", fmt.Sprintf("host-%d.example.com", i), fmt.Sprintf("gone-%d.invalid", i))
	}
	for i := range 200 {
		names = append(names, fmt.Sprintf("198.51.100.%d", i))
	}
	names = append(names, "localhost", "127.0.0.1", "task-api.example.com", "task-db.task-api.svc.cluster.local", "local")
	// Some take seconds, by nature: those of one label where they are asked for
	// by LLMNR, and those of .local where they are by multicast DNS.
	single, multicast := []string{"intranet", service}, []string{"other.local", "x" + ourName}
	if e.llmnr {
		single = single[1:]
	} else {
		single = slices.Repeat(single, 20)
	}
	if e.bonjour {
		multicast = append(multicast[1:], slices.Repeat([]string{printer}, 50)...)
	} else {
		multicast = slices.Repeat(multicast, 20)
	}
	return slices.Concat(names, single, multicast)
}

// answers are what a client says, which must not differ from one time to the next.
func (m *machine) answers(c client, names []string) map[string]string {
	m.T.Helper()
	found := make(map[string]string)
	for _, l := range m.lookUp(c, 1, names...) {
		if before, ok := found[l.name]; ok && before != l.answer {
			m.T.Errorf("%s is %s, and then %s", l.name, before, l.answer)
		}
		found[l.name] = l.answer
	}
	return found
}
