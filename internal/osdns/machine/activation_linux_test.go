package machine

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testBus runs a system bus of the test's own, on which systemd and its resolver would
// be started if somebody asked them. Each that was has a file in the directory.
func testBus(t *testing.T) (started string) {
	t.Helper()
	daemon, err := Program("dbus-daemon")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	started = filepath.Join(dir, "started")
	if err := os.Mkdir(started, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{systemd, resolve1} {
		write(t, filepath.Join(dir, name+".service"), "[D-BUS Service]\nName="+name+"\nExec=/bin/sh -c \": >"+filepath.Join(started, name)+"\"\n", 0o644)
	}
	config := filepath.Join(dir, "bus.conf")
	write(t, config, `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=`+filepath.Join(dir, "bus")+`</listen><servicedir>`+dir+`</servicedir>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>
`, 0o644)
	cmd := exec.Command(daemon, "--nofork", "--nopidfile", "--print-address", "--config-file="+config)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", strings.TrimSpace(address))
	return started
}

// To look at a service, or to tell it something, does not start it where it is not
// used.
func TestNothingIsStarted(t *testing.T) {
	started := testBus(t)
	s := New()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.ResolvedVersion(ctx); !errors.Is(err, ErrNoResolved) {
		t.Errorf("the resolver's version: %v; want %v", err, ErrNoResolved)
	}
	for name, ask := range map[string]func() error{
		"property": func() error { _, err := s.ResolvedProperty(ctx, "MulticastDNS"); return err },
		"state":    func() error { _, _, err := s.ServiceState(ctx, "dnsmasq.service"); return err },
		"reload":   func() error { return s.ReloadService(ctx, "systemd-resolved.service") },
		"restart":  func() error { return s.RestartService(ctx, "dnsmasq.service") },
		"link":     func() error { return s.SetLinkDNS(ctx, "lo", netip.MustParseAddrPort("127.0.0.1:15353"), nil) },
	} {
		if err := ask(); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v; want that there is no such service", name, err)
		}
	}
	left, err := os.ReadDir(started)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s was started", e.Name())
	}
}

// A bus that does not answer is waited for as long as there is time, and what is said
// then is that.
func TestBusThatHangs(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "bus"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+l.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := New().ServiceState(ctx, "dnsmasq.service"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v; want %v", err, context.DeadlineExceeded)
	}
}

func TestUntil(t *testing.T) {
	failed := errors.New("not yet")
	n := 0
	err := until(t.Context(), time.Minute, func() (bool, error) {
		n++
		return n == 3, failed
	})
	if n != 3 || !errors.Is(err, failed) {
		t.Errorf("%d times, %v; want 3, %v", n, err, failed)
	}
}
