package rootstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

// New returns the store of a scope.
func New(scope place.Scope) place.Store { return rootStore{scope, realWindowsRoots()} }

func realWindowsRoots() windowsRoots {
	return windowsRoots{list: listRoots, add: addRoot, remove: removeRoot, desktop: hasDesktop}
}

// openRoots opens the part of a scope's ROOT store that is in its own part of the
// registry: what else programs see there, such as the machine's roots in a user's store,
// comes from elsewhere and is not ours to delete. Firefox reads the same part.
func openRoots(scope place.Scope, flags uint32) (windows.Handle, error) {
	flags |= windows.CERT_SYSTEM_STORE_LOCAL_MACHINE
	if scope == place.User {
		flags = flags&^windows.CERT_SYSTEM_STORE_LOCAL_MACHINE | windows.CERT_SYSTEM_STORE_CURRENT_USER
	}
	name, err := windows.UTF16PtrFromString("Root")
	if err != nil {
		return 0, err
	}
	store, err := windows.CertOpenStore(windows.CERT_STORE_PROV_SYSTEM_REGISTRY, 0, 0, flags, uintptr(unsafe.Pointer(name)))
	if err != nil {
		return 0, fmt.Errorf("open the store: %w", err)
	}
	return store, nil
}

// eachRoot calls visit for each certificate of a store until it returns true. visit must not keep der.
func eachRoot(store windows.Handle, visit func(cert *windows.CertContext, der []byte) (done bool)) error {
	var cert *windows.CertContext
	for {
		var err error
		// This frees the one before it.
		cert, err = windows.CertEnumCertificatesInStore(store, cert)
		if errors.Is(err, windows.Errno(windows.CRYPT_E_NOT_FOUND)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list the certificates: %w", err)
		}
		if visit(cert, unsafe.Slice(cert.EncodedCert, cert.Length)) {
			return windows.CertFreeCertificateContext(cert)
		}
	}
}

func listRoots(scope place.Scope) (all [][]byte, err error) {
	store, err := openRoots(scope, windows.CERT_STORE_READONLY_FLAG)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it is made with the first certificate
	}
	if err != nil {
		return nil, err
	}
	defer windows.CertCloseStore(store, 0)
	err = eachRoot(store, func(_ *windows.CertContext, der []byte) bool {
		all = append(all, bytes.Clone(der))
		return false
	})
	return all, err
}

func addRoot(scope place.Scope, der []byte) error {
	store, err := openRoots(scope, 0)
	if err != nil {
		return err
	}
	cert, err := windows.CertCreateCertificateContext(windows.X509_ASN_ENCODING, &der[0], uint32(len(der)))
	if err != nil {
		return errors.Join(fmt.Errorf("read the certificate: %w", err), windows.CertCloseStore(store, 0))
	}
	err = windows.CertAddCertificateContextToStore(store, cert, windows.CERT_STORE_ADD_USE_EXISTING, nil)
	return errors.Join(answer(err), windows.CertFreeCertificateContext(cert), windows.CertCloseStore(store, 0))
}

func removeRoot(scope place.Scope, der []byte) error {
	store, err := openRoots(scope, 0)
	if err != nil {
		return err
	}
	var found *windows.CertContext
	err = eachRoot(store, func(cert *windows.CertContext, other []byte) bool {
		if bytes.Equal(other, der) {
			found = windows.CertDuplicateCertificateContext(cert)
		}
		return found != nil
	})
	if found != nil {
		// This frees it, whatever becomes of it.
		err = errors.Join(err, answer(windows.CertDeleteCertificateFromStore(found)))
	}
	return errors.Join(err, windows.CertCloseStore(store, 0))
}

// answer is the error of what the user may have been asked for.
func answer(err error) error {
	if errors.Is(err, windows.ERROR_CANCELLED) {
		return errDeclined
	}
	return err
}

// hasDesktop reports whether the process is in a session that somebody is logged in
// to. Services, and what comes over SSH, are in session 0, which has no screen.
func hasDesktop() (bool, error) {
	var session uint32
	if err := windows.ProcessIdToSessionId(uint32(os.Getpid()), &session); err != nil {
		return false, err
	}
	return session != 0, nil
}
