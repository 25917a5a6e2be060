package caenv_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/tls/caenv"
)

func certificate(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// A shell has variables.
type shell map[string]string

func (s shell) get(name string) string { return s[name] }

func (s shell) set(vars ...caenv.Var) {
	for _, v := range vars {
		s[v.Name] = v.Value
	}
}

// fixture is a user with a system's list, and one of a company.
func fixture(t *testing.T, vars shell) (e *caenv.Env, corp string, root *x509.Certificate) {
	t.Helper()
	dir := t.TempDir()
	list := func(name string) string {
		path := filepath.Join(dir, name+".crt")
		text := "# " + name + "\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(t, name).Raw}))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	e = &caenv.Env{
		Dir:    filepath.Join(dir, "state", "env"),
		Getenv: vars.get,
		System: []string{filepath.Join(dir, "not-there.crt"), list("system")},
	}
	return e, list("corp"), certificate(t, "local")
}

// names are the common names of the certificates in a file.
func names(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, cert.Subject.CommonName)
	}
	return strings.Join(out, " ")
}

func made(t *testing.T, e *caenv.Env, root *x509.Certificate) []caenv.Var {
	t.Helper()
	vars, notes, err := e.Make(root)
	if err != nil || len(notes) > 0 {
		t.Fatalf("%v, %v", notes, err)
	}
	return vars
}

// without leaves out the variable that has what the others were.
func without(vars []caenv.Var, name string) []caenv.Var {
	return slices.DeleteFunc(slices.Clone(vars), func(v caenv.Var) bool { return v.Name == name })
}

func TestMake(t *testing.T) {
	const all = "local system"
	tests := []struct {
		name string
		vars func(corp string) shell
		git  bool
		want map[string]string // what differs from the first
	}{
		{name: "a shell that says nothing", vars: func(string) shell { return shell{} }},
		{
			name: "a list for all",
			vars: func(corp string) shell { return shell{"SSL_CERT_FILE": corp} },
			want: map[string]string{
				"SSL_CERT_FILE": "local corp", "REQUESTS_CA_BUNDLE": "local corp", "GIT_SSL_CAINFO": "local corp",
				"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": "local corp",
			},
		},
		{
			name: "a list for one",
			vars: func(corp string) shell { return shell{"AWS_CA_BUNDLE": corp} },
			want: map[string]string{"AWS_CA_BUNDLE": "local corp"},
		},
		{
			name: "requests reads curl's",
			vars: func(corp string) shell { return shell{"CURL_CA_BUNDLE": corp} },
			want: map[string]string{"CURL_CA_BUNDLE": "local corp", "REQUESTS_CA_BUNDLE": "local corp"},
		},
		{
			name: "one more for Node",
			vars: func(corp string) shell { return shell{"NODE_EXTRA_CA_CERTS": corp} },
			want: map[string]string{"NODE_EXTRA_CA_CERTS": "local corp"},
		},
		{
			name: "git is configured",
			vars: func(string) shell { return shell{} },
			git:  true,
			want: map[string]string{"GIT_SSL_CAINFO": "local corp"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vars := shell{}
			e, corp, root := fixture(t, vars)
			if tt.git {
				e.Git = func() string { return corp }
			}
			before := tt.vars(corp)
			for name, value := range before {
				vars[name] = value
			}
			want := map[string]string{
				"NODE_EXTRA_CA_CERTS": "local", "DENO_CERT": "local",
				"SSL_CERT_FILE": all, "REQUESTS_CA_BUNDLE": all, "GIT_SSL_CAINFO": all, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": all,
			}
			for name, value := range tt.want {
				want[name] = value
			}
			// The second time in the same shell changes nothing.
			for range 2 {
				got := map[string]string{}
				vars.set(made(t, e, root)...)
				for name, path := range vars {
					if name != "TUNNELD_ENV" {
						got[name] = names(t, path)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
			}
			// What they were is known when the files are gone, too.
			if err := e.Remove(); err != nil {
				t.Fatal(err)
			}
			undone := e.Unmake()
			vars.set(undone...)
			for _, v := range undone {
				if v.Value != before[v.Name] {
					t.Errorf("%s is %q afterwards; want %q", v.Name, v.Value, before[v.Name])
				}
			}
			if len(without(undone, "TUNNELD_ENV")) != len(want) || vars["TUNNELD_ENV"] != "" {
				t.Errorf("undone: %v", undone)
			}
		})
	}
}

// What cannot be read is left as it is, and told; the rest is made.
func TestMakeBesideRubbish(t *testing.T) {
	vars := shell{}
	e, corp, root := fixture(t, vars)
	for name, value := range map[string]string{
		"missing":       filepath.Join(filepath.Dir(corp), "missing"),
		"a directory":   filepath.Dir(corp),
		"no PEM":        os.Args[0],
		"no path":       "a\nb",
		"no end":        "/dev/zero",
		"a cut off one": cutOff(t, corp),
		"a key alone":   keyFile(t, ""),
	} {
		t.Run(name, func(t *testing.T) {
			vars["REQUESTS_CA_BUNDLE"] = value
			got, notes, err := e.Make(root)
			if err != nil || len(notes) != 1 || !strings.HasPrefix(notes[0], "REQUESTS_CA_BUNDLE is left as it is: ") || strings.Contains(notes[0], "\n") {
				t.Errorf("notes %q, %v", notes, err)
			}
			if len(got) < 5 || slices.ContainsFunc(got, func(v caenv.Var) bool { return v.Name == "REQUESTS_CA_BUNDLE" }) {
				t.Errorf("made: %v", got)
			}
		})
	}
	t.Run("no list of the system", func(t *testing.T) {
		delete(vars, "REQUESTS_CA_BUNDLE")
		e.System = e.System[:1]
		got, notes, err := e.Make(root)
		if err != nil || len(without(got, "TUNNELD_ENV")) != 2 || len(notes) != 1 {
			t.Errorf("%v, %q, %v", got, notes, err)
		}
	})
}

// A file with a key besides, as some servers have, gives its certificates only.
func TestNoKeyIsCopied(t *testing.T) {
	vars := shell{}
	e, corp, root := fixture(t, vars)
	vars["SSL_CERT_FILE"] = keyFile(t, corp)
	for _, v := range without(made(t, e, root), "TUNNELD_ENV") {
		data, err := os.ReadFile(v.Value)
		if err != nil || strings.Contains(string(data), "PRIVATE") {
			t.Errorf("%s: %v\n%s", v.Name, err, data)
		}
		if info, err := os.Stat(v.Value); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", v.Name, info.Mode(), err)
		}
	}
}

// keyFile is a file with a key, and what is in another one.
func keyFile(t *testing.T, with string) string {
	t.Helper()
	var data []byte
	if with != "" {
		var err error
		if data, err = os.ReadFile(with); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	data = append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}), data...)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func cutOff(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "cut.pem")
	if err := os.WriteFile(path, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRefreshAndRemove(t *testing.T) {
	vars := shell{}
	e, corp, root := fixture(t, vars)
	if e.Present() || e.Refresh(root) != nil {
		t.Error("something is there, or what is not there cannot be refreshed")
	}
	vars["AWS_CA_BUNDLE"] = corp
	written := made(t, e, root)
	store, err := e.Java(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Refresh(certificate(t, "next")); err != nil {
		t.Fatal(err)
	}
	for _, v := range without(written, "TUNNELD_ENV") {
		want := map[string]string{"NODE_EXTRA_CA_CERTS": "next", "DENO_CERT": "next", "AWS_CA_BUNDLE": "next corp"}[v.Name]
		if want == "" {
			want = "next system"
		}
		if got := names(t, v.Value); got != want {
			t.Errorf("%s has %s; want %s", v.Name, got, want)
		}
	}
	// A list that has gone takes its file along, and no other.
	if err := os.Remove(corp); err != nil {
		t.Fatal(err)
	}
	if err := e.Refresh(root); err != nil {
		t.Fatal(err)
	}
	for _, v := range without(written, "TUNNELD_ENV") {
		if _, err := os.Stat(v.Value); (err != nil) != (v.Name == "AWS_CA_BUNDLE") {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
	if !strings.Contains(store.Value, e.Dir) || !e.Present() {
		t.Errorf("%s, present %v", store.Value, e.Present())
	}
	for range 2 {
		if err := e.Remove(); err != nil || e.Present() {
			t.Errorf("%v, present %v", err, e.Present())
		}
	}
}

func TestJavaQuotes(t *testing.T) {
	for dir, want := range map[string]string{
		"/a b": "-Djavax.net.ssl.trustStore='/a b/truststore.p12' ", "/it's": `-Djavax.net.ssl.trustStore="/it's/truststore.p12" `, `/'"`: "",
	} {
		root := certificate(t, "local")
		parent := t.TempDir()
		e, _, _ := fixture(t, shell{})
		e.Dir = parent + dir
		v, err := e.Java(root)
		if (err == nil) != (want != "") || !strings.HasPrefix(strings.Replace(v.Value, parent, "", 1), want) {
			t.Errorf("%s: %q, %v", dir, v.Value, err)
		}
	}
}

func TestJava(t *testing.T) {
	vars := shell{"JAVA_TOOL_OPTIONS": "-Xmx1g '-Dname=a b'"}
	e, _, root := fixture(t, vars)
	made(t, e, root)
	want := "-Xmx1g '-Dname=a b' -Djavax.net.ssl.trustStore=" + e.Dir + "/truststore.p12 -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit"
	for range 2 {
		v, err := e.Java(root)
		if err != nil || v.Value != want {
			t.Fatalf("%v, %v; want %s", v, err, want)
		}
		vars.set(v)
	}
	if undone := e.Unmake(); !slices.Contains(undone, caenv.Var{Name: "JAVA_TOOL_OPTIONS", Value: "-Xmx1g '-Dname=a b'"}) {
		t.Errorf("undone: %v", undone)
	}
	vars["JAVA_TOOL_OPTIONS"] = "-Djavax.net.ssl.trustStore=/corp.jks"
	if _, err := e.Java(root); !errors.Is(err, caenv.ErrOtherStore) {
		t.Errorf("another's trust store: %v", err)
	}

	// Of two certificates of one name both are kept.
	system := e.System[1]
	data, err := os.ReadFile(system)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(t, "system").Raw})...)
	}
	if err := os.WriteFile(system, data, 0o644); err != nil {
		t.Fatal(err)
	}
	delete(vars, "JAVA_TOOL_OPTIONS")
	if _, err := e.Java(root); err != nil {
		t.Fatal(err)
	}
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("no Java to read it")
	}
	out, err := exec.CommandContext(t.Context(), keytool, "-list", "-keystore", filepath.Join(e.Dir, "truststore.p12"), "-storepass", "changeit").CombinedOutput()
	if err != nil || strings.Count(string(out), "trustedCertEntry") != 4 {
		t.Errorf("%v\n%s", err, out)
	}
}
