package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/tunneld/tunneld/internal/config"
)

// add is a change that adds a forward.
func add(name string) func([]byte) ([]byte, error) {
	return func(src []byte) ([]byte, error) { return config.Add(src, plainForward(name)) }
}

// wantFile checks a file's contents and its mode, and that its directory holds
// just the given names.
func wantFile(t *testing.T, path, text string, mode fs.FileMode, names ...string) {
	t.Helper()
	got, err := os.ReadFile(path)
	do(t, err)
	if string(got) != text {
		t.Errorf("%s holds\n%s\nwant\n%s", path, got, text)
	}
	info, err := os.Lstat(path)
	do(t, err)
	if runtime.GOOS != "windows" && info.Mode() != mode {
		t.Errorf("%s has mode %v; want %v", path, info.Mode(), mode)
	}
	wantDir(t, filepath.Dir(path), names...)
}

func wantDir(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	do(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("%s holds %q; want %q", dir, got, names)
	}
}

const (
	oneText  = "version: 1\nforwards: # mine\n- name: a\n  target: service/a\n  namespace: apps\n  context: lab\n"
	bothText = oneText + "- name: b\n  target: service/b\n  namespace: apps\n  context: lab\n"
)

func TestEditMakesFile(t *testing.T) {
	top := t.TempDir()
	path := filepath.Join(top, "x", "y", "config.yaml")
	do(t, config.Edit(path, add("a")))
	wantFile(t, path, "# What tunneld forwards. Edit it, or use tunnelctl add and tunnelctl rm.\n"+strings.Replace(oneText, " # mine", "", 1), 0o600, "config.yaml")
	for _, dir := range []string{"x", filepath.Join("x", "y")} {
		if info, err := os.Stat(filepath.Join(top, dir)); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want mode 0700", dir, info, err)
		}
	}
}

func TestEditKeepsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, oneText)
	do(t, os.Chmod(path, 0o640))
	do(t, config.Edit(path, add("b")))
	wantFile(t, path, bothText, 0o640, "config.yaml")
}

func TestEditChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, oneText)
	before, err := os.Stat(path)
	do(t, err)
	do(t, config.Edit(path, add("a")))
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced by an equal one (%v)", err)
	}
}

func TestEditFollowsLinks(t *testing.T) {
	top := t.TempDir()
	in := func(names ...string) string { return filepath.Join(append([]string{top}, names...)...) }
	do(t, os.MkdirAll(in("home", "deep"), 0o700), os.MkdirAll(in("dotfiles", "tunneld"), 0o700))
	target := in("dotfiles", "tunneld", "target.yaml")
	write(t, target, oneText)
	// A link in the directory, a relative link, and an absolute one. The .. is
	// that of where the first leads.
	do(t, os.Symlink(in("dotfiles", "tunneld"), in("home", "deep", "tunneld")))
	do(t, os.Symlink("../link.yaml", in("dotfiles", "tunneld", "config.yaml")))
	do(t, os.Symlink(target, in("dotfiles", "link.yaml")))
	do(t, config.Edit(in("home", "deep", "tunneld", "config.yaml"), add("b")))

	wantFile(t, target, bothText, 0o600, "config.yaml", "target.yaml")
	for _, link := range []string{in("home", "deep", "tunneld"), in("dotfiles", "tunneld", "config.yaml"), in("dotfiles", "link.yaml")} {
		if _, err := os.Readlink(link); err != nil {
			t.Errorf("a link is gone: %v", err)
		}
	}
}

func TestEditDanglingLink(t *testing.T) {
	top := t.TempDir()
	path, target := filepath.Join(top, "config.yaml"), filepath.Join(top, "store", "target.yaml")
	do(t, os.Symlink(target, path))
	if err := config.Edit(path, add("a")); err == nil || !strings.Contains(err.Error(), "whose directory does not exist") {
		t.Errorf("without the directory: got %v; want an error that says so", err)
	}
	if c, err := config.Load(path); err == nil || !strings.Contains(err.Error(), "is a link to "+target+", which does not exist") {
		t.Errorf("Load gave %v, %v; want an error that names the link", c, err)
	}
	wantDir(t, top, "config.yaml")
	do(t, os.Mkdir(filepath.Dir(target), 0o700))
	do(t, config.Edit(path, add("a")))
	if c, err := config.Load(target); err != nil || len(c.Forwards) != 1 {
		t.Errorf("Load gave %v, %v", c, err)
	}
}

func TestEditRefuses(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name   string
		set    func(t *testing.T, path string)
		change func([]byte) ([]byte, error)
		want   string
		is     error
	}{
		{"change fails", nil, func([]byte) ([]byte, error) { return nil, boom }, "edit configuration: boom", boom},
		{"bad result", nil, func([]byte) ([]byte, error) { return []byte("version: 2"), nil }, "the result would be no configuration: 1:10: version 2 of", nil},
		{"bad file", func(t *testing.T, path string) { write(t, path, "version: 1\nforward: []\n") }, add("a"), `config.yaml:2:1: unknown key "forward" in the file: did you mean "forwards"?`, nil},
		{"read-only file", func(t *testing.T, path string) { do(t, os.Chmod(path, 0o444)) }, add("b"), "config.yaml is read-only: allow writing (chmod u+w), or", fs.ErrPermission},
		{"directory in its place", func(t *testing.T, path string) { do(t, os.Remove(path), os.Mkdir(path, 0o700)) }, add("b"), "is not a regular file", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yaml")
			write(t, path, oneText)
			if tt.set != nil {
				tt.set(t, path)
			}
			before, _ := os.ReadFile(path)
			err := config.Edit(path, tt.change)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v; want %q", err, tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v; want it to be %v", err, tt.is)
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Errorf("the file was changed to\n%s", after)
			}
			wantDir(t, filepath.Dir(path), "config.yaml")
		})
	}
}

func TestEditReadOnlyDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("directories have no such mode")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, oneText)
	do(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { do(t, os.Chmod(dir, 0o700)) })
	err := config.Edit(path, add("b"))
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "the directory "+dir+" is read-only") {
		t.Errorf("got %v; want an error that says so", err)
	}
	wantFile(t, path, oneText, 0o600, "config.yaml")
}

// A person saves the file while it is edited.
func TestEditMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	const saved = oneText + "# saved\n"
	tests := []struct {
		name  string
		saves int // before the person leaves it alone
		save  func(t *testing.T, n int)
		want  string
		fails bool
	}{
		{"once", 1, func(t *testing.T, _ int) { write(t, path, saved) }, bothText + "# saved\n", false},
		{"again and again", 2, func(t *testing.T, n int) { write(t, path, saved+strings.Repeat("#\n", n)) }, saved + "#\n#\n", true},
		{"as a new file", 1, func(t *testing.T, _ int) { write(t, path+".new", saved); do(t, os.Rename(path+".new", path)) }, bothText + "# saved\n", false},
		{"by removing it", 1, func(t *testing.T, _ int) { do(t, os.Remove(path)) }, "# What tunneld forwards. Edit it, or use tunnelctl add and tunnelctl rm.\nversion: 1\nforwards:\n" + entry("b"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			write(t, path, oneText)
			n := 0
			err := config.Edit(path, func(src []byte) ([]byte, error) {
				if n++; n <= tt.saves {
					tt.save(t, n)
				}
				return add("b")(src)
			})
			switch {
			case tt.fails && (err == nil || !strings.Contains(err.Error(), "changed by another program")):
				t.Errorf("got %v; want an error that says that it was changed", err)
			case !tt.fails && err != nil:
				t.Error(err)
			}
			wantFile(t, path, tt.want, 0o600, "config.yaml")
		})
	}
}

// A link is changed while the file is edited: what it led to before is not
// touched.
func TestEditLinkMeanwhile(t *testing.T) {
	top := t.TempDir()
	path, one, two := filepath.Join(top, "config.yaml"), filepath.Join(top, "one"), filepath.Join(top, "two")
	write(t, one, oneText)
	write(t, two, "version: 1\n")
	do(t, os.Symlink(one, path))
	n := 0
	do(t, config.Edit(path, func(src []byte) ([]byte, error) {
		if n++; n == 1 {
			do(t, os.Remove(path), os.Symlink(two, path))
		}
		return add("b")(src)
	}))
	wantFile(t, one, oneText, 0o600, "config.yaml", "one", "two")
	wantFile(t, two, "version: 1\nforwards:\n"+entry("b"), 0o600, "config.yaml", "one", "two")
}

func TestEditTogether(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("directories cannot be locked")
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	const n = 12
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := config.Edit(path, add(fmt.Sprintf("f%d", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if c, err := config.Load(path); err != nil || len(c.Forwards) != n {
		t.Errorf("Load gave %v, %v; want %d forwards", c, err, n)
	}
	wantDir(t, filepath.Dir(path), "config.yaml")
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	if c, err := config.Load(path); err != nil || c.Domain != "local" || len(c.Forwards) != 0 || !c.Absent {
		t.Errorf("no file: got %v, %v; want the default", c, err)
	}
	write(t, path, "\n")
	if c, err := config.Load(path); err != nil || !c.Absent {
		t.Errorf("an empty file: got %v, %v; want it to count as none", c, err)
	}
	write(t, path, "# nothing yet\n")
	if c, err := config.Load(path); err != nil || c.Absent {
		t.Errorf("a comment: got %v, %v; want it to count as a file", c, err)
	}
	write(t, path, bothText)
	if c, err := config.Load(path); err != nil || len(c.Forwards) != 2 {
		t.Errorf("a file: got %v, %v; want two forwards", c, err)
	}
	write(t, path, "version: 1\nhold: soon\n")
	_, err := config.Load(path)
	want := path + `:2:7: hold must be a duration from 0s to 10m, such as 30s, not "soon"`
	if err == nil || err.Error() != want {
		t.Errorf("a bad file: got %v; want %s", err, want)
	}
	if e, ok := errors.AsType[*config.Error](err); !ok || e.Path != path || e.Line != 2 || e.Column != 7 {
		t.Errorf("a bad file: got %#v", err)
	}
	if c, err := config.Load(dir); err == nil || c != nil {
		t.Errorf("a directory: got %v, %v; want an error", c, err)
	}
	write(t, path, strings.Repeat("#\n", 1<<20))
	if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a large file: got %v; want an error that says so", err)
	}
}

func TestDefaultPath(t *testing.T) {
	home, xdg := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	for _, tt := range []struct{ name, xdg, want string }{
		{"by default", "", filepath.Join(home, ".config", "tunneld", "config.yaml")},
		{"XDG", xdg, filepath.Join(xdg, "tunneld", "config.yaml")},
		{"relative XDG", "x", filepath.Join(home, ".config", "tunneld", "config.yaml")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("XDG_CONFIG_HOME", tt.xdg)
			if got, err := config.DefaultPath(); err != nil || got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}
