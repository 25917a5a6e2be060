package truststore

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"
)

// Looking takes no rights and changes nothing.
func TestListRoots(t *testing.T) {
	for _, scope := range []Scope{User, Machine} {
		if _, err := realWindowsRoots().list(scope); err != nil {
			t.Errorf("%s: %v", scope, err)
		}
	}
}

// trustedByWindows has Windows judge a root certificate, in a process that has not
// done so before.
func trustedByWindows(root *x509.Certificate) error {
	cmd := exec.Command(os.Args[0], "-test.run=^TestJudge$")
	cmd.Env = append(os.Environ(), "JUDGE="+hex.EncodeToString(root.Raw))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func TestJudge(t *testing.T) {
	der, err := hex.DecodeString(os.Getenv("JUDGE"))
	if len(der) == 0 || err != nil {
		t.Skip("for TestRootsOnWine")
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Verify(x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
}

// Windows' functions, as Wine has them, which asks nobody. On Windows itself the test
// would have the one who runs it asked, and change what their machine trusts.
func TestRootsOnWine(t *testing.T) {
	onWine(t)
	roots := realWindowsRoots()
	for _, scope := range []Scope{User, Machine} {
		t.Run(string(scope), func(t *testing.T) {
			ours, others := playedRoot(t), playedRoot(t) // of the same name
			store := rootStore{scope, roots}
			want := func(what string, cert presence, other presence) {
				t.Helper()
				c, err := store.look(t.Context(), ours)
				o, otherErr := store.look(t.Context(), others)
				if c != cert || o != other || err != nil || otherErr != nil {
					t.Errorf("%s: ours is %d, the other one %d, errors %v, %v; want %d, %d", what, c, o, err, otherErr, cert, other)
				}
			}
			before, err := roots.list(scope)
			if err != nil {
				t.Fatal(err)
			}
			do := func(what string, err error) {
				t.Helper()
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			want("before", absent, absent)
			do("add the other one", store.add(t.Context(), others))
			do("add", store.add(t.Context(), ours))
			do("add again", store.add(t.Context(), ours))
			want("added", present, present)
			if err := trustedByWindows(ours); err != nil {
				t.Errorf("added, and Windows does not trust it: %v", err)
			}
			do("remove", store.remove(t.Context(), ours))
			do("remove again", store.remove(t.Context(), ours))
			want("removed", absent, present)
			if trustedByWindows(ours) == nil || trustedByWindows(others) != nil {
				t.Error("removed, and Windows trusts it, or not the other one")
			}
			do("remove the other one", store.remove(t.Context(), others))
			after, err := roots.list(scope)
			if err != nil || len(after) != len(before) {
				t.Errorf("there are %d certificates now, error %v; want %d as before", len(after), err, len(before))
			}
		})
	}
}

// The machine's roots are seen by programs in the user's store as well, but they are
// not the user's to remove.
func TestUsersStoreIsNotTheMachines(t *testing.T) {
	onWine(t)
	root := playedRoot(t)
	user, machine := rootStore{User, realWindowsRoots()}, rootStore{Machine, realWindowsRoots()}
	if err := machine.add(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if p, err := user.look(t.Context(), root); p != absent || err != nil {
		t.Errorf("in the user's store: %d, %v; want that it is absent", p, err)
	}
	if err := user.remove(t.Context(), root); err != nil {
		t.Error(err)
	}
	if p, err := machine.look(t.Context(), root); p != present || err != nil {
		t.Errorf("in the machine's store after it was removed from the user's: %d, %v; want that it is there", p, err)
	}
	if err := machine.remove(t.Context(), root); err != nil {
		t.Error(err)
	}
}

// The whole way, with receipts.
func TestInstallOnWine(t *testing.T) {
	onWine(t)
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range []Scope{User, Machine} {
		t.Run(string(scope), func(t *testing.T) {
			// What t.TempDir removes it with, Wine 8 does not know.
			dir, err := os.MkdirTemp("", "")
			if err != nil {
				t.Fatal(err)
			}
			defer os.Remove(dir)
			stores := &Stores{Scope: scope, Home: home, Receipts: filepath.Join(dir, "trust")}
			old, root := playedRoot(t), playedRoot(t)
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
			store := rootStore{scope, realWindowsRoots()}
			wantPresence(t, "replaced", store, old, absent)
			wantPresence(t, "installed", store, root, present)
			do("remove", 1, removal)
			wantPresence(t, "removed", store, root, absent)
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
