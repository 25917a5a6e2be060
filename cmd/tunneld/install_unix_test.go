//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// Nobody else can change what root runs.
func TestOnlyRoots(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has directories of root's")
	}
	tests := []struct {
		name string
		do   func(dir string) error // to the directory above
		good bool
	}{
		{"root's", func(string) error { return nil }, true},
		{"not there yet", os.Remove, true},
		{"another user's", func(dir string) error { return os.Chown(dir, 65534, 0) }, false},
		{"for a group to write", func(dir string) error { return os.Chmod(dir, 0o775) }, false},
		{"for all to write, but not to exchange", func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			above := filepath.Join(t.TempDir(), "above")
			if err := os.Mkdir(above, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(above); err != nil {
				t.Fatal(err)
			}
			if err := onlyRoots(filepath.Join(above, "programs")); (err == nil) != tt.good {
				t.Errorf("looked: %v", err)
			}
		})
	}
}
