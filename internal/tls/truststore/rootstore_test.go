package truststore

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
)

// playedRoots plays Windows' stores, which are by scope.
func playedRoots(stores map[Scope][][]byte) windowsRoots {
	is := func(der []byte) func([]byte) bool {
		return func(other []byte) bool { return bytes.Equal(other, der) }
	}
	return windowsRoots{
		list: func(s Scope) ([][]byte, error) { return stores[s], nil },
		add: func(s Scope, der []byte) error {
			if !slices.ContainsFunc(stores[s], is(der)) {
				stores[s] = append(stores[s], der)
			}
			return nil
		},
		remove: func(s Scope, der []byte) error {
			stores[s] = slices.DeleteFunc(stores[s], is(der))
			return nil
		},
		desktop: func() (bool, error) { return true, nil },
	}
}

func TestRootStore(t *testing.T) {
	for scope, path := range map[Scope]string{User: `CurrentUser\Root`, Machine: `LocalMachine\Root`} {
		t.Run(string(scope), func(t *testing.T) {
			ours, others := playedRoot(t), playedRoot(t)
			stores := map[Scope][][]byte{scope: {others.Raw}}
			r := rootStore{scope, playedRoots(stores)}
			if p := r.place(); p.Kind != Windows || p.Path != path || p.Scope != scope || p.Readers == "" {
				t.Errorf("place %+v", p)
			}
			wantPresence(t, "before", r, ours, absent)
			if err := r.ready(t.Context(), Add, ours); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := r.add(t.Context(), ours); err != nil {
					t.Error(err)
				}
				wantPresence(t, "added", r, ours, present)
				wantSearch(t, r, ours)
			}
			for range 2 {
				if err := r.remove(t.Context(), ours); err != nil {
					t.Error(err)
				}
				wantPresence(t, "removed", r, ours, absent)
				wantPresence(t, "the other one", r, others, present)
			}
		})
	}
}

// Nobody waits for a dialog that cannot be seen, and who says no is told so.
func TestRootStoreNotAllowed(t *testing.T) {
	cert := playedRoot(t)
	roots := playedRoots(map[Scope][][]byte{})
	roots.desktop = func() (bool, error) { return false, nil }
	roots.add = func(Scope, []byte) error { return errDeclined }
	var blocked *blockedError
	if err := (rootStore{User, roots}).ready(t.Context(), Add, cert); !errors.As(err, &blocked) || blocked.fix == "" {
		t.Errorf("without a desktop: %v; want why, and what to do", err)
	}
	if err := (rootStore{Machine, roots}).ready(t.Context(), Add, cert); err != nil {
		t.Errorf("the machine's, where nobody is asked, without a desktop: %v", err)
	}
	if err := (rootStore{User, roots}).add(t.Context(), cert); !errors.Is(err, errDeclined) {
		t.Errorf("declined: %v; want %v", err, errDeclined)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (rootStore{User, roots}).add(ctx, cert); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v; want %v", err, context.Canceled)
	}
}
