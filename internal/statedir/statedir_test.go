package statedir_test

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/statedir"
)

var sample = map[string]statedir.Forward{
	"task-api": {Address: netip.MustParseAddr("127.77.31.4"), Ports: []statedir.Port{{Name: "http", Number: 8000, AppProtocol: "http"}}},
	"db":       {Address: netip.MustParseAddr("127.77.1.1"), Subdomain: "peers", Pods: []statedir.Pod{{Name: "db-0", Address: netip.MustParseAddr("127.77.1.2")}}},
}

var addrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func open(t *testing.T, path string) *statedir.Dir {
	t.Helper()
	d, err := statedir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "state")
	d := open(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v, %v; want 0700", info.Mode().Perm(), err)
	}
	if got := d.Forwards(); len(got) != 0 {
		t.Errorf("a new directory remembers %v", got)
	}
	if err := d.SetForwards(sample); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if diff := cmp.Diff(sample, open(t, path).Forwards(), addrs); diff != "" {
		t.Errorf("after opening it again (-want +got):\n%s", diff)
	}
}

func TestWritesOnlyChanges(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	if err := d.SetForwards(nil); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(path, "forwards.json")
	if _, err := os.Stat(file); err == nil {
		t.Error("nothing was written down, as if it were something")
	}
	d.SetForwards(sample)
	first, _ := os.Stat(file)
	d.SetForwards(sample)
	if second, _ := os.Stat(file); !os.SameFile(first, second) {
		t.Error("the file was replaced by an equal one")
	}
	for name, change := range map[string]func(*statedir.Forward){
		"address":   func(f *statedir.Forward) { f.Address = f.Address.Next() },
		"ports":     func(f *statedir.Forward) { f.Ports = []statedir.Port{{Number: 1}} },
		"pods":      func(f *statedir.Forward) { f.Pods = []statedir.Pod{{Name: "db-0", Address: f.Address}} },
		"subdomain": func(f *statedir.Forward) { f.Subdomain = "others" },
		"whole":     func(f *statedir.Forward) { f.Whole = true },
		"target":    func(f *statedir.Forward) { f.Target = "service/other" },
	} {
		before, _ := os.Stat(file)
		other := maps.Clone(sample)
		f := other["db"]
		change(&f)
		other["db"] = f
		d.SetForwards(other)
		if now, _ := os.Stat(file); os.SameFile(before, now) {
			t.Errorf("other %s were not written", name)
		}
		d.SetForwards(sample)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	if _, err := statedir.Open(path); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("second open: %v; want ErrInUse", err)
	}
	d.Close()
	open(t, path)
}

func TestNewerVersionIsRefusedUnharmed(t *testing.T) {
	path := t.TempDir()
	file := filepath.Join(path, "forwards.json")
	for _, text := range []string{
		`{"version": 2, "forwards": {"x": {"address": "127.77.0.1", "new": true}}}`,
		`{"version": 2, "forwards": ["another", "shape"]}`,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := statedir.Open(path)
		if !errors.Is(err, statedir.ErrNewer) || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("open: %v; want ErrNewer", err)
		}
		if now, _ := os.ReadFile(file); string(now) != text {
			t.Errorf("the file was changed to %s", now)
		}
	}
}

func TestUnusable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(dir, "locked") // the lock cannot be made
	forwards := filepath.Join(dir, "forwards")
	if err := errors.Join(os.MkdirAll(filepath.Join(locked, "lock"), 0o700), os.MkdirAll(filepath.Join(forwards, "forwards.json"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a file":                     file,
		"below a file":               filepath.Join(file, "state"),
		"a lock that is none":        locked,
		"a file that is a directory": forwards,
	} {
		t.Run(name, func(t *testing.T) {
			if d, err := statedir.Open(path); !errors.Is(err, statedir.ErrUnusable) {
				t.Errorf("%v, %v; want ErrUnusable", d, err)
			}
		})
	}
}

func TestUnreadableFileIsSetAside(t *testing.T) {
	path := t.TempDir()
	file := filepath.Join(path, "forwards.json")
	os.WriteFile(file, []byte("{gibberish"), 0o600)
	d := open(t, path)
	if err := d.SetForwards(sample); err != nil {
		t.Fatal(err)
	}
	if aside, _ := os.ReadFile(file + ".unreadable"); string(aside) != "{gibberish" {
		t.Errorf("set aside is %q", aside)
	}
}

// A full disk changes no address while the process lives, and is tried again.
func TestFailureToWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	d := open(t, path)
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.SetForwards(sample); err == nil {
			t.Error("no error from a directory that is gone")
		}
		if diff := cmp.Diff(sample, d.Forwards(), addrs); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.SetForwards(sample); err != nil {
		t.Errorf("when the directory is back: %v", err)
	}
	if _, err := os.Stat(filepath.Join(path, "forwards.json")); err != nil {
		t.Errorf("it was not tried again: %v", err)
	}
}

func TestWhatAKilledWriteLeftIsRemoved(t *testing.T) {
	path := t.TempDir()
	left := filepath.Join(path, ".forwards.json.1234.tmp")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if _, err := os.Stat(left); err == nil {
		t.Error("it is still there")
	}
}

func TestDefaultPath(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/xdg")
	if got, err := statedir.DefaultPath(); err != nil || got != filepath.Join("/xdg", "tunneld") {
		t.Errorf("%q, %v", got, err)
	}
	t.Setenv("XDG_STATE_HOME", "relative/is/ignored")
	t.Setenv("HOME", "/home/somebody")
	if got, err := statedir.DefaultPath(); err != nil || got != filepath.Join("/home/somebody", ".local", "state", "tunneld") {
		t.Errorf("%q, %v", got, err)
	}
}
