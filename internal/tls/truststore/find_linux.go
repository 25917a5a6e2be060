package truststore

import (
	"context"
	"fmt"
	"path/filepath"
)

// find returns the stores of the scope.
func (s *Stores) find(context.Context) ([]store, error) {
	var stores []store
	if s.Scope == Machine {
		if system := s.findSystem(); system != nil {
			stores = append(stores, system)
		}
	} else {
		stores = s.findNSS()
	}
	java, err := s.findJava()
	if err != nil {
		return nil, err
	}
	return append(stores, java...), nil
}

// at returns the store at a place that a receipt or a step names, whether it is there or not.
func (s *Stores) at(p Place) (store, error) {
	switch p.Kind {
	case NSS:
		if filepath.Base(p.Path) == profilesList {
			return nil, fmt.Errorf("%s is no database", p.Path)
		}
		return s.nss(p.Path, p.Readers), nil
	case Java:
		return s.javaAt(p.Path)
	}
	for _, l := range layouts {
		if l.kind != p.Kind {
			continue
		}
		st, err := s.system(l)
		if err != nil {
			return nil, fmt.Errorf("the trust store is gone, or its program: %w", err)
		}
		if st.anchors != filepath.Clean(p.Path) {
			return nil, fmt.Errorf("%s is not where such a trust store is", p.Path)
		}
		return st, nil
	}
	return nil, fmt.Errorf("%s is no kind of trust store of this system", p.Kind)
}
