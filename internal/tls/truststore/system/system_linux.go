// Package system is the trust store that a Linux distribution keeps for all programs: a directory for the
// administrator's certificates, and a program that makes what they read.
package system

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/atomicfile"
	"github.com/tunneld/tunneld/internal/tls/truststore/held"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

// A layout is how a family of distributions keeps its trust store: a directory for
// certificates, and a program that makes from it what programs read.
type layout struct {
	kind place.Kind
	// anchors is the directory of the administrator's certificates.
	anchors string
	// update are the programs that will do, with their arguments, the best one first.
	update [][]string
	// bundle is what the program makes of it all, in PEM.
	bundle string
	// links is a directory to which the program links certificates; empty if it has none.
	links string
	// java is the key store that the program makes, too, if Java is there.
	java    string
	readers string
}

// layouts are looked for in this order. A distribution with p11-kit has the directories of its
// own, so that at most one is found.
var layouts = []layout{
	{
		kind:    place.RedHat,
		anchors: "/etc/pki/ca-trust/source/anchors",
		update:  [][]string{{"update-ca-trust", "extract"}},
		bundle:  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		java:    "/etc/pki/ca-trust/extracted/java/cacerts",
		readers: "curl, OpenSSL, Go, the system's Python and Java, browsers of the distribution",
	}, {
		kind:    place.Arch,
		anchors: "/etc/ca-certificates/trust-source/anchors",
		update:  [][]string{{"update-ca-trust"}, {"trust", "extract-compat"}},
		bundle:  "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
		java:    "/etc/ssl/certs/java/cacerts",
		readers: "curl, OpenSSL, Go, the system's Python and Java, browsers of the distribution",
	}, {
		kind:    place.SUSE,
		anchors: "/etc/pki/trust/anchors",
		update:  [][]string{{"update-ca-certificates"}},
		bundle:  "/var/lib/ca-certificates/ca-bundle.pem",
		java:    "/var/lib/ca-certificates/java-cacerts",
		readers: "curl, OpenSSL, Go, the system's Python and Java",
	}, {
		kind:    place.Debian,
		anchors: "/usr/local/share/ca-certificates",
		update:  [][]string{{"update-ca-certificates"}},
		bundle:  "/etc/ssl/certs/ca-certificates.crt",
		links:   "/etc/ssl/certs",
		java:    "/etc/ssl/certs/java/cacerts",
		readers: "curl, OpenSSL, Go, the system's Python and Java",
	},
}

// Find returns the system's own store, by the directory and the program that it has; nil if it has none
// that is known. root is put before its paths; it is empty but for tests.
func Find(root string, programs program.Programs) place.Store {
	for _, l := range layouts {
		if st, err := open(l, root, programs); err == nil {
			return st
		}
	}
	return nil
}

// At returns the store at a place that a receipt or a step names.
func At(p place.Place, root string, programs program.Programs) (place.Store, error) {
	for _, l := range layouts {
		if l.kind != p.Kind {
			continue
		}
		st, err := open(l, root, programs)
		if err != nil {
			return nil, fmt.Errorf("the trust store is gone, or its program: %w", err)
		}
		if st.anchors != filepath.Clean(p.Path) {
			return nil, fmt.Errorf("%s is not where such a trust store is", p.Path)
		}
		return st, nil
	}
	return nil, fmt.Errorf("%s is no kind of trust store of this system", p.Kind)
}

// open returns the store of a layout. The error says what is missing of it.
func open(l layout, root string, programs program.Programs) (*store, error) {
	st := &store{layout: l, programs: programs}
	for _, path := range []*string{&st.anchors, &st.bundle, &st.links, &st.java} {
		if *path != "" {
			*path = filepath.Join("/", root, *path)
		}
	}
	if info, err := os.Stat(st.anchors); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: st.anchors, Err: unix.ENOTDIR}
	}
	var err error
	for _, words := range l.update {
		var path string
		if path, err = st.programs.Find(words[0]); err == nil {
			st.program = program.Command{Path: path, Args: words[1:], Limit: updateLimit, Finishes: true, Lock: lockPath(root)}
			return st, nil
		}
	}
	return nil, err
}

// updateLimit is how long a distribution's program may take. It has Java's key store made, too, which takes
// seconds on a machine that has nothing else to do.
const updateLimit = 5 * time.Minute

// lockPath is a file for who runs such a program: two at a time write to the same new
// bundle, and leave half of one. It is empty where there is no place for one.
func lockPath(root string) string {
	dir := filepath.Join("/", root, "run")
	if unix.Access(dir, unix.W_OK) != nil {
		return ""
	}
	return filepath.Join(dir, "tunneld-trust.lock")
}

type store struct {
	layout
	program  program.Command
	programs program.Programs
}

func (s *store) Place() place.Place {
	return place.Place{Kind: s.kind, Path: s.anchors, Scope: place.Machine, Readers: s.readers}
}

// fileName is what the file of ours is called.
func fileName(fingerprint string) string { return place.Alias(fingerprint) + ".crt" }

// own is the path of the file of ours.
func (s *store) own(cert *x509.Certificate) string {
	return filepath.Join(s.anchors, fileName(place.Fingerprint(cert)))
}

func (s *store) Look(_ context.Context, cert *x509.Certificate) (place.Presence, error) {
	files, err := s.files(cert)
	if err != nil {
		return place.Absent, err
	}
	bundled, err := bundles(s.bundle, cert)
	if err != nil {
		return place.Absent, err
	}
	if bundled && len(files) > 0 {
		return place.Present, nil
	}
	traces, err := s.traces(cert)
	if err != nil {
		return place.Absent, err
	}
	if bundled || len(files) > 0 || traces {
		return place.Partly, nil
	}
	return place.Absent, nil
}

// files are those that hold the certificate and nothing else, whatever they are called: it may
// have been put there by hand. What is ours by its name counts if it is broken, too.
func (s *store) files(cert *x509.Certificate) ([]string, error) {
	var files []string
	err := filepath.WalkDir(s.anchors, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if path == s.own(cert) {
			files = append(files, path)
			return nil
		}
		if info, err := e.Info(); err != nil || info.Size() > 1<<16 {
			return nil // gone, or more than one certificate
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil // what a user cannot read is not what was put there for all
		}
		if c := place.Certificate(data); c != nil && c.Equal(cert) || bytes.Equal(data, cert.Raw) {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for the certificate: %w", err)
	}
	return files, nil
}

// bundles reports whether a file of certificates in PEM has this one.
func bundles(path string, cert *x509.Certificate) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look what programs read: %w", err)
	}
	return held.InBundle(data, cert), nil
}

// traces reports whether there is more of a certificate than readers of the bundle see, which is so
// after a crash or a removal by hand: links to a file that is gone, and Java's key store.
func (s *store) traces(cert *x509.Certificate) (bool, error) {
	if left, err := s.left(cert); err != nil || len(left) > 0 {
		return len(left) > 0, err
	}
	if links, err := s.linked(fileName(place.Fingerprint(cert))); err != nil || len(links) > 0 {
		return len(links) > 0, err
	}
	return s.javaHas(cert), nil
}

// javaHas reports whether the key store that follows has the certificate. Its entries of
// certificates are not encrypted, and whole.
func (s *store) javaHas(cert *x509.Certificate) bool {
	data, err := os.ReadFile(s.java)
	return err == nil && bytes.Contains(data, cert.Raw)
}

// linked are the links to a certificate's file, which is named from the directory of anchors: its own, and that
// by the hash of its subject, which leads to the first.
func (s *store) linked(file string) ([]string, error) {
	if s.links == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(s.links)
	if err != nil {
		return nil, fmt.Errorf("look for links to the certificate: %w", err)
	}
	var links []string
	for _, e := range entries {
		if e.Type() != fs.ModeSymlink {
			continue
		}
		path := filepath.Join(s.links, e.Name())
		target, err := os.Readlink(path)
		if err != nil {
			continue
		}
		if target == filepath.Join(s.anchors, file) || filepath.Base(target) == linkName(file) && !strings.Contains(target, "/") {
			links = append(links, path)
		}
	}
	return links, nil
}

// linkName is what Debian's program calls the link to a file.
func linkName(file string) string {
	name := strings.NewReplacer(" ", "_", ",", "_", "(", "=", ")", "=").Replace(filepath.Base(file))
	return strings.TrimSuffix(name, ".crt") + ".pem"
}

func (s *store) Ready(_ context.Context, _ place.Action, _ *x509.Certificate) error {
	for _, dir := range []string{s.anchors, filepath.Dir(s.bundle)} {
		if err := place.OnlyRoots(dir); err != nil {
			return err
		}
		if err := unix.Access(dir, unix.W_OK); errors.Is(err, unix.EROFS) {
			return place.Blocked(dir+" is on a file system that is read-only", "make it writable, or put the certificate into the system's image")
		} else if err != nil {
			return fmt.Errorf("write to %s: %w", dir, err)
		}
	}
	return place.OnlyRoots(s.program.Path)
}

func (s *store) Add(ctx context.Context, cert *x509.Certificate) error {
	if err := atomicfile.Write(s.own(cert), place.Encode(cert), 0o644); err != nil {
		return err
	}
	return s.update(ctx)
}

// update has the distribution's program make what others read.
func (s *store) update(ctx context.Context, args ...string) error {
	if s.kind == place.Debian {
		// Debian's program appends to the file that it then makes the bundle, and whatever
		// one that was killed has left there would be in it twice.
		if err := os.Remove(s.bundle + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	c := s.program
	c.Args = append(slices.Clone(c.Args), args...)
	_, err := s.programs.Run(ctx, c)
	return err
}

// Before: what is there by hand are files of other names than ours.
func (s *store) Before(_ context.Context, cert *x509.Certificate) (restore func(context.Context) error, err error) {
	return func(ctx context.Context) error {
		if err := os.Remove(s.own(cert)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if s.kind != place.Debian {
			return s.update(ctx)
		}
		names := []string{fileName(place.Fingerprint(cert))}
		refused, err := s.exclude(ctx, cert, names)
		if err == nil && refused != nil {
			err = s.update(ctx)
		}
		return errors.Join(err, s.unlink(names))
	}, nil
}

func (s *store) Remove(ctx context.Context, cert *x509.Certificate) error {
	files, err := s.files(cert)
	if err != nil {
		return err
	}
	names := []string{fileName(place.Fingerprint(cert))}
	for _, path := range files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if name, err := filepath.Rel(s.anchors, path); err == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	left, err := s.left(cert)
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if s.kind == place.Debian {
		err = s.removeDebian(ctx, cert, names)
	} else {
		err = s.update(ctx)
	}
	if err != nil {
		return err
	}
	if bundled, err := bundles(s.bundle, cert); err != nil {
		return err
	} else if bundled {
		return fmt.Errorf("%s still has the certificate, from another place than %s", s.bundle, s.anchors)
	}
	return nil
}

// left is what atomicfile leaves of a file of ours when the process is killed.
func (s *store) left(cert *x509.Certificate) ([]string, error) {
	return filepath.Glob(filepath.Join(place.GlobQuote(s.anchors), "."+fileName(place.Fingerprint(cert))+".*.tmp"))
}

// removeDebian has Debian's program take out the certificates whose files, of these names, are gone.
//
// By itself it does not notice: the links stay, and dangle, and Java keeps the certificate. With
// --fresh there are no links left, but every certificate counts as new, and Java still keeps it. Only what its
// configuration excludes is taken out everywhere, as long as its link is there; so it gets a
// configuration that says so, in memory, where a crash leaves nothing of it.
func (s *store) removeDebian(ctx context.Context, cert *x509.Certificate, names []string) error {
	refused, err := s.exclude(ctx, cert, names)
	if err != nil {
		return err
	}
	bundled, err := bundles(s.bundle, cert)
	if err != nil {
		return err
	}
	if refused != nil || bundled {
		// One that knows no such option says how to use it, whether it calls that a failure or not.
		if err := s.update(ctx, "--fresh"); err != nil {
			return errors.Join(err, s.unlink(names))
		}
	}
	if err := s.unlink(names); err != nil {
		return err
	}
	if s.javaHas(cert) {
		return place.Blocked(s.java+" still has the certificate", fmt.Sprintf("keytool -delete -cacerts -storepass changeit -alias debian:%s", linkName(names[0])))
	}
	return nil
}

// exclude runs Debian's program with such a configuration. refused is the program's own error.
func (s *store) exclude(ctx context.Context, cert *x509.Certificate, names []string) (refused, err error) {
	conf, err := os.ReadFile(debianConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, name := range names {
		link := filepath.Join(s.links, linkName(name))
		if s.javaHas(cert) {
			// After a crash the link may be gone already.
			if err := os.Symlink(filepath.Join(s.anchors, name), link); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
		// What is excluded it looks for by the name of the link, and no other.
		conf = fmt.Appendf(conf, "\n!%s.crt\n", strings.TrimSuffix(linkName(name), ".pem"))
	}
	fd, err := unix.MemfdCreate("ca-certificates.conf", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a configuration for %s: %w", s.program.Path, err)
	}
	f := os.NewFile(uintptr(fd), "ca-certificates.conf")
	defer f.Close()
	if _, err := f.Write(conf); err != nil {
		return nil, err
	}
	return s.update(ctx, "--certsconf", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)), nil
}

// debianConf says which of Debian's own certificates are trusted.
const debianConf = "/etc/ca-certificates.conf"

// unlink removes links to files that are gone, which is left to do if the program failed.
func (s *store) unlink(names []string) error {
	for _, name := range names {
		links, err := s.linked(name)
		if err != nil {
			return err
		}
		for _, path := range links {
			if _, err := os.Stat(path); err == nil {
				continue
			}
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Search finds the file of ours, of which the fingerprint is the name.
func (s *store) Search(_ context.Context, fingerprint string) (*x509.Certificate, error) {
	data, err := os.ReadFile(filepath.Join(s.anchors, fileName(fingerprint)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if cert := place.Certificate(data); cert != nil && place.Fingerprint(cert) == fingerprint {
		return cert, nil
	}
	// The file may be gone already, and those who read what was made of it not know.
	data, err = os.ReadFile(s.bundle)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, cert := range place.Certificates(data) {
		if place.Fingerprint(cert) == fingerprint {
			return cert, nil
		}
	}
	return nil, nil
}
