package osdns

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

const resolverNote = "/var/receipts/resolver-directory"

func newMac() *played { return newPlayed("etc", "var/receipts") }

func playedResolverFiles(sys machine.System) rung { return newResolverFiles(sys, resolverNote, quiet) }

func TestResolverFiles(t *testing.T) {
	ctx, mac := t.Context(), newMac()
	before := mac.clone()
	r := playedResolverFiles(mac.system())
	if why, ok := r.fits(ctx, playedClaim("501", "127.0.0.1:15353")); !ok {
		t.Errorf("does not fit: %s", why)
	}
	if err := r.apply(ctx, playedClaim("501", "127.0.0.1:15353", "task-api.local", "*.db.local")); err != nil {
		t.Fatal(err)
	}
	const file = "# Made by tunneld for user 501, and taken away by it.\nnameserver 127.0.0.1\nport 15353\n"
	want := before.clone()
	want.Files["etc/resolver"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	want.put("/etc/resolver/task-api.local", file)
	want.put("/etc/resolver/db.local", file)
	want.put(resolverNote, "/etc/resolver\n")
	same(t, "claimed", want, mac)

	if err := r.apply(ctx, playedClaim("501", "[::1]:53", "task-api.local")); err != nil {
		t.Fatal(err)
	}
	delete(want.Files, "etc/resolver/db.local")
	want.put("/etc/resolver/task-api.local", strings.NewReplacer("127.0.0.1", "::1", "15353", "53").Replace(file))
	same(t, "another server, a name less", want, mac)

	if err := r.remove(ctx, "501"); err != nil {
		t.Fatal(err)
	}
	same(t, "released", before, mac)
}

// What others have there stays, whenever they put it there.
func TestResolverFilesOfOthers(t *testing.T) {
	ctx, mac := t.Context(), newMac()
	r := playedResolverFiles(mac.system())
	a, b := playedClaim("501", "127.0.0.1:15353", "a.local"), playedClaim("502", "127.0.0.1:15354", "b.local")
	if err := errors.Join(r.apply(ctx, a), r.apply(ctx, b)); err != nil {
		t.Fatal(err)
	}
	mac.put("/etc/resolver/test", "nameserver 127.0.0.1\nport 9253\n")
	want := mac.clone()
	delete(want.Files, "etc/resolver/a.local")
	if err := r.remove(ctx, "501"); err != nil {
		t.Fatal(err)
	}
	same(t, "the first owner released", want, mac)

	delete(want.Files, "etc/resolver/b.local")
	if err := r.remove(ctx, "502"); err != nil {
		t.Fatal(err)
	}
	same(t, "the second owner released", want, mac)

	// The directory is known to be ours until nothing is in it.
	delete(mac.Files, "etc/resolver/test")
	if err := r.remove(ctx, "501"); err != nil {
		t.Fatal(err)
	}
	same(t, "nothing left", newMac(), mac)
}

func TestResolverFilesTaken(t *testing.T) {
	for _, test := range []struct {
		name string
		file fstest.MapFile
	}{
		{"a file", fstest.MapFile{Data: []byte("nameserver 10.0.0.1\n"), Mode: 0o644}},
		{"another owner's", fstest.MapFile{Data: resolverFile(playedClaim("5010", "127.0.0.1:53")), Mode: 0o644}},
		{"empty", fstest.MapFile{Mode: 0o644}},
		{"a link to one of ours", fstest.MapFile{Data: resolverFile(playedClaim("501", "127.0.0.1:53")), Mode: fs.ModeSymlink | 0o777}},
		{"a directory", fstest.MapFile{Mode: fs.ModeDir | 0o755}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, mac := t.Context(), newMac()
			mac.Files["etc/resolver"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
			mac.Files["etc/resolver/b.local"] = &test.file
			before := mac.clone()
			r := playedResolverFiles(mac.system())
			if err := r.apply(ctx, playedClaim("501", "127.0.0.1:53", "a.local", "b.local")); err == nil {
				t.Error("claimed what is somebody else's")
			}
			if err := r.remove(ctx, "501"); err != nil {
				t.Error(err)
			}
			same(t, "afterwards", before, mac)
		})
	}
}

// What is as it should be is left alone, and what is not is mended.
func TestResolverFilesAgain(t *testing.T) {
	ctx, mac := t.Context(), newMac()
	claim := playedClaim("501", "127.0.0.1:15353", "a.local", "b.local")
	if err := playedResolverFiles(mac.system()).apply(ctx, claim); err != nil {
		t.Fatal(err)
	}
	want := mac.clone()
	if diff := cmp.Diff([]string{"dscacheutil -flushcache", "killall -HUP mDNSResponder"}, mac.runs); diff != "" {
		t.Errorf("run (-want +got):\n%s", diff)
	}
	mac.runs = nil
	untouched := mac.system().Before(func(what string) error { return errors.New("changed: " + what) })
	if err := playedResolverFiles(untouched).apply(ctx, claim); err != nil {
		t.Error(err)
	}
	if len(mac.runs) > 0 {
		t.Errorf("nothing to do, and run %q", mac.runs)
	}

	delete(mac.Files, "etc/resolver/a.local")
	mac.put("/etc/resolver/b.local", resolverMark("501")+"\nnameserver 10.0.0.1\n")
	mac.put("/etc/resolver/c.local", resolverMark("501")+"\n") // left by a crash
	mac.put("/etc/resolver/.c.local.tunneld", "")              // not even whole
	if err := playedResolverFiles(mac.system()).apply(ctx, claim); err != nil {
		t.Fatal(err)
	}
	same(t, "mended", want, mac)
	if len(mac.runs) == 0 {
		t.Error("mended, and the caches are as they were")
	}
}

func TestResolverFilesKilled(t *testing.T) {
	claims := []Claim{
		playedClaim("501", "127.0.0.1:15353", "a.local", "b.local"),
		playedClaim("501", "127.0.0.1:15354", "b.local", "c.local"),
	}
	t.Run("no directory", func(t *testing.T) { killed(t, newMac(), playedResolverFiles, claims...) })
	t.Run("somebody else's directory", func(t *testing.T) {
		mac := newMac()
		mac.Files["etc/resolver"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
		killed(t, mac, playedResolverFiles, claims...)
	})
	t.Run("with files", func(t *testing.T) {
		mac := newMac()
		mac.Files["etc/resolver"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
		mac.put("/etc/resolver/test", "nameserver 127.0.0.1\n")
		mac.put("/etc/resolver/d.local", string(resolverFile(playedClaim("502", "127.0.0.1:53"))))
		killed(t, mac, playedResolverFiles, claims...)
	})
}

// The directory is made by somebody else between our look and our making it.
func TestResolverDirectoryMadeMeanwhile(t *testing.T) {
	ctx, mac := t.Context(), newMac()
	sys := mac.system()
	make := sys.MakeDir
	sys.MakeDir = func(path string) error { return errors.Join(make(path), make(path)) }
	r := playedResolverFiles(sys)
	if err := r.apply(ctx, playedClaim("501", "127.0.0.1:53", "a.local")); err != nil {
		t.Fatal(err)
	}
	if err := r.remove(ctx, "501"); err != nil {
		t.Fatal(err)
	}
	want := newMac()
	want.Files["etc/resolver"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	same(t, "released", want, mac)
}

// Caches that cannot be emptied are said, and no reason to give up.
func TestFlushFails(t *testing.T) {
	for _, test := range []struct {
		name    string
		machine *played
		rung    func(machine.System, *slog.Logger) rung
		want    []string
	}{
		{"macOS", newMac(), func(s machine.System, log *slog.Logger) rung { return newResolverFiles(s, resolverNote, log) },
			[]string{"dscacheutil -flushcache", "killall -HUP mDNSResponder"}},
		{"Windows", newWindows(), func(s machine.System, log *slog.Logger) rung { return newNRPT(s, nrptNote, log) },
			[]string{"sc control dnscache paramchange", "ipconfig /flushdns"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			test.machine.failRuns = errors.New("exit status 5")
			r := test.rung(test.machine.system(), slog.New(slog.NewTextHandler(&out, nil)))
			if err := r.apply(context.Background(), playedClaim("501", "127.0.0.1:53", "a.local")); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, test.machine.runs); diff != "" {
				t.Errorf("run (-want +got):\n%s", diff)
			}
			if n := strings.Count(out.String(), "exit status 5"); n != 2 {
				t.Errorf("%d failures are logged; want 2:\n%s", n, &out)
			}
		})
	}
}
