package main

import (
	"bytes"
	"context"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/environ"
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

// The service goes by the environment that was captured, and so does its installation.
func TestViewHomeOfService(t *testing.T) {
	dir := atHome(t, map[string]string{"elsewhere/tunneld/config.yaml": "version: 1\ndomain: test\n"})
	state := filepath.Join(dir, ".local", "state", "tunneld")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := viewHome()
	if err != nil || before.Captured || before.Domain != "local" {
		t.Errorf("before: %+v, %v", before, err)
	}
	c := environ.Capture{Time: time.Now(), Variables: map[string]string{"XDG_CONFIG_HOME": filepath.Join(dir, "elsewhere")}}
	if err := environ.Save(environ.Path(state), c); err != nil {
		t.Fatal(err)
	}
	after, err := viewHome()
	if err != nil || !after.Captured || after.Domain != "test" {
		t.Errorf("after: %+v, %v", after, err)
	}
	if after.same(before) {
		t.Error("that it is another configuration is not seen")
	}
	s := site{view: before, look: func(context.Context) (homeView, error) { return viewHome() }}
	if err := s.unchanged(t.Context()); err == nil || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("unchanged: %v", err)
	}
}

// Without a home there is no service, and it is not ours to make one.
func TestNoHome(t *testing.T) {
	t.Setenv("HOME", filepath.Join(atHome(t, nil), "none"))
	v, err := viewHome()
	if err != nil || v.Problem == "" || len(v.Missing) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

// A user may have the process that looks at their home say anything.
func TestForgedView(t *testing.T) {
	good := homeView{
		Config: "/home/dev/.config/tunneld/config.yaml", State: "/home/dev/.local/state/tunneld", Domain: "local",
		Missing: []string{"/home/dev/.config", "/home/dev/.config/tunneld", "/home/dev/.local/state"},
	}
	tests := []struct {
		name  string
		forge func(*homeView)
		ok    bool
	}{
		{"nothing", func(*homeView) {}, true},
		{"a relative state directory", func(v *homeView) { v.State = "etc" }, false},
		{"one that is not clean", func(v *homeView) { v.State = "/home/dev/../../etc" }, false},
		{"no state directory", func(v *homeView) { v.State = "" }, false},
		{"a state directory that hides the plan", func(v *homeView) { v.State += "\x1b[2J" }, false},
		{"a line break", func(v *homeView) { v.Config = "/home/dev/x\n+ nothing" }, false},
		{"another directory", func(v *homeView) { v.Missing = []string{"/etc"} }, false},
		{"one beside", func(v *homeView) { v.Missing = []string{"/home/dev/.conf"} }, false},
		{"a domain that hides itself", func(v *homeView) { v.Domain = "local\x1b[8m.com" }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := good
			tt.forge(&v)
			if err := v.check(); (err == nil) != tt.ok {
				t.Errorf("checked: %v", err)
			}
		})
	}
	v := good
	v.Problem = "bad\x1b]0;title\x07\n\u202eline"
	if err := v.check(); err != nil || strings.ContainsAny(v.Problem, "\x1b\x07\n\u202e") {
		t.Errorf("printed: %q, %v", v.Problem, err)
	}
}

// What tunneld-helper would refuse is not installed.
func TestCheckPolicies(t *testing.T) {
	for domain, ok := range map[string]bool{"local": true, "dev.example.com": true, "com": false, "example.arpa": false, "x\x1b[8m.com": false} {
		item, err := setup.Policy{UID: "1000", Domain: domain, Addresses: netip.MustParsePrefix("127.77.0.0/16"), Ports: []uint16{80}}.Item("/etc/tunneld/helper/1000.json")
		if err != nil {
			t.Fatal(err)
		}
		if err := checkPolicies([]setup.Item{item}); (err == nil) != ok {
			t.Errorf("%q: %v", domain, err)
		}
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
			kept, err := clearHome(filepath.Join(dir, configuration), missing, tt.environment, tt.purge)
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
