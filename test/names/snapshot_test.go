//go:build names

package names

import (
	"maps"
	"strings"

	"github.com/tunneld/tunneld/test/internal/debian"
)

// snapshot describes all that a claim might change in the machine, but for times:
// each file of /etc; what is in the directories where claims are kept; network
// interfaces; and what systemd-resolved asks of whom, where it runs.
func (m *machine) snapshot() map[string]string {
	m.T.Helper()
	found := m.Files("/etc", "/run/systemd/dns-delegate.d", "/run/NetworkManager", "/var/lib/tunneld-helper")
	// Where the helper's lock is says nothing, and it may stay.
	for path := range found {
		if path == "/var/lib/tunneld-helper" || strings.HasSuffix(path, "lock") {
			delete(found, path)
		}
	}
	maps.Copy(found, m.Network())
	return found
}

// checkSame fails the test if something is left in the machine, or missing.
func (m *machine) checkSame(before map[string]string) {
	m.T.Helper()
	if diff := debian.Differences(before, m.snapshot()); diff != "" {
		m.T.Errorf("it is not as it was:\n%s", diff)
	}
}
