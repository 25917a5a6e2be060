//go:build trust

package trust

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/status"
)

const (
	// served is a name that the daemon serves.
	served = "task-api.local"
	url    = "https://" + served + "/health"
	// stateDir is where the daemon has its CA.
	stateDir = "/home/dev/.local/state/tunneld"
)

// A daemon is tunneld, run by a user.
type daemon struct {
	m    *machine
	user user
	cmd  *exec.Cmd // nil when it does not run
}

// startDaemon starts a cluster, and tunneld as the user dev, forwards task-api, and lets the name
// lead there.
func (m *machine) startDaemon() *daemon {
	m.t.Helper()
	cluster, err := demo.Start(demo.Options{})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { cluster.Close() })
	if err := cluster.Run(demo.TaskAPI()...); err != nil {
		m.t.Fatal(err)
	}
	const kubeconfig = "/home/dev/.kube/config"
	m.run(dev, "mkdir", "/home/dev/.kube")
	if err := cluster.WriteKubeconfig(kubeconfig, demo.Kubeconfig{Namespace: "task-api"}); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chown(kubeconfig, dev.uid, dev.uid); err != nil {
		m.t.Fatal(err)
	}
	d := &daemon{m: m, user: dev}
	d.start()
	m.run(dev, "tunnelctl", "add", "task-api", "--wait")
	m.addHost(d.forward().Address, served)
	return d
}

// start starts tunneld, and waits until it answers.
func (d *daemon) start() {
	m := d.m
	m.t.Helper()
	log, err := os.CreateTemp("", "tunneld-log")
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	// Whoever stops it waits for it, and killAll comes after that.
	d.cmd = m.command(context.Background(), d.user, "tunneld", "run", "--helper", "none")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		d.stop(syscall.SIGTERM)
		if m.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			m.t.Logf("tunneld's log:\n%s", text)
		}
	})
	await.Until(m.t, "the daemon to answer", func() bool {
		return m.try(d.user, "tunnelctl", "status").status == 0
	})
}

// stop ends tunneld with a signal, and waits for its end. It is idempotent.
func (d *daemon) stop(signal syscall.Signal) {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(signal)
	d.cmd.Wait()
	d.cmd = nil
}

// forward asks for task-api.
func (d *daemon) forward() status.Forward {
	m := d.m
	m.t.Helper()
	var s status.Status
	if err := json.Unmarshal([]byte(m.run(dev, "tunnelctl", "status", "-o", "json")), &s); err != nil {
		m.t.Fatal(err)
	}
	if len(s.Forwards) != 1 {
		m.t.Fatalf("%d forwards; want one", len(s.Forwards))
	}
	return s.Forwards[0]
}

// addHost lets a name lead to an address.
func (m *machine) addHost(address, name string) {
	m.t.Helper()
	f, err := os.OpenFile("/etc/hosts", os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%s\t%s\n", address, name)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		m.t.Fatal(err)
	}
}
