//go:build unix

// Package java is the key stores of JDKs that keep their own.
package java

import (
	"bytes"
	"context"
	"crypto/sha1" // of Java's key stores
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tunneld/tunneld/internal/atomicfile"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

// A keyStore is the key store of a JDK that keeps its own, changed by that very JDK's keytool.
type keyStore struct {
	// home is the JDK's directory, cacerts the key store in it.
	home, cacerts string
	scope         place.Scope
	programs      program.Programs
}

// places are where key stores are in a JDK; the second is that of Java 8.
var places = [...]string{"lib/security/cacerts", "jre/lib/security/cacerts"}

// password is that of all key stores of JDKs, unless somebody has changed it. It keeps no secret.
const password = "changeit"

// JDKs are those of one scope: whose a key store is, its owner says.
type JDKs struct {
	Scope place.Scope
	// Home is the user's home directory, for the scope User.
	Home string
	// Root is put before the paths of the system; empty but for tests.
	Root string
	// Getenv is os.Getenv or like it: JAVA_HOME names another.
	Getenv   func(string) string
	Programs program.Programs
}

// Find returns the key stores of their own that they have.
func (j JDKs) Find() ([]place.Store, error) {
	var homes []string
	patterns := []string{"/usr/lib/jvm/*", "/usr/java/*", "/opt/*", "/opt/*/*", "/Library/Java/JavaVirtualMachines/*/Contents/Home"}
	for i, p := range patterns {
		patterns[i] = filepath.Join("/", j.Root, p)
	}
	if home := j.Getenv("JAVA_HOME"); filepath.IsAbs(home) {
		homes = append(homes, home)
	}
	if j.Scope == place.User {
		for _, p := range []string{".sdkman/candidates/java/*", ".jdks/*", ".asdf/installs/java/*", ".local/share/mise/installs/java/*", ".gradle/jdks/*", "Library/Java/JavaVirtualMachines/*/Contents/Home"} {
			patterns = append(patterns, filepath.Join(place.GlobQuote(j.Home), p))
		}
	}
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil {
			return nil, err
		}
		homes = append(homes, found...)
	}
	var stores []place.Store
	seen := make(map[string]bool)
	for _, home := range homes {
		for _, name := range places {
			st := j.open(home, name)
			if st == nil || seen[st.cacerts] {
				continue
			}
			seen[st.cacerts] = true
			stores = append(stores, st)
		}
	}
	return stores, nil
}

// open returns the key store of a JDK; nil if it is not of this scope, or none of its own: a link to what the
// system makes follows the system's store.
func (j JDKs) open(home, name string) *keyStore {
	home, err := filepath.EvalSymlinks(home)
	if err != nil {
		return nil
	}
	path, err := filepath.EvalSymlinks(filepath.Join(home, name))
	if err != nil || !strings.HasPrefix(path, home+"/") {
		return nil
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	st := &keyStore{home: home, cacerts: path, scope: j.Scope, programs: j.Programs}
	if st.keytool() == "" {
		return nil // some other directory
	}
	if !j.owns(path, info) {
		return nil
	}
	return st
}

// owns reports whether a file is of the scope: root's, or the user's. If that is root, it is what is in the home.
func (j JDKs) owns(path string, info fs.FileInfo) bool {
	if j.Scope == place.Machine {
		return place.Owner(info) == 0
	}
	home, err := os.Stat(j.Home)
	return err == nil && place.Owner(info) == place.Owner(home) && (place.Owner(info) != 0 || strings.HasPrefix(path, filepath.Clean(j.Home)+"/"))
}

// At returns the key store at a path, whether it is there or not.
func (j JDKs) At(path string) (place.Store, error) {
	for _, name := range places[:] {
		if home, ok := strings.CutSuffix(path, "/"+name); ok {
			home = strings.TrimSuffix(home, "/jre")
			return &keyStore{home: home, cacerts: path, scope: j.Scope, programs: j.Programs}, nil
		}
	}
	return nil, fmt.Errorf("%s is no key store of a JDK", path)
}

func (s *keyStore) Place() place.Place {
	return place.Place{Kind: place.Java, Path: s.cacerts, Scope: s.scope, Readers: "programs that run in " + s.home}
}

// keytool is the JDK's; empty if it has none.
func (s *keyStore) keytool() string {
	for _, name := range [...]string{"bin/keytool", "jre/bin/keytool"} {
		path := filepath.Join(s.home, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// mayRun returns a *place.BlockedError unless the JDK's programs are of those who may decide what is done in the scope:
// for the machine of root alone, whoever asks, and with all that they load, which may be of somebody else where an
// archive was unpacked; for a user of that user or root.
func (s *keyStore) mayRun() error {
	keytool := s.keytool()
	if keytool == "" {
		return place.Blocked("the JDK has no keytool", "")
	}
	if s.scope == place.Machine {
		if err := place.OnlyRoots(keytool); err != nil {
			return fmt.Errorf("look whose the JDK is: %w", err)
		}
		if err := place.OnlyRootsBelow(s.home); err != nil {
			return fmt.Errorf("look whose the JDK is: %w", err)
		}
		return nil
	}
	info, err := os.Stat(keytool)
	if err != nil {
		return fmt.Errorf("look whose the JDK is: %w", err)
	}
	if uid := place.Owner(info); uid != 0 && uid != os.Geteuid() || info.Mode().Perm()&0o002 != 0 {
		return place.Blocked(keytool+" can be changed by other users", "give it to yourself, or to root, with a mode of 0755")
	}
	return nil
}

func (s *keyStore) run(ctx context.Context, stdin []byte, path string, args ...string) ([]byte, error) {
	if err := s.mayRun(); err != nil {
		return nil, err
	}
	args = append(args, "-keystore", path, "-storepass", password, "-J-Duser.language=en")
	return s.programs.Run(ctx, program.Command{Path: s.keytool(), Args: args, Stdin: stdin})
}

func (s *keyStore) Look(ctx context.Context, cert *x509.Certificate) (place.Presence, error) {
	data, err := os.ReadFile(s.cacerts)
	if errors.Is(err, fs.ErrNotExist) {
		return place.Absent, nil
	} else if err != nil {
		return place.Absent, fmt.Errorf("read the key store: %w", err)
	}
	switch has, err := s.has(ctx, data, cert); {
	case err != nil:
		return place.Absent, err
	case has:
		return place.Present, nil
	}
	left, err := s.left()
	if err != nil || len(left) == 0 {
		return place.Absent, err
	}
	return place.Partly, nil
}

// has reports whether a key store has the certificate. Java's own format, and since Java 18 PKCS #12 without a
// password, have it in one piece, as it is; else keytool has to decipher it.
func (s *keyStore) has(ctx context.Context, data []byte, cert *x509.Certificate) (bool, error) {
	if bytes.Contains(data, cert.Raw) {
		return true, nil
	}
	if isJKS(data) || bytes.Contains(data, oidX509Certificate) {
		return false, nil
	}
	entries, err := s.entries(ctx)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.cert.Equal(cert) {
			return true, nil
		}
	}
	return false, nil
}

func isJKS(data []byte) bool { return bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}) }

// oidX509Certificate says in PKCS #12 that a certificate follows (RFC 7292, section 4.2.3). Where it can be read, so
// can they.
var oidX509Certificate = []byte{0x06, 0x0a, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01}

// An entry is a trusted certificate in a key store.
type entry struct {
	alias string
	cert  *x509.Certificate
}

func (s *keyStore) entries(ctx context.Context) ([]entry, error) {
	out, err := s.run(ctx, nil, s.cacerts, "-list", "-rfc")
	if err != nil {
		return nil, s.closed(err)
	}
	return parseList(string(out)), nil
}

// closed is what is said when keytool cannot open the key store, for which its password is the most likely reason.
// keytool itself says which it is, and its exit status does not.
func (s *keyStore) closed(err error) error {
	var failed *exec.ExitError
	if !errors.As(err, &failed) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	return place.Blocked(
		fmt.Sprintf("the key store does not open with Java's usual password, %q (%v)", password, err),
		fmt.Sprintf("with its own password: %s -importcert -noprompt -keystore %s -alias tunneld -file the certificate's file", s.keytool(), s.cacerts),
	)
}

// parseList reads keytool's list, of which an entry is its alias and the certificate in PEM.
func parseList(out string) []entry {
	var entries []entry
	for part := range strings.SplitSeq("\n"+out, "\nAlias name: ") {
		name, rest, _ := strings.Cut(part, "\n")
		for _, cert := range place.Certificates([]byte(rest)) {
			entries = append(entries, entry{strings.TrimRight(name, "\r"), cert})
		}
	}
	return entries
}

func (s *keyStore) Ready(ctx context.Context, _ place.Action, _ *x509.Certificate) error {
	if err := s.mayRun(); err != nil {
		return err
	}
	dir := filepath.Dir(s.cacerts)
	if s.scope == place.Machine {
		if err := place.OnlyRoots(dir); err != nil {
			return err
		}
	}
	if err := place.Writable(dir); err != nil {
		return err
	}
	data, err := os.ReadFile(s.cacerts)
	if err != nil {
		return fmt.Errorf("read the key store: %w", err)
	}
	if bytes.Contains(data, oidX509Certificate) || isJKS(data) && opensJKS(data) {
		return nil
	}
	if _, err := s.run(ctx, nil, s.cacerts, "-list"); err != nil {
		return s.closed(err)
	}
	return nil
}

// opensJKS reports whether a key store in Java's own format has the usual password: at its end is a digest of the
// password, a constant and all before.
func opensJKS(data []byte) bool {
	if len(data) < sha1.Size {
		return false
	}
	content, digest := data[:len(data)-sha1.Size], data[len(data)-sha1.Size:]
	h := sha1.New()
	for _, c := range password {
		h.Write([]byte{0, byte(c)}) // UTF-16
	}
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(content)
	return bytes.Equal(h.Sum(nil), digest)
}

func (s *keyStore) Add(ctx context.Context, cert *x509.Certificate) error {
	return s.change(func(path string) error {
		_, err := s.run(ctx, place.Encode(cert), path, "-importcert", "-noprompt", "-trustcacerts", "-alias", place.Alias(place.Fingerprint(cert)))
		return err
	})
}

func (s *keyStore) Remove(ctx context.Context, cert *x509.Certificate) error {
	left, err := s.left()
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	entries, err := s.entries(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.cert.Equal(cert) {
			continue
		}
		err := s.change(func(path string) error {
			_, err := s.run(ctx, nil, path, "-delete", "-alias", e.alias)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// change has a program change a copy of the key store, and then puts it into the place of the old one, with the
// same owner and mode: keytool writes where it reads, and one that is killed meanwhile leaves half of it.
func (s *keyStore) change(do func(path string) error) error {
	info, err := os.Lstat(s.cacerts)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(s.cacerts)
	if err != nil {
		return err
	}
	return atomicfile.WriteFunc(s.cacerts, data, info.Mode().Perm()|0o200, func(temporary string) error {
		if err := do(temporary); err != nil {
			return err
		}
		f, err := os.OpenFile(temporary, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		now, err := f.Stat()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		if current := now.Sys().(*syscall.Stat_t); current.Uid != stat.Uid || current.Gid != stat.Gid {
			if err := f.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
				return fmt.Errorf("keep the owner: %w", err)
			}
		}
		if err := f.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
		return f.Sync()
	})
}

// left is what change leaves of a copy when the process is killed.
func (s *keyStore) left() ([]string, error) {
	return filepath.Glob(filepath.Join(place.GlobQuote(filepath.Dir(s.cacerts)), "."+filepath.Base(s.cacerts)+".*.tmp"))
}

func (s *keyStore) Search(ctx context.Context, fingerprint string) (*x509.Certificate, error) {
	if _, err := os.Stat(s.cacerts); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	entries, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if place.Fingerprint(e.cert) == fingerprint {
			return e.cert, nil
		}
	}
	return nil, nil
}
