package truststore

import (
	"fmt"

	"github.com/tunneld/tunneld/internal/tls/truststore/keychain"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

// find returns the stores of the scope. Firefox's databases are none: it reads the keychains
// itself.
func (s *Stores) find() ([]place.Store, error) {
	var stores []place.Store
	if st := keychain.Find(s.Scope, s.Home, s.program()); st != nil {
		stores = append(stores, st)
	}
	java, err := s.jdks().Find()
	if err != nil {
		return nil, err
	}
	return append(stores, java...), nil
}

// at returns the store at a place that a receipt or a step names, whether it is there or not.
func (s *Stores) at(p Place) (place.Store, error) {
	switch p.Kind {
	case place.Keychain:
		return keychain.At(s.Scope, p.Path, s.Home, s.program())
	case place.Java:
		return s.jdks().At(p.Path)
	}
	return nil, fmt.Errorf("%s is no kind of trust store of this system", p.Kind)
}
