package held

import "crypto/x509"

// Holds reports whether the system's store holds cert. known is false where that
// cannot be told.
func (s *System) Holds(cert *x509.Certificate) (held, known bool) {
	if len(s.Bundles) > 0 {
		return s.heldIn(cert, s.Bundles)
	}
	return s.heldIn(cert, Bundles())
}
