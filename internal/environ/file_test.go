package environ

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSaveAndLoad(t *testing.T) {
	path := Path(filepath.Join(t.TempDir(), "a", "state"))
	want := Capture{Time: time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC), Variables: map[string]string{"LANG": "C", "AWS_X": "a\nb\"\\=", "PATH": "/bin:/ä"}}
	for range 2 {
		if err := Save(path, Capture{want.Time, map[string]string{
			"LANG": "C", "AWS_X": "a\nb\"\\=", "PATH": "/bin:/ä", "HOME": "/root", "AWS_SECRET_ACCESS_KEY": "hidden",
		}}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hidden") {
		t.Error("a secret is in the file")
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("its mode is %v", info.Mode())
	}
	beside, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(beside) != 1 {
		t.Errorf("beside it is %v, %v", beside, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	tests := []struct {
		name, text string
		want       error
	}{
		{"nothing", "", ErrBroken},
		{"no JSON", "PATH=/bin", ErrBroken},
		{"cut off", `{"version": 1, "variables": {"PATH": "/b`, ErrBroken},
		{"no version", `{"variables": {}}`, ErrBroken},
		{"of tomorrow", `{"version": 2, "variables": [["PATH", "/bin"]]}`, ErrNewer},
		{"another kind", `{"version": 1, "variables": ["PATH=/bin"]}`, ErrBroken},
		{"no time", `{"version": 1, "captured": "yesterday"}`, ErrBroken},
		{"too long", `{"version": 1}` + strings.Repeat(" ", maxFile), ErrBroken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := Path(t.TempDir())
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(path); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v; want %v, and its name", err, tt.want)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		if _, err := Load(Path(t.TempDir())); !errors.Is(err, ErrNone) {
			t.Error(err)
		}
	})
	t.Run("a directory", func(t *testing.T) {
		path := Path(t.TempDir())
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); !errors.Is(err, ErrBroken) {
			t.Error(err)
		}
	})
}

// Whatever stands in the file, what comes of it can be set, and can be saved.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version": 1, "captured": "2026-11-26T05:00:00Z", "variables": {"PATH": "/bin", "HOME": "/root"}}`))
	f.Add([]byte(`{"version": 1, "variables": {"AWS_=": "\u0000", "AWS_X\u0000": "x", "LANG": "\ud800"}}`))
	f.Add([]byte(`{"version": 2}`))
	f.Add([]byte(`{"version": 1, "variables": null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse(data)
		if err != nil {
			if !errors.Is(err, ErrBroken) && !errors.Is(err, ErrNewer) {
				t.Errorf("%q: %v", data, err)
			}
			return
		}
		for name, value := range c.Variables {
			if allow, exact := isAllowed(name); !allow || isSecret(name, value, exact) || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
				t.Errorf("%q has %q, %q", data, name, value)
			}
		}
		again, left := Filter(c.Variables)
		if len(left) > 0 || !cmp.Equal(again, c.Variables) {
			t.Errorf("%q: of %q are kept %q", data, c.Variables, again)
		}
	})
}
