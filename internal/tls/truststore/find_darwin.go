package truststore

import (
	"context"
	"fmt"
)

// find returns the stores of the scope. Firefox's databases are none: it reads the keychains
// itself.
func (s *Stores) find(context.Context) ([]store, error) {
	return macKeychains(s.Scope, s.Home), nil
}

// at returns the store at a place that a receipt or a step names.
func (s *Stores) at(p Place) (store, error) {
	if p.Kind == Keychain {
		return keychainAt(p, s.Home), nil
	}
	return nil, fmt.Errorf("%s is no kind of trust store of this system", p.Kind)
}
