// Package storetest has what tests of trust stores share. It is for tests only.
package storetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

// Root makes a root certificate of this common name, with a key of its own.
func Root(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()), // NSS takes each once
		Subject:               pkix.Name{Organization: []string{"tunneld"}, CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
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

// WantPresence checks how much of a certificate a store has.
func WantPresence(t *testing.T, what string, s place.Store, cert *x509.Certificate, want place.Presence) {
	t.Helper()
	if got, err := s.Look(t.Context(), cert); got != want || err != nil {
		t.Errorf("%s: the certificate is there %d, error %v; want %d", what, got, err, want)
	}
}

// WantSearch checks that a store finds a certificate by its fingerprint, and no other.
func WantSearch(t *testing.T, s place.Searcher, cert *x509.Certificate) {
	t.Helper()
	if got, err := s.Search(t.Context(), place.Fingerprint(cert)); !cert.Equal(got) || err != nil {
		t.Errorf("searched for by its fingerprint: %v, error %v; want it", got, err)
	}
	if got, err := s.Search(t.Context(), strings.Repeat("0", 64)); got != nil || err != nil {
		t.Errorf("searched for one that is not there: %v, error %v; want none", got, err)
	}
}
