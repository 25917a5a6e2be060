//go:build names

package names

import (
	"regexp"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/test/internal/refusals"
)

const helperUnit = "tunneld-helper@1000"

// helperRuns reports whether the helper's service runs.
func (m *machine) helperRuns() bool {
	out, _ := m.Try(root, "systemctl", "is-active", helperUnit+".service")
	return out != "inactive"
}

// What runs as root ends when it has nothing to do.
func TestHelperEndsWhenIdle(t *testing.T) {
	m := newPlainMachine(t)
	m.startCluster()
	m.installHelper()
	m.startDaemon()
	m.Run(dev, "tunnelctl", "add", service, "--wait")
	if !m.helperRuns() {
		t.Error("the helper does not run, and was just asked")
	}
	used := time.Now()
	await.Until(t, "the helper to end", func() bool { return !m.helperRuns() })
	if took := time.Since(used); took > 10*time.Second {
		t.Errorf("the helper ended %v after its use", took)
	}
	m.checkCurl()
}

// The helper serves the user of its policy, and nobody else: others cannot reach
// its socket, and would be refused if they did.
func TestHelperRefusesOthers(t *testing.T) {
	m := newPlainMachine(t)
	m.installHelper()
	found := m.snapshot()
	const at = "/run/tunneld-helper/1000.sock"
	refusals.Check(m.Machine, at)
	m.checkSame(found)
	m.Run(dev, "ask", at, "mine.local")
	m.Run(root, "/usr/libexec/tunneld-helper", "release", "--uid", "1000")
	m.checkSame(found)
}

// The helper opens no file of any user, and no kubeconfig: strace says so, for all
// that it does and for what it runs.
func TestHelperOpensNoUsersFile(t *testing.T) {
	inEach(t, func(m *machine) {
		m.startCluster()
		m.installHelper()
		m.Trace(helperUnit+".service", "/usr/libexec/tunneld-helper serve --policy /etc/tunneld/helper/1000.json")
		m.startDaemon()
		m.Run(dev, "tunnelctl", "add", service, "--wait")
		m.checkRung()
		m.checkCurl()
		m.stopDaemon()
		m.Script("systemctl stop " + helperUnit + ".service")
		users := regexp.MustCompile(`^/(home|root|run/user)\b|kube`)
		for _, p := range m.Traced("/etc/tunneld/helper/1000.json") {
			if users.MatchString(p) {
				m.T.Errorf("the helper touches %s", p)
			}
		}
	})
}
