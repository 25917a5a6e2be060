package truststore

import (
	"github.com/tunneld/tunneld/internal/tls/truststore/nss"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/system"
)

// find returns the stores of the scope.
func (s *Stores) find() ([]place.Store, error) {
	var stores []place.Store
	if s.Scope == User {
		stores = s.browsers().Find()
	} else if st := system.Find(s.root, s.program()); st != nil {
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
	case place.NSS:
		return s.browsers().At(p)
	case place.Java:
		return s.jdks().At(p.Path)
	}
	return system.At(p, s.root, s.program())
}

func (s *Stores) browsers() nss.Browsers {
	return nss.Browsers{Home: s.Home, Getenv: s.getenv, Programs: s.program()}
}
