package truststore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/atomicfile"
	"github.com/tunneld/tunneld/internal/lockfile"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
)

// A receipt says where a certificate may be, on disk before anything is done. Its
// file is named for the certificate's fingerprint.
type receipt struct {
	Version int `json:"version"`
	// Certificate is the certificate itself, in PEM, so that it can be found when nobody
	// else knows it any more.
	Certificate string `json:"certificate"`
	// Source is what it was installed for.
	Source string  `json:"source"`
	Places []noted `json:"places"`
}

// noted is a place that may have the certificate.
type noted struct {
	Place
	// Made are the directories and files that were made to have the place, the outermost
	// first.
	Made []string `json:"made,omitempty"`
}

const (
	// receiptVersion is what is written. Of a receipt of another version the certificate
	// is taken, if it is there, and looked for in all places.
	receiptVersion = 1
	receiptExt     = ".json"
	lockName       = "lock"
)

// A record is a receipt as it was found.
type record struct {
	receipt
	fingerprint string
	// cert is nil if it could not be read.
	cert *x509.Certificate
	// all: what is noted could not be read, so each place may have the certificate.
	all bool
}

func (r record) find(p Place) (noted, bool) {
	i := slices.IndexFunc(r.Places, func(n noted) bool { return samePlace(n.Place, p) })
	if i < 0 {
		return noted{}, false
	}
	return r.Places[i], true
}

// samePlace leaves out what is for people, which another version may word differently.
func samePlace(a, b Place) bool { return a.Kind == b.Kind && a.Path == b.Path && a.Scope == b.Scope }

// parseReceipt reads the receipt of the certificate with this fingerprint. With an
// error, the record has the certificate only if it is that one.
func parseReceipt(fingerprint string, data []byte) (record, error) {
	r := record{fingerprint: fingerprint, all: true}
	err := json.Unmarshal(data, &r.receipt)
	if cert := place.Certificate([]byte(r.Certificate)); cert != nil && place.Fingerprint(cert) == fingerprint {
		r.cert = cert
	}
	switch {
	case err != nil:
	case r.Version != receiptVersion:
		err = fmt.Errorf("version %d; this program reads %d", r.Version, receiptVersion)
	case r.cert == nil:
		err = errors.New("it has no certificate with the fingerprint in its name")
	default:
		r.all = false
		return r, nil
	}
	r.receipt = receipt{Source: r.Source}
	return r, err
}

func (s *Stores) receiptPath(fingerprint string) string {
	return filepath.Join(s.Receipts, fingerprint+receiptExt)
}

// isFingerprint reports whether it is a SHA-256 in hex, as Fingerprint writes it.
func isFingerprint(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == s
}

// records reads all receipts, by name.
func (s *Stores) records() ([]record, error) {
	entries, err := os.ReadDir(s.Receipts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look what was installed: %w", err)
	}
	var records []record
	for _, e := range entries {
		fingerprint, ok := strings.CutSuffix(e.Name(), receiptExt)
		if !ok || !isFingerprint(fingerprint) {
			continue
		}
		r, ok := s.record(fingerprint)
		if ok {
			records = append(records, r)
		}
	}
	return records, nil
}

// record reads one receipt; not ok if there is none.
func (s *Stores) record(fingerprint string) (r record, ok bool) {
	path := s.receiptPath(fingerprint)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, false
	}
	if err == nil {
		r, err = parseReceipt(fingerprint, data)
	} else {
		r = record{fingerprint: fingerprint, all: true}
	}
	// What is not of this scope nobody has noted here but to mislead.
	r.Places = slices.DeleteFunc(r.Places, func(n noted) bool { return n.Scope != s.Scope })
	if err != nil {
		s.log().Warn("a receipt is not read, all trust stores are looked through", "path", path, "err", err)
	}
	return r, true
}

// note adds a place to a certificate's receipt, before anything is done there. What was
// made for it stays noted.
func (s *Stores) note(cert *x509.Certificate, source string, n noted) error {
	fingerprint := place.Fingerprint(cert)
	r, ok := s.record(fingerprint)
	if r.all {
		// What it said is not known. It stays as it is, so that all places are looked
		// through.
		return nil
	}
	if !ok {
		r.receipt = receipt{Certificate: string(place.Encode(cert)), Source: source}
	}
	if source != "" {
		r.Source = source
	}
	if i := slices.IndexFunc(r.Places, func(m noted) bool { return samePlace(m.Place, n.Place) }); i >= 0 {
		for _, path := range r.Places[i].Made {
			if !slices.Contains(n.Made, path) {
				n.Made = append(n.Made, path)
			}
		}
		slices.Sort(n.Made) // what is inside comes after
		r.Places[i] = n
	} else {
		r.Places = append(r.Places, n)
	}
	return s.writeReceipt(fingerprint, r.receipt)
}

// strike takes a place off a certificate's receipt, and the receipt away with the last one.
func (s *Stores) strike(fingerprint string, p Place) error {
	r, ok := s.record(fingerprint)
	if !ok || r.all {
		return nil
	}
	r.Places = slices.DeleteFunc(r.Places, func(n noted) bool { return samePlace(n.Place, p) })
	if len(r.Places) > 0 {
		return s.writeReceipt(fingerprint, r.receipt)
	}
	return s.discard(fingerprint)
}

func (s *Stores) discard(fingerprint string) error {
	if err := os.Remove(s.receiptPath(fingerprint)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the receipt: %w", err)
	}
	return nil
}

func (s *Stores) writeReceipt(fingerprint string, r receipt) error {
	r.Version = receiptVersion
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		// Nothing in there is secret, and anybody may plan what root is to do.
		err = atomicfile.Write(s.receiptPath(fingerprint), append(data, '\n'), s.mode(0o644))
	}
	if err != nil {
		return fmt.Errorf("note what is done in %s: %w", s.Receipts, explain(err))
	}
	return nil
}

// mode is a mode as it is in the scope: what is a user's is for that user.
func (s *Stores) mode(m fs.FileMode) fs.FileMode {
	if s.Scope == User {
		return m &^ 0o077
	}
	return m
}

// lockPatience is how long one waits for another process that changes trust stores: one
// that nobody waits for any more may be about to end.
const lockPatience = 30 * time.Second

// lock keeps other processes from changing anything until release is called. It makes
// the directory of receipts, and release removes it if there is none.
func (s *Stores) lock(ctx context.Context) (release func(), err error) {
	waiting, cancel := context.WithTimeout(ctx, cmp.Or(s.patience, lockPatience))
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		err := s.makeReceipts()
		if err != nil {
			return nil, fmt.Errorf("note what is done in %s: %w", s.Receipts, explain(err))
		}
		unlock, err := lockfile.Lock(filepath.Join(s.Receipts, lockName))
		switch {
		case errors.Is(err, lockfile.ErrLocked):
			select {
			case <-look.C:
				continue
			case <-waiting.Done():
			}
			return nil, fmt.Errorf("trust stores are %w: try again when it has ended", lockfile.ErrLocked)
		case errors.Is(err, fs.ErrNotExist):
			continue // another process has just removed the directory
		case err != nil:
			return nil, fmt.Errorf("note what is done in %s: %w", s.Receipts, explain(err))
		}
		return func() {
			s.tidy()
			unlock()
			if runtime.GOOS == "windows" {
				// Nobody can remove a file there that is open, so this hurts nobody
				// who has the lock by now.
				_ = os.Remove(filepath.Join(s.Receipts, lockName))
				s.removeReceipts()
			}
		}, nil
	}
}

// makeReceipts makes the directory of receipts, unless it is there, and what is above it.
func (s *Stores) makeReceipts() error {
	for tries := 0; ; tries++ {
		err := makeDirs(s.Receipts, s.mode(0o755))
		if !errors.Is(err, fs.ErrNotExist) || tries == 10 {
			return err
		}
		// Another process has just removed what it is in.
	}
}

// makeDirs makes a directory and what is above it, as far as it is not there, with a mode whatever
// the umask.
func makeDirs(path string, mode fs.FileMode) error {
	err := os.Mkdir(path, mode)
	if parent := filepath.Dir(path); errors.Is(err, fs.ErrNotExist) && parent != path {
		if err := makeDirs(parent, mode); err != nil {
			return err
		}
		err = os.Mkdir(path, mode)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// removeReceipts removes the directory of receipts if it is empty, and, of the machine, those of ours
// above it: nothing else of root's is there.
func (s *Stores) removeReceipts() {
	_ = os.Remove(s.Receipts)
	for dir := filepath.Dir(s.Receipts); s.Scope == Machine && strings.Contains(dir, "tunneld"); dir = filepath.Dir(dir) {
		_ = os.Remove(dir)
	}
}

// tidyUp removes what a process leaves that was killed before it noted anything.
func (s *Stores) tidyUp() {
	if _, err := os.Lstat(s.Receipts); err != nil {
		s.removeReceipts()
		return
	}
	now, cancel := context.WithCancel(context.Background())
	cancel() // who holds the lock tidies up
	if release, err := s.lock(now); err == nil {
		release()
	}
}

// tidy removes the directory of receipts if there are none in it, and what a process that was
// killed has left there. The lock goes while it is held: see lockfile.
func (s *Stores) tidy() {
	entries, err := os.ReadDir(s.Receipts)
	if err != nil {
		return
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp") {
			_ = os.Remove(filepath.Join(s.Receipts, name))
		} else if name != lockName {
			return
		}
	}
	_ = os.Remove(filepath.Join(s.Receipts, lockName))
	s.removeReceipts()
}
