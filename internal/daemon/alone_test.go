package daemon

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/rootapi"
)

// A counter is a helper that counts what it is asked.
type counter struct {
	claims, releases int
	fails            error
}

func (c *counter) Claim(context.Context, netip.AddrPort, []osdns.Name, []string) (osdns.Outcome, error) {
	c.claims++
	return osdns.Outcome{}, c.fails
}

func (c *counter) Release(context.Context) error {
	c.releases++
	return c.fails
}

func TestOneDaemonOfAUserClaims(t *testing.T) {
	system := new(counter)
	path := filepath.Join(t.TempDir(), "state", "names.lock")
	first, second := &alone{Helper: system, path: path}, &alone{Helper: system, path: path}
	claim := func(a *alone) error {
		_, err := a.Claim(t.Context(), netip.AddrPort{}, nil, nil)
		return err
	}
	if err := claim(first); err != nil {
		t.Fatal(err)
	}
	if err := claim(second); !errors.Is(err, errNotAlone) || system.claims != 1 {
		t.Errorf("the second one claimed, too: %v", err)
	}
	if err := second.Release(t.Context()); err != nil || system.releases != 0 {
		t.Errorf("the second one released what the first has claimed: %v", err)
	}
	system.fails = errors.New("played to fail")
	if err := first.Release(t.Context()); err != system.fails {
		t.Errorf("released: %v", err)
	}
	if err := claim(second); !errors.Is(err, errNotAlone) {
		t.Errorf("the second one claimed what may still be in force: %v", err)
	}
	system.fails = nil
	if err := first.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if err := claim(second); err != nil {
		t.Errorf("the second one cannot claim after the end of the first: %v", err)
	}
	system.fails = rootapi.ErrNotInstalled
	if err := claim(second); err != system.fails {
		t.Errorf("claimed without a helper: %v", err)
	}
	if err := claim(first); err != system.fails {
		t.Errorf("where nothing is installed, that is what has to be said: %v", err)
	}
}
