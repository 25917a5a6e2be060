package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/windows"
)

func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hosts")
	sys := New()
	check := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("the file is %q, %v; want %q", got, err, want)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("in the directory are %v, %v; want the file only", entries, err)
		}
	}
	if err := sys.ReplaceFile(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	check("one")
	if err := sys.SwapFile(path, []byte("none"), []byte("two")); !errors.Is(err, ErrChanged) {
		t.Errorf("error %v; want %v", err, ErrChanged)
	}
	check("one")
	if err := sys.SwapFile(path, []byte("one"), []byte("two")); err != nil {
		t.Fatal(err)
	}
	check("two")

	// Somebody has it open, so it cannot be replaced.
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := sys.SwapFile(path, []byte("two"), []byte("three")); err != nil {
		t.Fatal(err)
	}
	check("three")
}

func TestReplaceFileKeepsAccess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	access := func() string {
		t.Helper()
		sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
		if err != nil {
			t.Fatal(err)
		}
		return sd.String()
	}
	// We alone, and nothing from the directory.
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	sd, err := windows.SecurityDescriptorFromString("D:P(A;;FA;;;" + user.User.Sid.String() + ")")
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := sd.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, list, nil); err != nil {
		t.Fatal(err)
	}
	want := access()
	if err := New().ReplaceFile(path, []byte("two")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, access()); diff != "" {
		t.Errorf("access (-want +got):\n%s", diff)
	}
}

func TestRegistry(t *testing.T) {
	r := New().Registry
	const key = `SOFTWARE\tunneld test`
	if err := r.MakeKey(key + `\rule`); errors.Is(err, fs.ErrPermission) {
		t.Skip("needs an administrator")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(r.RemoveKey(key+`\rule`), r.RemoveKey(key)) })
	want := map[string]any{"text": "a", "list": []string{"a", ".a"}, "number": uint32(8)}
	for name, value := range want {
		if err := r.SetValue(key+`\rule`, name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.SetValue(key+`\rule`, "other", 1.5); err == nil {
		t.Error("a value of no type of the registry was set")
	}
	got, err := r.Values(key + `\rule`)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("values: %v (-want +got):\n%s", err, diff)
	}
	if err := r.RemoveKey(key); err == nil {
		t.Error("a key was removed with those below it")
	}
	if keys, err := r.Keys(key); err != nil || len(keys) != 1 || keys[0] != "rule" {
		t.Errorf("keys %v, %v; want rule", keys, err)
	}
	if err := errors.Join(r.RemoveKey(key+`\rule`), r.RemoveKey(key)); err != nil {
		t.Error(err)
	}
	if _, err := r.Keys(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v; want %v", err, fs.ErrNotExist)
	}
	if err := r.RemoveKey(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v; want %v", err, fs.ErrNotExist)
	}
}
