// Package rootstore is Windows' stores of trusted roots.
package rootstore

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

// errDeclined is what Windows returns when the user says no, and also when it could
// not show the dialog.
var errDeclined = errors.New("the dialog was not answered with yes")

// windowsRoots are Windows' own functions for its stores of trusted roots; tests play them. A
// scope's store is what is kept for it: that of a user does not have the machine's here,
// though programs see both.
type windowsRoots struct {
	// list returns the certificates in a store, as DER.
	list func(place.Scope) ([][]byte, error)
	// add and remove have Windows ask in the scope User, and wait for the answer,
	// however long it takes: errDeclined is no.
	add    func(scope place.Scope, der []byte) error
	remove func(scope place.Scope, der []byte) error
	// desktop reports whether there is one to ask on.
	desktop func() (bool, error)
}

// A rootStore is Windows' ROOT store of the current user or of the machine.
type rootStore struct {
	scope place.Scope
	roots windowsRoots
}

func (r rootStore) Place() place.Place {
	p := place.Place{Kind: place.Windows, Path: `LocalMachine\Root`, Scope: r.scope, Readers: "Edge, Chrome, Firefox, curl, PowerShell and most other programs, for all users"}
	if r.scope == place.User {
		p.Path, p.Readers = `CurrentUser\Root`, "Edge, Chrome, Firefox, curl, PowerShell and most other programs of yours"
	}
	return p
}

// Asks is what Windows asks before it does an action.
func (r rootStore) Asks(action place.Action) string {
	switch {
	case r.scope == place.Machine:
		return ""
	case action == place.Add:
		return "Windows asks in a dialog whether you trust the certificate"
	}
	return "Windows asks in a dialog whether to delete the certificate"
}

// Ready has the user not wait for a dialog that nobody can see, which could not be
// given up.
func (r rootStore) Ready(context.Context, place.Action, *x509.Certificate) error {
	if r.scope == place.Machine {
		return nil
	}
	desktop, err := r.roots.desktop()
	if err != nil {
		return fmt.Errorf("look for a desktop: %w", err)
	}
	if !desktop {
		return place.Blocked("Windows asks in a dialog, and this session has no desktop to show it on", "run this on the machine's own desktop, not over SSH or from a service")
	}
	return nil
}

func (r rootStore) Look(_ context.Context, cert *x509.Certificate) (place.Presence, error) {
	all, err := r.roots.list(r.scope)
	if err != nil {
		return place.Absent, fmt.Errorf("%s: %w", r.Place().Path, err)
	}
	if slices.ContainsFunc(all, func(der []byte) bool { return bytes.Equal(der, cert.Raw) }) {
		return place.Present, nil
	}
	return place.Absent, nil
}

func (r rootStore) Search(_ context.Context, fingerprint string) (*x509.Certificate, error) {
	all, err := r.roots.list(r.scope)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Place().Path, err)
	}
	for _, der := range all {
		if cert, err := x509.ParseCertificate(der); err == nil && place.Fingerprint(cert) == fingerprint {
			return cert, nil
		}
	}
	return nil, nil
}

func (r rootStore) Add(ctx context.Context, cert *x509.Certificate) error {
	return r.change(ctx, r.roots.add, cert)
}

func (r rootStore) Remove(ctx context.Context, cert *x509.Certificate) error {
	return r.change(ctx, r.roots.remove, cert)
}

func (r rootStore) change(ctx context.Context, do func(place.Scope, []byte) error, cert *x509.Certificate) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := do(r.scope, cert.Raw); err != nil {
		return fmt.Errorf("%s: %w", r.Place().Path, err)
	}
	return nil
}
