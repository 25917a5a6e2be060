package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	localtls "github.com/tunneld/tunneld/internal/tls"
	"github.com/tunneld/tunneld/internal/tls/truststore/held"
)

// A logBuffer keeps what was logged; it may be read meanwhile.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// withCA is a daemon with nothing but a CA, in a directory whose bundle trusts
// nobody, and with its log.
func withCA(t *testing.T) (*Daemon, *logBuffer) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	if err := os.WriteFile(bundle, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log := new(logBuffer)
	d := &Daemon{
		StateDir: dir, config: config.Default(), trust: held.System{Bundles: []string{bundle}},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}
	d.loadCA()
	if d.caErr != nil {
		t.Fatal(d.caErr)
	}
	return d, log
}

// The daemon runs for more than five years.
func TestFiveYearsPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, log := withCA(t)
		ctx, cancel := context.WithCancel(t.Context())
		var keeping sync.WaitGroup
		keeping.Go(func() { d.keepCA(ctx) })
		first, end := d.ca.Fingerprint(), d.ca.NotAfter()

		time.Sleep(time.Until(end) - 60*24*time.Hour - time.Minute)
		synctest.Wait()
		if s := d.tlsStatus(); s.Expiring != "" || s.Fingerprint != first || s.Error != "" {
			t.Errorf("61 days before its end: %+v", s)
		}
		if log := log.String(); strings.Contains(log, "WARN") {
			t.Errorf("log:\n%s", log)
		}

		time.Sleep(2 * time.Minute)
		synctest.Wait()
		s := d.tlsStatus()
		if want := "the local CA expires on 2005-01-01: tunnelctl trust --renew makes a new one now, and has it trusted"; s.Expiring != want {
			t.Errorf("60 days before its end: %q; want %q", s.Expiring, want)
		}
		want := status.Check{
			Name: "ca", Result: status.Warn, Fix: "tunnelctl trust --renew",
			Evidence: "signs for local, localhost, test and loopback addresses until 2005-01-01; this system does not trust it; it expires soon",
		}
		if diff := cmp.Diff(want, checkCA(s)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}

		time.Sleep(time.Until(end) - 2*time.Hour)
		synctest.Wait()
		if d.ca.Fingerprint() != first {
			t.Error("replaced two hours before its end")
		}
		if got := strings.Count(log.String(), "expires soon"); got != 1 {
			t.Errorf("told %d times that it expires:\n%s", got, log)
		}

		time.Sleep(time.Hour + time.Minute)
		synctest.Wait()
		s = d.tlsStatus()
		if s.Fingerprint == first || s.Expiring != "" || s.Renewed != "it was about to expire, on 2005-01-01" || s.NotAfter.Year() != 2009 {
			t.Errorf("at its end: %+v", s)
		}
		if log := log.String(); strings.Count(log, "the local CA is a new one, so clients have to trust it anew") != 1 || !strings.Contains(log, s.Fingerprint) {
			t.Errorf("log:\n%s", log)
		}
		if c := checkCA(s); !strings.HasSuffix(c.Evidence, "; it is a new one (the old one: it was about to expire, on 2005-01-01)") {
			t.Errorf("%+v", c)
		}

		time.Sleep(6 * 365 * 24 * time.Hour) // and the next one is no different
		synctest.Wait()
		if got := strings.Count(log.String(), "expires soon"); got != 2 || d.tlsStatus().Error != "" {
			t.Errorf("told %d times that one expires:\n%s", got, log)
		}
		cancel()
		keeping.Wait()
	})
}

// A renewal that fails is tried again, and told once, also by status.
func TestRenewalThatFailsIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, log := withCA(t)
		ctx, cancel := context.WithCancel(t.Context())
		var keeping sync.WaitGroup
		keeping.Go(func() { d.keepCA(ctx) })
		away := d.StateDir + ".away"
		if err := os.Rename(d.StateDir, away); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(d.ca.NotAfter()) - 30*time.Minute)
		synctest.Wait()
		if got := strings.Count(log.String(), "the local CA cannot be replaced"); got != 1 {
			t.Errorf("told %d times:\n%s", got, log)
		}
		c := checkCA(d.tlsStatus())
		if c.Result != status.Fail || !strings.HasPrefix(c.Evidence, "the local CA is at its end, and cannot be replaced: keep the new local CA: ") || c.Fix != "mend that, then tunnelctl trust --renew" {
			t.Errorf("%+v", c)
		}
		if err := os.Rename(away, d.StateDir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s := d.tlsStatus(); s.Error != "" || s.Renewed == "" {
			t.Errorf("once it works again: %+v", s)
		}
		cancel()
		keeping.Wait()
	})
}

func TestRenewIsAsked(t *testing.T) {
	d, log := withCA(t)
	first := d.ca.Fingerprint()
	if err := d.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := d.tlsStatus(); s.Fingerprint == first || s.Renewed != "it was given up on request" {
		t.Errorf("%+v", s)
	}
	if log := log.String(); !strings.Contains(log, "WARN") || !strings.Contains(log, "given up on request") {
		t.Errorf("log:\n%s", log)
	}
	// After the next start only trust counts.
	again := &Daemon{StateDir: d.StateDir, config: d.config, Log: d.Log}
	again.loadCA()
	if s := again.tlsStatus(); s.Renewed != "" || s.Fingerprint != d.ca.Fingerprint() {
		t.Errorf("started again: %+v", s)
	}
	// Another domain is as plain.
	before := len(log.String())
	again.config.Domain = "dev.example"
	again.loadCA()
	if s := again.tlsStatus(); s.Renewed != "it does not permit the domain dev.example" || !strings.Contains(log.String()[before:], s.Renewed) {
		t.Errorf("%+v, log:\n%s", s, log)
	}
}

func TestTrusted(t *testing.T) {
	d, _ := withCA(t)
	s := d.tlsStatus()
	if s.Trusted || s.Hint != "this system does not trust the local CA yet: "+trustIt() || s.Dir != d.StateDir {
		t.Errorf("%+v", s)
	}
	want := status.Check{
		Name: "ca", Result: status.Warn, Fix: trustIt(),
		Evidence: "signs for local, localhost, test and loopback addresses until " + s.NotAfter.Format(time.DateOnly) + "; this system does not trust it",
	}
	if diff := cmp.Diff(want, checkCA(s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := os.WriteFile(d.trust.Bundles[0], d.ca.RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := d.tlsStatus(); !s.Trusted || s.Hint != "" || checkCA(s).Result != status.OK {
		t.Errorf("put into the bundle: %+v, %+v", s, checkCA(s))
	}
	// Where it cannot be told nothing is said.
	if err := os.Remove(d.trust.Bundles[0]); err != nil {
		t.Fatal(err)
	}
	if s := d.tlsStatus(); s.Trusted || s.Hint != "" || checkCA(s).Result != status.OK {
		t.Errorf("without a bundle: %+v, %+v", s, checkCA(s))
	}
}

// A clock that is behind makes a good CA useless for a while, and is told.
func TestClockBehindTheCA(t *testing.T) {
	d, _ := withCA(t)
	synctest.Test(t, func(t *testing.T) { // where it is the year 2000
		s := d.tlsStatus()
		if want := ", and this machine's clock says 2000-01-01"; !strings.HasSuffix(s.Error, want) {
			t.Errorf("%q; want what ends in %q", s.Error, want)
		}
		if c := checkCA(s); c.Result != status.Fail || c.Fix != "set the clock, or tunnelctl trust --renew" {
			t.Errorf("%+v", c)
		}
	})
}

func TestWithoutACA(t *testing.T) {
	d := &Daemon{StateDir: "/state", caErr: noCA{errors.New("damaged")}}
	want := status.Check{Name: "ca", Result: status.Fail, Evidence: "there is no local CA: damaged", Fix: "mend it, and start tunneld again"}
	if diff := cmp.Diff(want, checkCA(d.tlsStatus())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, rootErr := d.rootPEM()
	_, leafErr := d.checkLeaf(t.Context(), localapi.Key{})
	for name, err := range map[string]error{"root": rootErr, "leaf": leafErr, "renew": d.renew(t.Context())} {
		if e, ok := errors.AsType[*localapi.Error](err); !ok || e.Code != 503 || e.Message != "there is no local CA: damaged" || e.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.keepCA(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCheckLeafRefuses(t *testing.T) {
	d, _ := withCA(t)
	const private = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
	for _, key := range []string{"", "x", string(d.ca.RootPEM()), private} {
		_, err := d.checkLeaf(t.Context(), localapi.Key{PublicKey: key})
		e, ok := errors.AsType[*localapi.Error](err)
		if !ok || e.Code != 0 || e.Hint == "" || !strings.HasPrefix(e.Message, "the key cannot be certified: ") || strings.Contains(e.Message, "c2Vj") {
			t.Errorf("%.20q: %#v", key, err)
		}
	}
	if _, err := os.Stat(filepath.Join(d.StateDir, "ca-key.pem")); err != nil {
		t.Error(err)
	}
}

// What is left until the CA has to be looked at again.
func TestNextLook(t *testing.T) {
	end := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		name   string
		now    time.Time
		failed bool
		want   time.Duration
	}{
		{"years before", end.AddDate(-1, 0, 0), false, time.Hour},
		{"just before the notice", end.Add(-caNotice - time.Minute), false, time.Minute},
		{"at the notice", end.Add(-caNotice), false, time.Hour},
		{"just before the renewal", end.Add(-localtls.Lead - time.Second), false, time.Second},
		{"the renewal failed", end.Add(-localtls.Lead), true, time.Minute},
		{"long after", end.Add(time.Hour), false, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := nextLook(end, tt.now, tt.failed); got != tt.want {
				t.Errorf("%v; want %v", got, tt.want)
			}
		})
	}
}
