//go:build trust

package trust

import (
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/isolate"
)

// TestBrowsers has browsers judge that the CA is trusted after "tunnelctl trust" by a
// plain user, not before and not after its removal, and for local names only,
// even if its key is stolen.
func TestBrowsers(t *testing.T) {
	t.Parallel()
	if !isolate.Test(t) {
		return
	}
	m := boot(t)
	m.startDaemon()
	m.startThief()
	foreign := []string{"www.google.com", "www.example.com", "evillocal"}
	for _, name := range append(foreign, "stolen.local") {
		m.addHost(thiefAddress, name)
	}
	for _, b := range []struct {
		name  string
		start func(*machine, user) browser
		// How it says that it does not know who has signed, and that who did may not.
		unknown, forbidden string
	}{
		{"Chromium", (*machine).chromium, "ERR_CERT_AUTHORITY_INVALID", "ERR_CERT_"},
		{"Firefox", (*machine).firefox, "SEC_ERROR_UNKNOWN_ISSUER", "SEC_ERROR_CERT_NOT_IN_NAME_SPACE"},
	} {
		t.Run(b.name, func(t *testing.T) {
			m := m.in(t)
			untrusted := func(when string) {
				t.Helper()
				running := b.start(m, dev)
				defer running.close()
				if v := running.open(url); !strings.Contains(v.refused, b.unknown) {
					t.Errorf("%s: %+v; want it refused with %s", when, v, b.unknown)
				}
			}
			untrusted("before the CA is trusted")
			m.run(dev, "tunnelctl", "trust", "--yes")
			running := b.start(m, dev)
			want := visit{status: 200, protocol: "h2", secure: true}
			for _, at := range []string{url, "https://stolen.local/"} {
				if v := running.open(at); v != want {
					t.Errorf("%s, when the CA is trusted: %+v; want %+v", at, v, want)
				}
			}
			for _, name := range foreign {
				if v := running.open("https://" + name + "/"); !strings.Contains(v.refused, b.forbidden) {
					t.Errorf("%s, signed with a stolen key: %+v; want it refused with %s", name, v, b.forbidden)
				}
			}
			running.close()
			m.run(dev, "tunnelctl", "trust", "--remove", "--yes")
			untrusted("after the CA was taken out")
		})
	}
}
