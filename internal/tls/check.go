package tls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"slices"
	"time"
)

const (
	// checkHost is what a check's certificate is for: whoever asks for one listens
	// there himself, and no forward does.
	checkHost = "127.0.0.1"
	// checkLife bounds how long it is good for: several browsers are started one
	// after the other.
	checkLife = 10 * time.Minute
)

// ErrKey says that something is not what CheckLeaf certifies.
var ErrKey = errors.New("not the public key of a P-256 pair in one PEM block")

// CheckLeaf certifies a public key, a PEM block "PUBLIC KEY" (RFC 7468, section 13),
// for 127.0.0.1 and for some minutes. It returns leaf and intermediate in PEM. With
// it somebody can try which clients trust the CA without a private key having to
// cross the socket; whether he has the private key does not matter, since without
// it the certificate is of no use. An error may be ErrKey.
func (ca *CA) CheckLeaf(ctx context.Context, publicKey []byte) ([]byte, error) {
	key, err := parsePublicKey(publicKey)
	if err != nil {
		return nil, err
	}
	i, err := ca.issuer(ctx)
	if err != nil {
		return nil, err
	}
	leaf, err := i.certify(key, checkHost, checkLife)
	if err != nil {
		return nil, err
	}
	return slices.Concat(pemOf(leaf), pemOf(i.intermediate)), nil
}

// parsePublicKey never says what it has read: somebody may send a private key.
func parsePublicKey(data []byte) (*ecdsa.PublicKey, error) {
	der, err := onlyBlock(data, "PUBLIC KEY")
	if err != nil {
		return nil, ErrKey
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, ErrKey
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, ErrKey
	}
	return key, nil
}
