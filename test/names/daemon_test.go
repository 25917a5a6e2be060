//go:build names

package names

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/status"
)

const (
	ourDNSPort = 15353
	socket     = "/run/tunneld-dev/socket"
)

// startCluster runs the embedded cluster, whose kubeconfig is where the user
// dev has theirs.
func (m *machine) startCluster() {
	m.T.Helper()
	m.Run(dev, "mkdir", "-p", "/home/dev/.kube")
	m.Service("cluster", []string{"Type=notify", "User=dev"}, "cluster", "/home/dev/.kube/config")
}

// daemonUnit has the daemon run as the user dev.
const daemonUnit = `[Service]
User=dev
RuntimeDirectory=tunneld-dev
Environment=TUNNELD_SOCKET=` + socket + `
ExecStart=` + opt + `tunneld run --verbose
`

// startDaemon starts tunneld as the user dev, and waits until it answers.
func (m *machine) startDaemon() {
	m.T.Helper()
	m.Write("/run/systemd/system/tunneld.service", daemonUnit)
	m.Script("systemctl daemon-reload; systemctl start tunneld")
	await.Until(m.T, "the daemon to answer", func() bool {
		_, err := m.Try(dev, "tunnelctl", "status")
		return err == nil
	})
}

// stopDaemon ends it with SIGTERM, and waits for its end.
func (m *machine) stopDaemon() {
	m.T.Helper()
	m.Run(root, "systemctl", "stop", "tunneld")
}

// killDaemon ends it without a chance to do anything.
func (m *machine) killDaemon() {
	m.T.Helper()
	m.Run(root, "systemctl", "kill", "--signal=KILL", "--kill-who=main", "tunneld")
	await.Until(m.T, "the daemon to be gone", func() bool {
		out, _ := m.Try(root, "systemctl", "is-active", "tunneld")
		return out == "failed"
	})
	m.Run(root, "systemctl", "reset-failed", "tunneld") // however often it is started
}

// installHelper installs the privileged helper for the user dev, as docs/helper.md
// says.
func (m *machine) installHelper() {
	m.T.Helper()
	units, err := filepath.Glob("../../packaging/systemd/tunneld-helper@.s*")
	if err != nil || len(units) != 2 {
		m.T.Fatalf("the helper's units: %v, %v", units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			m.T.Fatal(err)
		}
		m.Write("/etc/systemd/system/"+filepath.Base(unit), string(text))
	}
	m.Script(fmt.Sprintf(`
install -D -m 755 %[1]stunneld-helper /usr/libexec/tunneld-helper
install -d /etc/tunneld/helper
cat > /etc/tunneld/helper/%[2]d.json <<'END'
{
  "version": 1,
  "uid": %[2]d,
  "suffixes": ["local", "localhost", "svc.cluster.local"],
  "addresses": "127.77.0.0/16",
  "sharedPorts": [80, 443]
}
END
systemctl daemon-reload
systemctl enable --quiet --now tunneld-helper@%[2]d.socket`, opt, dev))
}

// status asks the daemon.
func (m *machine) status() status.Status {
	m.T.Helper()
	var s status.Status
	if err := json.Unmarshal([]byte(m.Run(dev, "tunnelctl", "status", "-o", "json")), &s); err != nil {
		m.T.Fatal(err)
	}
	return s
}

// forward asks for one forward.
func (m *machine) forward(name string) status.Forward {
	m.T.Helper()
	for _, f := range m.status().Forwards {
		if f.Name == name {
			return f
		}
	}
	m.T.Fatalf("there is no forward %s", name)
	return status.Forward{}
}
