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
