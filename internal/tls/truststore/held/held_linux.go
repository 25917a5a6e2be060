package held

import "crypto/x509"

// systemBundles are the files that distributions keep their store in for all programs,
// in the order in which crypto/x509 looks for them; OpenSSL's and GnuTLS's are among
// them, by whatever link.
var systemBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch
	"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL 6
	"/etc/ssl/ca-bundle.pem",                            // SUSE
	"/etc/pki/tls/cacert.pem",                           // OpenELEC
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7 and later
	"/etc/ssl/cert.pem",                                 // Alpine
}

// Holds reports whether the system's store holds cert. known is false where that
// cannot be told.
func (s *System) Holds(cert *x509.Certificate) (held, known bool) {
	if len(s.Bundles) > 0 {
		return s.heldIn(cert, s.Bundles)
	}
	return s.heldIn(cert, systemBundles)
}
