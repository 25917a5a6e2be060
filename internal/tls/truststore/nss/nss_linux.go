// Package nss is the databases that browsers keep their certificates in, and where those are.
package nss

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1" // NSS finds certificates by it
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

// An database is a database of NSS, which browsers keep their certificates in, changed by NSS's own
// certutil. It is SQLite's, and so may be changed while the browser runs.
type database struct {
	dir      string
	readers  string
	programs program.Programs
}

func (s *database) Place() place.Place {
	return place.Place{Kind: place.NSS, Path: s.dir, Scope: place.User, Readers: s.readers}
}

// files are what a database consists of. cert9.db has the certificates; one that has only the
// cert8.db of old is not for us.
var files = [...]string{"cert9.db", "key4.db", "pkcs11.txt"}

func (s *database) database() string { return filepath.Join(s.dir, files[0]) }

func (s *database) Look(ctx context.Context, cert *x509.Certificate) (place.Presence, error) {
	e, err := s.entry(ctx, cert)
	switch {
	case err != nil:
		return place.Absent, err
	case e == nil:
		return place.Absent, nil
	case e.trusted():
		return place.Present, nil
	}
	return place.Partly, nil
}

// An entry is a certificate in a database.
type entry struct {
	nick        string
	fingerprint string
	// flags are NSS's words for what it is trusted for as a TLS server's or its CA's.
	flags []string
}

// trusted: with the trust flag C.
func (e entry) trusted() bool { return slices.Contains(e.flags, "Trusted CA") }

// entry is a certificate's entry, under whatever nickname; nil if it has none.
func (s *database) entry(ctx context.Context, cert *x509.Certificate) (*entry, error) {
	if there, err := s.mayHave(cert); err != nil || !there {
		return nil, err
	}
	nicks, err := s.nicks(ctx)
	if err != nil {
		return nil, err
	}
	// The likely one first: each costs a process.
	if i := slices.Index(nicks, nickname(cert)); i > 0 {
		nicks[0], nicks[i] = nicks[i], nicks[0]
	}
	fingerprint := place.Fingerprint(cert)
	find := func(name string) (*entry, error) {
		entries, err := s.entries(ctx, name)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(entries, func(e entry) bool { return e.fingerprint == fingerprint }); i >= 0 {
			return &entries[i], nil
		}
		return nil, nil
	}
	var failed error
	unnamed := false
	for _, nick := range nicks {
		e, err := find(nick)
		switch {
		case errors.Is(err, errNotFound):
			unnamed = true
		case err != nil:
			failed = err
		case e != nil:
			return e, nil
		}
	}
	if !unnamed {
		return nil, failed
	}
	// Of a nickname that ends with blanks the list does not say how many. By its key a certificate is
	// found whatever it is called, unless another has the same.
	uri, err := keyURI(cert)
	if err != nil {
		return nil, err
	}
	e, err := find(uri)
	if err == nil || errors.Is(err, errNotFound) {
		err = failed
	}
	return e, err
}

// errNotFound: certutil finds nothing of a name.
var errNotFound = errors.New("there is no certificate of this name")

// mayHave reports whether the certificate's bytes are in the database's file: if not, there is nothing
// to ask certutil. They are there in one piece if it is small and SQLite's pages are not (see "the database file
// format" of SQLite, section 1.6); else it may be there.
func (s *database) mayHave(cert *x509.Certificate) (bool, error) {
	data, err := os.ReadFile(s.database())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("read the database: %w", err)
	}
	if len(data) < 100 || !bytes.HasPrefix(data, []byte("SQLite format 3\x00")) || binary.BigEndian.Uint16(data[16:]) < 4096 || len(cert.Raw) > 2000 {
		return true, nil
	}
	log, err := os.ReadFile(s.database() + "-wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read the database: %w", err)
	}
	return bytes.Contains(data, cert.Raw) || bytes.Contains(log, cert.Raw), nil
}

// nickname is what a certificate is called in databases, unless that name is taken.
func nickname(cert *x509.Certificate) string {
	if name := strings.TrimSpace(cert.Subject.CommonName); name != "" {
		return name
	}
	return place.Alias(place.Fingerprint(cert))
}

// certutil runs NSS's program on the database. It gets an empty file of passwords, so that it asks for
// none.
func (s *database) certutil(ctx context.Context, stdin []byte, args ...string) (string, error) {
	path, err := s.program()
	if err != nil {
		return "", err
	}
	args = append(args, "-d", "sql:"+s.dir, "-f", "/dev/null")
	out, err := s.programs.Run(ctx, program.Command{Path: path, Args: args, Stdin: stdin})
	// There is no other sign of either: the exit status is always 255.
	switch {
	case err != nil && strings.Contains(err.Error(), "Could not find cert: ") && strings.Contains(err.Error(), "PR_FILE_NOT_FOUND_ERROR"):
		return "", errNotFound
	case err != nil && strings.Contains(err.Error(), "SEC_ERROR_BAD_PASSWORD"):
		return "", place.Blocked("the database has a password", fmt.Sprintf("run: certutil -A -d sql:%s -n tunneld -t C,, -i the certificate's file; or take the password off while it is added", s.dir))
	}
	return string(out), err
}

func (s *database) program() (string, error) {
	path, err := s.programs.Find("certutil")
	if errors.Is(err, exec.ErrNotFound) {
		return "", place.Blocked("certutil, the program for such databases, is not installed", "install "+s.packageName())
	}
	return path, err
}

// packageName is what certutil comes with, by the program that installs packages here.
func (s *database) packageName() string {
	for _, p := range [...]struct{ program, name string }{
		{"apt-get", "libnss3-tools"}, {"dnf", "nss-tools"}, {"yum", "nss-tools"}, {"pacman", "nss"}, {"zypper", "mozilla-nss-tools"}, {"apk", "nss-tools"},
	} {
		if _, err := s.programs.Find(p.program); err == nil {
			return "the package " + p.name
		}
	}
	return "the tools of NSS"
}

// nicks are the nicknames in the database, each once.
func (s *database) nicks(ctx context.Context) ([]string, error) {
	out, err := s.certutil(ctx, nil, "-L")
	if err != nil {
		return nil, fmt.Errorf("list the certificates: %w", err)
	}
	return parseNicks(out), nil
}

// parseNicks reads certutil's list, of which a line is a nickname, which may have spaces, and three sets of
// trust flags, after two lines of headings.
func parseNicks(out string) []string {
	var nicks []string
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, " \r\n")
		i := strings.LastIndexByte(line, ' ')
		nick := strings.TrimRight(line[:max(i, 0)], " ")
		if nick == "" || !isTrustFlags(line[i+1:]) || slices.Contains(nicks, nick) {
			continue
		}
		nicks = append(nicks, nick)
	}
	return nicks
}

func isTrustFlags(word string) bool {
	return strings.Count(word, ",") == 2 && strings.Trim(word, "pPcCTuwgh,") == ""
}

// entries are the certificates of one nickname: those with the same subject share one.
func (s *database) entries(ctx context.Context, nick string) ([]entry, error) {
	out, err := s.certutil(ctx, nil, "-L", "-n", nick)
	if err != nil {
		return nil, fmt.Errorf("look at the certificate %q: %w", nick, err)
	}
	return parseEntries(nick, out), nil
}

// parseEntries reads what certutil prints of certificates. The lines that count come after what a
// certificate itself could say.
func parseEntries(nick, out string) []entry {
	var entries []entry
	const headings = 4 // how far those are indented that are not the certificate's
	heading := ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		text := strings.TrimLeft(line, " ")
		indent := len(line) - len(text)
		switch {
		case text == "":
		case indent == headings:
			heading = text
			if text == "Fingerprint (SHA-256):" {
				entries = append(entries, entry{nick: nick})
			}
		case len(entries) == 0:
		case heading == "Fingerprint (SHA-256):":
			e := &entries[len(entries)-1]
			e.fingerprint += strings.ToLower(strings.ReplaceAll(text, ":", ""))
		case heading == "Certificate Trust Flags:":
			if strings.HasSuffix(text, " Flags:") {
				if text != "SSL Flags:" {
					heading = "" // the others do not count
				}
				continue
			}
			e := &entries[len(entries)-1]
			e.flags = append(e.flags, text)
		}
	}
	return entries
}

func (s *database) Ready(ctx context.Context, action place.Action, cert *x509.Certificate) error {
	if _, err := s.program(); err != nil {
		return err
	}
	made := s.Makes()
	if len(made) > 0 {
		return place.Writable(filepath.Dir(made[0]))
	}
	for _, path := range []string{s.dir, s.database()} {
		if err := place.Writable(path); err != nil {
			return err
		}
	}
	if action != place.Add {
		return nil
	}
	e, err := s.entry(ctx, cert)
	if err == nil && e != nil && !e.trusted() && len(e.flags) > 0 {
		return place.Blocked(
			fmt.Sprintf("the certificate is there, and somebody has set what it is trusted for: %s", strings.Join(e.flags, ", ")),
			fmt.Sprintf("if you want it trusted: certutil -M -d 'sql:%s' -n '%s' -t C,,", s.dir, e.nick),
		)
	}
	return err
}

func (s *database) Add(ctx context.Context, cert *x509.Certificate) error {
	if len(s.Makes()) > 0 {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		// As browsers make theirs.
		if _, err := s.certutil(ctx, nil, "-N", "--empty-password"); err != nil {
			return fmt.Errorf("make the database: %w", err)
		}
	}
	nick := nickname(cert)
	nicks, err := s.nicks(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(nicks, nick) {
		// NSS has only those of one subject share a name.
		nick, err = s.freeNick(ctx, cert, nick)
		if err != nil {
			return err
		}
	}
	_, err = s.certutil(ctx, place.Encode(cert), "-A", "-a", "-n", nick, "-t", "C,,")
	return err
}

// Before: what is there by hand is the certificate, without being trusted.
func (s *database) Before(_ context.Context, cert *x509.Certificate) (restore func(context.Context) error, err error) {
	return func(ctx context.Context) error {
		e, err := s.entry(ctx, cert)
		if err != nil || e == nil || !e.trusted() {
			return err
		}
		certs, err := s.certs(ctx, e.nick)
		if err != nil {
			return err
		}
		name, err := s.name(e, certs, cert)
		if err != nil {
			return err
		}
		_, err = s.certutil(ctx, nil, "-M", "-n", name, "-t", ",,")
		return err
	}, nil
}

// freeNick is a nickname for a certificate whose own is taken: the same if it is by one of the same
// subject.
func (s *database) freeNick(ctx context.Context, cert *x509.Certificate, nick string) (string, error) {
	certs, err := s.certs(ctx, nick)
	if errors.Is(err, errNotFound) {
		return nick, nil // it is only like it
	} else if err != nil {
		return "", err
	}
	if slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return !bytes.Equal(c.RawSubject, cert.RawSubject) }) {
		return nick + " " + place.Fingerprint(cert)[:8], nil
	}
	return nick, nil
}

// certs are the certificates of one nickname.
func (s *database) certs(ctx context.Context, nick string) ([]*x509.Certificate, error) {
	out, err := s.certutil(ctx, nil, "-L", "-a", "-n", nick)
	if err != nil {
		return nil, fmt.Errorf("look at the certificate %q: %w", nick, err)
	}
	return place.Certificates([]byte(out)), nil
}

func (s *database) Remove(ctx context.Context, cert *x509.Certificate) error {
	e, err := s.entry(ctx, cert)
	if err != nil || e == nil {
		return err
	}
	certs, err := s.certs(ctx, e.nick)
	if err != nil {
		return err
	}
	name, err := s.name(e, certs, cert)
	if err != nil {
		return err
	}
	_, err = s.certutil(ctx, nil, "-D", "-n", name)
	return err
}

// name is what certutil knows the certificate of an entry by, and no other; certs are those of its nickname.
func (s *database) name(e *entry, certs []*x509.Certificate, cert *x509.Certificate) (string, error) {
	sameKey := 0
	for _, c := range certs {
		if bytes.Equal(c.RawSubjectPublicKeyInfo, cert.RawSubjectPublicKeyInfo) {
			sameKey++
		}
	}
	if sameKey != 1 {
		return "", fmt.Errorf("there are other certificates of the same key, with the nickname %q: nothing is changed", e.nick)
	}
	if len(certs) == 1 {
		return e.nick, nil
	}
	// By the nickname alone certutil would take the first that it meets.
	return keyURI(cert)
}

// keyURI is how a certificate in a database is named by its key alone (RFC 7512): the SHA-1 of the public
// value or the modulus, as NSS makes it in PK11_MakeIDFromPubKey.
func keyURI(cert *x509.Certificate) (string, error) {
	var value []byte
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		var info struct {
			Algorithm asn1.RawValue
			Key       asn1.BitString
		}
		if _, err := asn1.Unmarshal(cert.RawSubjectPublicKeyInfo, &info); err != nil {
			return "", fmt.Errorf("read the public key: %w", err)
		}
		value = info.Key.Bytes
	case *rsa.PublicKey:
		value = key.N.Bytes()
	default:
		return "", fmt.Errorf("a key of type %T cannot be found", key)
	}
	sum := sha1.Sum(value)
	var uri strings.Builder
	uri.WriteString("pkcs11:id=")
	for _, b := range sum {
		uri.WriteString("%" + hex.EncodeToString([]byte{b}))
	}
	return uri.String(), nil
}

// Search looks at each certificate in the database.
func (s *database) Search(ctx context.Context, fingerprint string) (*x509.Certificate, error) {
	if _, err := os.Stat(s.database()); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	nicks, err := s.nicks(ctx)
	if err != nil {
		return nil, err
	}
	for _, nick := range nicks {
		certs, err := s.certs(ctx, nick)
		if errors.Is(err, errNotFound) {
			continue // see entry; ours have names that are found
		} else if err != nil {
			return nil, err
		}
		for _, cert := range certs {
			if place.Fingerprint(cert) == fingerprint {
				return cert, nil
			}
		}
	}
	return nil, nil
}

func (s *database) Makes() []string {
	if _, err := os.Lstat(s.database()); err == nil {
		return nil
	}
	made := []string{s.database()}
	for dir := s.dir; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		made = append(made, dir)
	}
	slices.Reverse(made)
	return made
}

func (s *database) Unmake(ctx context.Context, made []string) error {
	if _, err := os.Stat(s.database()); err == nil {
		if used, err := s.used(ctx); err != nil || used {
			return err
		}
	}
	for _, name := range files {
		for _, ending := range []string{"", "-journal"} {
			if err := os.Remove(filepath.Join(s.dir, name+ending)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for _, dir := range slices.Backward(made) {
		if dir == s.database() {
			continue
		}
		// What is not empty is somebody else's by now.
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	return nil
}

// used reports whether there is anything in the database: a certificate, a key, or another module than
// NSS's own.
func (s *database) used(ctx context.Context) (bool, error) {
	if info, err := os.Stat(s.database()); err == nil && info.Size() == 0 {
		return false, nil // certutil was killed as it made it
	}
	nicks, err := s.nicks(ctx)
	if err != nil || len(nicks) > 0 {
		return true, err
	}
	// Without keys it fails.
	if _, err := s.certutil(ctx, nil, "-K"); err == nil {
		return true, nil
	}
	data, err := os.ReadFile(filepath.Join(s.dir, files[2]))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	return bytes.Count(data, []byte("\nname=")) > 1, nil
}
