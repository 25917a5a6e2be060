package tls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/tunneld/tunneld/internal/suffix"
)

const (
	// years that root and intermediate live.
	years = 5
	// backdate is how far in the past a certificate's life begins, so that a
	// client whose clock is behind, such as a virtual machine's, accepts it.
	backdate = time.Hour
	// Lead is how long before its end a CA is replaced, so that a client whose clock
	// is ahead is shown none that has expired.
	Lead = time.Hour
)

// An authority is what signs: a root that clients trust, an intermediate that
// it signed, and the intermediate's key. There is no root key: newAuthority
// dropped it, so a thief of all that there is can sign for the permitted names
// only, and cannot make another intermediate.
type authority struct {
	root, intermediate *x509.Certificate
	key                *ecdsa.PrivateKey
}

// newAuthority makes an authority that can sign for these domains and for
// loopback addresses.
func newAuthority(permitted []string, now time.Time) (authority, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	root, err := signCA("root", permitted, now, rootKey, nil, rootKey)
	if err != nil {
		return authority{}, fmt.Errorf("root certificate: %w", err)
	}
	intermediate, err := signCA("intermediate", permitted, now, key, root, rootKey)
	if err != nil {
		return authority{}, fmt.Errorf("intermediate certificate: %w", err)
	}
	return authority{root: root, intermediate: intermediate, key: key}, nil
}

// signCA makes a CA certificate for key: an intermediate if it has a parent,
// else a root.
func signCA(what string, permitted []string, now time.Time, key *ecdsa.PrivateKey, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	name, err := subject(what, key)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		// x509 makes a random serial number of up to 20 bytes.
		Subject:               name,
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.AddDate(years, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1,
		// Both certificates are constrained: Java takes a root for a bare
		// name and key and ignores its constraints, but obeys an
		// intermediate's; other verifiers, and a thief of a root key that
		// should not exist, are bound by the root's. IP ranges are listed
		// since a certificate without any could be for every address.
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         permitted,
		PermittedIPRanges:           loopback(),
	}
	if parent == nil {
		parent = template
	} else {
		template.MaxPathLen, template.MaxPathLenZero = 0, true
		// Nor mail, code or clients.
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// subject names a CA certificate so that the roots of two machines, or an old
// and a new one, can be told apart in a trust store: by machine, and by the
// beginning of the SHA-256 of the public key. It is the common name since
// that is what trust stores list, and iOS shows a root only if it has one.
func subject(what string, key *ecdsa.PrivateKey) (pkix.Name, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return pkix.Name{}, err
	}
	sum := sha256.Sum256(spki)
	words := []string{"tunneld local", what, hex.EncodeToString(sum[:4])}
	host, err := os.Hostname()
	if host, _, _ = strings.Cut(host, "."); err == nil && host != "" {
		// A common name has at most 64 characters (RFC 5280 appendix A).
		words = slices.Insert(words, 2, strings.ToValidUTF8(host[:min(len(host), 24)], ""))
	}
	return pkix.Name{Organization: []string{"tunneld"}, CommonName: strings.Join(words, " ")}, nil
}

// loopback are the addresses that a local certificate can be for.
func loopback() []*net.IPNet {
	return []*net.IPNet{
		{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
		{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
	}
}

// unusable says why the authority cannot serve domain at this time; empty if
// it can.
func (a authority) unusable(domain string, now time.Time) string {
	switch {
	case !a.key.PublicKey.Equal(a.intermediate.PublicKey):
		return "its key and its intermediate certificate do not belong together"
	case a.root.CheckSignatureFrom(a.root) != nil:
		return "its root certificate has not signed itself"
	case a.intermediate.CheckSignatureFrom(a.root) != nil:
		return "its intermediate certificate is not signed by its root"
	case !constrained(a.intermediate, 0) || !slices.Equal(a.root.PermittedDNSDomains, a.intermediate.PermittedDNSDomains):
		return "it is not constrained to local names"
	}
	if _, err := Bounds(a.root); err != nil {
		return err.Error()
	}
	if why := a.over(now); why != "" {
		return why
	}
	if domain = normal(domain); domain != "" && !covers(a.root.PermittedDNSDomains, domain) {
		return fmt.Sprintf("it does not permit the domain %s", domain)
	}
	return ""
}

// end is when the authority expires.
func (a authority) end() time.Time { return earlier(a.root.NotAfter, a.intermediate.NotAfter) }

// over says that the authority's life is over, or about to be; empty if it is not.
func (a authority) over(now time.Time) string {
	switch end := a.end(); {
	case now.Before(end.Add(-Lead)):
		return ""
	case now.After(end):
		return "it expired on " + end.Format(time.DateOnly)
	default:
		return "it was about to expire, on " + end.Format(time.DateOnly)
	}
}

// constrained reports whether cert is a CA certificate with constraints as
// signCA writes them, whatever the domains.
func constrained(cert *x509.Certificate, pathLen int) bool {
	domains := cert.PermittedDNSDomains
	return cert.IsCA && cert.MaxPathLen == pathLen && cert.PermittedDNSDomainsCritical &&
		len(domains) > 0 && !slices.ContainsFunc(domains, func(d string) bool { return !validName(d) }) &&
		slices.EqualFunc(cert.PermittedIPRanges, loopback(), func(a, b *net.IPNet) bool {
			return a.IP.Equal(b.IP) && slices.Equal(a.Mask, b.Mask)
		})
}

// Bounds returns the domains that a root certificate can be used for, each with all
// names below it. The error says that it is not constrained as our roots are: such
// a one could be used for anything, and nobody should trust it for our sake.
func Bounds(root *x509.Certificate) ([]string, error) {
	if root.CheckSignatureFrom(root) != nil {
		return nil, errors.New("it has not signed itself, so it is no root")
	}
	if !constrained(root, 1) {
		return nil, errors.New("it is not constrained to local names")
	}
	if strings.ContainsFunc(root.Subject.CommonName, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return nil, errors.New("its name is more than text, which trust stores show")
	}
	for _, domain := range root.PermittedDNSDomains {
		if suffix.Public(domain) {
			return nil, fmt.Errorf("it could be used for every name in %s", domain)
		}
	}
	return slices.Clone(root.PermittedDNSDomains), nil
}
