// Package truststore puts a root certificate into the trust stores of a machine,
// and takes it out again by its fingerprint.
//
// There are many: the system's own, which each distribution keeps in another
// place, the NSS databases of browsers, the key stores of Java. What is done is
// planned first, so that a user can be told of it, and noted in a receipt before it
// is done, so that it can be undone after a crash, with the daemon gone and the
// certificate forgotten. Nothing else in a store is touched.
//
// It takes any certificate: whether one may be trusted is for the caller to say.
package truststore

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
)

// A Scope is whose stores they are.
type Scope string

const (
	// User is what is below the home directory of one user. Nobody acts there but as
	// that user.
	User Scope = "user"
	// Machine is what all users have in common. To change it takes root, to look at it
	// does not.
	Machine Scope = "machine"
)

// A Place is a trust store that is on this machine.
type Place struct {
	// Kind says how it is kept: see the constants.
	Kind Kind `json:"kind"`
	// Path is the directory that certificates are put into, or the database. On
	// systems where the store is no file it is the store's name.
	Path  string `json:"path"`
	Scope Scope  `json:"scope"`
	// Readers are who trusts what is in there, for people.
	Readers string `json:"readers"`
}

// A Kind is a way of keeping trusted certificates.
type Kind string

const (
	Debian   Kind = "debian"
	RedHat   Kind = "redhat"
	Arch     Kind = "arch"
	SUSE     Kind = "suse"
	NSS      Kind = "nss"
	Java     Kind = "java"
	Keychain Kind = "keychain"
	Windows  Kind = "windows"
	// Receipt is no store, but what is left of a receipt that could not be read, and whose
	// certificate is nowhere any more. It can only be removed.
	Receipt Kind = "receipt"
)

// An Action is what a Step does with a certificate.
type Action string

const (
	Add    Action = "add"
	Remove Action = "remove"
)

// A Step adds a certificate to one place, or removes it from there.
type Step struct {
	Action Action `json:"action"`
	Place  Place  `json:"place"`
	// Cert is nil if Place is a Receipt.
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
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}
