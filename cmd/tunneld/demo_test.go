package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/localapi"
)

func TestDemoDir(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it has no /tmp")
	}
	base := t.TempDir()
	tests := []struct {
		name, tmp string
		inside    bool
	}{
		{"a short path", "/tmp", true},
		{"a path too long for a socket", filepath.Join(base, strings.Repeat("long", 30)), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.MkdirAll(tt.tmp, 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("TMPDIR", tt.tmp)
			dir, err := demoDir()
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			if socket := filepath.Join(dir, demoSocket); !localapi.Fits(socket) {
				t.Errorf("%s is too long for a socket", socket)
			}
			if got := filepath.Dir(dir) == tt.tmp; got != tt.inside {
				t.Errorf("%s is in %s: %v; want %v", dir, tt.tmp, got, tt.inside)
			}
			if left, _ := os.ReadDir(tt.tmp); !tt.inside && len(left) > 0 {
				t.Errorf("%v is left in %s", left, tt.tmp)
			}
		})
	}
}
