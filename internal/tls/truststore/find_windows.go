package truststore

import (
	"fmt"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/rootstore"
)

// find returns the stores of the scope. Firefox's databases are none: it reads Windows' store
// itself.
func (s *Stores) find() ([]place.Store, error) {
	return []place.Store{rootstore.New(s.Scope)}, nil
}

// at returns the store at a place that a receipt or a step names.
func (s *Stores) at(p Place) (place.Store, error) {
	if p.Kind == place.Windows {
		return rootstore.New(s.Scope), nil
	}
	return nil, fmt.Errorf("%s is no kind of trust store of this system", p.Kind)
}
