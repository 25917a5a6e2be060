package daemon

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/tunneld/tunneld/internal/claim"
	"github.com/tunneld/tunneld/internal/lockfile"
	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/rootapi"
	"github.com/tunneld/tunneld/internal/statedir"
)

// errNotAlone says that another daemon of this user has its names claimed.
var errNotAlone = errors.New("another tunneld of this user has its names claimed, and a user has one claim")

// An alone claims for one daemon of a user at a time: a claim replaces the one
// before, so that two would take each other's names away for ever.
type alone struct {
	claim.Helper
	path string // of the lock; empty: where all of the user's daemons look

	mu      sync.Mutex // guards the following
	release func()     // the lock; nil: not ours
}

// Claim implements claim.Helper.
func (a *alone) Claim(ctx context.Context, server netip.AddrPort, names []osdns.Name, skip []string) (osdns.Outcome, error) {
	if err := a.lock(); err != nil {
		return osdns.Outcome{}, err
	}
	outcome, err := a.Helper.Claim(ctx, server, names, skip)
	if errors.Is(err, rootapi.ErrNotInstalled) {
		a.unlock() // there is nothing to be had
	}
	return outcome, err
}

// Release implements claim.Helper. What another daemon has claimed stays.
func (a *alone) Release(ctx context.Context) error {
	if a.lock() != nil {
		return nil
	}
	err := a.Helper.Release(ctx)
	if err == nil {
		a.unlock()
	}
	return err
}

// lock makes the claim ours, or is errNotAlone. Where there can be no lock, nothing
// is known of other daemons.
func (a *alone) lock() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.release != nil {
		return nil
	}
	path := a.path
	if path == "" {
		dir, err := statedir.DefaultPath()
		if err != nil {
			return nil
		}
		path = filepath.Join(dir, "names.lock")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil
	}
	release, err := lockfile.Lock(path)
	if errors.Is(err, lockfile.ErrLocked) {
		return errNotAlone
	}
	if err == nil {
		a.release = release
	}
	return nil
}

// unlock lets another daemon claim.
func (a *alone) unlock() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.release != nil {
		a.release()
		a.release = nil
	}
}
