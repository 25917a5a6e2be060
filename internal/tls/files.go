package tls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// The files of a CA in its directory, PEM. keyFile is the only private key
// there, and belongs to the intermediate certificate.
const (
	rootFile         = "ca.pem"
	intermediateFile = "ca-intermediate.pem"
	keyFile          = "ca-key.pem"

	partial = ".tmp" // the suffix of a file that is being written
)

// read reads what write wrote, after it has removed what an interrupted write
// may have left. Where that is no authority it says why in unusable; err is
// for what must not be answered by writing a new one.
func read(dir string) (a authority, unusable string, err error) {
	if err := removePartial(dir); err != nil {
		return authority{}, "", err
	}
	var data [3][]byte
	var missing string
	found := false
	for i, name := range []string{rootFile, intermediateFile, keyFile} {
		data[i], err = readFile(filepath.Join(dir, name), name == keyFile)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = name
		case err != nil:
			return authority{}, "", err
		default:
			found = true
		}
	}
	if !found {
		return authority{}, firstStart, nil
	}
	if missing != "" {
		return authority{}, missing + " was missing", nil
	}
	if a.root, err = parseCertificate(data[0]); err != nil {
		return authority{}, rootFile + " was damaged", nil
	}
	if a.intermediate, err = parseCertificate(data[1]); err != nil {
		return authority{}, intermediateFile + " was damaged", nil
	}
	if a.key, err = parseKey(data[2]); err != nil {
		return authority{}, keyFile + " was damaged", nil
	}
	return a, "", nil
}

// readFile reads a small file. A secret that others may read is an error: it
// may not be one any more, and only its owner can tell.
func readFile(path string, secret bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); secret && mode.Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("others can read the private key %s (mode %#o): if nobody has, run chmod 600 on it; otherwise remove it to get a new CA", path, mode.Perm())
	}
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

// write replaces the authority in dir. At no time does dir hold two keys, and
// wherever it is interrupted, the next read finds a whole authority or none:
// the old key goes first, the new one comes last. What is likely to fail, for want
// of space or of rights, does so before that, and leaves what was there.
func write(dir string, a authority) error {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return err
	}
	err = removePartial(dir)
	if err == nil {
		err = prepare(dir, rootFile, 0o644, &pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
	}
	if err == nil {
		err = prepare(dir, intermediateFile, 0o644, &pem.Block{Type: "CERTIFICATE", Bytes: a.intermediate.Raw})
	}
	if err == nil {
		err = remove(dir, keyFile)
	}
	if err == nil {
		err = place(dir, rootFile)
	}
	if err == nil {
		err = place(dir, intermediateFile)
	}
	if err == nil {
		err = prepare(dir, keyFile, 0o600, &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	}
	if err == nil {
		err = place(dir, keyFile)
	}
	if err != nil {
		return errors.Join(err, removePartial(dir))
	}
	return nil
}

// restore puts an authority back that is served on, should a write that failed have
// removed it.
func restore(dir string, a authority) error {
	kept, unusable, err := read(dir)
	if err == nil && unusable == "" && kept.key.Equal(a.key) && kept.root.Equal(a.root) {
		return nil
	}
	if err := write(dir, a); err != nil {
		return fmt.Errorf("put the old one back: %w", err)
	}
	return nil
}

// removePartial removes what an interrupted write may have left.
func removePartial(dir string) error {
	for _, name := range []string{keyFile, intermediateFile, rootFile} {
		if err := remove(dir, name+partial); err != nil {
			return err
		}
	}
	return nil
}

// prepare writes the block beside the file that it is for. The name must be free.
func prepare(dir, name string, mode fs.FileMode, block *pem.Block) error {
	f, err := os.OpenFile(filepath.Join(dir, name+partial), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = pem.Encode(f, block)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// place puts what was prepared into its place at once: a reader, and a crash, see
// the old file or the new one.
func place(dir, name string) error {
	path := filepath.Join(dir, name)
	if err := os.Rename(path+partial, path); err != nil {
		return err
	}
	return syncDir(dir)
}

// remove removes a file, if it is there, for good.
func remove(dir, name string) error {
	err := os.Remove(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes renames and removals in dir survive a power cut, in their
// order. Windows cannot, and does not need to be told.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func parseCertificate(data []byte) (*x509.Certificate, error) {
	der, err := onlyBlock(data, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func parseKey(data []byte) (*ecdsa.PrivateKey, error) {
	der, err := onlyBlock(data, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not a P-256 key")
	}
	return key, nil
}

// onlyBlock returns the content of a file that is one PEM block and no more.
func onlyBlock(data []byte, kind string) ([]byte, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("not one PEM block of type %s", kind)
	}
	return block.Bytes, nil
}
