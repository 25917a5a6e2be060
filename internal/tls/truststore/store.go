package truststore

import (
	"context"
	"crypto/x509"
)

// A store is a trust store that is on this machine, or that will be once something is
// added. What it does is whole or undone when it returns; when it is killed
// meanwhile, remove finds what is left. Its methods are not called concurrently.
//
// How stores are found differs from system to system: see find and at of Stores, in
// find_linux.go and its kin.
type store interface {
	place() Place
	// look says how much of a certificate is in there, and changes nothing. It goes
	// by the certificate itself, never by a name that others may have as well. An error may
	// be a *blockedError.
	look(ctx context.Context, cert *x509.Certificate) (presence, error)
	// ready returns a *blockedError if an action cannot be done as things are, and why.
	// That it takes root is not for the store to say.
	ready(ctx context.Context, action Action, cert *x509.Certificate) error
	// add puts a certificate there, of which a part may be there already.
	add(ctx context.Context, cert *x509.Certificate) error
	// remove takes out all that look would find, and that alone.
	remove(ctx context.Context, cert *x509.Certificate) error
}

// A searcher is a store that can be asked for a certificate of which only the
// fingerprint is known, because its receipt cannot be read. It returns nil if there is none.
type searcher interface {
	search(ctx context.Context, fingerprint string) (*x509.Certificate, error)
}

// A maker is a store of which add may have to make what it is kept in.
type maker interface {
	// makes are the paths that add would make now, the outermost first. They are
	// noted before it does.
	makes() []string
	// unmake removes what was made, as far as nothing else is in there.
	unmake(ctx context.Context, made []string) error
}

// A restorer is a store in which a part of a certificate may have been put by hand.
type restorer interface {
	// before is called where that is so, before add. What it returns takes back what add has done
	// since, and that alone.
	before(ctx context.Context, cert *x509.Certificate) (restore func(context.Context) error, err error)
}

// An asker is a store of which the system asks the user, in a dialog, before it changes it.
type asker interface {
	// asks says what is asked, for people; empty if nothing is.
	asks(Action) string
}

// presence is how much of a certificate is in a store.
type presence int

const (
	// absent: no trace of it.
	absent presence = iota
	// partly: something of it is there, as after a crash, but those who read the store do
	// not trust it.
	partly
	// present: those who read the store trust it.
	present
)

// A blockedError says why something cannot be done as things are, and what the user
// can do about it: the step's Blocked and Fix.
type blockedError struct{ why, fix string }

func (e *blockedError) Error() string {
	if e.fix == "" {
		return e.why
	}
	return e.why + ": " + e.fix
}

// alias is what a certificate is called where a name is ours to choose.
func alias(fingerprint string) string { return "tunneld-" + fingerprint[:16] }
