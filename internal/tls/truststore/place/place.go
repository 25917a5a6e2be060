// Package place says what a trust store is: where it is, whose, what can be done to it, and how much of
// a certificate is in it. Each kind of store is a package of its own.
package place

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
