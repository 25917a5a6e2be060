package tls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	localtls "github.com/tunneld/tunneld/internal/tls"
)

// What calls itself a root of ours is looked at before anybody trusts it.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	ca := load(t, dir, "dev.example.com")
	domains, err := localtls.Bounds(ca.Root())
	if diff := cmp.Diff([]string{"local", "localhost", "test", "dev.example.com"}, domains); err != nil || diff != "" {
		t.Fatalf("ours: %v\n%s", err, diff)
	}
	tests := []struct {
		name   string
		change func(*x509.Certificate)
		err    string
	}{
		{"as ours are", func(*x509.Certificate) {}, ""},
		{"without constraints", func(c *x509.Certificate) { c.PermittedDNSDomains, c.PermittedIPRanges = nil, nil }, "not constrained"},
		{"for every name", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{""} }, "not constrained"},
		{"constraints that are not critical", func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = false }, "not constrained"},
		{"for every address", func(c *x509.Certificate) { c.PermittedIPRanges = nil }, "not constrained"},
		{"for more addresses", func(c *x509.Certificate) {
			c.PermittedIPRanges = append(c.PermittedIPRanges, &net.IPNet{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)})
		}, "not constrained"},
		{"any length of path", func(c *x509.Certificate) { c.MaxPathLen = -1 }, "not constrained"},
		{"for a top-level domain", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"local", "com"} }, "every name in com"},
		{"for a registry", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"co.uk"} }, "every name in co.uk"},
		{"a name that moves the cursor", func(c *x509.Certificate) { c.Subject.CommonName = "a\x1b[1Ab" }, "more than text"},
		{"no CA", func(c *x509.Certificate) { c.IsCA, c.MaxPathLen = false, 0 }, "no root"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tunneld local root"},
				NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
				IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign,
				PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"local"}, PermittedIPRanges: ca.Root().PermittedIPRanges,
			}
			tt.change(template)
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := localtls.Bounds(parse(t, der)); (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v; want %q", err, tt.err)
			}
		})
	}
	if _, err := localtls.Bounds(steal(t, dir).intermediate); err == nil {
		t.Error("the intermediate is taken for a root")
	}
}
