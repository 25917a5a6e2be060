package held

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func heldCert(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func heldBundle(certs ...*x509.Certificate) []byte {
	text := []byte("# a bundle\n")
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

func TestSystemHolds(t *testing.T) {
	a, b, same := heldCert(t, "a"), heldCert(t, "b"), heldCert(t, "a")
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	s := &System{Bundles: []string{first, second}}
	at := time.Now()
	write := func(path string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Second) // whatever the clock of the file system can tell apart
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, cert *x509.Certificate, held, known bool) {
		t.Helper()
		for range 2 { // the second time from what was found
			if h, k := s.Holds(cert); h != held || k != known {
				t.Errorf("%s: held %v, known %v; want %v, %v", what, h, k, held, known)
			}
		}
	}
	check("no file", a, false, false)
	write(second, heldBundle(b, a))
	check("among others", a, true, true)
	check("another of the name", same, false, true)
	check("asked for the first again", a, true, true)
	write(second, heldBundle(b))
	check("taken out", a, false, true)
	write(second, bytes.Replace(heldBundle(b, a), []byte("\n-----END"), []byte("\nbad\n-----END"), 1))
	check("behind a broken one", a, true, true)
	write(first, heldBundle(b))
	check("only in one that does not count", a, false, true)
	write(first, heldBundle(a)) // of the same size
	check("replaced by another", a, true, true)
	at = at.Add(-time.Second)
	write(first, heldBundle(a, b))
	check("replaced within the grain of the clock", b, true, true)
	at = at.Add(-time.Second)
	write(first, heldBundle(a))
	check("and back", b, false, true)
	write(first, nil)
	check("empty", a, false, true)
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(first, 0o700); err != nil {
		t.Fatal(err)
	}
	check("a directory", a, false, false)
}

func BenchmarkSystemHolds(b *testing.B) {
	cert := &x509.Certificate{Raw: []byte("none")}
	b.Run("again", func(b *testing.B) {
		var s System
		for b.Loop() {
			s.Holds(cert)
		}
	})
	b.Run("anew", func(b *testing.B) {
		for b.Loop() {
			new(System).Holds(cert)
		}
	})
}
