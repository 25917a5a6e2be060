package place

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/tunneld/tunneld/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func newCert(t testing.TB) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
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

func TestCertificates(t *testing.T) {
	a, b := newCert(t), newCert(t)
	broken := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, []byte("\n")) }
	for _, tt := range []struct {
		name  string
		data  []byte
		alone bool
		all   int
	}{
		{"one", Encode(a), true, 1},
		{"one with words", join([]byte("of mine"), Encode(a), []byte("that is all")), true, 1},
		{"two", join(Encode(a), Encode(b)), false, 2},
		{"behind a broken one", join(broken, Encode(a)), false, 1},
		{"broken", broken, false, 0},
		{"not in PEM", a.Raw, false, 0},
		{"nothing", nil, false, 0},
	} {
		if got := Certificate(tt.data); (got != nil) != tt.alone || tt.alone && !got.Equal(a) {
			t.Errorf("%s: alone there is %v; want %v", tt.name, got != nil, tt.alone)
		}
		if got := Certificates(tt.data); len(got) != tt.all {
			t.Errorf("%s: %d certificates; want %d", tt.name, len(got), tt.all)
		}
	}
	if got := Alias(Fingerprint(a)); len(got) != len("tunneld-")+16 {
		t.Errorf("alias %q", got)
	}
}
