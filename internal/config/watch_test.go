package config_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/config"
)

// A watch is a running Watch and what it did so far.
type watch struct {
	t     *testing.T
	path  string
	calls atomic.Int64           // of changed
	looks atomic.Int64           // at the file, whether it changed or not
	text  atomic.Pointer[string] // what the last call found; nil for no file
}

// startWatch starts a Watch that ends with the test, and returns when it sees
// changes.
func startWatch(t *testing.T, path string) *watch {
	t.Helper()
	w := &watch{t: t, path: path}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- config.Watch(ctx, path, slog.New(w), w.changed) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	await.Until(t, "the first call", func() bool { return w.calls.Load() == 1 })
	return w
}

func (w *watch) changed() {
	w.text.Store(w.onDisk())
	w.calls.Add(1)
}

func (w *watch) onDisk() *string {
	src, err := os.ReadFile(w.path)
	if err != nil {
		return nil
	}
	text := string(src)
	return &text
}

// The watch counts looks by the log.
func (w *watch) Enabled(context.Context, slog.Level) bool { return true }
func (w *watch) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *watch) WithGroup(string) slog.Handler            { return w }
func (w *watch) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "looked at the configuration" {
		w.looks.Add(1)
	}
	return nil
}

// sees does something and waits for the call that finds its result. There may
// be others before it: that the file was gone for a moment, say.
func (w *watch) sees(what string, do func()) {
	w.t.Helper()
	before := w.calls.Load()
	do()
	want := w.onDisk()
	await.Until(w.t, "a call after: "+what, func() bool {
		got := w.text.Load()
		return w.calls.Load() > before && (got == want || got != nil && want != nil && *got == *want)
	})
}

// ignores does something, waits until it was looked at, and wants no call.
func (w *watch) ignores(what string, do func()) {
	w.t.Helper()
	calls, looks := w.calls.Load(), w.looks.Load()
	do()
	await.Until(w.t, "a look after: "+what, func() bool { return w.looks.Load() > looks })
	if got := w.calls.Load(); got != calls {
		w.t.Errorf("%s: %d calls; want none", what, got-calls)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestWatchFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, "version: 1\n")
	w := startWatch(t, path)

	w.ignores("a neighbour is made", func() { write(t, filepath.Join(dir, "other"), "x") })
	w.ignores("the file is written with the same contents", func() { write(t, path, "version: 1\n") })
	w.sees("the file is written in place", func() { write(t, path, "version: 1 # again\n") })
	w.sees("the file is appended to", func() {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		do(t, err)
		_, err = f.WriteString("bad\n")
		do(t, err, f.Close())
	})
	w.sees("the file is good again", func() { write(t, path, "version: 1\n") })
	w.sees("the file is replaced, as by an editor", func() {
		write(t, path+".new", "version: 1 # replaced\n")
		do(t, os.Rename(path, path+"~"), os.Rename(path+".new", path))
	})
	w.sees("the file is edited", func() {
		do(t, config.Edit(path, func(src []byte) ([]byte, error) { return config.Add(src, plainForward("a")) }))
	})
	w.sees("the file is removed", func() { do(t, os.Remove(path)) })
	w.sees("the file is made again", func() { write(t, path, "version: 1\n") })
}

func TestWatchDirectory(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "a", "tunneld")
	path := filepath.Join(dir, "config.yaml")
	w := startWatch(t, path)
	if info, err := os.Stat(dir); err != nil || runtime.GOOS != "windows" && info.Mode() != fs.ModeDir|0o700 {
		t.Fatalf("the directory is %v, %v; want mode 0700", info, err)
	}
	w.sees("the file is made", func() { write(t, path, "version: 1\n") })
	for range 3 {
		w.sees("the directory is removed", func() { do(t, os.RemoveAll(filepath.Join(top, "a"))) })
		w.sees("the directory is made again", func() { do(t, os.MkdirAll(dir, 0o700)); write(t, path, "version: 1\n") })
		w.sees("the file is written", func() { write(t, path, "version: 1 # again\n") })
	}
	w.sees("the directory is replaced", func() {
		do(t, os.Mkdir(dir+".new", 0o700))
		write(t, filepath.Join(dir+".new", "config.yaml"), "version: 1 # replaced\n")
		do(t, os.Rename(dir, dir+".old"), os.Rename(dir+".new", dir))
	})
	w.sees("the file is written", func() { write(t, path, "version: 1 # again\n") })
	w.ignores("the neighbours of the directory, one of them that was it", func() {
		write(t, filepath.Join(dir, "other"), "x")
		write(t, filepath.Join(dir+".old", "config.yaml"), "x")
	})
	w.sees("a file takes the place of the directory", func() { do(t, os.RemoveAll(dir)); write(t, dir, "x") })
	w.sees("the directory is made again", func() { do(t, os.Remove(dir), os.Mkdir(dir, 0o700)); write(t, path, "version: 1\n") })
	w.sees("the directory is removed and made at once", func() {
		do(t, os.RemoveAll(dir), os.Mkdir(dir, 0o700))
	})
	w.sees("the file is made", func() { write(t, path, "version: 1\n") })
}

func TestWatchLinks(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	in := func(names ...string) string { return filepath.Join(append([]string{top}, names...)...) }
	do(t, os.Mkdir(in("home"), 0o700), os.Mkdir(in("dotfiles"), 0o700), os.MkdirAll(in("deep", "store"), 0o700))
	write(t, in("deep", "store", "one.yaml"), "version: 1\n")
	write(t, in("deep", "store", "two.yaml"), "version: 1 # two\n")
	relink := func(to, at string) {
		t.Helper()
		do(t, os.Symlink(to, at+".new"), os.Rename(at+".new", at))
	}
	relink(in("deep", "store", "one.yaml"), in("dotfiles", "tunneld.yaml"))
	relink("../dotfiles/tunneld.yaml", in("home", "config.yaml"))
	w := startWatch(t, in("home", "config.yaml"))

	w.sees("the last file is written", func() { write(t, in("deep", "store", "one.yaml"), "version: 1 # one\n") })
	w.ignores("a file that it is not", func() { write(t, in("deep", "store", "two.yaml"), "version: 1 # 2\n") })
	w.sees("the second link is changed", func() { relink(in("deep", "store", "two.yaml"), in("dotfiles", "tunneld.yaml")) })
	w.sees("the new last file is written", func() { write(t, in("deep", "store", "two.yaml"), "version: 1 # again\n") })
	w.sees("the first link is changed", func() { relink("../deep/store/one.yaml", in("home", "config.yaml")) })
	// That a directory above a watched one is replaced is seen with the next
	// event, and then the new one is watched.
	do(t, os.Mkdir(in("new"), 0o700))
	w.sees("the directory of the last file is replaced, and another has an event", func() {
		do(t, os.Rename(in("deep"), in("old")), os.Mkdir(in("deep"), 0o700), os.Rename(in("new"), in("deep", "store")))
		write(t, in("deep", "store", "one.yaml"), "version: 1 # replaced\n")
		write(t, in("home", "other"), "x")
	})
	w.sees("the last file is written", func() { write(t, in("deep", "store", "one.yaml"), "version: 1 # and written\n") })
	w.sees("the last file is removed", func() { do(t, os.Remove(in("deep", "store", "one.yaml"))) })
	w.sees("the last file is made again", func() { write(t, in("deep", "store", "one.yaml"), "version: 1\n") })
	w.sees("a file takes the place of the link", func() { write(t, in("x"), "version: 1\n"); do(t, os.Rename(in("x"), in("home", "config.yaml"))) })
	w.sees("that file is written", func() { write(t, in("home", "config.yaml"), "version: 1 # last\n") })
}

// A ConfigMap's volume has links to a link that is replaced.
func TestWatchConfigMap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(version, text string) {
		t.Helper()
		do(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		write(t, filepath.Join(dir, version, "config.yaml"), text)
		tmp := filepath.Join(dir, "..data_tmp")
		do(t, os.Symlink(version, tmp), os.Rename(tmp, filepath.Join(dir, "..data")))
	}
	put("..1", "version: 1\n")
	path := filepath.Join(dir, "config.yaml")
	do(t, os.Symlink(filepath.Join("..data", "config.yaml"), path))
	w := startWatch(t, path)
	w.sees("a new version", func() { put("..2", "version: 1 # 2\n"); do(t, os.RemoveAll(filepath.Join(dir, "..1"))) })
	w.sees("one more", func() { put("..3", "version: 1 # 3\n") })
	w.ignores("the old version is removed", func() { do(t, os.RemoveAll(filepath.Join(dir, "..2"))) })
}

func TestWatchCannot(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "")
	do(t, os.Symlink("b", filepath.Join(dir, "a")), os.Symlink("a", filepath.Join(dir, "b")))
	for name, path := range map[string]string{
		"a file as directory": filepath.Join(dir, "file", "config.yaml"),
		"links in a circle":   filepath.Join(dir, "a"),
	} {
		t.Run(name, func(t *testing.T) {
			err := config.Watch(t.Context(), path, nil, func() { t.Error("changed was called") })
			if err == nil {
				t.Error("no error")
			}
		})
	}
}
