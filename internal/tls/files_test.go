package tls

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A write that ends early, wherever it does, leaves no second key and not half a CA
// that looks whole; and what was there, if it is found out soon enough.
func TestWriteThatFails(t *testing.T) {
	tests := []struct {
		name     string
		obstacle string // a directory that cannot be removed or replaced
		unusable string // of what is there afterwards; empty: the old one
	}{
		{"a certificate cannot be written", intermediateFile + partial, ""},
		{"a certificate cannot be replaced", rootFile, keyFile + " was missing"},
		{"the key cannot be written", keyFile + partial, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			var as [2]authority
			for i := range as {
				var err error
				if as[i], err = newAuthority([]string{"local"}, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			if err := write(dir, as[0]); err != nil {
				t.Fatal(err)
			}
			obstacle := filepath.Join(dir, tt.obstacle)
			if err := os.RemoveAll(obstacle); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := write(dir, as[1]); err == nil {
				t.Fatal("no error")
			}
			if err := os.RemoveAll(obstacle); err != nil {
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*"+partial)); len(left) != 0 {
				t.Errorf("left %v", left)
			}
			if tt.obstacle == rootFile { // which the test has removed, and the key must be, too
				if _, err := os.Stat(filepath.Join(dir, keyFile)); !os.IsNotExist(err) {
					t.Errorf("a key is there (%v)", err)
				}
				return
			}
			a, unusable, err := read(dir)
			if err != nil || unusable != tt.unusable || unusable == "" && !a.root.Equal(as[0].root) {
				t.Errorf("read: %q, %v", unusable, err)
			}
			if err := write(dir, as[1]); err != nil {
				t.Errorf("once it works again: %v", err)
			}
		})
	}
}

// An authority that is served on after a renewal that failed is on disk as well.
func TestRestore(t *testing.T) {
	var as [2]authority
	for i := range as {
		var err error
		if as[i], err = newAuthority([]string{"local"}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", keyFile, rootFile, intermediateFile} {
		dir := t.TempDir()
		if err := write(dir, as[0]); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(filepath.Join(dir, rootFile))
		if err != nil {
			t.Fatal(err)
		}
		if name != "" {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := restore(dir, as[0]); err != nil {
			t.Errorf("without %q: %v", name, err)
		}
		if a, unusable, err := read(dir); err != nil || unusable != "" || !a.root.Equal(as[0].root) || !a.key.Equal(as[0].key) {
			t.Errorf("without %q: %q, %v", name, unusable, err)
		}
		after, err := os.Stat(filepath.Join(dir, rootFile))
		if name == "" && (err != nil || !os.SameFile(before, after)) {
			t.Errorf("what was whole is written anew (%v)", err)
		}
	}
	// Another one's remains give way.
	dir := t.TempDir()
	if err := write(dir, as[1]); err != nil {
		t.Fatal(err)
	}
	if err := restore(dir, as[0]); err != nil {
		t.Error(err)
	}
	if a, _, _ := read(dir); a.root == nil || !a.root.Equal(as[0].root) {
		t.Error("the other one is there")
	}
}
