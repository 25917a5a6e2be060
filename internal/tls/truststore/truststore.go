// Package truststore puts a root certificate into the trust stores of a machine,
// and takes it out again by its fingerprint.
//
// There are many: the system's own, which each distribution keeps in another
// place, the NSS databases of browsers, the key stores of Java. What is done is
// planned first, so that a user can be told of it, and noted in a receipt before it
// is done, so that it can be undone after a crash, with the daemon gone and the
// certificate forgotten. Nothing else in a store is touched.
//
// Each kind of store is a package below, and knows nothing of plans and receipts: see place.Store.
// Whoever puts certificates into stores needs this one only.
//
// It takes any certificate: whether one may be trusted is for the caller to say.
package truststore

import (
	"crypto/x509"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

// What callers need to know of places, under the names that they see in a plan.
type (
	Scope  = place.Scope
	Place  = place.Place
	Kind   = place.Kind
	Action = place.Action
)

const (
	User    = place.User
	Machine = place.Machine
	Add     = place.Add
	Remove  = place.Remove
)

// A Step adds a certificate to one place, or removes it from there.
type Step struct {
	Action Action `json:"action"`
	Place  Place  `json:"place"`
	// Cert is nil if Place is a place.Receipt.
	Cert *x509.Certificate `json:"-"`
	// Fingerprint is that of the certificate.
	Fingerprint string `json:"fingerprint"`
	// Source is what the certificate is installed for, as Install has it; empty if that is
	// not known.
	Source string `json:"source,omitempty"`
	// Done says that there is nothing left to do.
	Done bool `json:"done"`
	// Blocked says why the step cannot be done as things are, and Fix what to do
	// about it. Both are empty if it can.
	Blocked string `json:"blocked,omitempty"`
	Fix     string `json:"fix,omitempty"`
	// Asks is what the system itself asks the user before it is done, in a dialog;
	// empty if nothing.
	Asks string `json:"asks,omitempty"`
}

// Fingerprint is the SHA-256 of a certificate, in hex.
func Fingerprint(cert *x509.Certificate) string { return place.Fingerprint(cert) }
