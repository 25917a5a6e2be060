//go:build trust

package trust

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/isolate"
	"github.com/tunneld/tunneld/internal/tls/verifiers"
)

// A client gets our URL as a program of that family does.
type client struct {
	family string
	// get says why it did not get it; empty if it did.
	get func(m *machine, u user) string
}

var clients = []client{
	{"curl", program("/usr/bin/curl", "--silent", "--show-error", "--fail", "--max-time", "60", url)},
	{"OpenSSL", program("/usr/bin/openssl", "s_client", "-connect", served+":443", "-servername", served,
		"-verify_hostname", served, "-verify_return_error")},
	{"Go", program(opt+"fetch", url)},
	{"Python", program("/usr/bin/python3", "-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])", url)},
	{"Node", program("/usr/bin/node", "-e",
		`require("https").get(process.argv[1], r => r.resume()).on("error", e => { console.error(e.message); process.exit(1) })`, url)},
	{"Java", program("/usr/bin/java", "-cp", opt, "Fetch", url)},
	{"Firefox", visitor((*machine).firefox)},
	{"Chromium", visitor((*machine).chromium)},
}

// program is a client that fails if it does not trust the server.
func program(path string, args ...string) func(*machine, user) string {
	return func(m *machine, u user) string {
		m.t.Helper()
		o := m.try(u, path, args...)
		if o.status == 0 {
			return ""
		}
		return fmt.Sprintf("exit status %d: %s", o.status, strings.TrimSpace(o.errOut))
	}
}

func visitor(start func(*machine, user) browser) func(*machine, user) string {
	return func(m *machine, u user) string {
		m.t.Helper()
		b := start(m, u)
		defer b.close()
		return b.open(url).refused
	}
}

// TestCheckAgreesWithClients compares what "tunnelctl trust --check" says of each
// client with what it does when a user starts it.
func TestCheckAgreesWithClients(t *testing.T) {
	t.Parallel()
	if !isolate.Test(t) {
		return
	}
	m := boot(t)
	m.startDaemon()
	m.startBrowsersOnce(dev)
	all := []string{"curl", "OpenSSL", "Go", "Python", "Java", "Firefox", "Chromium"}
	for _, stage := range []struct {
		name string
		do   string // a shell script of the user's
		// trusting are the clients that must trust the CA. Whether Node has the
		// system's CAs is its distributor's choice.
		trusting []string
		env      bool
	}{
		{name: "nothing installed"},
		{name: "installed by the user", do: "tunnelctl trust --yes", trusting: []string{"Firefox", "Chromium"}},
		{name: "installed by the user, and variables", trusting: append([]string{"Node"}, all...), env: true},
		{name: "installed under sudo", do: "sudo tunnelctl trust --yes", trusting: all},
		{name: "taken out", do: "sudo tunnelctl trust --remove --yes"},
	} {
		ok := t.Run(stage.name, func(t *testing.T) {
			m := m.in(t)
			m.run(dev, "sh", "-euc", stage.do)
			if stage.env {
				m = m.with(m.variables(dev, "--java")...)
			}
			said := m.check(dev)
			for _, c := range clients {
				refused := c.get(m, dev)
				want := verifiers.Trusts
				if refused != "" {
					want = verifiers.Refuses
				}
				if got := said[c.family]; got.Verdict != want {
					t.Errorf("%s: trust --check says %s (%s), but it %s: %s", c.family, got.Verdict, got.Evidence, want, refused)
				}
				if c.family != "Node" && slices.Contains(stage.trusting, c.family) != (refused == "") {
					t.Errorf("%s: %s; want it to trust the CA: %v", c.family, refused, refused != "")
				}
				if refused != "" && said[c.family].Fix == "" {
					t.Errorf("%s: trust --check says nothing to do about it", c.family)
				}
			}
		})
		if !ok {
			return
		}
	}
}

// check runs "tunnelctl trust --check", whose exit status must be right, and returns
// what it says of each family.
func (m *machine) check(u user) map[string]verifiers.Result {
	m.t.Helper()
	o := m.try(u, "tunnelctl", "trust", "--check", "-o", "json")
	var results []verifiers.Result
	if err := json.Unmarshal([]byte(o.out), &results); err != nil {
		m.t.Fatalf("trust --check: %v\n%v", err, o)
	}
	said := make(map[string]verifiers.Result)
	status := 0
	for _, r := range results {
		if was, ok := said[r.Family]; ok && r.Verdict == verifiers.Absent {
			r = was
		} else if ok && was.Verdict != verifiers.Absent && was.Verdict != r.Verdict {
			m.t.Errorf("trust --check contradicts itself: %+v, %+v", was, r)
		}
		said[r.Family] = r
		if r.Verdict == verifiers.Refuses {
			status = 1
		}
	}
	if o.status != status {
		m.t.Errorf("trust --check ends with %d; want %d", o.status, status)
	}
	return said
}

// variables are those that "tunnelctl env" would have a shell set.
func (m *machine) variables(u user, args ...string) []string {
	m.t.Helper()
	quoted := strings.Join(args, " ")
	before := strings.Split(m.run(u, "sh", "-euc", "env -0 | sort -z"), "\x00")
	after := strings.Split(m.run(u, "sh", "-euc", `eval "$(tunnelctl env --shell sh `+quoted+`)"; env -0 | sort -z`), "\x00")
	return slices.DeleteFunc(after, func(v string) bool { return slices.Contains(before, v) || strings.HasPrefix(v, "_=") })
}

// startBrowsersOnce has the browsers make the user's databases.
func (m *machine) startBrowsersOnce(u user) {
	m.t.Helper()
	for _, start := range []func(*machine, user) browser{(*machine).chromium, (*machine).firefox} {
		b := start(m, u)
		b.open(url) // Chromium makes its database when it needs it
		b.close()
	}
	for _, db := range []string{"/.local/share/pki/nssdb/cert9.db", "/.config/mozilla/firefox"} {
		if _, err := os.Stat(u.home + db); err != nil {
			m.t.Fatal(err)
		}
	}
}
