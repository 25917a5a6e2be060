package truststore

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
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
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("this is not Wine")
	}
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
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("this is not Wine")
	}
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
