package verifiers

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// programs are the clients that are no browsers, and how a test has each trust a
// root without a change to this machine.
var programs = []struct {
	client, program string
	trust           func(t *testing.T, root string)
	fix             string // of which part must be named
}{
	{"curl", "curl", variable("CURL_CA_BUNDLE"), forMachine},
	{"OpenSSL", "openssl", variable("SSL_CERT_FILE"), forMachine},
	{"Go", "", variable("SSL_CERT_FILE"), forMachine},
	{"Python", "python3", variable("SSL_CERT_FILE"), forMachine},
	{"Python requests", "python3", variable("REQUESTS_CA_BUNDLE"), byEnv},
	{"Node", "node", variable("NODE_EXTRA_CA_CERTS"), byEnv},
	{"Java", "java", javaStore, ""},
}

func variable(name string) func(*testing.T, string) {
	return func(t *testing.T, root string) { t.Setenv(name, root) }
}

func javaStore(t *testing.T, root string) {
	if _, err := exec.LookPath("keytool"); err != nil {
		return
	}
	store := filepath.Join(t.TempDir(), "store")
	run(t, "keytool", "-importcert", "-noprompt", "-alias", "test", "-file", root, "-keystore", store, "-storepass", "changeit")
	t.Setenv("JAVA_TOOL_OPTIONS", "-Djavax.net.ssl.trustStore="+store+" -Djavax.net.ssl.trustStorePassword=changeit -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9")
}

// light are the families of programs, but for Go: see alone.
var light = []string{"curl", "OpenSSL", "Python", "Node", "Java"}

// alone is a process that checks the clients of a family. Its Go has not yet read the
// system's roots.
func alone(t *testing.T, family string, cert tls.Certificate) *exec.Cmd {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "leaf.pem")
	content := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, der := range cert.Certificate {
		content = append(content, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	write(t, file, string(content))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "ask", family, file)
	cmd.Stderr = os.Stderr
	return cmd
}

func goAlone(t *testing.T, cert tls.Certificate) Result {
	t.Helper()
	out, err := alone(t, "Go", cert).Output()
	if err != nil {
		t.Fatal(err)
	}
	var results []Result
	if err := json.Unmarshal(out, &results); err != nil || len(results) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return results[0]
}

func TestPrograms(t *testing.T) {
	ca := newAuthority(t)
	t.Run("untrusted", func(t *testing.T) {
		unchanged(t, isolated(t))
		results := check(t, Checker{Only: light}, ca.cert)
		results["Go"] = goAlone(t, ca.cert)
		for _, p := range programs {
			expect(t, results, p.client, p.program, Refuses)
			if r := results[p.client]; r.Verdict == Refuses && (r.Fix == "" || p.fix != "" && r.Fix != p.fix) {
				t.Errorf("%s: fix %q, want %q", p.client, r.Fix, p.fix)
			}
		}
	})
	t.Run("trusted", func(t *testing.T) {
		unchanged(t, isolated(t))
		for _, p := range programs {
			p.trust(t, ca.file)
		}
		results := check(t, Checker{Only: light}, ca.cert)
		results["Go"] = goAlone(t, ca.cert)
		for _, p := range programs {
			expect(t, results, p.client, p.program, Trusts)
		}
	})
}

// expect fails the test if a client is installed and says something else.
func expect(t *testing.T, results map[string]Result, client, program string, want Verdict) {
	t.Helper()
	r, ok := results[client]
	if !ok {
		t.Errorf("%s: no result", client)
		return
	}
	if program != "" && onPath(program) == "" || client == "Python requests" && r.Verdict == Absent {
		want = Absent
	}
	if r.Verdict != want {
		t.Errorf("%s: %s (%s), want %s", client, r.Verdict, r.Evidence, want)
	}
	if (r.Verdict == Absent) != (r.Evidence == "") {
		t.Errorf("%s: %s, with the evidence %q", client, r.Verdict, r.Evidence)
	}
}

// In one process, whose roots are those of its start.
func TestGoInThisProcess(t *testing.T) {
	isolated(t)
	results := check(t, Checker{Only: []string{"Go"}}, newAuthority(t).cert)
	expect(t, results, "Go", "", Refuses)
}

func TestCareless(t *testing.T) {
	ca := newAuthority(t)
	home := isolated(t)
	if err := os.WriteFile(filepath.Join(home, ".curlrc"), []byte("insecure\nproxy = 127.0.0.1:9\nnoproxy = example.com\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NODE_TLS_REJECT_UNAUTHORIZED", "0")
	unchanged(t, home)
	results := check(t, Checker{Only: []string{"curl", "Node"}}, ca.cert)
	expect(t, results, "curl", "curl", Careless)
	expect(t, results, "Node", "node", Careless)
}

func TestOrder(t *testing.T) {
	isolated(t)
	t.Setenv("PATH", "")
	results, err := new(Checker).Check(t.Context(), newAuthority(t).cert)
	if err != nil {
		t.Fatal(err)
	}
	var families []string
	for _, r := range results {
		families = append(families, r.Family)
		if want := r.Family == "Go"; (r.Verdict != Absent) != want {
			t.Errorf("%+v", r)
		}
	}
	if !slices.Equal(families, Families) {
		t.Errorf("got %v; want %v", families, Families)
	}
}

// nssDatabase makes a database that trusts a root.
func nssDatabase(t *testing.T, dir, root string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "certutil", "-N", "--empty-password", "-d", "sql:"+dir)
	run(t, "certutil", "-A", "-d", "sql:"+dir, "-n", "test", "-t", "C,,", "-i", root)
}

func TestChromium(t *testing.T) {
	need(t, "chromium", "certutil")
	ca := newAuthority(t)
	for _, tt := range []struct {
		name, database string
		want           Verdict
	}{
		{"no database", "", Refuses},
		{"the old place", ".pki/nssdb", Trusts},
		{"a place of the user's own", "data/pki/nssdb", Trusts},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := isolated(t)
			if tt.database != "" {
				nssDatabase(t, filepath.Join(home, tt.database), ca.file)
			}
			if tt.database == "data/pki/nssdb" {
				t.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
			}
			unchanged(t, home)
			results := check(t, Checker{Only: []string{"Chromium"}}, ca.cert)
			expect(t, results, "Chromium", "chromium", tt.want)
		})
	}
}

const profilesINI = `[Install3B6073811A6ABF12]
Default=abc.default-esr
Locked=1

[Profile1]
Name=default
IsRelative=1
Path=xyz.default
Default=1

[Profile0]
Name=default-esr
IsRelative=1
Path=abc.default-esr
`

func TestFirefox(t *testing.T) {
	need(t, "firefox-esr", "certutil")
	ca := newAuthority(t)
	for _, tt := range []struct {
		name, root, fix string
		trusted         bool
		want            Verdict
	}{
		{"never started", "", "start it once, then: tunnelctl trust", false, Refuses},
		{"untrusted", ".config/mozilla/firefox", "tunnelctl trust", false, Refuses},
		{"trusted", ".mozilla/firefox", "", true, Trusts},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := isolated(t)
			if tt.root != "" {
				root := filepath.Join(home, tt.root)
				other, profile := filepath.Join(root, "xyz.default"), filepath.Join(root, "abc.default-esr")
				for _, dir := range []string{other, profile} {
					if err := os.MkdirAll(dir, 0o700); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(filepath.Join(root, "profiles.ini"), []byte(profilesINI), 0o600); err != nil {
					t.Fatal(err)
				}
				if !tt.trusted { // which must not matter
					profile = other
				}
				nssDatabase(t, profile, ca.file)
			}
			unchanged(t, home)
			results := check(t, Checker{Only: []string{"Firefox"}}, ca.cert)
			expect(t, results, "Firefox ESR", "firefox-esr", tt.want)
			if len(results) != 1 || results["Firefox ESR"].Fix != tt.fix {
				t.Errorf("got %+v; want the fix %q", results, tt.fix)
			}
		})
	}
}

// What lies in the current directory is not run: it may be anybody's.
func TestPythonRunsNothingFromHere(t *testing.T) {
	if onPath("python3") == "" {
		t.Skip("python3 is not installed")
	}
	isolated(t)
	here := t.TempDir()
	for _, name := range []string{"requests.py", "ssl.py", "urllib.py", "http.py", "socket.py"} {
		write(t, filepath.Join(here, name), "open(r'"+filepath.Join(here, "ran")+"', 'w')\n")
	}
	t.Chdir(here)
	check(t, Checker{Only: []string{"Python"}}, newAuthority(t).cert)
	if _, err := os.Stat(filepath.Join(here, "ran")); err == nil {
		t.Error("Python ran what it found in the current directory")
	}
}
