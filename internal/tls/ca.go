// Package tls is the local certificate authority: it makes and keeps a CA that
// cannot sign for anything but local names, and mints the certificates that
// the gateway serves.
//
// It puts nothing into a trust store, and it decides nothing about which names
// are served: whoever listens says so. (Importers call it localtls.)
package tls

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/suffix"
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
	// Renewed, if set, is called after each renewal, by whoever came across it. It
	// must be set before anything else is called.
	Renewed func()

	dir       string
	permitted []string // for the next one
	live      atomic.Pointer[issuer]
	renewing  chan struct{} // cap 1: has an element while the files are replaced
}

// An issuer is an authority with what it has signed. A new authority begins
// without leaves.
type issuer struct {
	authority
	leaves cache
	// replaced is what was wrong with the authority before; empty if there was none.
	replaced string
}

// Load returns the CA that is kept in dir, an existing or future directory
// that belongs to the CA's user and is used by one process at a time. It makes
// a new one on the first start and where the one that is there cannot be used:
// it is incomplete or damaged, has expired, is not constrained as ours are, or
// does not permit domain. Then the old one is gone: see Created.
//
// It permits local, localhost, test and domain, which may be empty or below
// one of the three. "local" covers the corp.local of an Active Directory too. A
// domain below which strangers have their names, such as "com", is an error.
//
// Load does not touch a private key that others can read, which it reports,
// nor files that it cannot read. (Windows has no such mode; there the
// directory's inherited access list must do.)
//
// At the end of its life, after five years, a CA replaces itself: see RenewOld.
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
	ca := &CA{dir: dir, permitted: permitted, renewing: make(chan struct{}, 1)}
	if unusable == "" {
		ca.live.Store(&issuer{authority: a})
		return ca, nil
	}
	ca.Created = unusable
	replaced := unusable
	if replaced == firstStart {
		replaced = ""
	}
	if err := ca.install(replaced); err != nil {
		return nil, err
	}
	return ca, nil
}

// install makes a new authority and puts it in the place of the one that there is.
// Only one call at a time may be under way.
func (ca *CA) install(replaced string) error {
	a, err := newAuthority(ca.permitted, time.Now())
	if err != nil {
		return fmt.Errorf("make a local CA: %w", err)
	}
	if err := write(ca.dir, a); err != nil {
		err = fmt.Errorf("keep the new local CA: %w", err)
		if old := ca.live.Load(); old != nil {
			err = errors.Join(err, restore(ca.dir, old.authority))
		}
		return err
	}
	ca.live.Store(&issuer{authority: a, replaced: replaced})
	return nil
}

// Renew makes a new CA and puts it in the place of the one that there was, which is
// gone then; why is what Replaced says afterwards. Handshakes are served all the
// while, by the old one until the new one is on disk; connections go on.
//
// Sessions may still be resumed. Whoever resumes one has verified this very process
// when it began, and the keys of tickets have never left it: so there is nothing
// to gain by refusing, and clients that do not trust the new CA yet go on for up
// to the week that tickets last.
//
// If it fails, the old CA is served on for as long as the process runs.
func (ca *CA) Renew(ctx context.Context, why string) error {
	return ca.renew(ctx, func(*issuer) string { return why })
}

// RenewOld is Renew for a CA whose life is over, or will be within the hour; with
// any other it does nothing. Whoever has a CA for long should call it now and then:
// Leaf does it for an expired one only, since nobody has to wait for the disk before.
func (ca *CA) RenewOld(ctx context.Context) error {
	return ca.renew(ctx, func(i *issuer) string { return i.over(time.Now()) })
}

// renew replaces the issuer if there is a reason to. It is asked for in turn: who
// comes late finds none any more.
func (ca *CA) renew(ctx context.Context, reason func(*issuer) string) error {
	if reason(ca.live.Load()) == "" {
		return nil
	}
	select {
	case ca.renewing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-ca.renewing }()
	why := reason(ca.live.Load())
	if why == "" {
		return nil
	}
	if err := ca.install(why); err != nil {
		return err
	}
	if ca.Renewed != nil {
		ca.Renewed()
	}
	return nil
}

// issuer is what signs now. One that has expired is replaced first.
func (ca *CA) issuer(ctx context.Context) (*issuer, error) {
	err := ca.renew(ctx, func(i *issuer) string {
		if now := time.Now(); now.After(i.end()) {
			return i.over(now)
		}
		return ""
	})
	i := ca.live.Load()
	if err != nil {
		return nil, fmt.Errorf("the local CA expired on %s: %w", i.end().Format(time.DateOnly), err)
	}
	return i, nil
}

// Replaced says what was wrong with the CA that this one has replaced when it
// was made, by this process; it is empty if there was none.
func (ca *CA) Replaced() string { return ca.live.Load().replaced }

// RootPEM is the certificate that clients must trust.
func (ca *CA) RootPEM() []byte { return pemOf(ca.Root()) }

// Root is the certificate that clients must trust. It must not be changed.
func (ca *CA) Root() *x509.Certificate { return ca.live.Load().root }

// Fingerprint is the SHA-256 of the root certificate, in hex.
func (ca *CA) Fingerprint() string { return Fingerprint(ca.Root()) }

// NotAfter is when the CA expires; nothing that it signs lives longer.
func (ca *CA) NotAfter() time.Time { return ca.live.Load().end() }

// Permitted are the domains that the CA can sign for, each with all names
// below it, whoever holds its key.
func (ca *CA) Permitted() []string { return slices.Clone(ca.Root().PermittedDNSDomains) }

// Permits reports whether the CA can sign for what is in a domain, so that it need
// not be replaced for it.
func (ca *CA) Permits(domain string) bool {
	domain = normal(domain)
	return domain == "" || covers(ca.Root().PermittedDNSDomains, domain)
}

// Format writes which CA it is, and nothing else of it, whatever the verb: no key
// must get into a log by mistake.
func (ca *CA) Format(f fmt.State, _ rune) { io.WriteString(f, "local CA "+ca.Fingerprint()) }

// LogValue is what Format writes.
func (ca *CA) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(ca)) }

// Fingerprint is the SHA-256 of a root certificate, in hex.
func Fingerprint(root *x509.Certificate) string {
	sum := sha256.Sum256(root.Raw)
	return hex.EncodeToString(sum[:])
}

func pemOf(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// permits reports whether a certificate for name (a host name or an address)
// would be accepted by a client that obeys the authority's constraints.
func (a authority) permits(name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.IsLoopback() && ip.Zone() == ""
	}
	return validName(name) && covers(a.root.PermittedDNSDomains, name)
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
	if suffix.Public(domain) {
		return nil, fmt.Errorf("%q is a public suffix: a CA for it could speak for all that strangers have below it", domain)
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
