package osdns

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// A played machine is one that is none: files, a registry, and programs that do
// nothing. It plays a Mac and a Windows machine.
type played struct {
	Files    fstest.MapFS // by path without the first slash; directories, too
	Registry map[string]map[string]any
	runs     []string
	failRuns error
}

// dirs returns a machine with these directories.
func newPlayed(dirs ...string) *played {
	p := &played{Files: fstest.MapFS{}, Registry: map[string]map[string]any{}}
	for _, d := range dirs {
		p.Files[d] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	}
	return p
}

// inside is a path as it is in Files, on whatever system the tests run.
func inside(path string) string { return strings.TrimPrefix(filepath.ToSlash(path), "/") }

func (p *played) put(path, data string) {
	p.Files[inside(path)] = &fstest.MapFile{Data: []byte(data), Mode: 0o644}
}

// clone returns what is on the machine now, to be compared with what is later.
func (p *played) clone() *played {
	c := newPlayed()
	for path, f := range p.Files {
		file := *f
		c.Files[path] = &file
	}
	for key, values := range p.Registry {
		c.Registry[key] = maps.Clone(values)
	}
	return c
}

// same fails the test unless both machines have the same files and keys.
func same(t *testing.T, what string, want, got *played) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool {
		return p.Last().String() == ".runs" || p.Last().String() == ".failRuns"
	}, cmp.Ignore())); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (p *played) system() machine.System {
	missing := func(op, path string) error { return &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist} }
	return machine.System{
		ReadFile: func(path string) ([]byte, error) { return fs.ReadFile(p.Files, inside(path)) },
		ReadDir:  func(path string) ([]fs.DirEntry, error) { return fs.ReadDir(p.Files, inside(path)) },
		ReadLink: func(path string) (string, error) {
			return "", &fs.PathError{Op: "readlink", Path: path, Err: fs.ErrInvalid}
		},
		ReplaceFile: func(path string, data []byte) error {
			if dir := inside(filepath.Dir(path)); dir != "" && p.Files[dir] == nil {
				return missing("open", path)
			}
			p.Files[inside(path)] = &fstest.MapFile{Data: slices.Clone(data), Mode: 0o644}
			return nil
		},
		SwapFile: func(path string, old, data []byte) error {
			now, err := fs.ReadFile(p.Files, inside(path))
			if (err == nil) != (old != nil) || string(now) != string(old) {
				return machine.ErrChanged
			}
			p.put(path, string(data))
			return nil
		},
		RemoveFile: func(path string) error {
			if p.Files[inside(path)] == nil {
				return missing("remove", path)
			}
			delete(p.Files, inside(path))
			return nil
		},
		MakeDir: func(path string) error {
			if p.Files[inside(path)] != nil {
				return &fs.PathError{Op: "mkdir", Path: path, Err: fs.ErrExist}
			}
			p.Files[inside(path)] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
			return nil
		},
		RemoveDir: func(path string) error {
			for other := range p.Files {
				if strings.HasPrefix(other, inside(path)+"/") {
					return errors.New("directory not empty")
				}
			}
			delete(p.Files, inside(path))
			return nil
		},
		Run: func(_ context.Context, name string, args ...string) ([]byte, error) {
			p.runs = append(p.runs, strings.Join(append([]string{name}, args...), " "))
			return nil, p.failRuns
		},
		Registry: p.registry(),
	}
}

func (p *played) registry() machine.Registry {
	missing := func(key string) error { return &fs.PathError{Op: "open", Path: key, Err: fs.ErrNotExist} }
	keys := func(key string) ([]string, error) {
		if p.Registry[key] == nil {
			return nil, missing(key)
		}
		var names []string
		for other := range p.Registry {
			if name, ok := strings.CutPrefix(other, key+`\`); ok && !strings.Contains(name, `\`) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names, nil
	}
	return machine.Registry{
		Keys: keys,
		Values: func(key string) (map[string]any, error) {
			if p.Registry[key] == nil {
				return nil, missing(key)
			}
			return maps.Clone(p.Registry[key]), nil
		},
		SetValue: func(key, name string, value any) error {
			if p.Registry[key] == nil {
				return missing(key)
			}
			p.Registry[key][name] = value
			return nil
		},
		MakeKey: func(key string) error {
			if p.Registry[key] == nil {
				p.Registry[key] = map[string]any{}
			}
			return nil
		},
		RemoveKey: func(key string) error {
			below, err := keys(key)
			if err != nil {
				return err
			}
			if len(below) > 0 {
				return errors.New("access is denied")
			}
			delete(p.Registry, key)
			return nil
		},
	}
}

// playedClaim is a claim of a user for names, each with an address of its own.
func playedClaim(owner string, server string, names ...string) Claim {
	c := Claim{Owner: owner, Server: netip.MustParseAddrPort(server)}
	for i, name := range names {
		name, wildcard := strings.CutPrefix(name, "*.")
		c.Names = append(c.Names, Name{
			Name:     name,
			Addrs:    []netip.Addr{netip.AddrFrom4([4]byte{127, 77, 0, byte(i + 1)})},
			Wildcard: wildcard,
		})
	}
	return c
}

// errKilled is what everything returns to a process that is no more.
var errKilled = errors.New("killed")

// killedAt returns a system that ends whoever uses it before its n-th change.
func killedAt(s machine.System, n int) machine.System {
	return s.Before(func(string) error {
		if n--; n < 0 {
			panic(errKilled)
		}
		return nil
	})
}

// survives reports whether f was not ended by killedAt.
func survives(t *testing.T, f func() error) (whole bool) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil && r != error(errKilled) {
			panic(r)
		}
	}()
	if err := f(); err != nil {
		t.Fatal(err)
	}
	return true
}

// killed tests that a rung leaves nothing, and can be used again, wherever a claim
// or a release of it is cut short. The machine has what others have there.
func killed(t *testing.T, machine *played, on func(machine.System) rung, claims ...Claim) {
	t.Helper()
	ctx, before := t.Context(), machine.clone()
	use := func(do func(rung) error, n int) bool {
		return survives(t, func() error { return do(on(killedAt(machine.system(), n))) })
	}
	const whole = 1 << 20
	release := func(r rung) error { return r.remove(ctx, claims[0].Owner) }
	for i := range claims {
		claim := func(r rung) error { return r.apply(ctx, claims[i]) }
		for n, done := 0, false; !done; n++ {
			for _, earlier := range claims[:i] { // each replaces the one before it
				use(func(r rung) error { return r.apply(ctx, earlier) }, whole)
			}
			done = use(claim, n)
			use(release, whole)
			same(t, "after a claim that was cut short, and its release", before, machine)

			use(claim, whole)
			want := machine.clone()
			use(release, whole)
			use(claim, n)
			use(claim, whole)
			same(t, "claimed after a claim that was cut short", want, machine)

			use(release, n)
			use(claim, whole)
			same(t, "claimed after a release that was cut short", want, machine)
			use(release, n)
			use(release, whole)
			same(t, "after a release that was cut short, and another", before, machine)
			if t.Failed() {
				t.Fatalf("at change %d of claim %d", n, i)
			}
		}
	}
}

var quiet = slog.New(slog.DiscardHandler)
