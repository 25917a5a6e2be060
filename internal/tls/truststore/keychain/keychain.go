// Package keychain is macOS's keychains, and the trust settings that have their certificates trusted.
package keychain

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

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
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
	scope place.Scope
	path  string
	// home is the user's, in the scope User.
	home     string
	programs program.Programs
	// exists reports whether there is a file; tests play it.
	exists func(path string) bool
}

// Find returns the keychain of a scope, if it is there; home is the user's. Nil if not.
func Find(scope place.Scope, home string, programs program.Programs) place.Store {
	path := systemKeychain
	if scope == place.User {
		path = filepath.Join(home, loginKeychain)
	}
	k := open(scope, path, home, programs)
	if !k.exists(path) {
		return nil
	}
	return k
}

// At returns the keychain at a path, whether it is there or not.
func At(scope place.Scope, path, home string, programs program.Programs) (place.Store, error) {
	if scope == place.Machine && path != systemKeychain {
		return nil, fmt.Errorf("%s is not the keychain of the machine", path)
	}
	return open(scope, path, home, programs), nil
}

func open(scope place.Scope, path, home string, programs program.Programs) keychain {
	return keychain{scope, path, home, programs, func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}}
}

func (k keychain) Place() place.Place {
	readers := "Safari, Chrome, Firefox, curl and most other programs, for all users"
	if k.scope == place.User {
		readers = "Safari, Chrome, Firefox, curl and most other programs of yours"
	}
	return place.Place{Kind: place.Keychain, Path: k.path, Scope: k.scope, Readers: readers}
}

// Asks is what macOS asks before it does an action. Since macOS 11 that is so for root, too.
func (k keychain) Asks(place.Action) string {
	if k.scope == place.User {
		return "macOS asks for your password in a dialog"
	}
	return "macOS asks for an administrator's password in a dialog"
}

func (k keychain) Ready(_ context.Context, action place.Action, _ *x509.Certificate) error {
	if action == place.Add && !k.exists(k.path) {
		return place.Blocked("the keychain is not there any more", "")
	}
	if _, err := k.programs.Find("security"); err != nil {
		return place.Blocked("the program security, which is part of macOS, is missing", "")
	}
	return nil
}

// Look finds a certificate that is kept or trusted, but not both, partly there.
func (k keychain) Look(ctx context.Context, cert *x509.Certificate) (place.Presence, error) {
	kept, err := k.kept(ctx, cert)
	if err != nil {
		return place.Absent, err
	}
	trust, err := k.trust(ctx, cert)
	switch {
	case err != nil:
		return place.Absent, err
	case kept && trust == trustedForServers:
		return place.Present, nil
	case kept || trust != noTrustSettings:
		return place.Partly, nil
	}
	return place.Absent, nil
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
	return place.Certificates(out), nil
}

func (k keychain) Search(ctx context.Context, fingerprint string) (*x509.Certificate, error) {
	if !k.exists(k.path) {
		return nil, nil
	}
	all, err := k.certificates(ctx)
	for _, cert := range all {
		if place.Fingerprint(cert) == fingerprint {
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

// Add has macOS keep the certificate and trust it, but for TLS servers and for plain
// verification only, not for mail or code. Those two are what a reader may ask for.
func (k keychain) Add(ctx context.Context, cert *x509.Certificate) error {
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
	now, lookErr := k.Look(ctx, cert)
	switch {
	case lookErr != nil:
		return errors.Join(err, lookErr)
	case now == place.Present:
		return nil // the user was quicker than the time limit
	case now == place.Absent || was:
		return err
	}
	// It was kept before the user was asked. Who said no, or was not asked, wants
	// nothing of it to stay.
	return errors.Join(err, k.forget(ctx, cert))
}

// Remove takes the trust away first, which is what counts.
func (k keychain) Remove(ctx context.Context, cert *x509.Certificate) error {
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

// Before: somebody may keep the certificate and not trust it, or the other way round.
func (k keychain) Before(ctx context.Context, cert *x509.Certificate) (restore func(context.Context) error, err error) {
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
	_, err := k.security(ctx, dialogLimit, "delete-certificate", "-Z", strings.ToUpper(place.Fingerprint(cert)), k.path)
	return err
}

// inDomain are the arguments for a command that works on trust settings: those of the
// user, or of the machine.
func (k keychain) inDomain(command string, args ...string) []string {
	if k.scope == place.Machine {
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
	path, err := k.programs.Find("security")
	if err != nil {
		return nil, err
	}
	c := program.Command{Path: path, Args: args, Limit: limit}
	if k.scope == place.User {
		c.Env = []string{"HOME=" + k.home}
	}
	out, err := k.programs.Run(ctx, c)
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
	if err := os.WriteFile(path, place.Encode(cert), 0o600); err != nil {
		return fmt.Errorf("write the certificate: %w", err)
	}
	return do(path)
}
