package held

import (
	"bytes"
	"crypto/x509"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Holds reports whether the current user's view of the root store, in which the
// machine's is included, holds cert. known is false where that cannot be told.
func (s *System) Holds(cert *x509.Certificate) (held, known bool) {
	if len(s.Bundles) > 0 {
		return s.heldIn(cert, s.Bundles)
	}
	name, err := windows.UTF16PtrFromString("ROOT")
	if err != nil {
		return false, false
	}
	store, err := windows.CertOpenSystemStore(0, name)
	if err != nil {
		return false, false
	}
	defer windows.CertCloseStore(store, 0)
	var one *windows.CertContext
	for {
		// It frees the one before. At the end it returns CRYPT_E_NOT_FOUND.
		if one, err = windows.CertEnumCertificatesInStore(store, one); one == nil || err != nil {
			return false, true
		}
		if bytes.Equal(unsafe.Slice(one.EncodedCert, one.Length), cert.Raw) {
			windows.CertFreeCertificateContext(one)
			return true, true
		}
	}
}
