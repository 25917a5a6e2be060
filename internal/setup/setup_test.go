package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// played are services that are in memory.
type played struct {
	running  map[string]bool
	restarts []string
	settled  bool // it has been told of all files that there are
}

func (p *played) State(_ context.Context, name string) (ServiceState, error) {
	return ServiceState{Enabled: p.running[name], Active: p.running[name]}, nil
}

func (p *played) Enable(_ context.Context, name string) error {
	p.running[name] = true
	return nil
}

func (p *played) Disable(_ context.Context, name string) error {
	delete(p.running, name)
	return nil
}

func (p *played) Restart(_ context.Context, name string) error {
	if !p.settled {
		return errors.New("it would run what was there before")
	}
	p.restarts = append(p.restarts, name)
	return nil
}

// A world is a machine with something of others' on it.
type world struct {
	t        *testing.T
	root     string
	services *played
	done     []string // what was told of progress
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, root: t.TempDir(), services: &played{running: map[string]bool{}}}
	for path, text := range map[string]string{"usr/bin/true": "true", "etc/hosts": "hosts", "var/lib/dpkg/status": "dpkg"} {
		w.write(path, text)
	}
	return w
}

func (w *world) write(path, text string) {
	w.t.Helper()
	path = filepath.Join(w.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) machine(uid string) *Machine {
	return &Machine{
		UID: uid, Root: w.root, Receipts: "/var/lib/tunneld/install",
		Actors: map[Kind]Actor{Service: ServiceActor(w.services)},
		Settle: func(context.Context) error {
			w.services.settled = true
			return nil
		},
		Progress: func(c Change, what string) {
			w.done = append(w.done, what+" "+c.Path)
			if c.Kind == File && (what == made || what == undone) {
				w.services.settled = false
			}
		},
	}
}

// state is all that is there: files with modes and contents, and services.
func (w *world) state() map[string]string {
	w.t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(w.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(data)
		case info.Mode().Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " " + target
		}
		all[strings.TrimPrefix(path, w.root)] = text
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for name := range w.services.running {
		all[name] = "runs"
	}
	return all
}

func (w *world) same(want map[string]string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.state()); diff != "" {
		w.t.Errorf("what is there differs (-want +got):\n%s", diff)
	}
}

func (w *world) apply(m *Machine, plan []Item) {
	w.t.Helper()
	if left, err := m.Apply(w.t.Context(), plan, []string{"service"}); err != nil || len(left) > 0 {
		w.t.Fatalf("apply: left %q, %v", left, err)
	}
}

func (w *world) remove(m *Machine, plan []Item) {
	w.t.Helper()
	if left, err := m.Remove(w.t.Context(), plan); err != nil || len(left) > 0 {
		w.t.Fatalf("remove: left %q, %v", left, err)
	}
}

// plan has a bit of each kind; version is in what the program holds.
func plan(uid, version string) []Item {
	program := []byte("program " + version)
	change := func(k Kind, path string) Change { return Change{Step: "service", Kind: k, Path: path} }
	items := []Item{
		{Change: change(Directory, "/usr/bin")}, // which is there
		{Change: change(Directory, "/usr/libexec")},
		{Change: change(Directory, "/usr/libexec/tunneld")},
		{Change: change(File, "/usr/libexec/tunneld/tunneld"), Content: program},
		{Change: change(Link, "/usr/bin/tunneld"), Optional: true},
		{Change: change(File, "/etc/tunneld-"+uid), Content: []byte("policy of " + uid)},
		{Change: change(Service, "tunneld@"+uid), Runs: []string{"/usr/libexec/tunneld/tunneld"}},
	}
	for i := range items {
		switch items[i].Kind {
		case File:
			items[i].Mode, items[i].SHA256 = 0o755, Sum(items[i].Content)
			if strings.HasPrefix(items[i].Path, "/etc") {
				items[i].Mode = 0o644
			}
		case Directory:
			items[i].Mode = 0o755
		case Link:
			items[i].Target = "/usr/libexec/tunneld/tunneld"
		}
	}
	return items
}

func TestApplyAndRemove(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	w.apply(w.machine("1000"), plan("1000", "1"))
	standing, err := w.machine("1000").Look(t.Context(), plan("1000", "1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range standing {
		if !s.Done || s.Blocked != "" {
			t.Errorf("%s %s: done %v, blocked %q", s.Kind, s.Path, s.Done, s.Blocked)
		}
	}
	installed := w.state()
	w.apply(w.machine("1000"), plan("1000", "1"))
	w.same(installed)
	w.remove(w.machine("1000"), nil)
	w.same(before)
	w.remove(w.machine("1000"), plan("1000", "1"))
	w.same(before)
}

// A removal that was killed as it ended is ended.
func TestEmptyDirectories(t *testing.T) {
	for _, path := range []string{"var/lib/tunneld", "var/lib/tunneld/install"} {
		w := newWorld(t)
		before := w.state()
		if err := os.MkdirAll(filepath.Join(w.root, path), 0o755); err != nil {
			t.Fatal(err)
		}
		w.remove(w.machine("1000"), nil)
		w.same(before)
	}
}

// killed runs f, whose process ends when it reaches its nth point; it reports whether
// it got so far.
func killed(m *Machine, n int, f func()) (dead bool) {
	type end struct{}
	m.reached = func() {
		if n--; n < 0 {
			panic(end{})
		}
	}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(end); !ok {
				panic(r)
			}
			dead = true
		}
	}()
	f()
	return false
}

// Wherever an installation, an upgrade or a removal is killed, what comes after it
// finds its way.
func TestKilledAtEachPoint(t *testing.T) {
	ctx := t.Context()
	tests := []struct {
		name   string
		before func(w *world) // what was done before
		do     func(m *Machine)
	}{
		{"installation", func(*world) {}, func(m *Machine) { m.Apply(ctx, plan("1000", "1"), []string{"service"}) }},
		{
			"upgrade", func(w *world) { w.apply(w.machine("1000"), plan("1000", "1")) },
			func(m *Machine) { m.Apply(ctx, plan("1000", "2"), []string{"service"}) },
		},
		{
			"removal", func(w *world) { w.apply(w.machine("1000"), plan("1000", "1")) },
			func(m *Machine) { m.Remove(ctx, nil) },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for n := 0; ; n++ {
				w := newWorld(t)
				before := w.state()
				tt.before(w)
				m := w.machine("1000")
				dead := killed(m, n, func() { tt.do(m) })
				if n%2 == 0 { // that it goes on is as good as that it is taken back
					w.apply(w.machine("1000"), plan("1000", "2"))
				}
				w.remove(w.machine("1000"), nil)
				w.same(before)
				if t.Failed() {
					t.Fatalf("killed at point %d", n)
				}
				if !dead {
					if n < 4 {
						t.Fatalf("there were %d points only", n)
					}
					return
				}
			}
		})
	}
}

// An upgrade that was killed is followed by another one that is.
func TestKilledUpgrades(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	w.apply(w.machine("1000"), plan("1000", "1"))
	for _, version := range []string{"2", "3"} {
		m := w.machine("1000")
		if !killed(m, 0, func() {
			m.Apply(t.Context(), slices.DeleteFunc(plan("1000", version), func(i Item) bool { return i.Kind != File }), nil)
		}) {
			t.Fatal("it was not killed")
		}
	}
	w.remove(w.machine("1000"), nil)
	w.same(before)
}

// What was replaced is run in the end, also if that was the last that came to pass.
func TestKilledBeforeRestart(t *testing.T) {
	for n := range 12 {
		w := newWorld(t)
		w.apply(w.machine("1000"), plan("1000", "1"))
		m := w.machine("1000")
		killed(m, n, func() { m.Apply(t.Context(), plan("1000", "2"), []string{"service"}) })
		w.apply(w.machine("1000"), plan("1000", "2"))
		if len(w.services.restarts) == 0 {
			t.Errorf("killed at point %d, and never restarted", n)
		}
	}
}

// What was being written when a process was killed goes with the file.
func TestHalfWritten(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	w.apply(w.machine("1000"), plan("1000", "1"))
	w.write("etc/.tunneld-1000.123.tmp", "half a pol")
	w.write("var/lib/tunneld/install/.1000.json.123.tmp", "half a rec")
	w.remove(w.machine("1000"), nil)
	w.same(before)
}

func TestUpgrade(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	w.apply(w.machine("1000"), plan("1000", "1"))
	w.apply(w.machine("1000"), plan("1000", "2"))
	if got := w.state()["/usr/libexec/tunneld/tunneld"]; !strings.HasSuffix(got, "program 2") {
		t.Errorf("the program is %q", got)
	}
	if !slices.Equal(w.services.restarts, []string{"tunneld@1000"}) {
		t.Errorf("restarted: %q", w.services.restarts)
	}
	w.apply(w.machine("1000"), plan("1000", "2"))
	if len(w.services.restarts) != 1 {
		t.Errorf("restarted without need: %q", w.services.restarts)
	}
	w.remove(w.machine("1000"), nil)
	w.same(before)
}

// What an earlier plan made and this one does not have is taken back, but for the
// steps that are left out.
func TestStale(t *testing.T) {
	w := newWorld(t)
	w.apply(w.machine("1000"), plan("1000", "1"))
	packaged := slices.DeleteFunc(plan("1000", "1"), func(i Item) bool { return strings.HasPrefix(i.Path, "/usr") })
	if _, err := w.machine("1000").Apply(t.Context(), packaged, nil); err != nil {
		t.Fatal(err)
	}
	if w.state()["/usr/libexec/tunneld/tunneld"] == "" {
		t.Error("what was left out was taken back")
	}
	w.apply(w.machine("1000"), packaged)
	for _, path := range []string{"/usr/libexec", "/usr/bin/tunneld"} {
		if got, there := w.state()[path]; there {
			t.Errorf("%s stays: %s", path, got)
		}
	}
	if !w.services.running["tunneld@1000"] {
		t.Error("the service was stopped")
	}
	if !slices.Equal(w.services.restarts, []string{"tunneld@1000"}) {
		t.Errorf("it runs what is gone; restarted: %q", w.services.restarts)
	}
}

// Two users share the program; what goes with one of them is theirs.
func TestTwoUsers(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	w.apply(w.machine("1000"), plan("1000", "1"))
	alone := w.state()
	w.apply(w.machine("1001"), plan("1001", "2")) // which upgrades the other's
	w.remove(w.machine("1001"), nil)
	after := w.state()
	if !strings.HasSuffix(after["/usr/libexec/tunneld/tunneld"], "program 2") || !w.services.running["tunneld@1000"] || w.services.running["tunneld@1001"] {
		t.Errorf("what the first user has: %q, %v", after["/usr/libexec/tunneld/tunneld"], w.services.running)
	}
	w.apply(w.machine("1000"), plan("1000", "1"))
	w.same(alone)
	w.remove(w.machine("1000"), nil)
	w.same(before)
}

// What a later installation has added, such as programs that a package had before, is
// not gone before what takes it.
func TestBackward(t *testing.T) {
	change := func(k Kind, path string) Change { return Change{Kind: k, Path: path} }
	noted := []Change{
		change(File, "/etc/policy"), change(Home, "state"), change(Home, "environment"),
		change(Service, "helper"), change(Service, "daemon"), change(Trust, "stores"),
		change(File, "/usr/a/b/program"), change(Link, "/usr/bin/program"),
		change(Directory, "/usr/a/b"), change(Directory, "/usr/a"),
	}
	var got []string
	for _, c := range backward(noted) {
		got = append(got, c.Path)
	}
	want := []string{"stores", "daemon", "helper", "environment", "state", "/usr/bin/program", "/usr/a/b/program", "/etc/policy", "/usr/a/b", "/usr/a"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Whoever of two users goes first, nothing stays, and nothing is said of others.
func TestTwoUsersInAnyOrder(t *testing.T) {
	for _, order := range [][]string{{"1000", "1001"}, {"1001", "1000"}} {
		w := newWorld(t)
		before := w.state()
		w.apply(w.machine("1000"), plan("1000", "1"))
		w.apply(w.machine("1001"), plan("1001", "1"))
		for _, uid := range order {
			w.remove(w.machine(uid), nil)
		}
		w.same(before)
	}
}

// What another user has is nothing that somebody without an installation could take
// out.
func TestNobodysInstallation(t *testing.T) {
	w := newWorld(t)
	w.apply(w.machine("1000"), plan("1000", "1"))
	there, err := w.machine("1001").Noted(t.Context(), plan("1001", "1"))
	if err != nil || len(there) > 0 {
		t.Errorf("it would take out %v, %v", there, err)
	}
}

// A program that another user has upgraded is run by the next installation.
func TestUpgradedByAnother(t *testing.T) {
	w := newWorld(t)
	w.apply(w.machine("1000"), plan("1000", "1"))
	w.apply(w.machine("1001"), plan("1001", "2"))
	w.apply(w.machine("1000"), plan("1000", "2"))
	if !slices.Equal(w.services.restarts, []string{"tunneld@1000"}) {
		t.Errorf("restarted: %q", w.services.restarts)
	}
}

func TestForeignFiles(t *testing.T) {
	tests := []struct {
		name, path string
		blocked    bool
	}{
		{"a file", "/etc/tunneld-1000", true},
		{"a program", "/usr/libexec/tunneld/tunneld", true},
		{"what may be there", "/usr/bin/tunneld", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write(tt.path, "somebody else's")
			before := w.state()
			m := w.machine("1000")
			standing, err := m.Look(t.Context(), plan("1000", "1"))
			if err != nil {
				t.Fatal(err)
			}
			if i := slices.IndexFunc(standing, func(s Standing) bool { return s.Path == tt.path }); standing[i].Blocked == "" {
				t.Error("it is not seen")
			}
			w.same(before)
			left, err := m.Apply(t.Context(), plan("1000", "1"), []string{"service"})
			if (err != nil) != tt.blocked || len(left) != 0 {
				t.Errorf("left %q, %v", left, err)
			}
			w.remove(w.machine("1000"), nil)
			w.same(before)
		})
	}
}

// What was changed since it was installed stays, and is said.
func TestChangedSince(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	w.apply(w.machine("1000"), plan("1000", "1"))
	w.write("etc/tunneld-1000", "edited")
	w.write("usr/libexec/tunneld/plugin", "somebody's")
	if err := os.Remove(filepath.Join(w.root, "usr/bin/tunneld")); err != nil {
		t.Fatal(err)
	}
	w.write("usr/bin/tunneld", "another")
	left, err := w.machine("1000").Remove(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/etc/tunneld-1000: it was changed since",
		"/usr/bin/tunneld: it was changed since",
		"/usr/libexec/tunneld: there is something of somebody else's in it",
		"/usr/libexec: there is something of somebody else's in it",
	}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	for path, text := range map[string]string{
		"/etc/tunneld-1000": "edited", "/usr/bin/tunneld": "another", "/usr/libexec/tunneld/plugin": "somebody's",
	} {
		before[path] = "-rw-r--r-- " + text
	}
	before["/usr/libexec"], before["/usr/libexec/tunneld"] = "drwxr-xr-x", "drwxr-xr-x"
	w.same(before)
}

// Without its receipt, what is as it would be installed is taken out.
func TestLostReceipt(t *testing.T) {
	w := newWorld(t)
	w.apply(w.machine("1000"), plan("1000", "1"))
	if err := os.RemoveAll(filepath.Join(w.root, "var/lib/tunneld")); err != nil {
		t.Fatal(err)
	}
	w.remove(w.machine("1000"), plan("1000", "1"))
	for path := range w.state() {
		if strings.Contains(path, "tunneld") {
			t.Errorf("%s stays", path)
		}
	}
}

// What fails is said, and the rest done, but for the programs, without which it could
// not be tried again.
func TestRemoveGoesOn(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	w.apply(w.machine("1000"), plan("1000", "1"))
	m := w.machine("1000")
	broken := errors.New("the manager is ill")
	m.Actors = map[Kind]Actor{Service: failing{broken}, Home: failing{errors.New("notes of what failed are gone")}}
	r, err := m.receipt()
	if err != nil {
		t.Fatal(err)
	}
	r.changes = slices.Insert(r.changes, len(r.changes)-1, Change{Kind: Home, Path: "/home"})
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Remove(t.Context(), nil); !errors.Is(err, broken) || strings.Contains(err.Error(), "notes") {
		t.Errorf("removed: %v", err)
	}
	if _, there := w.state()["/etc/tunneld-1000"]; there {
		t.Error("it gave up")
	}
	for _, path := range []string{"/usr/libexec/tunneld/tunneld", "/usr/bin/tunneld"} {
		if _, there := w.state()[path]; !there {
			t.Errorf("%s is gone, and with it what would try again", path)
		}
	}
	m.Actors = map[Kind]Actor{Service: ServiceActor(w.services), Home: ServiceActor(w.services)}
	w.remove(m, nil)
	w.same(before)
}

type failing struct{ err error }

func (f failing) Done(context.Context, Change) (bool, error)   { return false, f.err }
func (f failing) Do(context.Context, Change) (string, error)   { return "", f.err }
func (f failing) Undo(context.Context, Change) (string, error) { return "", f.err }

func TestReceipts(t *testing.T) {
	tests := []struct {
		name, text string
		err        error // nil: any
		good       bool
	}{
		{name: "empty", text: ""},
		{name: "no JSON", text: "{"},
		{name: "newer", text: `{"version": 2, "changes": []}`, err: ErrNewer},
		{name: "a relative path", text: `{"version": 1, "changes": [{"kind": "file", "path": "etc/passwd"}]}`},
		{name: "fields of a newer one", text: `{"version": 1, "changes": [{"kind": "service", "path": "x", "colour": "red"}], "more": 1}`, good: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write("var/lib/tunneld/install/1000.json", tt.text)
			before := w.state()
			_, err := w.machine("1000").Noted(t.Context(), nil)
			if (err == nil) != tt.good || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("read: %v", err)
			}
			if !tt.good {
				if _, err := w.machine("1000").Apply(t.Context(), plan("1000", "1"), nil); err == nil {
					t.Error("installed over it")
				}
				w.same(before)
			}
		})
	}
}

func FuzzReceipt(f *testing.F) {
	f.Add([]byte(`{"version": 1, "changes": [{"step": "service", "kind": "file", "path": "/etc/x", "sha256": "00"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		changes, err := parseReceipt(data)
		if err != nil {
			return
		}
		for _, c := range changes {
			if (c.Kind == File || c.Kind == Link || c.Kind == Directory) && !filepath.IsAbs(c.Path) {
				t.Errorf("%s %q", c.Kind, c.Path)
			}
		}
	})
}

func ExampleSum() {
	fmt.Println(Sum(nil)[:8])
	// Output: e3b0c442
}
