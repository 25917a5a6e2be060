package tls_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	localtls "github.com/tunneld/tunneld/internal/tls"
)

const (
	rootFile         = "ca.pem"
	intermediateFile = "ca-intermediate.pem"
	keyFile          = "ca-key.pem"
)

// crashDir is set for the process that TestKilledAtAnyTime kills.
const crashDir = "TUNNELD_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		replaceForEver(dir)
	}
	goleak.VerifyTestMain(m)
}

// replaceForEver replaces the CA in dir again and again, at a start and while it is
// in use, and writes a line for each.
func replaceForEver(dir string) {
	for i := 0; ; i++ {
		ca, err := localtls.Load(dir, []string{"a.example", "b.example"}[i%2])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(ca.Created)
		if err := ca.Renew(context.Background(), "asked for"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("does not permit")
	}
}

func load(t testing.TB, dir, domain string) *localtls.CA {
	t.Helper()
	ca, err := localtls.Load(dir, domain)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// keys are the files in dir that hold a private key.
func keys(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" {
				out = append(out, e.Name())
			}
		}
	}
	return out
}

// checkWhole checks that dir has exactly the three files of a CA, and that
// loading them gives it.
func checkWhole(t testing.TB, dir, domain string, ca *localtls.CA) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 {
		t.Errorf("files: %v", entries)
	}
	if got := keys(t, dir); len(got) != 1 || got[0] != keyFile {
		t.Errorf("private keys in %v; want one, in %s", got, keyFile)
	}
	again := load(t, dir, domain)
	if again.Created != "" || again.Fingerprint() != ca.Fingerprint() {
		t.Errorf("loaded again it was made anew (%q)", again.Created)
	}
}

func pemFile(t testing.TB, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%s is not PEM", name)
	}
	return block.Bytes
}

// A thief has what the state directory holds.
type thief struct {
	root, intermediate *x509.Certificate
	key                *ecdsa.PrivateKey
}

func steal(t testing.TB, dir string) thief {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(pemFile(t, dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	return thief{
		root:         parse(t, pemFile(t, dir, rootFile)),
		intermediate: parse(t, pemFile(t, dir, intermediateFile)),
		key:          key.(*ecdsa.PrivateKey),
	}
}

// sign signs template, with what every certificate needs filled in.
func (th thief) sign(t testing.TB, template x509.Certificate) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(4711)
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(24 * time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign
	template.BasicConstraintsValid = true
	if len(template.Subject.ToRDNSequence()) == 0 {
		template.Subject = pkix.Name{Organization: []string{"thief"}}
	}
	if len(template.ExtKeyUsage) == 0 && !template.IsCA {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, th.intermediate, th.key.Public(), th.key)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func pool(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}
