//go:build conformance

// Package dns_test shows by programs of others that internal/dns is right: by
// dig, with the queries that ISC and RFC 8906 publish; and by NSD and Knot DNS,
// which serve the same names, and are asked the same questions. A program that
// is missing is a failure, so that nothing is passed over in silence.
package dns_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/dns"
)

// servedAlone makes the test's program a server and nothing else, whose memory
// can be measured. Its value is where to write the address.
const servedAlone = "TUNNELD_TEST_DNS_SERVER"

func TestMain(m *testing.M) {
	if file := os.Getenv(servedAlone); file != "" {
		if err := serveAlone(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serveAlone answers for names until SIGTERM.
func serveAlone(file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := dns.Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		return err
	}
	s := new(dns.Server)
	s.SetZone(dns.NewZone(names()))
	if err := os.WriteFile(file+".new", []byte(l.Addr().String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

var loopback = netip.MustParseAddr("127.0.0.1")

// serve answers for names on a free port for the length of the test.
func serve(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := dns.Listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	s := new(dns.Server)
	s.SetZone(dns.NewZone(names()))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr()
}

// program returns where a program is, which others than root may not have in
// their PATH.
func program(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is not installed", name)
	}
	return path
}
