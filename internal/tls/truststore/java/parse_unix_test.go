//go:build unix

package java

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

	"github.com/google/go-cmp/cmp"
	"github.com/tunneld/tunneld/internal/leakcheck"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestParseList(t *testing.T) {
	a, b := playedRoot(t), playedRoot(t)
	out := "Keystore type: JKS\nYour keystore contains 2 entries\n\nAlias name: debian:a.pem\nCreation date: Nov 26, 2026\nEntry type: trustedCertEntry\n\n" +
		string(place.Encode(a)) + "\n\n*******\n\nAlias name: b c\nEntry type: trustedCertEntry\n\n" + string(place.Encode(b))
	var got []string
	for _, e := range parseList(out) {
		got = append(got, e.alias+" "+place.Fingerprint(e.cert))
	}
	if diff := cmp.Diff([]string{"debian:a.pem " + place.Fingerprint(a), "b c " + place.Fingerprint(b)}, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func FuzzParseList(f *testing.F) {
	f.Add("Alias name: x\nEntry type: trustedCertEntry\n\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	f.Fuzz(func(t *testing.T, out string) {
		for _, e := range parseList(out) {
			if strings.Contains(e.alias, "\n") {
				t.Errorf("alias %q", e.alias)
			}
		}
	})
}

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
