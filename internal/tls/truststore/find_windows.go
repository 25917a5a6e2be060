package truststore

import (
	"context"
	"fmt"
)

// find returns the stores of the scope. Firefox's databases are none: it reads Windows' store
// itself.
func (s *Stores) find(context.Context) ([]store, error) {
	return []store{rootStore{s.Scope, realWindowsRoots()}}, nil
}

// at returns the store at a place that a receipt or a step names.
func (s *Stores) at(p Place) (store, error) {
	if p.Kind == Windows {
		return rootStore{s.Scope, realWindowsRoots()}, nil
	}
	return nil, fmt.Errorf("%s is no kind of trust store of this system", p.Kind)
}
