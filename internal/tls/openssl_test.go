package tls_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	localtls "github.com/tunneld/tunneld/internal/tls"
)

// These ask a verifier that shares no code with the one that Go has.

func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	return string(out), err
}

func needOpenSSL(t *testing.T) {
	t.Helper()
	version, err := openssl(t, "version")
	if err != nil {
		t.Skipf("openssl is not installed: %v", err)
	}
	if !strings.HasPrefix(version, "OpenSSL ") {
		t.Skipf("%s is not the OpenSSL whose options and messages are known here", strings.TrimSpace(version))
	}
}

func writePEM(t *testing.T, path string, certs ...*x509.Certificate) string {
	t.Helper()
	var data []byte
	for _, c := range certs {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenSSLVerify(t *testing.T) {
	needOpenSSL(t)
	dir := t.TempDir()
	ca := load(t, dir, "local")
	th := steal(t, dir)
	verify := func(leaf *x509.Certificate, host string) (string, error) {
		path := writePEM(t, filepath.Join(t.TempDir(), "leaf.pem"), leaf)
		check := "-verify_hostname"
		if net.ParseIP(host) != nil {
			check = "-verify_ip"
		}
		return openssl(t, "verify", "-x509_strict", "-purpose", "sslserver", "-no-CApath", "-no-CAstore",
			"-CAfile", filepath.Join(dir, rootFile), "-untrusted", filepath.Join(dir, intermediateFile), check, host, path)
	}
	for _, name := range []string{"task-api.local", "a.b.task-api.localhost", "127.77.31.4", "::1"} {
		cert, err := ca.Leaf(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := verify(cert.Leaf, name); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	for name, attempt := range foreign() {
		out, err := verify(th.sign(t, attempt.cert), attempt.host)
		if err == nil {
			t.Errorf("%s: accepted\n%s", name, out)
		}
		if attempt.cert.IPAddresses == nil && strings.HasPrefix(name, "foreign") && !strings.Contains(out, "subtree violation") && !strings.Contains(out, "hostname mismatch") {
			t.Errorf("%s: refused, but not for its name:\n%s", name, out)
		}
	}
}

func TestOpenSSLClient(t *testing.T) {
	needOpenSSL(t)
	dir := t.TempDir()
	ca := load(t, dir, "local")
	addr := serveTLS(t, ca)
	host := addr.IP.String()
	tests := []struct {
		name string
		args []string
		out  string // of a refusal
	}{
		{name: "served name", args: []string{"-servername", "task-api.local", "-verify_hostname", "task-api.local"}},
		{name: "TLS 1.2", args: []string{"-servername", "task-api.local", "-verify_hostname", "task-api.local", "-tls1_2"}},
		{name: "upper case", args: []string{"-servername", "TASK-API.local", "-verify_hostname", "task-api.local"}},
		{name: "no SNI", args: []string{"-noservername", "-verify_ip", host}},
		{name: "address as SNI", args: []string{"-servername", host, "-verify_ip", host}},
		{name: "foreign SNI", args: []string{"-servername", "printer.local"}, out: "alert number 112"},
		{name: "foreign SNI, TLS 1.2", args: []string{"-servername", "printer.local", "-tls1_2"}, out: "alert number 112"},
		{name: "TLS 1.1", args: []string{"-servername", "task-api.local", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"}, out: "alert"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"s_client", "-connect", addr.String(), "-CAfile", filepath.Join(dir, rootFile), "-verify_return_error"}, tt.args...)
			out, err := openssl(t, args...)
			if tt.out == "" {
				if err != nil || !strings.Contains(out, "Verify return code: 0 (ok)") {
					t.Errorf("%v\n%s", err, out)
				}
				return
			}
			if err == nil || !strings.Contains(out, tt.out) {
				t.Errorf("%v; want %q in\n%s", err, tt.out, out)
			}
		})
	}
}

// serveTLS answers handshakes until the test ends.
func serveTLS(t *testing.T, ca *localtls.CA) *net.TCPAddr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr)
	conf := ca.ServerConfig(only("task-api.local"), addr.AddrPort().Addr())
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				c := tls.Server(conn, conf)
				defer c.Close()
				_ = c.HandshakeContext(ctx) // the client tells
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		ln.Close()
		serving.Wait()
	})
	return addr
}
