package rootstore

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

// Looking takes no rights and changes nothing.
func TestListRoots(t *testing.T) {
	for _, scope := range []place.Scope{place.User, place.Machine} {
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
	for _, scope := range []place.Scope{place.User, place.Machine} {
		t.Run(string(scope), func(t *testing.T) {
			ours, others := storetest.Root(t, "tunneld local CA"), storetest.Root(t, "tunneld local CA") // of the same name
			store := rootStore{scope, roots}
			want := func(what string, cert place.Presence, other place.Presence) {
				t.Helper()
				c, err := store.Look(t.Context(), ours)
				o, otherErr := store.Look(t.Context(), others)
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
			want("before", place.Absent, place.Absent)
			do("add the other one", store.Add(t.Context(), others))
			do("add", store.Add(t.Context(), ours))
			do("add again", store.Add(t.Context(), ours))
			want("added", place.Present, place.Present)
			if err := trustedByWindows(ours); err != nil {
				t.Errorf("added, and Windows does not trust it: %v", err)
			}
			do("remove", store.Remove(t.Context(), ours))
			do("remove again", store.Remove(t.Context(), ours))
			want("removed", place.Absent, place.Present)
			if trustedByWindows(ours) == nil || trustedByWindows(others) != nil {
				t.Error("removed, and Windows trusts it, or not the other one")
			}
			do("remove the other one", store.Remove(t.Context(), others))
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
	root := storetest.Root(t, "tunneld local CA")
	user, machine := rootStore{place.User, realWindowsRoots()}, rootStore{place.Machine, realWindowsRoots()}
	if err := machine.Add(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if p, err := user.Look(t.Context(), root); p != place.Absent || err != nil {
		t.Errorf("in the user's store: %d, %v; want that it is absent", p, err)
	}
	if err := user.Remove(t.Context(), root); err != nil {
		t.Error(err)
	}
	if p, err := machine.Look(t.Context(), root); p != place.Present || err != nil {
		t.Errorf("in the machine's store after it was removed from the user's: %d, %v; want that it is there", p, err)
	}
	if err := machine.Remove(t.Context(), root); err != nil {
		t.Error(err)
	}
}

func onWine(t *testing.T) {
	t.Helper()
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("this is not Wine")
	}
}
