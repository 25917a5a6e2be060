package truststore

import (
	"context"
	"fmt"
)

// find returns the stores of the scope. Firefox's databases are none: it reads the keychains
// itself.
func (s *Stores) find(context.Context) ([]store, error) {
	java, err := s.findJava()
	if err != nil {
		return nil, err
	}
	return append(s.macKeychains(), java...), nil
}

// at returns the store at a place that a receipt or a step names, whether it is there or not.
func (s *Stores) at(p Place) (store, error) {
	switch {
	case p.Kind == Keychain && s.Scope == Machine && p.Path != systemKeychain:
		return nil, fmt.Errorf("%s is not the keychain of the machine", p.Path)
	case p.Kind == Keychain:
		return s.keychain(p.Path), nil
	case p.Kind == Java:
		return s.javaAt(p.Path)
	}
	return nil, fmt.Errorf("%s is no kind of trust store of this system", p.Kind)
}
