package truststore

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/isolate"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

// newDatabase makes one as browsers do, and returns its directory.
func newDatabase(t *testing.T, dir string, args ...string) string {
	t.Helper()
	mkdir(t, dir)
	if len(args) == 0 {
		args = []string{"--empty-password"}
	}
	run(t, "certutil", append([]string{"-N", "-d", "sql:" + dir}, args...)...)
	return dir
}

// put adds a certificate to a database as its user would.
func put(t *testing.T, dir, nick, trust string, cert *x509.Certificate) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cert.pem")
	write(t, path, string(place.Encode(cert)), 0o600)
	run(t, "certutil", "-A", "-d", "sql:"+dir, "-n", nick, "-t", trust, "-i", path)
}

var (
	// A line of certutil's list: a nickname, and what it is trusted for.
	listed = regexp.MustCompile(`^(.*\S) +[a-zA-Z]*,[a-zA-Z]*,[a-zA-Z]*\s*$`)
	// What it says of a certificate: the fingerprint, and what it is trusted for as a TLS server's or its CA's.
	described = regexp.MustCompile(`Fingerprint \(SHA-256\):\n([0-9A-F: \n]+)\n(?s:.*?) SSL Flags:\n((?: {12}.*\n)*)`)
)

// entriesOf are all entries of a database, by certutil's word.
func entriesOf(t *testing.T, dir string) []string {
	t.Helper()
	entries := []string{}
	for line := range strings.Lines(run(t, "certutil", "-L", "-d", "sql:"+dir)) {
		list := listed.FindStringSubmatch(line)
		if list == nil || slices.ContainsFunc(entries, func(e string) bool { return strings.HasPrefix(e, list[1]+" ") }) {
			continue
		}
		for _, one := range described.FindAllStringSubmatch(run(t, "certutil", "-L", "-d", "sql:"+dir, "-n", list[1]), -1) {
			fingerprint := strings.ToLower(strings.NewReplacer(":", "", " ", "", "\n", "").Replace(one[1]))
			entries = append(entries, list[1]+" "+fingerprint+" "+strings.Join(strings.Fields(strings.ReplaceAll(one[2], " CA", "-CA")), ","))
		}
	}
	slices.Sort(entries)
	return entries
}

// profile returns a database in a Firefox profile of a home of the test's, and that home.
func profile(t *testing.T) (home, dir string) {
	t.Helper()
	needs(t, "certutil")
	home = t.TempDir()
	dir = newDatabase(t, filepath.Join(home, ".mozilla/firefox/x.default"))
	return home, dir
}

// chromiums are the browsers that have a database made.
var chromiums = []string{
	"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "brave-browser", "microsoft-edge", "vivaldi",
}

// browsers leaves out Chromium, which has a database to be made if it is installed.
func browsers(s *Stores, names ...string) {
	real := program.Real()
	s.programs = &program.Programs{Run: real.Run, Find: func(name string) (string, error) {
		if slices.Contains(names, name) {
			return "/usr/bin/" + name, nil
		}
		if slices.Contains(chromiums, name) {
			return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
		}
		return real.Find(name)
	}}
}

func TestDatabase(t *testing.T) {
	home, dir := profile(t)
	other := storetest.Root(t, "another's")
	put(t, dir, "somebody else's", "p,p,p", other)
	s := newStores(t, User, home)
	browsers(s)
	before := entriesOf(t, dir)

	cert := storetest.Root(t, "tunneld local root")
	steps := install(t, s, cert, "a")
	same(t, "steps", []string{"add nss " + place.Fingerprint(cert)[:8]}, words(steps))
	do(t, s, steps)
	want := append(slices.Clone(before), "tunneld local root "+place.Fingerprint(cert)+" Valid-CA,Trusted-CA")
	slices.Sort(want)
	same(t, "entries", want, entriesOf(t, dir))
	steps = install(t, s, cert, "a")
	same(t, "steps when done", []string{"add nss " + place.Fingerprint(cert)[:8] + " done"}, words(steps))
	do(t, s, steps)
	same(t, "entries of twice", want, entriesOf(t, dir))

	do(t, s, removal(t, s, nil))
	same(t, "after removal", before, entriesOf(t, dir))
	nothing(t, s, cert)
}

// Others' certificates may have the same name: NSS calls all of one subject the same.
func TestSameNickname(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		subject string
		trust   string
		later   bool // it comes after ours
	}{
		{"same subject, distrusted", "tunneld local root", "p,,", false},
		{"same subject, trusted", "tunneld local root", "C,,", false},
		{"same subject, distrusted, later", "tunneld local root", "p,,", true},
		{"same subject, trusted, later", "tunneld local root", "C,,", true},
		{"another subject", "another subject", "C,,", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home, dir := profile(t)
			s := newStores(t, User, home)
			browsers(s)
			other, cert := storetest.Root(t, tt.subject), storetest.Root(t, "tunneld local root")
			want := []string{"tunneld local root " + place.Fingerprint(other) + map[string]string{"p,,": " Terminal,Record", "C,,": " Valid-CA,Trusted-CA"}[tt.trust]}
			if !tt.later {
				put(t, dir, "tunneld local root", tt.trust, other)
			}
			do(t, s, install(t, s, cert, "a"))
			if tt.later {
				put(t, dir, "tunneld local root", tt.trust, other)
			}
			if now := entriesOf(t, dir); len(now) != 2 {
				t.Errorf("entries %v; want both", now)
			}
			same(t, "then", []string{"add nss " + place.Fingerprint(cert)[:8] + " done"}, words(install(t, s, cert, "a")))
			do(t, s, removal(t, s, nil))
			same(t, "after removal", want, entriesOf(t, dir))
			nothing(t, s, cert)
		})
	}
}

// Another certificate of the same name is not taken for ours, nor out.
func TestOnlyAnother(t *testing.T) {
	home, dir := profile(t)
	s := newStores(t, User, home)
	browsers(s)
	put(t, dir, "tunneld local root", "C,,", storetest.Root(t, "tunneld local root"))
	before := entriesOf(t, dir)
	same(t, "steps", []string{}, words(removal(t, s, storetest.Root(t, "tunneld local root"))))
	same(t, "entries", before, entriesOf(t, dir))
}

func TestOtherNickname(t *testing.T) {
	home, dir := profile(t)
	s := newStores(t, User, home)
	browsers(s)
	before := entriesOf(t, dir)
	cert := storetest.Root(t, "tunneld local root")
	put(t, dir, "as I like", "C,,", cert)
	same(t, "steps", []string{"add nss " + place.Fingerprint(cert)[:8] + " done"}, words(install(t, s, cert, "a")))
	do(t, s, removal(t, s, cert))
	same(t, "after removal", before, entriesOf(t, dir))
}

// Certutil's list does not tell blanks at the end of a nickname, and then does not find it.
func TestNicknameWithBlanks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, trust string }{{"trusted", "C,,"}, {"not trusted", ",,"}} {
		t.Run(tt.name, func(t *testing.T) {
			home, dir := profile(t)
			s := newStores(t, User, home)
			browsers(s)
			// Ours may be of the same name, too, but for the blanks.
			other, cert := storetest.Root(t, "other"), storetest.Root(t, "tunneld local root")
			put(t, dir, "tunneld local root  ", "C,,", other)
			same(t, "nothing", []string{}, words(removal(t, s, cert)))
			do(t, s, install(t, s, cert, "a"))
			same(t, "installed", []string{"add nss " + place.Fingerprint(cert)[:8] + " done"}, words(install(t, s, cert, "a")))
			do(t, s, removal(t, s, nil))
			nothing(t, s, cert)

			put(t, dir, "by hand   ", tt.trust, cert)
			do(t, s, install(t, s, cert, "a"))
			do(t, s, removal(t, s, cert))
			nothing(t, s, cert)
			out := run(t, "certutil", "-L", "-d", "sql:"+dir, "-n", "tunneld local root  ")
			if e := described.FindAllStringSubmatch(out, -1); len(e) != 1 || !strings.Contains(e[0][2], "Trusted CA") {
				t.Errorf("the other's is now %v", e)
			}
			// Where a receipt cannot be read, by the fingerprint alone.
			do(t, s, install(t, s, cert, "a"))
			write(t, s.receiptPath(place.Fingerprint(cert)), "", 0o600)
			do(t, s, removal(t, s, nil))
			nothing(t, s, cert)
		})
	}
}

// What somebody has set stays, and is told.
func TestOtherTrust(t *testing.T) {
	home, dir := profile(t)
	s := newStores(t, User, home)
	browsers(s)
	cert := storetest.Root(t, "tunneld local root")
	put(t, dir, "tunneld local root", "p,,", cert)
	before := entriesOf(t, dir)
	steps := install(t, s, cert, "a")
	if len(steps) != 1 || !strings.Contains(steps[0].Blocked, "Terminal Record") || !strings.Contains(steps[0].Fix, "certutil -M") {
		t.Errorf("steps %+v; want one that is blocked by the flags, with a fix", steps)
	}
	if err := s.Do(t.Context(), steps[0]); err == nil {
		t.Error("done")
	}
	same(t, "entries", before, entriesOf(t, dir))
	do(t, s, removal(t, s, cert))
	same(t, "after removal", []string{}, entriesOf(t, dir))
}

// What was there without being trusted is there still when adding fails, at whatever point.
func TestFailedAddKeepsTheEntry(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		others bool // more of the name
		did    bool // it is trusted by the time it fails
	}{{"before", false, false}, {"after", false, true}, {"after, with another of the name", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			home, dir := profile(t)
			s := newStores(t, User, home)
			browsers(s)
			cert := storetest.Root(t, "tunneld local root")
			if tt.others {
				put(t, dir, "tunneld local root", "C,,", storetest.Root(t, "tunneld local root"))
			}
			put(t, dir, "tunneld local root", ",,", cert)
			before := entriesOf(t, dir)
			real := *s.programs
			broken := errors.New("broken")
			s.programs = &program.Programs{Find: real.Find, Run: func(ctx context.Context, c program.Command) ([]byte, error) {
				if !slices.Contains(c.Args, "-A") {
					return real.Run(ctx, c)
				}
				if tt.did {
					if _, err := real.Run(ctx, c); err != nil {
						t.Error(err)
					}
				}
				return nil, broken
			}}
			if err := s.Do(t.Context(), install(t, s, cert, "a")[0]); !errors.Is(err, broken) {
				t.Errorf("error %v; want %v", err, broken)
			}
			same(t, "entries", before, entriesOf(t, dir))
			if _, err := os.Lstat(s.Receipts); err == nil {
				t.Error("there are receipts")
			}
			browsers(s)
			do(t, s, install(t, s, cert, "a"))
			do(t, s, removal(t, s, nil))
			nothing(t, s, cert)
		})
	}
}

func TestDatabaseWithAPassword(t *testing.T) {
	needs(t, "certutil")
	home := t.TempDir()
	password := filepath.Join(home, "password")
	write(t, password, "secret\n", 0o600)
	dir := newDatabase(t, filepath.Join(home, ".mozilla/firefox/x.default"), "-f", password)
	s := newStores(t, User, home)
	browsers(s)
	cert := storetest.Root(t, "tunneld local root")
	steps := install(t, s, cert, "a")
	err := s.Do(t.Context(), steps[0])
	if err == nil || !strings.Contains(err.Error(), "the database has a password") {
		t.Errorf("error %v; want that it has a password", err)
	}
	same(t, "entries", []string{}, entriesOf(t, dir))
	nothing(t, s, cert)
}

func TestDatabaseIsBlocked(t *testing.T) {
	home, dir := profile(t)
	cert := storetest.Root(t, "tunneld local root")
	t.Run("no certutil", func(t *testing.T) {
		s := newStores(t, User, home)
		s.programs = &program.Programs{Find: func(name string) (string, error) {
			if name == "dnf" {
				return "/usr/bin/dnf", nil
			}
			return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
		}}
		steps := install(t, s, cert, "a")
		if len(steps) != 1 || !strings.Contains(steps[0].Blocked, "not installed") || !strings.Contains(steps[0].Fix, "nss-tools") {
			t.Errorf("steps %+v; want that nss-tools is missing", steps)
		}
		same(t, "removal", []string{}, words(removal(t, s, cert)))
	})
	t.Run("read-only", func(t *testing.T) {
		if !isolate.Test(t) {
			return
		}
		home, dir := profile(t)
		mount(t, dir, dir, "", unix.MS_BIND, "")
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		s := newStores(t, User, home)
		browsers(s)
		steps := install(t, s, storetest.Root(t, "x"), "a")
		if len(steps) != 1 || !strings.Contains(steps[0].Blocked, "read-only") {
			t.Errorf("steps %+v; want that it is read-only", steps)
		}
	})
	t.Run("a program that hangs", func(t *testing.T) {
		s := newStores(t, User, home)
		browsers(s)
		real := *s.programs
		s.programs = &program.Programs{Find: real.Find, Run: func(ctx context.Context, c program.Command) ([]byte, error) {
			if slices.Contains(c.Args, "-A") {
				return nil, errors.Join(errors.New("certutil has not ended"), context.DeadlineExceeded)
			}
			return real.Run(ctx, c)
		}}
		if err := s.Do(t.Context(), install(t, s, cert, "a")[0]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v; want that it did not end", err)
		}
		nothing(t, s, cert)
	})
	same(t, "entries", []string{}, entriesOf(t, dir))
}

func TestDatabaseKilled(t *testing.T) {
	t.Parallel()
	needs(t, "certutil")
	if !isolate.Test(t) {
		return
	}
	home := overlay(t)
	dir := newDatabase(t, filepath.Join(home, ".mozilla/firefox/x.default"))
	put(t, dir, "tunneld local root", "p,,", storetest.Root(t, "tunneld local root"))
	s := newStores(t, User, home)
	write(t, "/usr/bin/chromium", "#!/bin/sh\n", 0o755)
	killed(t, s, storetest.Root(t, "tunneld local root"), func() any {
		files := snapshot(t, "", home)
		for path := range files {
			if strings.HasPrefix(path, dir) {
				delete(files, path)
			}
		}
		return []any{entriesOf(t, dir), files}
	})
}

// A database that Chromium has not made yet is made as it would, and goes again if nothing else is in it.
func TestChromiumsDatabaseIsMade(t *testing.T) {
	for _, tt := range []struct {
		name    string
		before  []string // directories that are there
		data    string   // XDG_DATA_HOME, below the home
		dir     string
		between func(t *testing.T, dir string)
		stays   bool
	}{
		{name: "nothing is there", dir: ".local/share/pki/nssdb"},
		{name: "the old place is there", before: []string{".pki/nssdb"}, dir: ".pki/nssdb"},
		{name: "data is elsewhere", data: "data", dir: "data/pki/nssdb"},
		{
			name: "it is used then", dir: ".local/share/pki/nssdb", stays: true,
			between: func(t *testing.T, dir string) { put(t, dir, "mine", "C,,", storetest.Root(t, "mine")) },
		},
		{
			name: "it is gone then", dir: ".local/share/pki/nssdb",
			between: func(t *testing.T, dir string) {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			needs(t, "certutil")
			home := t.TempDir()
			for _, dir := range tt.before {
				mkdir(t, filepath.Join(home, dir))
			}
			s := newStores(t, User, home)
			browsers(s, "chromium")
			s.Getenv = func(key string) string {
				if key == "XDG_DATA_HOME" && tt.data != "" {
					return filepath.Join(home, tt.data)
				}
				return ""
			}
			before := snapshot(t, "", home)
			cert := storetest.Root(t, "tunneld local root")
			dir := filepath.Join(home, tt.dir)
			steps := install(t, s, cert, "a")
			if len(steps) != 1 || steps[0].Place.Path != dir {
				t.Fatalf("steps %+v; want one in %s", steps, dir)
			}
			same(t, "planned", before, snapshot(t, "", home))
			do(t, s, steps)
			same(t, "entries", []string{"tunneld local root " + place.Fingerprint(cert) + " Valid-CA,Trusted-CA"}, entriesOf(t, dir))
			if tt.between != nil {
				tt.between(t, dir)
			}
			do(t, s, removal(t, s, nil))
			if tt.stays {
				if now := entriesOf(t, dir); len(now) != 1 {
					t.Errorf("entries %v; want that of the user", now)
				}
			} else {
				same(t, "after removal", before, snapshot(t, "", home))
			}
			nothing(t, s, cert)
		})
	}
}

// What cannot be read is one place, and the others are done.
func TestOneOfThemIsBroken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		breakIt func(t *testing.T, home string)
		path    string
		want    string
	}{
		{"the list of profiles", func(t *testing.T, home string) {
			mkdir(t, filepath.Join(home, ".mozilla/firefox/profiles.ini"))
		}, ".mozilla/firefox/profiles.ini", "is a directory"},
		{"a database", func(t *testing.T, home string) {
			write(t, filepath.Join(home, ".mozilla/firefox/a.broken/cert9.db"), strings.Repeat("broken", 1000), 0o600)
		}, ".mozilla/firefox/a.broken", "SEC_ERROR_BAD_DATABASE"},
		{"a database that is a directory", func(t *testing.T, home string) {
			mkdir(t, filepath.Join(home, ".mozilla/firefox/a.broken/cert9.db"))
		}, ".mozilla/firefox/a.broken", "is a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home, dir := profile(t)
			s := newStores(t, User, home)
			browsers(s)
			tt.breakIt(t, home)
			before := snapshot(t, "", home)
			cert := storetest.Root(t, "tunneld local root")
			rest := func(steps []Step) []Step {
				t.Helper()
				i := slices.IndexFunc(steps, func(s Step) bool { return s.Place.Path == filepath.Join(home, tt.path) })
				if i < 0 || len(steps) != 2 || !strings.Contains(steps[i].Blocked, tt.want) {
					t.Fatalf("steps %+v; want two, and %q of one of them", steps, tt.want)
				}
				t.Log(steps[i].Blocked)
				if err := s.Do(t.Context(), steps[i]); err == nil {
					t.Error("done")
				}
				return slices.Delete(steps, i, i+1)
			}
			rest(install(t, s, cert, "a"))
			same(t, "the home", before, snapshot(t, "", home))
			do(t, s, rest(install(t, s, cert, "a")))
			if now := entriesOf(t, dir); len(now) != 1 {
				t.Errorf("entries %v; want ours", now)
			}
			do(t, s, rest(removal(t, s, cert)))
			same(t, "entries", []string{}, entriesOf(t, dir))
		})
	}
}
