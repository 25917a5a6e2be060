package place

import (
	"context"
	"crypto/x509"
)

// A Store is a trust store that is on this machine, or that will be once something is
// added. What it does is whole or undone when it returns; when it is killed
// meanwhile, Remove finds what is left. Its methods are not called concurrently.
type Store interface {
	Place() Place
	// Look says how much of a certificate is in there, and changes nothing. It goes
	// by the certificate itself, never by a name that others may have as well. An error may
	// be a *BlockedError.
	Look(ctx context.Context, cert *x509.Certificate) (Presence, error)
	// Ready returns a *BlockedError if an action cannot be done as things are, and why.
	// That it takes root is not for the store to say.
	Ready(ctx context.Context, action Action, cert *x509.Certificate) error
	// Add puts a certificate there, of which a part may be there already.
	Add(ctx context.Context, cert *x509.Certificate) error
	// Remove takes out all that Look would find, and that alone.
	Remove(ctx context.Context, cert *x509.Certificate) error
}

// A Searcher is a store that can be asked for a certificate of which only the
// fingerprint is known, because its receipt cannot be read. It returns nil if there is none.
type Searcher interface {
	Search(ctx context.Context, fingerprint string) (*x509.Certificate, error)
}

// A Maker is a store of which Add may have to make what it is kept in.
type Maker interface {
	// Makes are the paths that Add would make now, the outermost first. They are
	// noted before it does.
	Makes() []string
	// Unmake removes what was made, as far as nothing else is in there.
	Unmake(ctx context.Context, made []string) error
}

// A Restorer is a store in which a part of a certificate may have been put by hand.
type Restorer interface {
	// Before is called where that is so, before Add. What it returns takes back what Add has done
	// since, and that alone.
	Before(ctx context.Context, cert *x509.Certificate) (restore func(context.Context) error, err error)
}

// An Asker is a store of which the system asks the user, in a dialog, before it changes it.
type Asker interface {
	// Asks says what is asked, for people; empty if nothing is.
	Asks(Action) string
}

// Presence is how much of a certificate is in a store.
type Presence int

const (
	// Absent: no trace of it.
	Absent Presence = iota
	// Partly: something of it is there, as after a crash, but those who read the store do
	// not trust it.
	Partly
	// Present: those who read the store trust it.
	Present
)

// A BlockedError says why something cannot be done as things are, and what the user
// can do about it, which may be empty.
type BlockedError struct{ Why, Fix string }

// Blocked returns a *BlockedError.
func Blocked(why, fix string) error { return &BlockedError{why, fix} }

func (e *BlockedError) Error() string {
	if e.Fix == "" {
		return e.Why
	}
	return e.Why + ": " + e.Fix
}
