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
	vars, err := e.Make(root)
	if err != nil {
		t.Fatal(err)
	}
	return vars
}

func TestMake(t *testing.T) {
	const system = "local system"
	tests := []struct {
		name string
		vars func(corp string) shell
		want map[string]string // what differs from the first
	}{
		{name: "a shell that says nothing", vars: func(string) shell { return shell{} }},
		{
			name: "a list for all",
			vars: func(corp string) shell { return shell{"SSL_CERT_FILE": corp} },
			want: map[string]string{
				"SSL_CERT_FILE": "local corp", "REQUESTS_CA_BUNDLE": "local corp", "CURL_CA_BUNDLE": "local corp", "GIT_SSL_CAINFO": "local corp",
				"AWS_CA_BUNDLE": "local corp", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": "local corp", "CARGO_HTTP_CAINFO": "local corp",
			},
		},
		{
			name: "a list for one",
			vars: func(corp string) shell { return shell{"AWS_CA_BUNDLE": corp} },
			want: map[string]string{"AWS_CA_BUNDLE": "local corp"},
		},
		{
			name: "one more for Node",
			vars: func(corp string) shell { return shell{"NODE_EXTRA_CA_CERTS": corp} },
			want: map[string]string{"NODE_EXTRA_CA_CERTS": "local corp"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vars := shell{}
			e, corp, root := fixture(t, vars)
			before := tt.vars(corp)
			for name, value := range before {
				vars[name] = value
			}
			want := map[string]string{
				"NODE_EXTRA_CA_CERTS": "local", "DENO_CERT": "local",
				"SSL_CERT_FILE": system, "REQUESTS_CA_BUNDLE": system, "CURL_CA_BUNDLE": system, "GIT_SSL_CAINFO": system,
				"AWS_CA_BUNDLE": system, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": system, "CARGO_HTTP_CAINFO": system,
			}
			for name, value := range tt.want {
				want[name] = value
			}
			// The second time in the same shell changes nothing.
			for range 2 {
				got := map[string]string{}
				for _, v := range made(t, e, root) {
					got[v.Name] = names(t, v.Value)
					vars.set(v)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
			}
			undone := e.Unmake()
			vars.set(undone...)
			for _, v := range undone {
				if v.Value != before[v.Name] {
					t.Errorf("%s is %q afterwards; want %q", v.Name, v.Value, before[v.Name])
				}
			}
			if len(undone) != len(want) {
				t.Errorf("undone: %v", undone)
			}
		})
	}
}

func TestMakeWithoutSystemList(t *testing.T) {
	e, _, root := fixture(t, shell{})
	e.System = e.System[:1]
	vars, err := e.Make(root)
	if !errors.Is(err, caenv.ErrNoList) || len(vars) != 2 {
		t.Errorf("%v, %v", vars, err)
	}
}

func TestMakeOfRubbish(t *testing.T) {
	vars := shell{}
	e, corp, root := fixture(t, vars)
	for name, value := range map[string]string{
		"missing":       filepath.Join(filepath.Dir(corp), "missing"),
		"a directory":   filepath.Dir(corp),
		"no PEM":        os.Args[0],
		"no path":       "a\nb",
		"no end":        "/dev/zero",
		"a cut off one": cutOff(t, corp),
	} {
		t.Run(name, func(t *testing.T) {
			vars["SSL_CERT_FILE"] = value
			if got, err := e.Make(root); err == nil {
				t.Errorf("%v", got)
			}
		})
	}
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
	for _, v := range written {
		want := map[string]string{"NODE_EXTRA_CA_CERTS": "next", "DENO_CERT": "next", "AWS_CA_BUNDLE": "next corp"}[v.Name]
		if want == "" {
			want = "next system"
		}
		if got := names(t, v.Value); got != want {
			t.Errorf("%s has %s; want %s", v.Name, got, want)
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

	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("no Java to read it")
	}
	out, err := exec.CommandContext(t.Context(), keytool, "-list", "-keystore", filepath.Join(e.Dir, "truststore.p12"), "-storepass", "changeit").CombinedOutput()
	if err != nil || strings.Count(string(out), "trustedCertEntry") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}
