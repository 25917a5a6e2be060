package tls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// life is how long a leaf is good for; it is renewed long before. It exists in
// memory only, so that is also how long a stolen one is of use.
const life = 7 * 24 * time.Hour

// ErrNotPermitted says that the CA's constraints rule a name out, so that no
// client would accept a certificate for it.
var ErrNotPermitted = errors.New("the local CA may not sign for it")

// Leaf returns a certificate, with its chain and key, for exactly this host
// name or IP address. It is minted when it is first asked for, and kept until
// two thirds of its life are over. ctx bounds the wait for somebody else's
// minting of the same one. A CA that has expired is renewed first. The error Is
// ErrNotPermitted for a name outside the
// constraints and for a wildcard, which OpenSSL does not accept one level
// below a top-level domain.
func (ca *CA) Leaf(ctx context.Context, name string) (*tls.Certificate, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		name = ip.Unmap().String()
	} else {
		name = normal(name)
	}
	i, err := ca.issuer(ctx)
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", name, err)
	}
	if !i.permits(name) {
		return nil, fmt.Errorf("certificate for %q: %w", name, ErrNotPermitted)
	}
	cert, err := i.leaves.get(ctx, name, func() (*tls.Certificate, error) { return i.mint(name) })
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", name, err)
	}
	return cert, nil
}

// mint makes a new leaf.
func (a authority) mint(name string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := a.certify(&key.PublicKey, name, life)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.intermediate.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// certify signs a leaf. The name stands only where clients look for it, in
// the subject alternative name; the subject is for people, since a common name
// ends at 64 characters, and some verifiers compare one with the host name.
func (a authority) certify(key *ecdsa.PublicKey, name string, life time.Duration) (*x509.Certificate, error) {
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"tunneld local certificate"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              earlier(now.Add(life), a.end()),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		template.IPAddresses = []net.IP{ip.AsSlice()}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.intermediate, key, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
