package environ

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/tls/caenv"
)

func TestTake(t *testing.T) {
	dir := t.TempDir()
	abs := filepath.Join(dir, "abs")
	list := func(paths ...string) string { return strings.Join(paths, string(filepath.ListSeparator)) }
	tests := []struct {
		name string
		in   string
		want string // the value; empty if it is not taken
		left Reason
	}{
		{name: "a name of the list", in: "LANG=de_DE.UTF-8", want: "de_DE.UTF-8"},
		{name: "a beginning of the list", in: "LC_TIME=C", want: "C"},
		{name: "a beginning alone", in: "LC_=C"},
		{name: "not in the list", in: "PS1=$ "},
		{name: "the loader's", in: "LD_PRELOAD=/tmp/x.so"},
		{name: "HOME is the service manager's", in: "HOME=/root"},
		{name: "where the file itself lies", in: "XDG_STATE_HOME=/elsewhere"},
		{name: "small proxy", in: "https_proxy=http://proxy:3128", want: "http://proxy:3128"},
		{name: "empty", in: "AWS_PROFILE="},
		{name: "no name", in: "=C:=C:\\"},
		{name: "no value", in: "LANG"},
		{name: "a name that no shell has", in: "AWS_A-B=1"},
		{name: "an equals sign in the value", in: "AWS_X=a=b", want: "a=b"},
		{name: "lines in the value", in: "AWS_X=a\nb", want: "a\nb"},
		{name: "not UTF-8", in: "AWS_X=\xff", left: NotText},
		{name: "NUL", in: "AWS_X=a\x00b", left: NotText},
		{name: "just not too long", in: "AWS_X=" + strings.Repeat("x", maxVariable-len("AWS_X")), want: strings.Repeat("x", maxVariable-len("AWS_X"))},
		{name: "too long", in: "AWS_X=" + strings.Repeat("x", maxVariable), left: TooLong},
		{name: "1 MiB", in: "AWS_X=" + strings.Repeat("x", 1<<20), left: TooLong},
		{name: "who", in: "AWS_PROFILE=dev", want: "dev"},
		{name: "a secret key", in: "AWS_SECRET_ACCESS_KEY=x", left: Secret},
		{name: "its id", in: "AWS_ACCESS_KEY_ID=x", left: Secret},
		{name: "a token", in: "AWS_SESSION_TOKEN=x", left: Secret},
		{name: "where a token is", in: "AWS_WEB_IDENTITY_TOKEN_FILE=/run/token", want: "/run/token"},
		{name: "what a session is called", in: "AWS_ROLE_SESSION_NAME=me", want: "me"},
		{name: "a client's secret", in: "AZURE_CLIENT_SECRET=x", left: Secret},
		{name: "a password", in: "OS_PASSWORD=x", left: Secret},
		{name: "a session's token", in: "OP_SESSION_work=x", left: Secret},
		{name: "in small letters", in: "AWS_x_token=x", left: Secret},
		{name: "where credentials are", in: "GOOGLE_APPLICATION_CREDENTIALS=/a.json", want: "/a.json"},
		{name: "a key in the value", in: "GOOGLE_APPLICATION_CREDENTIALS=-----BEGIN PRIVATE KEY-----", left: Secret},
		{name: "where a store is", in: "PASSWORD_STORE_DIR=/store", want: "/store"},
		{name: "a proxy's password", in: "HTTPS_PROXY=http://me:secret@proxy:3128", left: Secret},
		{name: "without a scheme", in: "HTTPS_PROXY=me:secret@proxy:3128", left: Secret},
		{name: "that net/url does not read", in: "HTTPS_PROXY=http://me:sec%ret@proxy:3128", left: Secret},
		{name: "a proxy's user", in: "HTTPS_PROXY=http://me@proxy:3128", want: "http://me@proxy:3128"},
		{name: "an id that ends in a place", in: "AWS_ROLE_ARN=arn:aws:iam::123456789012:role/dev", want: "arn:aws:iam::123456789012:role/dev"},
		{name: "relative kubeconfigs", in: "KUBECONFIG=" + list("a", abs, "", "b/c"), want: list(filepath.Join(dir, "a"), abs, filepath.Join(dir, "b", "c"))},
		{name: "relative programs", in: "PATH=" + list(".", abs, "", "bin"), want: abs},
		{name: "relative programs only", in: "PATH=."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, left := Take([]string{tt.in}, dir)
			name, _, _ := strings.Cut(tt.in, "=")
			want, wantLeft := map[string]string{}, []LeftOut{}
			if tt.want != "" {
				want[name] = tt.want
			}
			if tt.left != "" {
				wantLeft = []LeftOut{{name, tt.left}}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("taken (-want +got):\n%s", d)
			}
			if d := cmp.Diff(wantLeft, left); d != "" {
				t.Errorf("left out (-want +got):\n%s", d)
			}
		})
	}
}

// What "tunnelctl env" has named for a shell is not for the service.
func TestTakeWithoutOurCertificates(t *testing.T) {
	dir := t.TempDir()
	corp := filepath.Join(dir, "corp.pem")
	if err := os.WriteFile(corp, []byte("-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := map[string]string{"REQUESTS_CA_BUNDLE": corp, "AWS_CA_BUNDLE": corp, "LANG": "C"}
	env := &caenv.Env{Dir: filepath.Join(dir, "tunneld", "env"), Getenv: func(name string) string { return before[name] }, System: []string{corp}}
	vars, notes, err := env.Make(&x509.Certificate{Raw: []byte("ours")})
	if err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	environment := []string{"LANG=C", "CURL_CA_BUNDLE=/theirs.pem"}
	for _, v := range vars {
		environment = append(environment, v.Name+"="+v.Value)
	}
	if !slices.ContainsFunc(vars, func(v caenv.Var) bool { return v.Name == "SSL_CERT_FILE" && filepath.Dir(v.Value) == env.Dir }) {
		t.Fatalf("made %v", vars)
	}
	got, _ := Take(environment, dir)
	want := map[string]string{"REQUESTS_CA_BUNDLE": corp, "AWS_CA_BUNDLE": corp, "LANG": "C", "CURL_CA_BUNDLE": "/theirs.pem"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// However much there is, the file and the control API can take it.
func TestTakeBoundsAll(t *testing.T) {
	var environment []string
	for _, name := range []string{"AWS_A", "AWS_B", "AWS_C", "AWS_D", "AWS_E", "LANG"} {
		environment = append(environment, name+"="+strings.Repeat("\x01", 30<<10))
	}
	got, left := Take(environment, "/")
	if len(got) != 4 || len(left) != 2 {
		t.Errorf("%d taken, %d left out", len(got), len(left))
	}
	path := Path(t.TempDir())
	if err := Save(path, Capture{Variables: got}); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, c.Variables); d != "" {
		t.Error("what was saved is not what is loaded")
	}
}

// The table for people has what the program has.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "environment.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range allowed() {
		if !strings.Contains(string(text), g.why) {
			t.Errorf("docs/environment.md does not say: %s", g.why)
		}
		for _, name := range g.names {
			if !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("docs/environment.md does not have `%s`", name)
			}
		}
		for _, prefix := range g.prefixes {
			if !strings.Contains(string(text), "`"+prefix+"*`") {
				t.Errorf("docs/environment.md does not have `%s*`", prefix)
			}
		}
	}
}

func TestProcess(t *testing.T) {
	clear := func(name string) {
		t.Setenv(name, "") // which restores it
		os.Unsetenv(name)
	}
	clear("AWS_PROFILE")
	clear("AWS_REGION")
	t.Setenv("PATH", "/system")
	t.Setenv("LANG", "C")
	steps := []struct {
		name      string
		variables map[string]string
		want      Changes
		env       map[string]string
	}{
		{
			"the first", map[string]string{"PATH": "/mine", "AWS_PROFILE": "dev", "LANG": "C"},
			Changes{Set: []string{"AWS_PROFILE"}, Changed: []string{"PATH"}, Unset: []string{}},
			map[string]string{"PATH": "/mine", "AWS_PROFILE": "dev", "LANG": "C"},
		},
		{
			"the same", map[string]string{"PATH": "/mine", "AWS_PROFILE": "dev", "LANG": "C"},
			Changes{Set: []string{}, Changed: []string{}, Unset: []string{}},
			map[string]string{"PATH": "/mine", "AWS_PROFILE": "dev", "LANG": "C"},
		},
		{
			"others", map[string]string{"PATH": "/other", "AWS_REGION": "x"},
			Changes{Set: []string{"AWS_REGION"}, Changed: []string{"PATH"}, Unset: []string{"AWS_PROFILE"}},
			map[string]string{"PATH": "/other", "AWS_REGION": "x", "LANG": "C"},
		},
		{
			"what the service manager had set comes back", nil,
			Changes{Set: []string{}, Changed: []string{"PATH"}, Unset: []string{"AWS_REGION"}},
			map[string]string{"PATH": "/system", "LANG": "C"},
		},
	}
	var p Process
	for _, tt := range steps {
		got, err := p.Apply(tt.variables)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: changes (-want +got):\n%s", tt.name, d)
		}
		env := make(map[string]string)
		for _, name := range []string{"PATH", "AWS_PROFILE", "AWS_REGION", "LANG"} {
			if value, ok := os.LookupEnv(name); ok {
				env[name] = value
			}
		}
		if d := cmp.Diff(tt.env, env); d != "" {
			t.Errorf("%s: environment (-want +got):\n%s", tt.name, d)
		}
	}
}

func TestSockets(t *testing.T) {
	tests := []struct {
		name, variable, value string
		want                  []Socket
	}{
		{"an agent", "SSH_AUTH_SOCK", "/tmp/agent", []Socket{{"SSH_AUTH_SOCK", "/tmp/agent"}}},
		{"an agent's pipe", "SSH_AUTH_SOCK", "agent", nil},
		{"a bus", "DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/1000/bus", []Socket{{"DBUS_SESSION_BUS_ADDRESS", "/run/user/1000/bus"}}},
		{"with an id", "DBUS_SESSION_BUS_ADDRESS", "unix:guid=0f,path=/run/a%20b", []Socket{{"DBUS_SESSION_BUS_ADDRESS", "/run/a b"}}},
		{"two of them", "DBUS_SESSION_BUS_ADDRESS", "unix:path=/a;unix:path=/b", []Socket{{"DBUS_SESSION_BUS_ADDRESS", "/a"}}},
		{"an abstract one", "DBUS_SESSION_BUS_ADDRESS", "unix:abstract=/tmp/dbus", nil},
		{"TCP", "DBUS_SESSION_BUS_ADDRESS", "tcp:host=localhost,port=1", nil},
		{"nothing", "LANG", "C", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Capture{Variables: map[string]string{tt.variable: tt.value}}.Sockets()
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
