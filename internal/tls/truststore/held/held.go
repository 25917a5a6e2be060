// Package held tells whether the system's own trust store holds a certificate. It changes nothing, and
// needs no program.
package held

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"sync"
	"time"
)

// A System tells whether the system's own trust store holds a certificate, by its
// bytes. It looks only, and asks again and again at little cost. The zero value
// is ready; its methods may be called concurrently.
type System struct {
	// Bundles are the files that the store is kept in, of which the first that exists
	// counts. None means those of this system; what the environment says about
	// them (SSL_CERT_FILE) is for one program, not for the system.
	Bundles []string

	mu   sync.Mutex // guards the following; nothing is read under it
	last look
}

// A look is what was found in a version of a file.
type look struct {
	path string
	size int64
	at   time.Time // when the file was changed
	cert string    // raw, of the certificate that was looked for
	held bool
}

// heldIn looks for the certificate in the first bundle that exists. known is false
// if none does, or can be read.
func (s *System) heldIn(cert *x509.Certificate, bundles []string) (held, known bool) {
	for _, path := range bundles {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		now := look{path: path, size: info.Size(), at: info.ModTime(), cert: string(cert.Raw)}
		s.mu.Lock()
		last := s.last
		s.mu.Unlock()
		now.held = last.held
		if now == last {
			return last.held, true
		}
		// It is replaced whole by those that write it, so what is read is this
		// version or a later one, which the next look will find.
		text, err := os.ReadFile(path)
		if err != nil {
			return false, false
		}
		now.held = InBundle(text, cert)
		s.mu.Lock()
		s.last = now
		s.mu.Unlock()
		return now.held, true
	}
	return false, false
}

// InBundle reports whether a certificate is among those of a PEM text.
func InBundle(text []byte, cert *x509.Certificate) bool {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return false
		}
		if block.Type == "CERTIFICATE" && bytes.Equal(block.Bytes, cert.Raw) {
			return true
		}
	}
}

// Bundles are the files that systems keep their list of CAs in for all programs, in
// the order in which crypto/x509 looks for them; OpenSSL's and GnuTLS's are among
// them, by whatever link. Windows has none.
func Bundles() []string {
	return []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL 6
		"/etc/ssl/ca-bundle.pem",                            // SUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7 and later
		"/etc/ssl/cert.pem",                                 // Alpine, macOS
	}
}
