package osdns

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// hung is what a service does that has stopped in the middle.
func hung(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Who does not answer holds nobody up for as long as a request may take: what can be
// done without him is done, and what cannot be undone without him is done later.
func TestServicesThatHang(t *testing.T) {
	const request = 25 * time.Second
	for _, test := range []struct {
		name string
		hang func(s *machine.System)
	}{
		{"the bus", func(s *machine.System) {
			s.ResolvedVersion = func(ctx context.Context) (int, error) { return 0, hung(ctx) }
			s.ServiceState = func(ctx context.Context, _ string) (string, int, error) { return "", 0, hung(ctx) }
		}},
		{"systemd's resolver", func(s *machine.System) {
			s.ReloadService = func(ctx context.Context, _ string) error { return hung(ctx) }
			s.SetLinkDNS = func(ctx context.Context, _ string, _ netip.AddrPort, _ []string) error { return hung(ctx) }
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t, with(stub, "/proc/77/cmdline", forwarder["/proc/77/cmdline"]))
			m.resolved = 258
			before := m.files(t)
			c := claim("1000", "a.local")
			synctest.Test(t, func(t *testing.T) {
				l := m.ladder(nil)
				test.hang(&l.System)
				ctx, cancel := context.WithTimeout(t.Context(), request)
				defer cancel()
				o, err := l.Claim(ctx, c, nil)
				if err != nil || o.Rung != "hosts" {
					t.Errorf("rung %q, %v; want hosts", o.Rung, err)
				}
			})
			if !strings.Contains(m.read("/etc/hosts"), "a.local") {
				t.Error("the hosts file does not have the name")
			}
			if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
				t.Fatal(err)
			}
			m.checkGone(t, before)
		})
	}
}

// That nobody says whether dnsmasq runs does not mean that it does not: it would know
// our names until somebody starts it anew.
func TestDnsmasqWhileTheBusHangs(t *testing.T) {
	m := newMachine(t, forwarder)
	before := m.files(t)
	if _, err := m.ladder(nil).Claim(t.Context(), claim("1000", "a.local"), nil); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := m.ladder(nil)
		l.System.ServiceState = func(ctx context.Context, _ string) (string, int, error) { return "", 0, hung(ctx) }
		if err := l.Release(t.Context(), "1000"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v; want %v", err, context.DeadlineExceeded)
		}
	})
	if err := m.ladder(nil).Release(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	m.checkGone(t, before)
}

// What a request has begun whose time is over is undone all the same, and so is what
// was in force before.
func TestRequestThatIsOver(t *testing.T) {
	alive := func(l *Ladder) {
		reload, state := l.System.ReloadService, l.System.ServiceState
		l.System.ReloadService = func(ctx context.Context, unit string) error {
			return errors.Join(ctx.Err(), reload(ctx, unit))
		}
		l.System.ServiceState = func(ctx context.Context, unit string) (string, int, error) {
			s, pid, err := state(ctx, unit)
			return s, pid, errors.Join(ctx.Err(), err)
		}
	}
	t.Run("begun", func(t *testing.T) {
		m := newMachine(t, stub)
		m.resolved = 262
		before := m.files(t)
		l := m.ladder(nil)
		ctx, cancel := context.WithCancel(t.Context())
		alive(l)
		reload := l.System.ReloadService
		l.System.ReloadService = func(ctx context.Context, unit string) error { cancel(); return reload(ctx, unit) }
		if _, err := l.Claim(ctx, claim("1000", "a.local"), nil); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v; want %v", err, context.Canceled)
		}
		m.checkGone(t, before)
	})
	t.Run("in force", func(t *testing.T) {
		m := newMachine(t, forwarder)
		before := m.files(t)
		l := m.ladder(nil)
		alive(l)
		c := claim("1000", "a.local")
		if _, err := l.Claim(t.Context(), c, nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Claim(ctx, c, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v; want %v", err, context.Canceled)
		}
		m.checkGone(t, before)
	})
}
