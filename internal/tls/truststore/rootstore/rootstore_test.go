package rootstore

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

// playedRoots plays Windows' stores, which are by scope.
func playedRoots(stores map[place.Scope][][]byte) windowsRoots {
	is := func(der []byte) func([]byte) bool {
		return func(other []byte) bool { return bytes.Equal(other, der) }
	}
	return windowsRoots{
		list: func(s place.Scope) ([][]byte, error) { return stores[s], nil },
		add: func(s place.Scope, der []byte) error {
			if !slices.ContainsFunc(stores[s], is(der)) {
				stores[s] = append(stores[s], der)
			}
			return nil
		},
		remove: func(s place.Scope, der []byte) error {
			stores[s] = slices.DeleteFunc(stores[s], is(der))
			return nil
		},
		desktop: func() (bool, error) { return true, nil },
	}
}

func TestRootStore(t *testing.T) {
	for scope, path := range map[place.Scope]string{place.User: `CurrentUser\Root`, place.Machine: `LocalMachine\Root`} {
		t.Run(string(scope), func(t *testing.T) {
			ours, others := storetest.Root(t, "tunneld local CA"), storetest.Root(t, "tunneld local CA")
			stores := map[place.Scope][][]byte{scope: {others.Raw}}
			r := rootStore{scope, playedRoots(stores)}
			if p := r.Place(); p.Kind != place.Windows || p.Path != path || p.Scope != scope || p.Readers == "" {
				t.Errorf("place %+v", p)
			}
			storetest.WantPresence(t, "before", r, ours, place.Absent)
			if err := r.Ready(t.Context(), place.Add, ours); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := r.Add(t.Context(), ours); err != nil {
					t.Error(err)
				}
				storetest.WantPresence(t, "added", r, ours, place.Present)
				storetest.WantSearch(t, r, ours)
			}
			for range 2 {
				if err := r.Remove(t.Context(), ours); err != nil {
					t.Error(err)
				}
				storetest.WantPresence(t, "removed", r, ours, place.Absent)
				storetest.WantPresence(t, "the other one", r, others, place.Present)
			}
		})
	}
}

// Nobody waits for a dialog that cannot be seen, and who says no is told so.
func TestRootStoreNotAllowed(t *testing.T) {
	cert := storetest.Root(t, "tunneld local CA")
	roots := playedRoots(map[place.Scope][][]byte{})
	roots.desktop = func() (bool, error) { return false, nil }
	roots.add = func(place.Scope, []byte) error { return errDeclined }
	var blocked *place.BlockedError
	if err := (rootStore{place.User, roots}).Ready(t.Context(), place.Add, cert); !errors.As(err, &blocked) || blocked.Fix == "" {
		t.Errorf("without a desktop: %v; want why, and what to do", err)
	}
	if err := (rootStore{place.Machine, roots}).Ready(t.Context(), place.Add, cert); err != nil {
		t.Errorf("the machine's, where nobody is asked, without a desktop: %v", err)
	}
	if err := (rootStore{place.User, roots}).Add(t.Context(), cert); !errors.Is(err, errDeclined) {
		t.Errorf("declined: %v; want %v", err, errDeclined)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (rootStore{place.User, roots}).Add(ctx, cert); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v; want %v", err, context.Canceled)
	}
}

// Windows asks of a user, and only of a user.
func TestRootStoreAsks(t *testing.T) {
	roots := playedRoots(map[place.Scope][][]byte{})
	for _, action := range []place.Action{place.Add, place.Remove} {
		if asks := (rootStore{place.User, roots}).Asks(action); asks == "" {
			t.Errorf("%s: nothing is asked", action)
		}
		if asks := (rootStore{place.Machine, roots}).Asks(action); asks != "" {
			t.Errorf("%s: Windows asks %q before it changes the machine's store; want nothing", action, asks)
		}
	}
}
