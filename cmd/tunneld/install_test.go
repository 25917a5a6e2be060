package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/usage"
)

// atHome gives the test a home directory with files, which are named from there.
func atHome(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_STATE_HOME"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", dir)
	for path, text := range files {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tree lists what is below dir.
func tree(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); rel != "." {
			paths = append(paths, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestViewHome(t *testing.T) {
	tests := []struct {
		name    string
		files   map[string]string
		missing []string
		domain  string // empty: there is a problem
	}{
		{"nothing", nil, []string{".config", ".config/tunneld", ".local", ".local/state", ".local/state/tunneld"}, "local"},
		{"a configuration", map[string]string{".config/tunneld/config.yaml": "version: 1\ndomain: test\n"}, []string{".local", ".local/state", ".local/state/tunneld"}, "test"},
		{"a bad one", map[string]string{".config/tunneld/config.yaml": "version: 1\ndomian: test\n"}, []string{".local", ".local/state", ".local/state/tunneld"}, ""},
		{"a state directory", map[string]string{".local/state/tunneld/x": ""}, []string{".config", ".config/tunneld"}, "local"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := atHome(t, tt.files)
			v, err := viewHome()
			if err != nil {
				t.Fatal(err)
			}
			for i, path := range v.Missing {
				v.Missing[i], _ = filepath.Rel(dir, path)
			}
			if diff := cmp.Diff(tt.missing, v.Missing); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
			if v.Domain != tt.domain || (v.Problem == "") != (tt.domain != "") {
				t.Errorf("domain %q, problem %q", v.Domain, v.Problem)
			}
		})
	}
}

func TestClearHome(t *testing.T) {
	const configuration, key, env = ".config/tunneld/config.yaml", ".local/state/tunneld/ca.key", ".local/state/tunneld/environment.json"
	all := []string{".config", ".config/tunneld", ".local", ".local/state", ".local/state/tunneld"}
	tests := []struct {
		name               string
		files, missing     []string
		environment, purge bool
		want               []string // what is left
		kept               int
	}{
		{name: "what the daemon made", files: []string{key}, missing: all},
		{name: "a configuration since", files: []string{key, configuration}, missing: all, want: []string{".config", ".config/tunneld", configuration}, kept: 1},
		{name: "purge", files: []string{key, configuration}, missing: all, purge: true},
		{
			name: "a state directory from before", files: []string{key, configuration}, missing: []string{},
			want: []string{".config", ".config/tunneld", configuration, ".local", ".local/state", ".local/state/tunneld", key}, kept: 2,
		},
		{name: "purge what was there before", files: []string{key, configuration}, purge: true, want: []string{".config", ".local", ".local/state"}},
		{name: "something else beside it", files: []string{key, ".local/state/other"}, missing: all, want: []string{".local", ".local/state", ".local/state/other"}},
		{name: "the environment only", files: []string{key, env}, environment: true, want: []string{".local", ".local/state", ".local/state/tunneld", key}},
		{name: "nothing", missing: all},
		{name: "no environment", environment: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := make(map[string]string)
			for _, path := range tt.files {
				files[path] = "x"
			}
			dir := atHome(t, files)
			var missing []string
			for _, path := range tt.missing {
				missing = append(missing, filepath.Join(dir, path))
			}
			kept, err := clearHome(missing, tt.environment, tt.purge)
			if err != nil {
				t.Fatal(err)
			}
			if len(kept) != tt.kept {
				t.Errorf("kept: %q", kept)
			}
			if diff := cmp.Diff(slices.Sorted(slices.Values(tt.want)), slices.Sorted(slices.Values(tree(t, dir)))); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckDomain(t *testing.T) {
	tests := []struct {
		name, domain string
		yes          bool
		said         []string
		covered      []string // nil: refused
	}{
		{"a local one", "local", true, nil, []string{}},
		{"one's own, asked", "dev.example.com", false, nil, []string{"dev.example.com"}},
		{"one's own, not asked", "dev.example.com", true, nil, nil},
		{"one's own, said", "dev.example.com", true, []string{"dev.example.com"}, []string{"dev.example.com"}},
		{"another, said", "dev.example.com", true, []string{"example.com"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := &installation{yes: tt.yes, domains: tt.said}
			err := i.checkDomain(tt.domain)
			if (err == nil) != (tt.covered != nil) || err != nil && !usage.Is(err) {
				t.Fatalf("checked: %v", err)
			}
			if err == nil && !slices.Equal(i.domains, tt.covered) {
				t.Errorf("covered: %q", i.domains)
			}
		})
	}
}

func TestConfirmed(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "YES\n": true, "\n": false, "no\n": false, "": false, "yes": true} {
		var out bytes.Buffer
		i := &installation{in: strings.NewReader(answer), out: &out}
		if got, err := i.confirmed(); err != nil || got != want {
			t.Errorf("%q is %v, %v", answer, got, err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	i := &installation{in: null, out: new(bytes.Buffer)}
	if ok, err := i.confirmed(); ok || !usage.Is(err) {
		t.Errorf("nobody answered: %v, %v", ok, err)
	}
}

// Each change says why it is made and how it is undone, alike ones together.
func TestShow(t *testing.T) {
	item := func(step string, k setup.Kind, path, why string) setup.Standing {
		return setup.Standing{Item: setup.Item{Change: setup.Change{Step: step, Kind: k, Path: path, Why: why, Undo: "removed"}}}
	}
	standing := []setup.Standing{
		item("service", setup.Directory, "/a", "x"),
		item("service", setup.File, "/a/1", "programs"),
		item("service", setup.File, "/a/2", "programs"),
		item("service", setup.File, "/b", "units"),
		item("names", setup.Service, "c", "names"),
		item("names", setup.Directory, "/d", "names"),
	}
	standing[2].Done = true
	standing[5].Blocked = "in the way"
	var out bytes.Buffer
	(&installation{out: &out}).show(standing)
	want := `service
  + file /a/1
  = file /a/2
    for: programs
    undone: removed
  + file /b
    for: units
    undone: removed
names
  + service c
    for: names
    undone: removed
  ! directory /d
    left as it is: in the way
    for: names
    undone: removed

+ will be made, = is there
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
