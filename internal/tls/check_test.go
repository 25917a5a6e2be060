package tls_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	localtls "github.com/tunneld/tunneld/internal/tls"
)

func publicPEM(t testing.TB, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// chain parses leaf and intermediate, and nothing else.
func chain(t testing.TB, text []byte) (leaf, intermediate *x509.Certificate) {
	t.Helper()
	first, rest := pem.Decode(text)
	second, rest := pem.Decode(rest)
	if first == nil || second == nil || len(rest) != 0 || first.Type != "CERTIFICATE" || second.Type != "CERTIFICATE" {
		t.Fatalf("not two certificates:\n%s", text)
	}
	return parse(t, first.Bytes), parse(t, second.Bytes)
}

func TestCheckLeaf(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	key := p256(t)
	text, err := ca.CheckLeaf(t.Context(), publicPEM(t, key.Public()))
	if err != nil {
		t.Fatal(err)
	}
	leaf, intermediate := chain(t, text)
	checkItIsForChecks(t, ca, leaf, intermediate)
	if !key.PublicKey.Equal(leaf.PublicKey) {
		t.Error("it is for another key")
	}
	if err := verify(ca, leaf, intermediate, "localhost"); err == nil {
		t.Error("it is for localhost, too")
	}
	again, err := ca.CheckLeaf(t.Context(), publicPEM(t, key.Public()))
	if err != nil || bytes.Equal(again, text) {
		t.Errorf("asked again, it is the same one (%v)", err)
	}
	// It is not what the gateway serves.
	served, err := ca.Leaf(t.Context(), "127.0.0.1")
	if err != nil || served.Leaf.Equal(leaf) {
		t.Errorf("it is served (%v)", err)
	}
}

func checkItIsForChecks(t *testing.T, ca *localtls.CA, leaf, intermediate *x509.Certificate) {
	t.Helper()
	if err := verify(ca, leaf, intermediate, "127.0.0.1"); err != nil {
		t.Error(err)
	}
	if len(leaf.IPAddresses) != 1 || leaf.IPAddresses[0].String() != "127.0.0.1" ||
		len(leaf.DNSNames)+len(leaf.URIs)+len(leaf.EmailAddresses) != 0 || leaf.Subject.CommonName != "" {
		t.Errorf("is for %v, %v, %v", leaf.IPAddresses, leaf.DNSNames, leaf.Subject)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("CA %v, usage %b, %v", leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage)
	}
	if left := time.Until(leaf.NotAfter); left > 10*time.Minute || left < 5*time.Minute {
		t.Errorf("good for %v; want some minutes", left)
	}
}

func TestCheckLeafRefuses(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	good := publicPEM(t, p256(t).Public())
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(p256(t))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	offCurve := bytes.Clone(block.Bytes)
	offCurve[len(offCurve)-1] ^= 1
	tests := map[string][]byte{
		"nothing":                nil,
		"no PEM":                 []byte("hello"),
		"DER":                    block.Bytes,
		"two keys":               append(bytes.Clone(good), good...),
		"a key and more":         append(bytes.Clone(good), "more"...),
		"a private key":          pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"a private key, alleged": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: private}),
		"a certificate":          ca.RootPEM(),
		"P-384":                  publicPEM(t, p384.Public()),
		"RSA":                    publicPEM(t, small.Public()),
		"Ed25519":                publicPEM(t, ed),
		"a point off the curve":  pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: offCurve}),
		"half a key":             pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: block.Bytes[:40]}),
		"a key with a tail":      pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: append(bytes.Clone(block.Bytes), 0)}),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ca.CheckLeaf(t.Context(), text)
			if !errors.Is(err, localtls.ErrKey) || got != nil {
				t.Errorf("%s, %v; want %v", got, err, localtls.ErrKey)
			}
		})
	}
}

// FuzzCheckLeaf checks that whatever is certified is so for a check and nothing
// else, and for a key that the text holds.
func FuzzCheckLeaf(f *testing.F) {
	ca := load(f, f.TempDir(), "local")
	good := publicPEM(f, p256(f).Public())
	f.Add(good)
	f.Add(append([]byte("text\n"), good...))
	f.Add(bytes.Replace(good, []byte("\n"), []byte("\nproc: x\n\n"), 1))
	f.Add(ca.RootPEM())
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := ca.CheckLeaf(t.Context(), text)
		if err != nil {
			if !errors.Is(err, localtls.ErrKey) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v; want %v", err, localtls.ErrKey)
			}
			return
		}
		leaf, intermediate := chain(t, got)
		checkItIsForChecks(t, ca, leaf, intermediate)
		block, _ := pem.Decode(text)
		if block == nil || !bytes.Equal(publicPEM(t, leaf.PublicKey), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: block.Bytes})) {
			t.Errorf("it is for another key than that of %q", text)
		}
	})
}
