// Package tls is the local certificate authority: it makes and keeps a CA that
// cannot sign for anything but local names, and mints the certificates that
// the gateway serves.
//
// It puts nothing into a trust store, and it decides nothing about which names
// are served: whoever listens says so. (Importers call it localtls.)
package tls

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// firstStart is why a CA was made where there was none.
const firstStart = "first start"

// A CA is a local certificate authority. Its methods may be called
// concurrently.
type CA struct {
	// Created says why Load made this CA instead of loading one: "first
	// start", or what was wrong with the one it replaced. It is empty if the
	// CA was loaded. A CA that was created is trusted by nobody yet.
	Created string

	authority
	leaves cache
}

// Load returns the CA that is kept in dir, an existing or future directory
// that belongs to the CA's user and is used by one process at a time. It makes
// a new one on the first start and where the one that is there cannot be used:
// it is incomplete or damaged, has expired, is not constrained as ours are, or
// does not permit domain. Then the old one is gone: see Created.
//
// It permits local, localhost, test and domain, which may be empty or below
// one of the three. "local" covers the corp.local of an Active Directory too.
//
// Load does not touch a private key that others can read, which it reports,
// nor files that it cannot read. (Windows has no such mode; there the
// directory's inherited access list must do.)
//
// A clock that is behind the CA's creation replaces nothing either: a new CA
// would be no better, and the clock gets mended.
func Load(dir, domain string) (*CA, error) {
	permitted, err := permittedDomains(domain)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory of the local CA: %w", err)
	}
	a, unusable, err := read(dir)
	if err != nil {
		return nil, fmt.Errorf("load the local CA: %w", err)
	}
	if unusable == "" {
		unusable = a.unusable(domain, time.Now())
	}
	if unusable == "" {
		return &CA{authority: a}, nil
	}
	a, err = newAuthority(permitted, time.Now())
	if err != nil {
		return nil, fmt.Errorf("make a local CA: %w", err)
	}
	if err := write(dir, a); err != nil {
		return nil, fmt.Errorf("keep the new local CA: %w", err)
	}
	return &CA{authority: a, Created: unusable}, nil
}

// Replaced says what was wrong with the CA that this one has replaced when it
// was made; it is empty if there was none.
func (ca *CA) Replaced() string {
	if ca.Created == firstStart {
		return ""
	}
	return ca.Created
}

// RootPEM is the certificate that clients must trust.
func (ca *CA) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.Raw})
}

// Root is the certificate that clients must trust. It must not be changed.
func (ca *CA) Root() *x509.Certificate { return ca.root }

// Fingerprint is the SHA-256 of the root certificate, in hex.
func (ca *CA) Fingerprint() string {
	sum := sha256.Sum256(ca.root.Raw)
	return hex.EncodeToString(sum[:])
}

// NotAfter is when the CA expires; nothing that it signs lives longer.
func (ca *CA) NotAfter() time.Time { return earlier(ca.root.NotAfter, ca.intermediate.NotAfter) }

// Permitted are the domains that the CA can sign for, each with all names
// below it, whoever holds its key.
func (ca *CA) Permitted() []string { return slices.Clone(ca.root.PermittedDNSDomains) }

// permits reports whether a certificate for name (a host name or an address)
// would be accepted by a client that obeys the CA's constraints.
func (ca *CA) permits(name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.IsLoopback() && ip.Zone() == ""
	}
	return validName(name) && covers(ca.root.PermittedDNSDomains, name)
}

// permittedDomains are the DNS constraints for a configured domain.
func permittedDomains(domain string) ([]string, error) {
	domain = normal(domain)
	permitted := []string{"local", "localhost", "test"}
	if domain == "" || covers(permitted, domain) {
		return permitted, nil
	}
	if _, err := netip.ParseAddr(domain); err == nil || !validName(domain) {
		return nil, fmt.Errorf("%q is not a domain that a certificate can be for", domain)
	}
	return append(permitted, domain), nil
}

// covers reports whether name is one of the domains or below one.
func covers(domains []string, name string) bool {
	return slices.ContainsFunc(domains, func(d string) bool {
		return name == d || strings.HasSuffix(name, "."+d)
	})
}

// normal is the form in which names are compared and certified.
func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// validName reports whether name, in normal form, is a host name (or has
// underscores). A wildcard is not.
func validName(name string) bool {
	return len(name) <= 253 && !slices.ContainsFunc(strings.Split(name, "."), func(label string) bool {
		return label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		})
	})
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
