package truststore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

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

// The plan says what the system will ask, and only where it will.
func TestPlanSaysWhatIsAsked(t *testing.T) {
	cert, mac := playedRoot(t), playSecurity(t)
	mine := &Stores{Scope: User, Home: t.TempDir()}
	roots := playedRoots(map[Scope][][]byte{})
	for _, store := range []interface {
		store
		asker
	}{mac.keychain(User), rootStore{User, roots}} {
		step := mine.step(t.Context(), Add, store, cert)
		if want := store.asks(Add); step.Asks != want || want == "" || step.Blocked != "" {
			t.Errorf("to add: %+v; want that it asks %q", step, want)
		}
		if err := store.add(t.Context(), cert); err != nil {
			t.Fatal(err)
		}
		if step := mine.step(t.Context(), Add, store, cert); step.Asks != "" || !step.Done {
			t.Errorf("it is there, and: %+v", step)
		}
		if step := mine.step(t.Context(), Remove, store, cert); step.Asks == "" || step.Asks != store.asks(Remove) {
			t.Errorf("to remove: %+v; want what it asks", step)
		}
	}
	if asks := (rootStore{Machine, roots}).asks(Add); asks != "" {
		t.Errorf("Windows asks %q before it changes the machine's store; want nothing", asks)
	}
	others := &Stores{Scope: User, Home: "/nowhere"}
	if step := others.step(t.Context(), Remove, rootStore{User, roots}, cert); step.Asks != "" || step.Blocked == "" {
		t.Errorf("in another's home: %+v; want that it is blocked, and asks nothing", step)
	}
}

// An add that fails takes back what it has done, and not what somebody had put there.
func TestFailedAddKeepsWhatWasThere(t *testing.T) {
	no := func() error { return errExit }
	for _, tt := range []struct {
		name   string
		before func(*playedSecurity, *x509.Certificate)
		fail   func(*playedSecurity)
	}{
		{"nothing", func(*playedSecurity, *x509.Certificate) {}, func(p *playedSecurity) { p.dialog = no }},
		{"kept", func(p *playedSecurity, c *x509.Certificate) { p.keychains[userLogin] = [][]byte{c.Raw} }, func(p *playedSecurity) { p.dialog = no }},
		{"trusted for something else", func(p *playedSecurity, c *x509.Certificate) {
			p.settings["user"] = map[string]string{appleHash(c.Raw): "<array><dict><key>kSecTrustSettingsResult</key><integer>3</integer></dict></array>"}
		}, func(p *playedSecurity) { p.dialog = no }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mac, cert := playSecurity(t), playedRoot(t)
			tt.before(mac, cert)
			before := mac.state()
			tt.fail(mac)
			s := &Stores{Scope: User, Home: t.TempDir(), Receipts: filepath.Join(t.TempDir(), "receipts")}
			if err := os.Mkdir(s.Receipts, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := s.add(t.Context(), mac.keychain(User), Step{Action: Add, Cert: cert}); !errors.Is(err, errExit) {
				t.Errorf("error %v; want that of the program", err)
			}
			if diff := cmp.Diff(before, mac.state()); diff != "" {
				t.Errorf("afterwards (-before +after):\n%s", diff)
			}
			if _, noted := s.record(Fingerprint(cert)); noted {
				t.Error("the receipt is still there")
			}
		})
	}
}
