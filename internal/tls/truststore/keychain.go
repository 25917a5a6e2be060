package truststore

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// loginKeychain is below a user's home; systemKeychain is root's, and everybody may
	// read it.
	loginKeychain  = "Library/Keychains/login.keychain-db"
	systemKeychain = "/Library/Keychains/System.keychain"

	// securityLimit is how long security may take to look, and dialogLimit how long
	// where macOS asks the user for a password first.
	securityLimit = 20 * time.Second
	dialogLimit   = 3 * time.Minute

	// scratchParent is where directories are made for the files that security takes
	// and writes. It is not $TMPDIR, which sudo passes on: that belongs to a user, who could
	// put links there that root would follow.
	scratchParent = "/tmp"
)

// A keychain is one of macOS's. That a certificate is in it does not make anybody
// trust it: that is in the trust settings of its scope, which know certificates by their
// SHA-1. All is done with the program security: its words are in the user's language, and
// it fails with the same exit status whatever the cause, so neither is gone by.
type keychain struct {
	scope Scope
	path  string
	// home is the user's, in the scope User.
	home     string
	programs programs
	// exists reports whether there is a file; tests play it.
	exists func(path string) bool
}

// macKeychains are the keychains of a scope that are there.
func (s *Stores) macKeychains() []store {
	path := systemKeychain
	if s.Scope == User {
		path = filepath.Join(s.Home, loginKeychain)
	}
	k := s.keychain(path)
	if !k.exists(path) {
		return nil
	}
	return []store{k}
}

func (s *Stores) keychain(path string) keychain {
	return keychain{s.Scope, path, s.Home, s.program(), func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}}
}

func (k keychain) place() Place {
	readers := "Safari, Chrome, Firefox, curl and most other programs, for all users"
	if k.scope == User {
		readers = "Safari, Chrome, Firefox, curl and most other programs of yours"
	}
	return Place{Kind: Keychain, Path: k.path, Scope: k.scope, Readers: readers}
}

// asks is what macOS asks before it does an action. Since macOS 11 that is so for root, too.
func (k keychain) asks(Action) string {
	if k.scope == User {
		return "macOS asks for your password in a dialog"
	}
	return "macOS asks for an administrator's password in a dialog"
}

func (k keychain) ready(_ context.Context, action Action, _ *x509.Certificate) error {
	if action == Add && !k.exists(k.path) {
		return &blockedError{"the keychain is not there any more", ""}
	}
	if _, err := k.programs.find("security"); err != nil {
		return &blockedError{"the program security, which is part of macOS, is missing", ""}
	}
	return nil
}

// look finds a certificate that is kept or trusted, but not both, partly there.
func (k keychain) look(ctx context.Context, cert *x509.Certificate) (presence, error) {
	kept, err := k.kept(ctx, cert)
	if err != nil {
		return absent, err
	}
	trust, err := k.trust(ctx, cert)
	switch {
	case err != nil:
		return absent, err
	case kept && trust == trustedForServers:
		return present, nil
	case kept || trust != noTrustSettings:
		return partly, nil
	}
	return absent, nil
}

// kept reports whether the certificate itself is in the keychain; nothing is in one
// that was deleted.
func (k keychain) kept(ctx context.Context, cert *x509.Certificate) (bool, error) {
	if !k.exists(k.path) {
		return false, nil
	}
	all, err := k.certificates(ctx)
	return slices.ContainsFunc(all, cert.Equal), err
}

func (k keychain) certificates(ctx context.Context) ([]*x509.Certificate, error) {
	out, err := k.security(ctx, securityLimit, "find-certificate", "-a", "-p", k.path)
	if err != nil {
		return nil, err
	}
	return certificates(out), nil
}

func (k keychain) search(ctx context.Context, fingerprint string) (*x509.Certificate, error) {
	if !k.exists(k.path) {
		return nil, nil
	}
	all, err := k.certificates(ctx)
	for _, cert := range all {
		if Fingerprint(cert) == fingerprint {
			return cert, nil
		}
	}
	return nil, err
}

// trust is what the scope's trust settings say of a certificate.
func (k keychain) trust(ctx context.Context, cert *x509.Certificate) (trust, error) {
	dir, err := os.MkdirTemp(scratchParent, "tunneld-trust-")
	if err != nil {
		return noTrustSettings, fmt.Errorf("make a directory for trust settings: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "settings.plist")
	_, err = k.security(ctx, securityLimit, k.inDomain("trust-settings-export", path)...)
	if err != nil {
		// It fails, too, where nobody has ever set anything. Those of macOS itself
		// are always there: if they can be had, that is why.
		if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
			return noTrustSettings, err
		}
		if _, sysErr := k.security(ctx, securityLimit, "trust-settings-export", "-s", path); sysErr != nil {
			return noTrustSettings, err
		}
		return noTrustSettings, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return noTrustSettings, fmt.Errorf("read trust settings: %w", err)
	}
	t, err := parseTrustSettings(data, cert)
	if err != nil {
		return noTrustSettings, fmt.Errorf("trust settings: %w", err)
	}
	return t, nil
}

// add has macOS keep the certificate and trust it, but for TLS servers and for plain
// verification only, not for mail or code. Those two are what a reader may ask for.
func (k keychain) add(ctx context.Context, cert *x509.Certificate) error {
	was, err := k.kept(ctx, cert)
	if err != nil {
		return err
	}
	err = k.withFile(cert, func(file string) error {
		args := k.inDomain("add-trusted-cert", "-r", "trustRoot", "-p", "ssl", "-p", "basic", "-k", k.path, file)
		return k.ask(ctx, args...)
	})
	if err == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	now, lookErr := k.look(ctx, cert)
	switch {
	case lookErr != nil:
		return errors.Join(err, lookErr)
	case now == present:
		return nil // the user was quicker than the time limit
	case now == absent || was:
		return err
	}
	// It was kept before the user was asked. Who said no, or was not asked, wants
	// nothing of it to stay.
	return errors.Join(err, k.forget(ctx, cert))
}

// remove takes the trust away first, which is what counts.
func (k keychain) remove(ctx context.Context, cert *x509.Certificate) error {
	trust, err := k.trust(ctx, cert)
	if err != nil {
		return err
	}
	if trust != noTrustSettings {
		if err := k.distrust(ctx, cert); err != nil {
			return err
		}
	}
	if kept, err := k.kept(ctx, cert); err != nil || !kept {
		return err
	}
	return k.forget(ctx, cert)
}

// before: somebody may keep the certificate and not trust it, or the other way round.
func (k keychain) before(ctx context.Context, cert *x509.Certificate) (restore func(context.Context) error, err error) {
	kept, err := k.kept(ctx, cert)
	if err != nil {
		return nil, err
	}
	was, err := k.trust(ctx, cert)
	return func(ctx context.Context) error {
		if now, err := k.trust(ctx, cert); err != nil {
			return err
		} else if was == noTrustSettings && now != noTrustSettings {
			if err := k.distrust(ctx, cert); err != nil {
				return err
			}
		}
		if now, err := k.kept(ctx, cert); err != nil || kept || !now {
			return err
		}
		return k.forget(ctx, cert)
	}, err
}

// distrust removes the trust settings of a certificate that has some.
func (k keychain) distrust(ctx context.Context, cert *x509.Certificate) error {
	// delete-certificate -t would do it as well, but as root it gives up where root
	// itself has no trust settings.
	return k.withFile(cert, func(file string) error {
		return k.ask(ctx, k.inDomain("remove-trusted-cert", file)...)
	})
}

// forget deletes the certificate that has this very SHA-256, which security has known
// since macOS 10.15.
func (k keychain) forget(ctx context.Context, cert *x509.Certificate) error {
	_, err := k.security(ctx, dialogLimit, "delete-certificate", "-Z", strings.ToUpper(Fingerprint(cert)), k.path)
	return err
}

// inDomain are the arguments for a command that works on trust settings: those of the
// user, or of the machine.
func (k keychain) inDomain(command string, args ...string) []string {
	if k.scope == Machine {
		args = append([]string{"-d"}, args...)
	}
	return append([]string{command}, args...)
}

// ask runs what has macOS ask the user.
func (k keychain) ask(ctx context.Context, args ...string) error {
	_, err := k.security(ctx, dialogLimit, args...)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%w: the dialog in which macOS asks for a password was not answered, or did not come up: see whether other windows hide it, and try again; if it hangs, log out and in", err)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: macOS asks for a password in a dialog on its own screen; over SSH, or from a service, it cannot", err)
	}
	return err
}

func (k keychain) security(ctx context.Context, limit time.Duration, args ...string) ([]byte, error) {
	path, err := k.programs.find("security")
	if err != nil {
		return nil, err
	}
	c := command{path: path, args: args, limit: limit}
	if k.scope == User {
		c.env = []string{"HOME=" + k.home}
	}
	out, err := k.programs.run(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	return out, nil
}

// withFile calls do with a file that has the certificate.
func (k keychain) withFile(cert *x509.Certificate, do func(path string) error) error {
	dir, err := os.MkdirTemp(scratchParent, "tunneld-trust-")
	if err != nil {
		return fmt.Errorf("make a directory for the certificate: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "root.pem")
	if err := os.WriteFile(path, encode(cert), 0o600); err != nil {
		return fmt.Errorf("write the certificate: %w", err)
	}
	return do(path)
}
