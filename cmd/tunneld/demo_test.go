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

func TestTunnelctl(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("its programs are known by their names")
	}
	base := t.TempDir()
	program := func(dir string) string {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(base, dir, "tunnelctl")
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bin, other := program("bin"), program("other")
	tests := []struct {
		name      string
		own, path string // where tunneld is, and $PATH
		want      string
		built     bool
	}{
		{"beside, and in the path", "bin", "bin", "tunnelctl", true},
		{"beside, and not in the path", "bin", "empty", bin, true},
		{"beside, and another in the path", "bin", "other", bin, true},
		{"in the path only", "empty", "other", "tunnelctl", true},
		{"nowhere", "empty", "empty", "tunnelctl", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("PATH", filepath.Join(base, tt.path))
			command, note := tunnelctl(filepath.Join(base, tt.own, "tunneld"))
			if command != tt.want || (note == "") != tt.built {
				t.Errorf("%q with note %q; want %q", command, note, tt.want)
			}
		})
	}
	t.Run("through a link in the path", func(t *testing.T) {
		links := filepath.Join(base, "links")
		if err := os.Mkdir(links, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(bin, filepath.Join(links, "tunnelctl")); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", links+string(filepath.ListSeparator)+filepath.Dir(other))
		if command, _ := tunnelctl(filepath.Join(base, "bin", "tunneld")); command != "tunnelctl" {
			t.Errorf("%q; want the name only", command)
		}
	})
}
