package truststore

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/rootstore"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"

	"golang.org/x/sys/windows"
)

// The whole way, with receipts.
func TestInstallOnWine(t *testing.T) {
	onWine(t)
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range []place.Scope{User, Machine} {
		t.Run(string(scope), func(t *testing.T) {
			// What t.TempDir removes it with, Wine 8 does not know.
			dir, err := os.MkdirTemp("", "")
			if err != nil {
				t.Fatal(err)
			}
			defer os.Remove(dir)
			stores := &Stores{Scope: scope, Home: home, Receipts: filepath.Join(dir, "trust")}
			old, root := storetest.Root(t, "tunneld local CA"), storetest.Root(t, "tunneld local CA")
			do := func(what string, want int, plan func() ([]Step, error)) {
				t.Helper()
				steps, err := plan()
				if err != nil || len(steps) != want {
					t.Fatalf("%s: %d steps, error %v; want %d", what, len(steps), err, want)
				}
				for _, s := range steps {
					if s.Blocked != "" {
						t.Errorf("%s: blocked: %s", what, s.Blocked)
					}
					if err := stores.Do(t.Context(), s); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}
			}
			install := func(cert *x509.Certificate) func() ([]Step, error) {
				return func() ([]Step, error) { return stores.Install(t.Context(), cert, "state") }
			}
			removal := func() ([]Step, error) { return stores.Removal(t.Context(), nil) }
			do("install", 1, install(old))
			do("install another one", 2, install(root))
			store := rootstore.New(scope)
			storetest.WantPresence(t, "replaced", store, old, place.Absent)
			storetest.WantPresence(t, "installed", store, root, place.Present)
			do("remove", 1, removal)
			storetest.WantPresence(t, "removed", store, root, place.Absent)
			do("remove again", 0, removal)
			if _, err := os.Stat(stores.Receipts); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("receipts are left: %v", err)
			}
		})
	}
}

func onWine(t *testing.T) {
	t.Helper()
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("this is not Wine")
	}
}
