package truststore

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

// A playedStore has one certificate, or a part of one.
type playedStore struct {
	there place.Presence
	// fails is the error of Add, which does its work nevertheless.
	fails    error
	restored bool
}

func (p *playedStore) Place() Place { return Place{Kind: "played", Path: "/played", Scope: User} }

func (p *playedStore) Look(context.Context, *x509.Certificate) (place.Presence, error) {
	return p.there, nil
}

func (p *playedStore) Ready(context.Context, Action, *x509.Certificate) error { return nil }

func (p *playedStore) Add(context.Context, *x509.Certificate) error {
	p.there = place.Present
	return p.fails
}

func (p *playedStore) Remove(context.Context, *x509.Certificate) error {
	p.there = place.Absent
	return nil
}

func (p *playedStore) Before(context.Context, *x509.Certificate) (func(context.Context) error, error) {
	was := p.there
	return func(context.Context) error {
		p.there, p.restored = was, true
		return nil
	}, nil
}

func (p *playedStore) Asks(action Action) string { return "asks to " + string(action) }

// The plan says what the system will ask, and only where it will.
func TestPlanSaysWhatIsAsked(t *testing.T) {
	cert, store := storetest.Root(t, "tunneld local CA"), new(playedStore)
	mine := &Stores{Scope: User, Home: t.TempDir()}
	if runtime.GOOS == "windows" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		mine.Home = home
	}
	for _, tt := range []struct {
		there  place.Presence
		action Action
		asks   string
	}{
		{place.Absent, Add, "asks to add"},
		{place.Partly, Add, "asks to add"},
		{place.Present, Add, ""},
		{place.Present, Remove, "asks to remove"},
		{place.Absent, Remove, ""},
	} {
		store.there = tt.there
		if step := mine.step(t.Context(), tt.action, store, cert); step.Asks != tt.asks || step.Blocked != "" || step.Done != (tt.asks == "") {
			t.Errorf("to %s: %+v; want that it asks %q", tt.action, step, tt.asks)
		}
	}
	others := &Stores{Scope: User, Home: "/nowhere"}
	if step := others.step(t.Context(), Remove, store, cert); step.Asks != "" || step.Blocked == "" {
		t.Errorf("in another's home: %+v; want that it is blocked, and asks nothing", step)
	}
}

// An add that fails takes back what it has done, and not what somebody had put there.
func TestFailedAddKeepsWhatWasThere(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name     string
		before   place.Presence
		noted    bool
		want     place.Presence
		restored bool
	}{
		{"nothing", place.Absent, false, place.Absent, false},
		{"a part, by hand", place.Partly, false, place.Partly, true},
		{"a part, ours", place.Partly, true, place.Absent, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert, store := storetest.Root(t, "tunneld local CA"), &playedStore{there: tt.before, fails: broken}
			s := &Stores{Scope: User, Home: t.TempDir(), Receipts: t.TempDir()}
			if tt.noted {
				if err := s.note(cert, "", noted{Place: store.Place()}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.add(t.Context(), store, Step{Action: Add, Cert: cert}); !errors.Is(err, broken) {
				t.Errorf("error %v; want %v", err, broken)
			}
			if store.there != tt.want || store.restored != tt.restored {
				t.Errorf("there is %d, restored %v; want %d, %v", store.there, store.restored, tt.want, tt.restored)
			}
			if _, noted := s.record(Fingerprint(cert)); noted {
				t.Error("the receipt is still there")
			}
		})
	}
}
