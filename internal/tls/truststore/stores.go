package truststore

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
)

// Stores are the trust stores of one scope. Its methods must not be called
// concurrently, nor by two processes at a time: see the lock in Receipts.
type Stores struct {
	Scope Scope
	// Home is the user's home directory, for the scope User; it is where
	// everything of that scope is found, whatever the environment says.
	Home string
	// Getenv is os.Getenv or like it: JAVA_HOME and XDG_DATA_HOME say where stores are.
	Getenv func(string) string
	// Receipts is the directory where it is noted what was done; made when the first
	// is written, and removed with the last.
	Receipts string
	Log      *slog.Logger
}

var errUnwritten = errors.New("not written yet")

// Install plans that root is in every place of the scope. Whatever else was
// installed for the same source, such as the state directory of a daemon, is
// taken out: a root certificate of it that is no longer used.
func (s *Stores) Install(ctx context.Context, root *x509.Certificate, source string) ([]Step, error) {
	return nil, errUnwritten
}

// Removal plans that nothing is left of what was installed, and of also, which may
// be nil and may have been put there by hand.
func (s *Stores) Removal(ctx context.Context, also *x509.Certificate) ([]Step, error) {
	return nil, errUnwritten
}

// Do does what Install or Removal planned, and looks whether it is so. A step
// that is done already, or was by now, changes nothing.
func (s *Stores) Do(ctx context.Context, step Step) error {
	return errUnwritten
}
