package tls_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	localtls "github.com/tunneld/tunneld/internal/tls"
)

func TestLeafNames(t *testing.T) {
	tests := []struct {
		name string
		san  string // of the certificate; empty: refused
	}{
		{"task-api.local", "task-api.local"},
		{"Task-API.LOCAL.", "task-api.local"},
		{"local", "local"},
		{"a.b.c.task-api.local", "a.b.c.task-api.local"},
		{"task-api.task-api.svc.cluster.local", "task-api.task-api.svc.cluster.local"},
		{"task-api.localhost", "task-api.localhost"},
		{"task-api.test", "task-api.test"},
		{"task-api.dev.example", "task-api.dev.example"},
		{"under_score.local", "under_score.local"},
		{strings.Repeat("a", 63) + ".local", strings.Repeat("a", 63) + ".local"},
		{"127.77.31.4", "127.77.31.4"},
		{"::1", "::1"},
		{"::ffff:127.0.0.1", "127.0.0.1"},

		{"", ""},
		{".", ""},
		{"task-api..local", ""},
		{".local", ""},
		{"*.local", ""},
		{"*.task-api.local", ""},
		{"evillocal", ""},
		{"local.evil.com", ""},
		{"example", ""},
		{"dev.example.com", ""},
		{"www.google.com", ""},
		{"8.8.8.8", ""},
		{"2001:db8::1", ""},
		{"::1%lo", ""},
		{"bücher.local", ""},
		{"a b.local", ""},
		{"a\x00.local", ""},
		{"-a.local", ""},
		{strings.Repeat("a", 64) + ".local", ""},
		{strings.Repeat("a.", 130) + "local", ""},
	}
	ca := load(t, t.TempDir(), "dev.example")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cert, err := ca.Leaf(t.Context(), tt.name)
			if tt.san == "" {
				if !errors.Is(err, localtls.ErrNotPermitted) {
					t.Errorf("%v, %v; want %v", cert, err, localtls.ErrNotPermitted)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			leaf := cert.Leaf
			var sans []string
			sans = append(sans, leaf.DNSNames...)
			for _, ip := range leaf.IPAddresses {
				sans = append(sans, ip.String())
			}
			if len(sans) != 1 || sans[0] != tt.san || len(leaf.URIs)+len(leaf.EmailAddresses) != 0 {
				t.Errorf("is for %v; want %v alone", sans, tt.san)
			}
			if len(cert.Certificate) != 2 {
				t.Fatalf("chain of %d; want leaf and intermediate", len(cert.Certificate))
			}
			if err := verify(ca, parse(t, cert.Certificate[0]), parse(t, cert.Certificate[1]), tt.san); err != nil {
				t.Error(err)
			}
			if again, err := ca.Leaf(t.Context(), tt.san); again != cert || err != nil {
				t.Errorf("asked again: another certificate, or %v", err)
			}
		})
	}
}

func verify(ca *localtls.CA, leaf, intermediate *x509.Certificate, name string) error {
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool(ca.Root()), Intermediates: pool(intermediate), DNSName: name})
	return err
}

func TestLeafIsMinimal(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	cert, err := ca.Leaf(t.Context(), "task-api.local")
	if err != nil {
		t.Fatal(err)
	}
	leaf := cert.Leaf
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature ||
		len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || len(leaf.UnknownExtKeyUsage) != 0 {
		t.Errorf("CA %v, usage %b, %v", leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage)
	}
	if leaf.Subject.CommonName != "" {
		t.Errorf("subject %v", leaf.Subject)
	}
	if leaf.PublicKey.(*ecdsa.PublicKey).Curve != elliptic.P256() {
		t.Error("not P-256")
	}
	if age := time.Since(leaf.NotBefore); age < time.Minute || age > 2*time.Hour {
		t.Errorf("began %v ago", age)
	}
	if left := time.Until(leaf.NotAfter); left > 7*24*time.Hour || left < 7*24*time.Hour-time.Hour {
		t.Errorf("ends in %v; want a week", left)
	}
	other, err := ca.Leaf(t.Context(), "other.local")
	if err != nil {
		t.Fatal(err)
	}
	if leaf.SerialNumber.Cmp(other.Leaf.SerialNumber) == 0 || leaf.SerialNumber.BitLen() < 100 {
		t.Errorf("serial numbers %v and %v", leaf.SerialNumber, other.Leaf.SerialNumber)
	}
	if leaf.PublicKey.(*ecdsa.PublicKey).Equal(other.Leaf.PublicKey) {
		t.Error("two names share a key")
	}
}

// FuzzLeafName checks that what the CA says yes to is accepted by a client
// for that name, so that no name fails only in the browser.
func FuzzLeafName(f *testing.F) {
	for _, s := range []string{"task-api.local", "A.Local.", "1.2.local", "_x.local", "x-.local", "xn--bcher-kva.local", "127.1.2.3", "::1", "127.0.0.1.", "127.1", "0x7f.1.local", "a..local", "*.local", "localhost"} {
		f.Add(s)
	}
	ca := load(f, f.TempDir(), "local")
	f.Fuzz(func(t *testing.T, name string) {
		cert, err := ca.Leaf(t.Context(), name)
		if errors.Is(err, localtls.ErrNotPermitted) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		host := strings.TrimSuffix(name, ".")
		if ip := net.ParseIP(host); ip != nil {
			host = ip.String()
		}
		if err := verify(ca, cert.Leaf, parse(t, cert.Certificate[1]), host); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	})
}

// foreign are certificates that a thief of the key signs, each for something
// that the CA may not sign for, with the name that a client would ask for.
func foreign() map[string]struct {
	cert x509.Certificate
	host string
} {
	dns := func(names ...string) x509.Certificate { return x509.Certificate{DNSNames: names} }
	commonName := x509.Certificate{Subject: pkix.Name{CommonName: "www.google.com"}}
	commonName.DNSNames = []string{"task-api.local"}
	type attempt = struct {
		cert x509.Certificate
		host string
	}
	return map[string]attempt{
		"foreign name":           {dns("www.google.com"), "www.google.com"},
		"mixed names":            {dns("task-api.local", "www.google.com"), "task-api.local"},
		"foreign common name":    {commonName, "www.google.com"},
		"name that ends alike":   {dns("evillocal"), "evillocal"},
		"foreign wildcard":       {dns("*.google.com"), "www.google.com"},
		"foreign IPv4":           {x509.Certificate{IPAddresses: []net.IP{net.IPv4(8, 8, 8, 8)}}, "8.8.8.8"},
		"foreign IPv6":           {x509.Certificate{IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}}, "2001:db8::1"},
		"local name, foreign IP": {x509.Certificate{DNSNames: []string{"task-api.local"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}, "task-api.local"},
		"for clients":            {x509.Certificate{DNSNames: []string{"task-api.local"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, "task-api.local"},
	}
}

func TestThiefOfTheKeyIsConstrained(t *testing.T) {
	dir := t.TempDir()
	ca := load(t, dir, "local")
	th := steal(t, dir)
	for name, attempt := range foreign() {
		if err := verify(ca, th.sign(t, attempt.cert), th.intermediate, attempt.host); err == nil {
			t.Errorf("%s: a client accepts it", name)
		}
	}
	for name, usage := range map[string]x509.ExtKeyUsage{"client": x509.ExtKeyUsageClientAuth, "code": x509.ExtKeyUsageCodeSigning, "mail": x509.ExtKeyUsageEmailProtection} {
		cert := th.sign(t, x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{usage}, URIs: []*url.URL{{Scheme: "spiffe", Host: "corp"}}})
		_, err := cert.Verify(x509.VerifyOptions{Roots: pool(ca.Root()), Intermediates: pool(th.intermediate), KeyUsages: []x509.ExtKeyUsage{usage}})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}

	// An intermediate of the thief's own, even one with fewer rights.
	sub := th
	sub.intermediate = th.sign(t, x509.Certificate{IsCA: true, MaxPathLenZero: true, PermittedDNSDomains: []string{"local"}, DNSNames: []string{"a.local"}})
	leaf := sub.sign(t, x509.Certificate{DNSNames: []string{"task-api.local"}})
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool(ca.Root()), Intermediates: pool(th.intermediate, sub.intermediate), DNSName: "task-api.local"})
	if err == nil {
		t.Error("an intermediate below the intermediate is accepted")
	}

	// What is refused above is refused for what it says: the same hand can
	// sign what is permitted.
	for _, cert := range []x509.Certificate{{DNSNames: []string{"task-api.local"}}, {IPAddresses: []net.IP{net.IPv4(127, 1, 2, 3)}}} {
		host := strings.Join(cert.DNSNames, "")
		if host == "" {
			host = cert.IPAddresses[0].String()
		}
		if err := verify(ca, th.sign(t, cert), th.intermediate, host); err != nil {
			t.Error(err)
		}
	}
}

func TestOneMintingForManyCallers(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	start := make(chan struct{})
	var mu sync.Mutex
	serials := make(map[string]int)
	var callers sync.WaitGroup
	for range 100 {
		callers.Go(func() {
			<-start
			cert, err := ca.Leaf(t.Context(), "task-api.local")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			serials[cert.Leaf.SerialNumber.String()]++
		})
	}
	close(start)
	callers.Wait()
	if len(serials) != 1 {
		t.Errorf("%d certificates were minted", len(serials))
	}
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := load(t, t.TempDir(), "local")
		leaf := func() *x509.Certificate {
			cert, err := ca.Leaf(t.Context(), "task-api.local")
			if err != nil {
				t.Fatal(err)
			}
			if err := verify(ca, cert.Leaf, parse(t, cert.Certificate[1]), "task-api.local"); err != nil {
				t.Errorf("at %v: %v", time.Now(), err)
			}
			return cert.Leaf
		}
		first := leaf()
		time.Sleep(4 * 24 * time.Hour)
		if leaf() != first {
			t.Error("renewed after 4 of 7 days")
		}
		time.Sleep(24 * time.Hour)
		second := leaf()
		if second == first {
			t.Error("not renewed after 5 of 7 days")
		}
		time.Sleep(30 * 24 * time.Hour) // nobody came, and it expired
		if leaf() == second {
			t.Error("an expired certificate was served")
		}
	})
}

func TestLeafDoesNotOutliveTheCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca := load(t, dir, "local")
		end := ca.NotAfter()
		time.Sleep(time.Until(end) - 24*time.Hour)
		cert, err := ca.Leaf(t.Context(), "task-api.local")
		if err != nil {
			t.Fatal(err)
		}
		if !cert.Leaf.NotAfter.Equal(end) || !ca.NotAfter().Equal(end) {
			t.Errorf("ends at %v, the CA at %v; want %v", cert.Leaf.NotAfter, ca.NotAfter(), end)
		}
		checkWhole(t, dir, "local", ca)
	})
}

func TestLeafWithADoneContext(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// It bounds waiting, and there is nothing to wait for.
	if _, err := ca.Leaf(ctx, "task-api.local"); err != nil {
		t.Error(err)
	}
}

func BenchmarkMint(b *testing.B) {
	ca := load(b, b.TempDir(), "local")
	names := make([]byte, 0, 16)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		names = names[:0]
		for n := i; n > 0; n /= 26 {
			names = append(names, byte('a'+n%26))
		}
		if _, err := ca.Leaf(b.Context(), string(names)+".local"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCachedLeaf(b *testing.B) {
	ca := load(b, b.TempDir(), "local")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ca.Leaf(b.Context(), "task-api.local"); err != nil {
			b.Fatal(err)
		}
	}
}
