package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	localtls "github.com/tunneld/tunneld/internal/tls"
)

const (
	// caNotice is how long ahead it is told that the CA will expire: time enough for
	// whoever looks at status once in a month.
	caNotice = 60 * 24 * time.Hour
	// caLook is the longest time between two looks at the CA's age. It goes by the
	// time of day, which timers do not follow: machines sleep, and clocks are set.
	caLook = time.Hour
	// caAgain is when a renewal that failed is tried again.
	caAgain = time.Minute

	// renewCA makes a new one, and has it trusted.
	renewCA = "tunnelctl trust --renew"
	// noCAHint is what to do without a CA: no running daemon can be helped.
	noCAHint = "mend it, and start tunneld again"
)

// A noCA is why there is no local CA.
type noCA struct{ error }

func (e noCA) Error() string { return "there is no local CA: " + e.error.Error() }
func (e noCA) Unwrap() error { return e.error }

// loadCA loads the CA, or creates it. Without one there is no HTTPS, and
// status says why.
func (d *Daemon) loadCA() {
	ca, err := localtls.Load(d.StateDir, d.config.Domain)
	if err != nil {
		d.caErr = noCA{err}
		d.Log.Error("no HTTPS", "err", d.caErr)
		return
	}
	d.ca = ca
	ca.Renewed = d.caReplaced
	switch {
	case ca.Replaced() != "":
		d.caReplaced()
	case ca.Created != "":
		d.Log.Info("made a local CA", "why", ca.Created, "fingerprint", ca.Fingerprint())
	}
}

// caReplaced tells that there is another CA than before.
func (d *Daemon) caReplaced() {
	d.Log.Warn("the local CA is a new one, so clients have to trust it anew",
		"why", d.ca.Replaced(), "fingerprint", d.ca.Fingerprint(), "hint", "tunnelctl trust")
}

// keepCA says when the CA is about to expire, and replaces it when it is at its end.
// So does a handshake that finds it expired.
func (d *Daemon) keepCA(ctx context.Context) error {
	if d.ca == nil {
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	told := "" // of which CA it was said that it will expire
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		err := d.ca.RenewOld(ctx)
		d.noteRenewal(err)
		now, end := time.Now(), d.ca.NotAfter()
		if text := expiring(end, now); text != "" && told != d.ca.Fingerprint() {
			told = d.ca.Fingerprint()
			d.Log.Warn("the local CA expires soon", "on", end.Format(time.DateOnly), "hint", renewCA)
		}
		timer.Reset(nextLook(end, now, err != nil))
	}
}

// nextLook is how long the CA can be left to itself.
func nextLook(end, now time.Time, failed bool) time.Duration {
	if failed {
		return caAgain
	}
	wait := caLook
	for _, at := range []time.Time{end.Add(-caNotice), end.Add(-localtls.Lead)} {
		if left := at.Sub(now); left > 0 {
			wait = min(wait, left)
		}
	}
	return wait
}

// noteRenewal notes why the CA could not be replaced at its end, or that it could be.
func (d *Daemon) noteRenewal(err error) {
	problem := ""
	if err != nil && !errors.Is(err, context.Canceled) {
		problem = "the local CA is at its end, and cannot be replaced: " + err.Error()
	}
	d.mu.Lock()
	was := d.unrenewed
	d.unrenewed = problem
	d.mu.Unlock()
	if problem != "" && problem != was {
		d.Log.Error("the local CA cannot be replaced", "err", err)
	}
}

// trustIt is what has this system trust the CA. Linux's store takes root.
func trustIt() string {
	if runtime.GOOS == "linux" {
		return "sudo tunnelctl trust"
	}
	return "tunnelctl trust"
}

// expiring says that a CA ends soon; empty if it does not.
func expiring(end, now time.Time) string {
	if now.Before(end.Add(-caNotice)) {
		return ""
	}
	return "the local CA expires on " + end.Format(time.DateOnly)
}

// notYet says that a CA's life has not begun: it was made while the clock was
// ahead, or the clock is behind now. Clients refuse it until then.
func notYet(start, now time.Time) string {
	if !now.Before(start) {
		return ""
	}
	return fmt.Sprintf("the local CA is valid from %s on, and this machine's clock says %s",
		start.Format(time.DateOnly), now.UTC().Format(time.DateOnly))
}

// tlsStatus reports on the CA.
func (d *Daemon) tlsStatus() status.TLS {
	if d.ca == nil {
		return status.TLS{Dir: d.StateDir, Error: d.caErr.Error(), Hint: noCAHint}
	}
	root, now := d.ca.Root(), time.Now()
	s := status.TLS{
		Dir:         d.StateDir,
		Fingerprint: localtls.Fingerprint(root),
		NotAfter:    root.NotAfter,
		Permitted:   root.PermittedDNSDomains,
		Renewed:     d.ca.Replaced(),
	}
	if text := expiring(root.NotAfter, now); text != "" {
		s.Expiring = text + ": " + renewCA + " makes a new one now, and has it trusted"
	}
	var known bool
	if s.Trusted, known = d.trust.Holds(root); known && !s.Trusted {
		s.Hint = "this system does not trust the local CA yet: " + trustIt()
	}
	d.mu.Lock()
	unrenewed := d.unrenewed
	d.mu.Unlock()
	if early := notYet(root.NotBefore, now); early != "" {
		s.Error, s.Hint = early, "set the clock, or "+renewCA
	} else if unrenewed != "" {
		s.Error, s.Hint = unrenewed, "mend that, then "+renewCA
	}
	return s
}

// checkCA is what the doctor says about the CA.
func checkCA(s status.TLS) status.Check {
	c := status.Check{Name: "ca", Result: status.OK}
	if s.Error != "" {
		c.Result, c.Evidence, c.Fix = status.Fail, s.Error, s.Hint
		return c
	}
	c.Evidence = fmt.Sprintf("signs for %s and loopback addresses until %s", strings.Join(s.Permitted, ", "), s.NotAfter.Format(time.DateOnly))
	switch {
	case s.Trusted:
		c.Evidence += "; this system trusts it"
	case s.Hint != "":
		c.Result, c.Fix = status.Warn, trustIt()
		c.Evidence += "; this system does not trust it"
	}
	if s.Expiring != "" {
		c.Result, c.Fix = status.Warn, renewCA
		c.Evidence += "; it expires soon"
	}
	if s.Renewed != "" {
		c.Evidence += "; it is a new one (the old one: " + s.Renewed + ")"
	}
	return c
}

// renew puts a new CA in the place of the one that there is.
func (d *Daemon) renew(ctx context.Context) error {
	if d.ca == nil {
		return d.withoutCA()
	}
	err := d.ca.Renew(ctx, "it was given up on request")
	if err == nil {
		d.noteRenewal(nil)
	}
	return err
}

// checkLeaf certifies a key with which somebody tries who trusts the CA.
func (d *Daemon) checkLeaf(ctx context.Context, key localapi.Key) ([]byte, error) {
	if d.ca == nil {
		return nil, d.withoutCA()
	}
	text, err := d.ca.CheckLeaf(ctx, []byte(key.PublicKey))
	if errors.Is(err, localtls.ErrKey) {
		return nil, &localapi.Error{
			Message: "the key cannot be certified: it is " + err.Error(),
			Hint:    "send a public key of the curve P-256, as a PEM block PUBLIC KEY",
		}
	}
	return text, err
}

func (d *Daemon) rootPEM() ([]byte, error) {
	if d.ca == nil {
		return nil, d.withoutCA()
	}
	return d.ca.RootPEM(), nil
}

func (d *Daemon) withoutCA() error {
	return &localapi.Error{Code: http.StatusServiceUnavailable, Message: d.caErr.Error(), Hint: noCAHint}
}
