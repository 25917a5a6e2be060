package truststore

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/isolate"
	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

// password is the usual one of key stores.
const password = "changeit"

// newJDK makes a JDK below dir of the installed one's programs, with a key store of its own of that type: a
// few certificates, and the password, which is the usual one if it is empty.
func newJDK(t *testing.T, dir, kind, secret string) (cacerts string) {
	t.Helper()
	needs(t, "keytool", "java")
	mkdir(t, filepath.Join(dir, "bin"))
	if err := os.Symlink("/usr/bin/keytool", filepath.Join(dir, "bin/keytool")); err != nil {
		t.Fatal(err)
	}
	cacerts = filepath.Join(dir, "lib/security/cacerts")
	mkdir(t, filepath.Dir(cacerts))
	if secret == "" {
		secret = password
	}
	path := filepath.Join(t.TempDir(), "cert.pem")
	write(t, path, string(place.Encode(storetest.Root(t, "another"))), 0o644)
	args := []string{"-importcert", "-noprompt", "-alias", "another", "-file", path, "-keystore", cacerts, "-storetype", strings.Fields(kind)[0], "-storepass", secret}
	if strings.HasSuffix(kind, " without password") {
		args = append(args, "-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE", "-J-Dkeystore.pkcs12.macAlgorithm=NONE")
	}
	run(t, "keytool", args...)
	return cacerts
}

func TestJava(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"JKS", "PKCS12 without password"} {
		t.Run(kind, func(t *testing.T) {
			home := t.TempDir()
			cacerts := newJDK(t, filepath.Join(home, ".jdks/own"), kind, "")
			if err := os.Chmod(cacerts, 0o640); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(cacerts, -1, 12345); err != nil {
				t.Skip("another group takes root")
			}
			s := newStores(t, User, home)
			browsers(s)
			entries, files := javaEntriesOf(t, cacerts), snapshot(t, cacerts, home)
			cert := storetest.Root(t, "tunneld local root")
			steps := install(t, s, cert, "a")
			same(t, "steps", []string{"add java " + place.Fingerprint(cert)[:8]}, words(steps))
			do(t, s, steps)
			if now := strings.Join(javaEntriesOf(t, cacerts), "\n"); !strings.Contains(now, place.Alias(place.Fingerprint(cert))+" "+place.Fingerprint(cert)) {
				t.Errorf("entries %s", now)
			}
			same(t, "steps when done", []string{"add java " + place.Fingerprint(cert)[:8] + " done"}, words(install(t, s, cert, "a")))
			do(t, s, removal(t, s, nil))
			same(t, "after removal", entries, javaEntriesOf(t, cacerts))
			same(t, "files", files, snapshot(t, cacerts, home))
			info, err := os.Stat(cacerts)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != 0o640 || !strings.Contains(snapshot(t, "", home)[cacerts], " 12345 ") {
				t.Errorf("mode %v, %s; want 0640, and the group kept", info.Mode(), snapshot(t, "", home)[cacerts])
			}
			nothing(t, s, cert)
		})
	}
}

// What is encrypted keytool has to decipher.
func TestEncryptedKeyStore(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	newJDK(t, filepath.Join(home, ".jdks/own"), "PKCS12", "")
	s := newStores(t, User, home)
	stores, err := s.jdks().Find()
	if err != nil || len(stores) != 1 {
		t.Fatalf("stores %v, %v; want one", stores, err)
	}
	st, cert := stores[0], storetest.Root(t, "tunneld local root")
	if got, err := st.Look(t.Context(), cert); err != nil || got != place.Absent {
		t.Errorf("at first: %v, %v", got, err)
	}
	if err := st.Add(t.Context(), cert); err != nil {
		t.Fatal(err)
	}
	if got, err := st.Look(t.Context(), cert); err != nil || got != place.Present {
		t.Errorf("added: %v, %v", got, err)
	}
}

func TestFindJava(t *testing.T) {
	if !isolate.Test(t) {
		return
	}
	home := overlay(t)
	jdk := func(dir string, own bool, uid int) {
		t.Helper()
		write(t, filepath.Join(dir, "bin/keytool"), "", 0o755)
		path := filepath.Join(dir, "lib/security/cacerts")
		mkdir(t, filepath.Dir(path))
		if !own {
			if err := os.Symlink("/etc/ssl/certs/java/cacerts", path); err != nil {
				t.Fatal(err)
			}
			return
		}
		write(t, path, "", 0o644)
		if err := os.Chown(path, uid, -1); err != nil {
			t.Fatal(err)
		}
	}
	write(t, "/etc/ssl/certs/java/cacerts", "", 0o644)
	if err := os.RemoveAll("/usr/lib/jvm"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	jdk("/usr/lib/jvm/own", true, 0)
	jdk("/usr/lib/jvm/system", false, 0)
	jdk("/opt/theirs", true, 12345)
	jdk("/opt/vendor/jdk", true, 0)
	jdk("/opt/third", true, 54321)
	jdk(filepath.Join(home, ".sdkman/candidates/java/21"), true, 12345)
	jdk(filepath.Join(home, ".jdks/system"), false, 12345)
	jdk(filepath.Join(home, "named"), true, 12345)
	write(t, "/opt/other/lib/security/cacerts", "", 0o644)
	for name, target := range map[string]string{"/usr/lib/jvm/default": "own", filepath.Join(home, ".sdkman/candidates/java/current"): "21"} {
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		scope Scope
		want  []string
	}{
		{Machine, []string{"/usr/lib/jvm/own", "/opt/vendor/jdk"}},
		{User, []string{home + "/named", "/opt/theirs", home + "/.sdkman/candidates/java/21"}},
	} {
		s := newStores(t, tt.scope, home)
		s.Getenv = func(key string) string {
			if key == "JAVA_HOME" {
				return filepath.Join(home, "named")
			}
			return ""
		}
		stores, err := s.jdks().Find()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, st := range stores {
			p := st.Place()
			if p.Scope != tt.scope {
				t.Errorf("%s has the scope %s; want %s", p.Path, p.Scope, tt.scope)
			}
			if strings.HasPrefix(p.Path, "/opt/java") {
				continue // the machine's
			}
			got = append(got, strings.TrimSuffix(p.Path, "/lib/security/cacerts"))
		}
		same(t, string(tt.scope), tt.want, got)
	}
}

func TestJavaIsBlocked(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	cacerts := newJDK(t, filepath.Join(home, ".jdks/own"), "JKS", "something else")
	s := newStores(t, User, home)
	browsers(s)
	cert := storetest.Root(t, "tunneld local root")
	before := snapshot(t, "", home)
	steps := install(t, s, cert, "a")
	if len(steps) != 1 || !strings.Contains(steps[0].Blocked, "usual password") || !strings.Contains(steps[0].Fix, "-keystore "+cacerts) {
		t.Errorf("steps %+v; want that the password is another, with a fix", steps)
	}
	if err := s.Do(t.Context(), steps[0]); err == nil {
		t.Error("done")
	}
	same(t, "files", before, snapshot(t, "", home))

	write(t, filepath.Join(home, ".jdks/own/bin/keytool2"), "", 0o755)
	if err := os.Remove(filepath.Join(home, ".jdks/own/bin/keytool")); err != nil {
		t.Fatal(err)
	}
	same(t, "without keytool", []string{}, words(install(t, s, cert, "a")))
}

// No program of another user's is run, not even to look, and least of all as root.
func TestJavaOfOthers(t *testing.T) {
	t.Parallel()
	if !isolate.Test(t) {
		return
	}
	home := overlay(t)
	const jdk = "/opt/own"
	keytool := jdk + "/bin/keytool"
	ran := filepath.Join(t.TempDir(), "ran")
	prepare := func(t *testing.T) {
		t.Helper()
		if err := os.RemoveAll(jdk); err != nil {
			t.Fatal(err)
		}
		write(t, jdk+"/lib/security/cacerts", "neither JKS nor PKCS #12", 0o644)
		write(t, jdk+"/lib/libjli.so", "", 0o755)
		write(t, keytool, "#!/bin/sh\ntouch "+ran+"\nexit 1\n", 0o755)
	}
	others := func(path string) func(*testing.T) {
		return func(t *testing.T) {
			if err := os.Chown(path, 12345, 12345); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		scope  Scope
		change func(*testing.T)
		runs   bool
	}{
		{"root's", Machine, func(*testing.T) {}, true},
		{"a link that leads nowhere", Machine, func(t *testing.T) { link(t, "nowhere", jdk+"/lib/src.zip") }, true},
		{"the directory", Machine, others(jdk), false},
		{"of programs", Machine, others(jdk + "/bin"), false},
		{"of what they load", Machine, others(jdk + "/lib"), false},
		{"what they load", Machine, others(jdk + "/lib/libjli.so"), false},
		{"the program", Machine, others(keytool), false},
		{"may be written to by all", Machine, func(t *testing.T) { write(t, keytool, "#!/bin/sh\ntouch "+ran+"\n", 0o777) }, false},
		{"a link to another's", Machine, func(t *testing.T) {
			write(t, filepath.Join(home, "keytool"), "#!/bin/sh\ntouch "+ran+"\n", 0o755)
			others(filepath.Join(home, "keytool"))(t)
			link(t, filepath.Join(home, "keytool"), keytool)
		}, false},
		{"the program of a user's", User, others(keytool), false},
		{"may be written to by all, a user's", User, func(t *testing.T) { write(t, keytool, "#!/bin/sh\ntouch "+ran+"\n", 0o777) }, false},
		{"root's for a user", User, func(*testing.T) {}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			prepare(t)
			tt.change(t)
			s := newStores(t, tt.scope, home)
			st, err := s.jdks().At(jdk + "/lib/security/cacerts")
			if err != nil {
				t.Fatal(err)
			}
			cert := storetest.Root(t, "x")
			steps := []Step{s.step(t.Context(), Add, st, cert), s.step(t.Context(), Remove, st, cert)}
			_, searched := st.(place.Searcher).Search(t.Context(), place.Fingerprint(cert))
			if searched == nil {
				t.Error("a search says nothing of it")
			}
			for _, step := range steps {
				if err := s.Do(t.Context(), step); err == nil {
					t.Error("done")
				}
				want := "changed by other"
				if tt.runs {
					want = "usual password"
				}
				if !strings.Contains(step.Blocked, want) || step.Fix == "" {
					t.Errorf("blocked %q, fix %q; want %q", step.Blocked, step.Fix, want)
				}
			}
			if err := os.Remove(ran); (err == nil) != tt.runs {
				t.Errorf("it was run: %v; want %v", err == nil, tt.runs)
			}
		})
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// A keytool that fails half way leaves the key store as it was.
func TestKeytoolFails(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	newJDK(t, filepath.Join(home, ".jdks/own"), "JKS", "")
	keytool := filepath.Join(home, ".jdks/own/bin/keytool")
	if err := os.Remove(keytool); err != nil {
		t.Fatal(err)
	}
	write(t, keytool, `#!/bin/sh
case "$1" in -list) exec keytool "$@";; esac
for a; do case "$last" in -keystore) echo broken >"$a";; esac; last=$a; done
echo 'keytool error: something broke'; exit 1
`, 0o755)
	s := newStores(t, User, home)
	browsers(s)
	before := snapshot(t, "", home)
	cert := storetest.Root(t, "tunneld local root")
	err := s.Do(t.Context(), install(t, s, cert, "a")[0])
	if err == nil || !strings.Contains(err.Error(), "something broke") {
		t.Errorf("error %v; want what keytool said", err)
	}
	same(t, "files", before, snapshot(t, "", home))
	nothing(t, s, cert)
}

func TestJavaKilled(t *testing.T) {
	t.Parallel()
	if !isolate.Test(t) {
		return
	}
	home := overlay(t)
	newJDK(t, filepath.Join(home, ".jdks/own"), "JKS", "")
	// Without Chromium's database there is this one store.
	for _, name := range chromiums {
		_ = os.Remove("/usr/bin/" + name)
	}
	s := newStores(t, User, home)
	// With one other entry, its bytes are the same again.
	killed(t, s, storetest.Root(t, "tunneld local root"), func() any { return snapshot(t, "", home) })
}

// The real JDKs of this machine that have key stores of their own, by the look of a program of theirs.
func TestJDKsOfThisMachine(t *testing.T) {
	if !isolate.Test(t) {
		return
	}
	s := newStores(t, Machine, overlay(t))
	stores, err := s.jdks().Find()
	if err != nil {
		t.Fatal(err)
	}
	if len(stores) == 0 {
		t.Skip("no JDK has a key store of its own")
	}
	cert := storetest.Root(t, "tunneld local root")
	for _, st := range stores {
		home := strings.TrimSuffix(st.Place().Path, "/lib/security/cacerts")
		entries := func() string {
			out, err := exec.Command(filepath.Join(home, "bin/keytool"), "-list", "-cacerts", "-storepass", password).Output()
			if err != nil {
				t.Fatalf("%s: %v: %s", home, err, out)
			}
			return fmt.Sprint(strings.Count(string(out), "trustedCertEntry"), strings.Contains(string(out), place.Alias(place.Fingerprint(cert))))
		}
		before := entries()
		do(t, s, []Step{s.step(t.Context(), Add, st, cert)})
		if now := entries(); !strings.HasSuffix(now, "true") {
			t.Errorf("%s: %s entries", home, now)
		}
		do(t, s, []Step{s.step(t.Context(), Remove, st, cert)})
		if now := entries(); now != before {
			t.Errorf("%s: %s entries; want %s", home, now, before)
		}
		t.Log(home, before)
	}
	nothing(t, s, cert)
}
