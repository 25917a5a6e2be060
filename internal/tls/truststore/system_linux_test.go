package truststore

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/isolate"
	"github.com/tunneld/tunneld/internal/tls/truststore/held"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

// javaEntriesOf are the entries of a key store, by keytool's word.
func javaEntriesOf(t *testing.T, path string) []string {
	t.Helper()
	var entries []string
	out := run(t, "keytool", "-list", "-rfc", "-keystore", path, "-storepass", password)
	for part := range strings.SplitSeq(out, "Alias name: ") {
		name, rest, _ := strings.Cut(part, "\n")
		for _, cert := range place.Certificates([]byte(rest)) {
			entries = append(entries, name+" "+place.Fingerprint(cert))
		}
	}
	slices.Sort(entries)
	return entries
}

// fileName is what the file of ours is called.
func fileName(cert *x509.Certificate) string { return place.Alias(place.Fingerprint(cert)) + ".crt" }

// bundles reports whether a file has the certificate.
func bundles(path string, cert *x509.Certificate) (bool, error) {
	data, err := os.ReadFile(path)
	return held.InBundle(data, cert), err
}

// debianConf says which of Debian's own certificates are trusted.
const debianConf = "/etc/ca-certificates.conf"

const debianJava = "/etc/ssl/certs/java/cacerts"

// debianState is all that Debian's program and its hooks make.
func debianState(t *testing.T) func() any {
	return func() any {
		state := []any{snapshot(t, debianJava, "/etc/ssl", "/etc/ca-certificates", "/usr/local/share/ca-certificates")}
		if _, err := os.Stat(debianJava); err == nil {
			state = append(state, javaEntriesOf(t, debianJava))
		}
		return state
	}
}

func needsDebian(t *testing.T) {
	needs(t, "update-ca-certificates", "dpkg", "openssl")
}

// fewer leaves three of the distribution's certificates, which saves minutes.
func fewer(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(debianConf)
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(data)) {
		if len(kept) < 3 && strings.HasSuffix(line, ".crt\n") && !strings.HasPrefix(line, "!") {
			kept = append(kept, line)
		}
	}
	write(t, debianConf, strings.Join(kept, ""), 0o644)
	run(t, "update-ca-certificates", "--fresh")
}

// withoutJava takes Java's hook away, which takes seconds each time.
func withoutJava(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll("/etc/ca-certificates/update.d"); err != nil {
		t.Fatal(err)
	}
}

func TestDebian(t *testing.T) {
	t.Parallel()
	needsDebian(t)
	if !isolate.Test(t) {
		return
	}
	s := newStores(t, Machine, overlay(t))
	fewer(t)
	state := debianState(t)
	before := state()

	cert := storetest.Root(t, "tunneld local root TestDebian")
	steps := install(t, s, cert, "a")
	if i := slices.IndexFunc(steps, func(s Step) bool { return s.Place.Kind == place.Debian }); i < 0 {
		t.Fatalf("steps %v; want one for Debian's store", words(steps))
	}
	do(t, s, steps)
	for _, step := range install(t, s, cert, "a") {
		if !step.Done {
			t.Errorf("%v is not done", words([]Step{step}))
		}
	}
	during := state()
	do(t, s, install(t, s, cert, "a"))
	same(t, "installed twice", during, state())
	if out := run(t, "openssl", "verify", "-CApath", "/etc/ssl/certs", own(cert)); !strings.HasSuffix(out, ": OK\n") {
		t.Errorf("openssl says %q", out)
	}
	if _, err := os.Stat(debianJava); err == nil && !strings.Contains(strings.Join(javaEntriesOf(t, debianJava), " "), place.Fingerprint(cert)) {
		t.Error("Java has not got it")
	}
	if info, err := os.Stat(own(cert)); err != nil || info.Mode() != 0o644 {
		t.Errorf("the file: %v, %v; want 0644", info, err)
	}

	do(t, s, removal(t, s, nil))
	same(t, "after removal", before, state())
	nothing(t, s, cert)
}

// own is where Debian's store has a certificate of ours.
func own(cert *x509.Certificate) string {
	return filepath.Join("/usr/local/share/ca-certificates", fileName(cert))
}

// What was put there by hand, and was half removed by hand, is taken out as well.
func TestDebianByHand(t *testing.T) {
	t.Parallel()
	needsDebian(t)
	if !isolate.Test(t) {
		return
	}
	s := newStores(t, Machine, overlay(t))
	fewer(t)
	state := debianState(t)
	before := state()
	cert, other := storetest.Root(t, "by hand"), storetest.Root(t, "by hand")

	write(t, "/usr/local/share/ca-certificates/my_ca.crt", string(place.Encode(cert)), 0o600)
	write(t, "/usr/local/share/ca-certificates/other.crt", string(place.Encode(other)), 0o644)
	run(t, "update-ca-certificates")
	same(t, "installed already", []string{"add debian " + place.Fingerprint(cert)[:8] + " done"}, words(install(t, s, cert, "a"))[:1])
	do(t, s, removal(t, s, cert))
	nothing(t, s, cert)
	if has, err := bundles("/etc/ssl/certs/ca-certificates.crt", other); err != nil || !has {
		t.Errorf("the other certificate is in the bundle: %v, %v", has, err)
	}
	do(t, s, removal(t, s, other))
	same(t, "after removal", before, state())

	do(t, s, install(t, s, cert, "a"))
	if err := os.Remove(own(cert)); err != nil {
		t.Fatal(err)
	}
	run(t, "update-ca-certificates", "--fresh") // leaves Java's entry, and no links
	do(t, s, removal(t, s, nil))
	same(t, "after half a removal by hand", before, state())
	nothing(t, s, cert)
}

// Debian's program calls its links otherwise than some files.
func TestDebianOddNames(t *testing.T) {
	t.Parallel()
	needsDebian(t)
	if !isolate.Test(t) {
		return
	}
	s := newStores(t, Machine, overlay(t))
	fewer(t)
	state := debianState(t)
	write(t, "/usr/local/share/ca-certificates/ours/other.crt", string(place.Encode(storetest.Root(t, "other"))), 0o644)
	run(t, "update-ca-certificates")
	before := state()
	cert := storetest.Root(t, "by hand")
	for _, name := range []string{"my (own) ca, the first.crt", "ours/my ca.crt"} {
		write(t, filepath.Join("/usr/local/share/ca-certificates", name), string(place.Encode(cert)), 0o644)
	}
	run(t, "update-ca-certificates")
	for _, link := range []string{"my_=own=_ca__the_first.pem", "my_ca.pem"} {
		if _, err := os.Lstat("/etc/ssl/certs/" + link); err != nil {
			t.Error(err)
		}
	}
	do(t, s, removal(t, s, cert))
	nothing(t, s, cert)
	same(t, "after removal", before, state())
}

func TestDebianKilled(t *testing.T) {
	t.Parallel()
	needsDebian(t)
	if !isolate.Test(t) {
		return
	}
	s := newStores(t, Machine, overlay(t))
	fewer(t)
	withoutJava(t)
	killed(t, s, storetest.Root(t, "killed"), debianState(t))
}

// Two daemons' certificates, one of which is then replaced.
func TestDebianTwoSources(t *testing.T) {
	t.Parallel()
	needsDebian(t)
	if !isolate.Test(t) {
		return
	}
	s := newStores(t, Machine, overlay(t))
	fewer(t)
	withoutJava(t)
	state := debianState(t)
	before := state()
	a, b, c := storetest.Root(t, "same name"), storetest.Root(t, "same name"), storetest.Root(t, "same name")
	do(t, s, install(t, s, a, "/home/a"))
	do(t, s, install(t, s, b, "/home/b"))
	steps := install(t, s, c, "/home/a")
	same(t, "replacing", []string{
		"add debian " + place.Fingerprint(c)[:8],
		"remove debian " + place.Fingerprint(a)[:8],
	}, slices.DeleteFunc(words(steps), func(w string) bool { return strings.Contains(w, " java ") }))
	do(t, s, steps)
	for _, want := range []struct {
		cert *x509.Certificate
		has  bool
	}{{a, false}, {b, true}, {c, true}} {
		if has, err := bundles("/etc/ssl/certs/ca-certificates.crt", want.cert); err != nil || has != want.has {
			t.Errorf("in the bundle: %v, %v; want %v", has, err, want.has)
		}
	}
	for _, step := range install(t, s, c, "/home/a") {
		if !step.Done {
			t.Errorf("not done: %v", words([]Step{step}))
		}
	}
	do(t, s, removal(t, s, nil))
	same(t, "after removal", before, state())
	nothing(t, s, a, b, c)
}

// A layout with p11-kit's real program, called as the distribution's own would.
type prepared struct {
	kind    place.Kind
	anchors string
	program string
	script  string
	state   []string
	bundle  string
	// java notes when it was made, and so differs each time.
	java string
}

var prepareds = []prepared{
	{
		place.RedHat, "/etc/pki/ca-trust/source/anchors", "/usr/bin/update-ca-trust",
		`[ "$*" = extract ] || exit 2
mkdir -p /etc/pki/ca-trust/extracted/pem /etc/pki/ca-trust/extracted/java
trust extract --format=pem-bundle --filter=ca-anchors --overwrite --comment --purpose server-auth /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem
trust extract --format=java-cacerts --filter=ca-anchors --overwrite --purpose server-auth /etc/pki/ca-trust/extracted/java/cacerts`,
		[]string{"/etc/pki"}, "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"/etc/pki/ca-trust/extracted/java/cacerts",
	}, {
		place.Arch, "/etc/ca-certificates/trust-source/anchors", "/usr/libexec/p11-kit/trust-extract-compat",
		`mkdir -p /etc/ca-certificates/extracted
trust extract --format=pem-bundle --filter=ca-anchors --overwrite --purpose server-auth /etc/ca-certificates/extracted/tls-ca-bundle.pem
trust extract --format=pem-directory-hash --filter=ca-anchors --overwrite --purpose server-auth /etc/ca-certificates/extracted/cadir`,
		[]string{"/etc/ca-certificates"}, "/etc/ca-certificates/extracted/tls-ca-bundle.pem", "",
	}, {
		place.SUSE, "/etc/pki/trust/anchors", "/usr/sbin/update-ca-certificates",
		`mkdir -p /var/lib/ca-certificates
trust extract --format=pem-bundle --filter=ca-anchors --overwrite --purpose server-auth /var/lib/ca-certificates/ca-bundle.pem
trust extract --format=java-cacerts --filter=ca-anchors --overwrite --purpose server-auth /var/lib/ca-certificates/java-cacerts`,
		[]string{"/etc/pki", "/var/lib/ca-certificates"}, "/var/lib/ca-certificates/ca-bundle.pem",
		"/var/lib/ca-certificates/java-cacerts",
	},
}

// prepare makes the machine one of that layout, with one other certificate.
func (p prepared) prepare(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll("/usr/local/share/ca-certificates"); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove("/usr/sbin/update-ca-certificates")
	mkdir(t, p.anchors)
	write(t, filepath.Join(p.anchors, "another.pem"), string(place.Encode(storetest.Root(t, "another"))), 0o644)
	write(t, p.program, "#!/bin/sh -e\n"+p.script+"\n", 0o755)
	// p11-kit's module reads the directory of anchors' parent.
	path := "/usr/share/p11-kit/modules/p11-kit-trust.module"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, strings.ReplaceAll(string(data), "x-init-reserved:", "x-init-reserved: paths='"+filepath.Dir(p.anchors)+"'"), 0o644)
	args := strings.Fields(p.program)
	if p.kind == place.RedHat {
		args = append(args, "extract")
	}
	run(t, args[0], args[1:]...)
	if has := run(t, "trust", "list"); !strings.Contains(has, "another") {
		t.Fatalf("p11-kit does not read %s: %s", p.anchors, has)
	}
}

// now is all that is in the layout.
func (p prepared) now(t *testing.T) map[string]string {
	t.Helper()
	files := snapshot(t, p.java, p.state...)
	if p.java != "" {
		data, err := os.ReadFile(p.java)
		if err != nil {
			t.Fatal(err)
		}
		files[p.java] = strconv.Itoa(len(data))
	}
	return files
}

func TestPreparedLayouts(t *testing.T) {
	needs(t, "trust")
	for _, p := range prepareds {
		t.Run(string(p.kind), func(t *testing.T) { testPrepared(t, p) })
	}
}

func testPrepared(t *testing.T, p prepared) {
	if !isolate.Test(t) {
		return
	}
	s := newStores(t, Machine, overlay(t))
	p.prepare(t)
	before := p.now(t)
	cert := storetest.Root(t, "tunneld local root")
	steps := slices.DeleteFunc(install(t, s, cert, "a"), func(s Step) bool { return s.Place.Kind == place.Java })
	same(t, "steps", []string{"add " + string(p.kind) + " " + place.Fingerprint(cert)[:8]}, words(steps))
	do(t, s, steps)
	if has, err := bundles(p.bundle, cert); err != nil || !has {
		t.Errorf("in the bundle: %v, %v", has, err)
	}
	during := p.now(t)
	steps = slices.DeleteFunc(install(t, s, cert, "a"), func(s Step) bool { return s.Place.Kind == place.Java })
	same(t, "steps when done", []string{"add " + string(p.kind) + " " + place.Fingerprint(cert)[:8] + " done"}, words(steps))
	do(t, s, steps)
	same(t, "installed twice", during, p.now(t))
	do(t, s, removal(t, s, nil))
	same(t, "after removal", before, p.now(t))
	nothing(t, s, cert)

	killed(t, s, cert, func() any { return p.now(t) })
}

// What fails leaves nothing behind, and says why.
func TestSystemFails(t *testing.T) {
	needs(t, "trust")
	if !isolate.Test(t) {
		return
	}
	s := newStores(t, Machine, overlay(t))
	p := prepareds[0]
	p.prepare(t)
	cert := storetest.Root(t, "tunneld local root")
	only := func(steps []Step) Step {
		t.Helper()
		return steps[slices.IndexFunc(steps, func(s Step) bool { return s.Place.Kind == p.kind })]
	}
	before := p.now(t)
	good, err := os.ReadFile(p.program)
	if err != nil {
		t.Fatal(err)
	}
	fails := func(what, want string) {
		t.Helper()
		err := s.Do(t.Context(), only(install(t, s, cert, "a")))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q in it", what, err, want)
		}
		write(t, p.program, string(good), 0o755)
		do(t, s, removal(t, s, nil))
		same(t, what, before, p.now(t))
		nothing(t, s, cert)
	}

	// Once: the second run, which takes it back, works.
	write(t, p.program, "#!/bin/sh\n[ -e /tmp/failed ] && exit 0; touch /tmp/failed; echo no luck today >&2; exit 3\n", 0o755)
	t.Cleanup(func() { os.Remove("/tmp/failed") })
	if err := s.Do(t.Context(), only(install(t, s, cert, "a"))); err == nil || !strings.Contains(err.Error(), "no luck today") {
		t.Errorf("error %v; want what the program said", err)
	}
	nothing(t, s, cert)
	same(t, "after a failure", before, p.now(t))

	write(t, p.program, "#!/bin/sh\necho always >&2; exit 3\n", 0o755)
	fails("a program that always fails", "always")
	write(t, p.program, "#!/bin/sh\nexit 0\n", 0o755)
	fails("a program that does nothing", "do not see it")

	mount(t, "tmpfs", p.anchors, "tmpfs", 0, "size=4k,mode=755")
	before = p.now(t)
	write(t, filepath.Join(p.anchors, "full"), strings.Repeat("x", 4096), 0o644)
	before = p.now(t)
	if err := s.Do(t.Context(), only(install(t, s, cert, "a"))); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("on a full disk: %v", err)
	}
	delete(before, p.bundle) // made without the other certificate
	now := p.now(t)
	delete(now, p.bundle)
	for _, m := range []map[string]string{before, now} {
		for path := range m {
			if strings.Contains(path, "extracted") {
				delete(m, path)
			}
		}
	}
	same(t, "after a full disk", before, now)

	if err := unix.Mount("", p.anchors, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=4k,mode=755"); err != nil {
		t.Fatal(err)
	}
	if step := only(install(t, s, cert, "a")); !strings.Contains(step.Blocked, "read-only") || step.Fix == "" {
		t.Errorf("read-only: blocked %q, fix %q", step.Blocked, step.Fix)
	}
}

// What somebody has put there, and had no program run for, is there still when adding fails.
func TestFailedAddKeepsTheFile(t *testing.T) {
	t.Parallel()
	needsDebian(t)
	needs(t, "trust")
	for _, layout := range []struct {
		kind         place.Kind
		prepare      func(*testing.T)
		byHand       string
		program, arg string
		state        func(*testing.T) any
	}{
		{place.RedHat, prepareds[0].prepare, prepareds[0].anchors + "/mine.pem", prepareds[0].program, "extract", func(t *testing.T) any { return prepareds[0].now(t) }},
		{place.Debian, fewer, "/usr/local/share/ca-certificates/mine.crt", "/usr/sbin/update-ca-certificates", "", func(t *testing.T) any { return debianState(t)() }},
	} {
		for name, script := range map[string]string{
			"at once":         `[ -e /etc/failed ] || { touch /etc/failed; echo no luck >&2; exit 3; }; exec /usr/bin/good "$@"`,
			"when it has run": `/usr/bin/good "$@"; [ -e /etc/failed ] || { touch /etc/failed; echo no luck >&2; exit 3; }`,
		} {
			t.Run(string(layout.kind)+" "+name, func(t *testing.T) {
				if !isolate.Test(t) {
					return
				}
				s := newStores(t, Machine, overlay(t))
				cert := storetest.Root(t, "tunneld local root")
				layout.prepare(t)
				good, err := os.ReadFile(layout.program)
				if err != nil {
					t.Fatal(err)
				}
				write(t, layout.byHand, string(place.Encode(cert)), 0o600)
				write(t, "/usr/bin/good", string(good), 0o755)
				write(t, layout.program, "#!/bin/sh\n"+script+"\n", 0o755)
				steps := install(t, s, cert, "a")
				step := steps[slices.IndexFunc(steps, func(s Step) bool { return s.Place.Kind == layout.kind })]
				if err := s.Do(t.Context(), step); err == nil || !strings.Contains(err.Error(), "no luck") {
					t.Errorf("error %v; want what the program said", err)
				}
				got := layout.state(t)
				if _, err := os.Lstat(s.Receipts); err == nil {
					t.Error("there are receipts")
				}
				// As it is whenever somebody has the program run.
				run(t, "/usr/bin/good", strings.Fields(layout.arg)...)
				same(t, "afterwards", layout.state(t), got)
				if data, err := os.ReadFile(layout.byHand); err != nil || string(data) != string(place.Encode(cert)) {
					t.Errorf("what was put there by hand: %q, %v", data, err)
				}
				if _, err := os.Lstat(filepath.Join(filepath.Dir(layout.byHand), fileName(cert))); err == nil {
					t.Error("the file of ours is there")
				}
				if _, err := os.Lstat(filepath.Join("/etc/ssl/certs", strings.TrimSuffix(fileName(cert), ".crt")+".pem")); err == nil {
					t.Error("a link to the file of ours is there")
				}
			})
		}
	}
}

// A process that is killed as it writes a file leaves another one, which goes as well.
func TestHalfWrittenFiles(t *testing.T) {
	t.Parallel()
	needs(t, "trust")
	if !isolate.Test(t) {
		return
	}
	home := overlay(t)
	s := newStores(t, Machine, home)
	p := prepareds[0]
	p.prepare(t)
	cacerts := newJDK(t, "/opt/own", "JKS", "")
	old, err := os.ReadFile(cacerts)
	if err != nil {
		t.Fatal(err)
	}
	before := []any{p.now(t), snapshot(t, "", "/opt/own")}
	cert := storetest.Root(t, "tunneld local root")
	do(t, s, install(t, s, cert, "a"))
	write(t, cacerts, string(old), 0o644)
	if err := os.Remove(filepath.Join(p.anchors, fileName(cert))); err != nil {
		t.Fatal(err)
	}
	run(t, p.program, "extract")
	for _, path := range []string{
		filepath.Join(p.anchors, "."+fileName(cert)+".123.tmp"),
		filepath.Join(filepath.Dir(cacerts), ".cacerts.123.tmp"),
		filepath.Join(s.Receipts, "."+place.Fingerprint(cert)+".json.123.tmp"),
	} {
		write(t, path, "half", 0o600)
	}
	if steps := removal(t, s, nil); len(steps) != 2 {
		t.Errorf("steps %v; want two", words(steps))
	}
	do(t, s, removal(t, s, nil))
	same(t, "after removal", before, []any{p.now(t), snapshot(t, "", "/opt/own")})
	nothing(t, s, cert)
}

// A program that knows none of Debian's options, as Alpine's, takes a certificate out, too.
func TestOtherDebian(t *testing.T) {
	t.Parallel()
	needsDebian(t)
	for name, exit := range map[string]string{"succeeds": "0", "fails": "1"} {
		t.Run(name, func(t *testing.T) {
			if !isolate.Test(t) {
				return
			}
			s := newStores(t, Machine, overlay(t))
			write(t, "/usr/sbin/update-ca-certificates", `#!/bin/sh -e
case "$1" in ''|--fresh) ;; *) echo usage; exit `+exit+`;; esac
cat /usr/local/share/ca-certificates/*.crt >/etc/ssl/certs/ca-certificates.crt || true
`, 0o755)
			cert := storetest.Root(t, "tunneld local root")
			do(t, s, install(t, s, cert, "a"))
			do(t, s, removal(t, s, nil))
			nothing(t, s, cert)
		})
	}
}

// Root writes nowhere where others decide what is written.
func TestSystemOfOthers(t *testing.T) {
	t.Parallel()
	if !isolate.Test(t) {
		return
	}
	needs(t, "trust")
	home := overlay(t)
	s := newStores(t, Machine, home)
	p := prepareds[0]
	p.prepare(t)
	cert := storetest.Root(t, "tunneld local root")
	blocked := func(what string) {
		t.Helper()
		steps := install(t, s, cert, "a")
		step := steps[slices.IndexFunc(steps, func(s Step) bool { return s.Place.Kind == p.kind })]
		if !strings.Contains(step.Blocked, "changed by others") {
			t.Errorf("%s: %q", what, step.Blocked)
		}
		if err := s.Do(t.Context(), step); err == nil {
			t.Errorf("%s: done", what)
		}
	}
	if err := os.Chmod(p.anchors, 0o777); err != nil {
		t.Fatal(err)
	}
	blocked("writable by all")
	if err := os.Chmod(p.anchors, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Dir(p.anchors), 12345, 0); err != nil {
		t.Fatal(err)
	}
	blocked("a parent is another's")
	if err := os.Chown(filepath.Dir(p.anchors), 0, 0); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(home, "elsewhere")
	mkdir(t, elsewhere)
	if err := os.Chown(elsewhere, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(p.anchors); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, p.anchors); err != nil {
		t.Fatal(err)
	}
	blocked("a link to another's")
	if left, _ := os.ReadDir(elsewhere); len(left) > 0 {
		t.Errorf("written: %v", left)
	}
	nothing(t, s, cert)
}

// A user plans what root is to do, and no user's stores are touched by another.
func TestScopes(t *testing.T) {
	if !isolate.Test(t) {
		return
	}
	home := overlay(t)
	if err := os.Chown(home, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	mkdir(t, filepath.Join(home, ".pki/nssdb"))
	write(t, filepath.Join(home, ".pki/nssdb/cert9.db"), "", 0o600)
	s := newStores(t, User, home)
	before := snapshot(t, "", home)
	cert := storetest.Root(t, "x")
	steps := install(t, s, cert, "a")
	if len(steps) == 0 {
		t.Fatal("no steps")
	}
	for _, step := range steps {
		if !strings.Contains(step.Blocked, "belongs to another user") || step.Fix == "" {
			t.Errorf("%s: blocked %q, fix %q", step.Place.Path, step.Blocked, step.Fix)
		}
		if err := s.Do(t.Context(), step); err == nil {
			t.Errorf("%s: done", step.Place.Path)
		}
	}
	same(t, "the home", before, snapshot(t, "", home))
	if _, err := os.Lstat(s.Receipts); err == nil {
		t.Error("there are receipts")
	}
}

// Who is not root is told what root would do, and what is done already.
func TestPlannedByAnybody(t *testing.T) {
	t.Parallel()
	needs(t, "trust")
	if !isolate.Test(t) {
		return
	}
	s := newStores(t, Machine, overlay(t))
	s.Receipts = "/var/lib/tunneld-trust/12345"
	prepareds[0].prepare(t)
	cert := storetest.Root(t, "tunneld local root")
	// Where another user may run it.
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	write(t, "/opt/test", string(program), 0o755)
	planned := func(action Action) string {
		t.Helper()
		plan, err := json.Marshal(killPlan{Action: action, Scope: Machine, Receipts: s.Receipts, Cert: string(place.Encode(cert)), Planned: true})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/opt/test")
		cmd.Env = []string{killVariable + "=" + string(plan)}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	short := place.Fingerprint(cert)[:8]
	same(t, "to install", "add redhat "+short+" blocked: it takes root\n", planned(Add))
	do(t, s, install(t, s, cert, "a"))
	same(t, "installed", "add redhat "+short+" done\n", planned(Add))
	same(t, "to remove", "remove redhat "+short+" blocked: it takes root\n", planned(Remove))
	do(t, s, removal(t, s, nil))
	same(t, "removed", "\n", planned(Remove))
	nothing(t, s, cert)
}
