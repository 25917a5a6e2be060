package truststore

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/isolate"
	"github.com/tunneld/tunneld/internal/lockfile"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

func TestReceipt(t *testing.T) {
	home, dir := profile(t)
	s := newStores(t, User, home)
	browsers(s)
	cert := storetest.Root(t, "tunneld local root")
	do(t, s, install(t, s, cert, "/state"))
	data, err := os.ReadFile(filepath.Join(s.Receipts, place.Fingerprint(cert)+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var got receipt
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	same(t, "receipt", receipt{
		Version: 1, Certificate: string(place.Encode(cert)), Source: "/state",
		Places: []noted{{Place: Place{Kind: place.NSS, Path: dir, Scope: User, Readers: "Firefox, profile x.default"}}},
	}, got)
	for path, mode := range map[string]os.FileMode{s.Receipts: 0o700, s.receiptPath(place.Fingerprint(cert)): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
}

// A receipt is narrowed with each place, and what is gone by itself counts as removed.
func TestReceiptIsNarrowed(t *testing.T) {
	home, dir := profile(t)
	second := newDatabase(t, filepath.Join(home, ".mozilla/firefox/y.default"))
	s := newStores(t, User, home)
	browsers(s)
	cert := storetest.Root(t, "tunneld local root")
	do(t, s, install(t, s, cert, "a"))
	steps := removal(t, s, nil)
	if len(steps) != 2 {
		t.Fatalf("steps %v; want two", words(steps))
	}
	do(t, s, steps[:1])
	r, ok := s.record(place.Fingerprint(cert))
	if !ok || len(r.Places) != 1 || r.Places[0].Path != second {
		t.Errorf("receipt %+v; want one place left", r)
	}
	if err := os.RemoveAll(second); err != nil {
		t.Fatal(err)
	}
	do(t, s, removal(t, s, nil))
	nothing(t, s, cert)
	same(t, "entries", []string{}, entriesOf(t, dir))
}

// What cannot be read has everything looked through, and the certificate found by its fingerprint.
func TestDamagedReceipts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(data []byte) string
		warn   string
	}{
		{"empty", func([]byte) string { return "" }, "unexpected end"},
		{"half", func(data []byte) string { return string(data[:len(data)/2]) }, "unexpected end"},
		{"another certificate", func([]byte) string { return `{"version":1,"certificate":"x","places":[]}` }, "no certificate"},
		{"newer", func(data []byte) string { return strings.Replace(string(data), `"version": 1`, `"version": 2`, 1) }, "version 2"},
		{"newer and other", func([]byte) string { return `{"version":2,"places":{"a":1}}` }, "cannot unmarshal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home, dir := profile(t)
			s := newStores(t, User, home)
			browsers(s)
			put(t, dir, "mine", "C,,", storetest.Root(t, "mine"))
			before := entriesOf(t, dir)
			cert := storetest.Root(t, "tunneld local root")
			do(t, s, install(t, s, cert, "a"))
			path := s.receiptPath(place.Fingerprint(cert))
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, path, tt.damage(data), 0o600)
			var log bytes.Buffer
			s.Log = slog.New(slog.NewTextHandler(&log, nil))
			steps := removal(t, s, nil)
			same(t, "steps", []string{"remove nss " + place.Fingerprint(cert)[:8], "remove receipt " + place.Fingerprint(cert)[:8]}, words(steps))
			if !strings.Contains(log.String(), tt.warn) {
				t.Errorf("log %s; want %q in it", &log, tt.warn)
			}
			if err := s.Do(t.Context(), steps[1]); err == nil {
				t.Error("the receipt went before its certificate")
			}
			do(t, s, steps)
			same(t, "after removal", before, entriesOf(t, dir))
			nothing(t, s, cert)
		})
	}
}

// A certificate of the same daemon that is no longer its own is taken out, others are not.
func TestSuperseded(t *testing.T) {
	home, dir := profile(t)
	s := newStores(t, User, home)
	browsers(s)
	old, others, cert := storetest.Root(t, "old"), storetest.Root(t, "others"), storetest.Root(t, "new")
	do(t, s, install(t, s, old, "/state"))
	do(t, s, install(t, s, others, "/other/state"))
	steps := install(t, s, cert, "/state")
	same(t, "steps", []string{"add nss " + place.Fingerprint(cert)[:8], "remove nss " + place.Fingerprint(old)[:8]}, words(steps))
	do(t, s, steps)
	if now := entriesOf(t, dir); len(now) != 2 {
		t.Errorf("entries %v; want the new one and the other's", now)
	}
	same(t, "again", []string{"add nss " + place.Fingerprint(cert)[:8] + " done"}, words(install(t, s, cert, "/state")))
	do(t, s, removal(t, s, nil))
	nothing(t, s, old, others, cert)
}

func TestLocked(t *testing.T) {
	home, _ := profile(t)
	s := newStores(t, User, home)
	browsers(s)
	cert := storetest.Root(t, "tunneld local root")
	steps := install(t, s, cert, "a")
	release, err := s.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.patience = time.Millisecond
	if err := s.Do(t.Context(), steps[0]); !errors.Is(err, lockfile.ErrLocked) {
		t.Errorf("error %v; want ErrLocked", err)
	}
	s.patience = time.Minute
	var done sync.WaitGroup
	done.Go(func() { // which waits
		if err := s.Do(t.Context(), steps[0]); err != nil {
			t.Error(err)
		}
	})
	release()
	done.Wait()
	do(t, s, steps)
	do(t, s, removal(t, s, nil))
	nothing(t, s, cert)
}

// What users meet most is told in one sentence, which says nothing twice.
func TestSentences(t *testing.T) {
	needs(t, "trust", "certutil")
	needsDebian(t)
	if !isolate.Test(t) {
		return
	}
	home := overlay(t)
	cert := storetest.Root(t, "x")
	machine, user := newStores(t, Machine, home), newStores(t, User, home)
	steps := install(t, machine, cert, "a")
	debian := steps[slices.IndexFunc(steps, func(s Step) bool { return s.Place.Kind == place.Debian })]
	says := func(what, want string, err error) {
		t.Helper()
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n%v\nwant\n%s", what, err, want)
		}
		t.Log(err)
	}
	blocked := func(what, want string, s *Stores, kind place.Kind) {
		t.Helper()
		steps := install(t, s, cert, "a")
		step := steps[slices.IndexFunc(steps, func(s Step) bool { return s.Place.Kind == kind })]
		if step.Blocked+": "+step.Fix != want {
			t.Errorf("%s:\n%s: %s\nwant\n%s", what, step.Blocked, step.Fix, want)
		}
		t.Log(step.Blocked)
	}
	const update, anchors = "/usr/sbin/update-ca-certificates", "/usr/local/share/ca-certificates"
	good, err := os.ReadFile(update)
	if err != nil {
		t.Fatal(err)
	}

	write(t, update, "#!/bin/sh\necho update-ca-certificates: no luck today >&2; exit 3\n", 0o755)
	says("a program that fails", "add the certificate to "+anchors+": update-ca-certificates: exit status 3: no luck today; nor could it be taken back: update-ca-certificates: exit status 3: no luck today", machine.Do(t.Context(), debian))
	write(t, update, string(good), 0o755)
	do(t, machine, removal(t, machine, nil))

	small := t.TempDir()
	mount(t, "tmpfs", small, "tmpfs", 0, "size=4k,mode=755")
	write(t, filepath.Join(small, "full"), strings.Repeat("x", 4096), 0o644)
	full := newStores(t, Machine, home)
	full.Receipts = filepath.Join(small, "receipts")
	says("no room for receipts", "add the certificate to "+anchors+": note what is done in "+full.Receipts+": the disk is full", full.Do(t.Context(), debian))
	mount(t, small, anchors, "", unix.MS_BIND, "")
	says("no room for the file", "add the certificate to "+anchors+": the disk is full", machine.Do(t.Context(), debian))

	dir := newDatabase(t, filepath.Join(home, ".mozilla/firefox/x.default"))
	browsers(user)
	played := *user.programs
	user.programs = &program.Programs{Run: played.Run, Find: func(name string) (string, error) {
		if name == "certutil" {
			return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
		}
		return played.Find(name)
	}}
	blocked("no certutil", "certutil, the program for such databases, is not installed: install the package libnss3-tools", user, place.NSS)
	says("no certutil, done", "add the certificate to "+dir+": certutil, the program for such databases, is not installed: install the package libnss3-tools",
		user.Do(t.Context(), Step{Action: Add, Place: Place{Kind: place.NSS, Path: dir, Scope: User}, Cert: cert}))
	browsers(user)
	write(t, filepath.Join(dir, "cert9.db"), "broken", 0o600)
	blocked("a broken database", "list the certificates: certutil: exit status 255: function failed: SEC_ERROR_BAD_DATABASE: security library: bad database.: ", user, place.NSS)

	if err := unix.Mount("", "/etc", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	blocked("read-only", "/etc/ssl/certs is on a file system that is read-only: make it writable, or put the certificate into the system's image", machine, place.Debian)
	machine.Receipts = "/etc/receipts"
	says("nothing can be noted", "note what is done in /etc/receipts: the file system is read-only", machine.Do(t.Context(), debian))
}

// On a full disk nothing is done that is not noted.
func TestReceiptCannotBeWritten(t *testing.T) {
	home, dir := profile(t)
	s := newStores(t, User, home)
	browsers(s)
	write(t, filepath.Join(home, "file"), "", 0o600)
	steps := install(t, s, storetest.Root(t, "x"), "a")
	s.Receipts = filepath.Join(home, "file", "receipts")
	if err := s.Do(t.Context(), steps[0]); err == nil || !strings.Contains(err.Error(), "note what is done") {
		t.Errorf("error %v", err)
	}
	same(t, "entries", []string{}, entriesOf(t, dir))
}

// Root's receipts for each user are in one directory, which anybody may read and which goes with the last of
// them, also after a kill.
func TestReceiptsOfTheMachine(t *testing.T) {
	needs(t, "trust")
	if !isolate.Test(t) {
		return
	}
	home := overlay(t)
	prepareds[0].prepare(t)
	syscall.Umask(0o077) // of this process, which has but this test
	const parent = "/var/lib/tunneld-trust"
	a, b := newStores(t, Machine, home), newStores(t, Machine, home)
	a.Receipts, b.Receipts = parent+"/1000", parent+"/1001"
	there := func(paths ...string) {
		t.Helper()
		for _, path := range paths {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("%s: %v, %v; want a directory with 0755", path, info, err)
			}
		}
	}
	gone := func(path string) {
		t.Helper()
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is there", path)
		}
	}
	cert, other := storetest.Root(t, "a"), storetest.Root(t, "b")
	do(t, a, install(t, a, cert, "/home/a"))
	do(t, b, install(t, b, other, "/home/b"))
	there(parent, a.Receipts, b.Receipts)
	do(t, a, removal(t, a, nil))
	gone(a.Receipts)
	there(parent, b.Receipts)
	do(t, b, removal(t, b, nil))
	gone(parent)
	for _, left := range []string{parent, b.Receipts} {
		mkdir(t, left)
		do(t, b, removal(t, b, nil))
		gone(parent)
	}
	link(t, "nowhere", parent)
	if err := a.Do(t.Context(), install(t, a, cert, "/home/a")[0]); err == nil {
		t.Error("done, and nowhere noted")
	}
}

func FuzzParseReceipt(f *testing.F) {
	fingerprint := strings.Repeat("0", 64)
	f.Add(`{"version":1,"certificate":"","source":"a","places":[{"kind":"nss","path":"/x","scope":"user","readers":"","made":["/x"]}]}`)
	f.Add(`{"version":2}`)
	f.Fuzz(func(t *testing.T, data string) {
		r, err := parseReceipt(fingerprint, []byte(data))
		if err == nil && (r.cert == nil || place.Fingerprint(r.cert) != fingerprint || r.all) {
			t.Errorf("record %+v", r)
		}
		if err != nil && (!r.all || len(r.Places) > 0) {
			t.Errorf("record %+v with error %v", r, err)
		}
	})
}
