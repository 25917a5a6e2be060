//go:build verifiers

package verifiers_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	localtls "github.com/tunneld/tunneld/internal/tls"
)

// An authority is a CA in the hands of a thief, who has what its state directory
// holds. Whoever is asked trusts its root.
type authority struct {
	// own is the CA as the product uses it; nil for one that is not ours.
	own                *localtls.CA
	root, intermediate *x509.Certificate
	key                *ecdsa.PrivateKey // the intermediate's
}

// ours is a CA of the product for a configured domain, and all that can be
// stolen of it.
func ours(t *testing.T, domain string) *authority {
	t.Helper()
	dir := t.TempDir()
	ca, err := localtls.Load(dir, domain)
	if err != nil {
		t.Fatal(err)
	}
	// A leaf is minted first: that must not leave a key behind, either.
	if _, err := ca.Leaf(t.Context(), "task-api.local"); err != nil {
		t.Fatal(err)
	}
	a := &authority{own: ca, root: ca.Root()}
	a.key = onlyKey(t, dir)
	a.intermediate = parse(t, readPEM(t, filepath.Join(dir, "ca-intermediate.pem"), "CERTIFICATE"))
	if !a.key.PublicKey.Equal(a.intermediate.PublicKey) {
		t.Error("the key on disk is not the intermediate's")
	}
	if a.key.PublicKey.Equal(a.root.PublicKey) {
		t.Error("the key on disk is the root's")
	}
	if err := a.intermediate.CheckSignatureFrom(a.root); err != nil {
		t.Errorf("the intermediate is not the root's: %v", err)
	}
	return a
}

// onlyKey finds every private key below dir, in PEM as well as bare, and wants
// exactly one.
func onlyKey(t *testing.T, dir string) *ecdsa.PrivateKey {
	t.Helper()
	var found []crypto.PrivateKey
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		blocks := [][]byte{data}
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" {
				files = append(files, path)
			}
			blocks = append(blocks, block.Bytes)
		}
		for _, der := range blocks {
			if key := privateKey(der); key != nil {
				found = append(found, key)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || len(files) != 1 {
		t.Fatalf("%d private keys, in %v; want one", len(found), files)
	}
	return found[0].(*ecdsa.PrivateKey)
}

func privateKey(der []byte) crypto.PrivateKey {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key
	}
	return nil
}

// unconstrained is a local CA as everybody else makes one: it can sign for
// anything. It is for comparison.
func unconstrained(t *testing.T) *authority {
	t.Helper()
	a := new(authority)
	var rootKey *ecdsa.PrivateKey
	a.root, rootKey = signCA(t, x509.Certificate{Subject: pkix.Name{CommonName: "any local root"}}, nil, nil)
	a.intermediate, a.key = signCA(t, x509.Certificate{Subject: pkix.Name{CommonName: "any local intermediate"}}, a.root, rootKey)
	return a
}

// rootPEM is what whoever is asked is told to trust.
func (a *authority) rootPEM() []byte { return certPEM(a.root) }

// product is the chain that the daemon shows for a name that it may sign for,
// and for any other authority the same, made by hand.
func (a *authority) product(t *testing.T, name string) tls.Certificate {
	t.Helper()
	if a.own != nil {
		cert, err := a.own.Leaf(context.WithoutCancel(t.Context()), name)
		if err != nil {
			t.Fatal(err)
		}
		return *cert
	}
	return a.stolen(t, named(name))
}

// stolen is a chain that the thief signs.
func (a *authority) stolen(t *testing.T, template x509.Certificate) tls.Certificate {
	t.Helper()
	return chain(t, template, a.intermediate, a.key)
}

// below is a chain through a CA certificate that the thief signs with the stolen
// key. What the template leaves out, it does not have: no constraints.
func (a *authority) below(t *testing.T, ca, leaf x509.Certificate) tls.Certificate {
	t.Helper()
	sub, key := signCA(t, ca, a.intermediate, a.key)
	out := chain(t, leaf, sub, key)
	out.Certificate = append(out.Certificate, a.intermediate.Raw)
	return out
}

// chain is a leaf for template and what signed it.
func chain(t *testing.T, template x509.Certificate, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	if len(template.ExtKeyUsage) == 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	if len(template.Subject.ToRDNSequence()) == 0 {
		template.Subject = pkix.Name{Organization: []string{"thief"}}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, parent.Raw}, PrivateKey: key}
}

// signCA makes a CA certificate that is not ours: a root if it has no parent.
func signCA(t *testing.T, template x509.Certificate, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.BasicConstraintsValid, template.IsCA, template.MaxPathLen = true, true, -1
	if parent == nil {
		parent, parentKey = &template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der), key
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func parse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func readPEM(t *testing.T, path, kind string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		t.Fatalf("%s holds no %s", path, kind)
	}
	return block.Bytes
}

func certPEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = slices.Concat(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return out
}
