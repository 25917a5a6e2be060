//go:build names

package names

import (
	"testing"

	"github.com/tunneld/tunneld/test/internal/debian"
)

// opt is where a machine has the programs.
const opt = debian.Programs

// The users of a machine.
const (
	root = debian.Root
	dev  = debian.Dev // who runs the daemon
)

// A machine is one that was booted for a test, in an environment.
type machine struct {
	*debian.Machine
	env    environment
	tapped int // how much of the tap's output has been read
	marks  int // how many queries were sent to know where to read on
}

// boot starts a machine, which ends with the test.
func boot(t *testing.T, e environment) *machine {
	t.Helper()
	m := &machine{Machine: debian.Boot(t, debian.Options{Suite: e.suite, Programs: programs}), env: e}
	m.Env = []string{"PATH=" + opt + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TUNNELD_SOCKET=" + socket}
	m.Explain = "grep -v ^# /etc/hosts /etc/nsswitch.conf; ip address; ls -lR /etc/dnsmasq.d /run/systemd/dns-delegate.d /var/lib/tunneld-helper"
	return m
}

// in is the same machine for a subtest.
func (m *machine) in(t *testing.T) *machine {
	sub := *m
	sub.Machine = m.Machine.In(t)
	return &sub
}
