package rootstore

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

	"github.com/tunneld/tunneld/internal/leakcheck"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// playedRoot makes a root certificate. All have the same name.
func playedRoot(t testing.TB) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{Organization: []string{"tunneld"}, CommonName: "tunneld local CA"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
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

func wantPresence(t *testing.T, what string, s place.Store, cert *x509.Certificate, want place.Presence) {
	t.Helper()
	if got, err := s.Look(t.Context(), cert); got != want || err != nil {
		t.Errorf("%s: the certificate is there %d, error %v; want %d", what, got, err, want)
	}
}

func wantSearch(t *testing.T, s place.Searcher, cert *x509.Certificate) {
	t.Helper()
	if got, err := s.Search(t.Context(), place.Fingerprint(cert)); !cert.Equal(got) || err != nil {
		t.Errorf("searched for by its fingerprint: %v, error %v; want it", got, err)
	}
	if got, err := s.Search(t.Context(), strings.Repeat("0", 64)); got != nil || err != nil {
		t.Errorf("searched for one that is not there: %v, error %v; want none", got, err)
	}
}
