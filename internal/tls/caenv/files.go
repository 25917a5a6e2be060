package caenv

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/tunneld/tunneld/internal/atomicfile"
)

const (
	ext       = ".pem"
	storeFile = "truststore.p12"
	// password is what Java's own list has: it is no secret, but a store needs one.
	password = "changeit"
	// mark begins a file of ours, and is followed by the file that it was made of.
	mark = "# The local CA of tunneld, and the certificates of "
	// maxList bounds what is read as a list of CAs. Debian's is 220 KB.
	maxList = 32 << 20
)

// Present reports whether there are files that variables may name.
func (e *Env) Present() bool {
	entries, err := os.ReadDir(e.Dir)
	return err == nil && len(entries) > 0
}

// Refresh makes the files that are there anew, for another root. One whose list has
// gone since is removed: whoever names it has to call Make again.
func (e *Env) Refresh(root *x509.Certificate) error {
	entries, err := os.ReadDir(e.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the certificates of the environment: %w", err)
	}
	var failed []error
	for _, entry := range entries {
		path := filepath.Join(e.Dir, entry.Name())
		switch {
		case entry.Name() == storeFile:
			err = e.writeStore(root)
		case filepath.Ext(path) != ext:
			continue
		default:
			_, err = e.write(baseOf(path), root)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(path)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// Remove removes the files. Shells that still name them have to be told.
func (e *Env) Remove() error {
	if err := os.RemoveAll(e.Dir); err != nil {
		return fmt.Errorf("remove the certificates of the environment: %w", err)
	}
	return nil
}

// write writes the file that is made of base, which may be empty, and the root, and
// returns its path. Each base has a file of its own, so that one shell does not change
// what another one has.
func (e *Env) write(base string, root *x509.Certificate) (string, error) {
	if strings.Contains(base, "\n") {
		return "", fmt.Errorf("%q is no path", base)
	}
	data := bytes.NewBufferString(mark + base + "\n")
	certs := []*pem.Block{{Type: "CERTIFICATE", Bytes: root.Raw}}
	if base != "" {
		list, err := readList(base)
		if err != nil {
			return "", err
		}
		certs = append(certs, list...)
	}
	for _, block := range certs {
		if err := pem.Encode(data, block); err != nil {
			return "", err
		}
	}
	path := filepath.Join(e.Dir, fileName(base))
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data.Bytes()) {
		return path, nil
	}
	return path, atomicfile.Write(path, data.Bytes(), 0o600)
}

// fileName names the file that is made of base.
func fileName(base string) string {
	if base == "" {
		return "root" + ext
	}
	sum := sha256.Sum256([]byte(base))
	return "with-" + hex.EncodeToString(sum[:4]) + ext
}

// baseOf is what a file of ours was made of.
func baseOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 8<<10)
	n, _ := io.ReadFull(f, head)
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	base, _ := strings.CutPrefix(line, mark)
	return base
}

// readList reads the certificates in a file, which must have one: a variable may name
// anything, and a file may have a key besides.
func readList(path string) ([]*pem.Block, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxList+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxList {
		return nil, fmt.Errorf("%s is too large for a list of certificates", path)
	}
	var certs []*pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" || block.Type == "TRUSTED CERTIFICATE" {
			certs = append(certs, block)
		}
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return certs, nil
}

// writeStore writes the trust store for Java, of the system's list and the root.
func (e *Env) writeStore(root *x509.Certificate) error {
	system := e.system()
	if system == "" {
		return errors.New("the system's list of CAs is in no file")
	}
	list, err := readList(system)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return err
	}
	entries := []pkcs12.TrustStoreEntry{entryOf(root)}
	for _, block := range list {
		// A list may have what Go does not read, such as negative serial numbers.
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && !cert.Equal(root) {
			entries = append(entries, entryOf(cert))
		}
	}
	data, err := pkcs12.Modern.EncodeTrustStoreEntries(entries, password)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(e.Dir, storeFile), data, 0o600)
}

// entryOf names a certificate by its fingerprint: of two with one name Java keeps one.
func entryOf(cert *x509.Certificate) pkcs12.TrustStoreEntry {
	sum := sha256.Sum256(cert.Raw)
	return pkcs12.TrustStoreEntry{Cert: cert, FriendlyName: hex.EncodeToString(sum[:])}
}
