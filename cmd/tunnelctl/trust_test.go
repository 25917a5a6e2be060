package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/terminal"
	localtls "github.com/tunneld/tunneld/internal/tls"
)

// serve is a daemon that hands out this root certificate; it returns its socket.
func serve(t *testing.T, root []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := localapi.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := &localapi.Server{
		Status:  func() status.Status { return status.Status{TLS: status.TLS{Dir: "/state"}} },
		RootPEM: func() ([]byte, error) { return root, nil },
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return path
}

// unconstrained is a root that could be used for anything.
func unconstrained(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tunneld local root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// A daemon, or whoever speaks for it, cannot have anything trusted but what is
// constrained.
func TestOnlyAConstrainedRootIsTrusted(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_STATE_HOME", "")
	ca, err := localtls.Load(t.TempDir(), "local")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, err string
		root      []byte
	}{
		{name: "ours", root: ca.RootPEM()},
		{name: "unconstrained", root: unconstrained(t), err: "must not be trusted: it is not constrained to local names"},
		{name: "rubbish", root: []byte("-----BEGIN"), err: "is not in PEM"},
		{name: "no certificate", root: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), err: "read the daemon's root certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			socket := serve(t, tt.root)
			for _, command := range []string{"trust --dry-run --only user", "env"} {
				var stdout, stderr bytes.Buffer
				got := run(t.Context(), append([]string{"--socket", socket}, strings.Fields(command)...), &stdout, &stderr)
				if (got != 0) != (tt.err != "") || !strings.Contains(stderr.String(), tt.err) {
					t.Errorf("%s: exit status %d; want the error %q\n%s%s", command, got, tt.err, &stdout, &stderr)
				}
			}
		})
	}
}

// Nobody is asked where there is no terminal, and then nothing is done.
func TestTrustWithoutTerminal(t *testing.T) {
	trust := &trust{ui: &ui{out: new(bytes.Buffer)}, in: strings.NewReader("y\n")}
	if ok, err := trust.confirmed(t.Context()); ok || err == nil {
		t.Errorf("confirmed: %v, %v", ok, err)
	}
}

func TestQuoting(t *testing.T) {
	values := []string{"/plain", "/with blank", `/it's`, "/$HOME `id` \\ \"x\"", "/two\nlines", `C:\Users\it's`, `/\'`}
	tests := []struct{ shell, program string }{
		{"sh", "sh"},
		{"sh", "bash"},
		{"sh", "zsh"},
		{"fish", "fish"},
		{"powershell", "pwsh"},
	}
	for _, tt := range tests {
		t.Run(tt.program, func(t *testing.T) {
			program, err := exec.LookPath(tt.program)
			if err != nil {
				t.Skipf("there is no %s", tt.program)
			}
			for _, value := range values {
				out, err := exec.CommandContext(t.Context(), program, "-c", "printf %s "+syntaxes[tt.shell].quote(value)).Output()
				if err != nil || string(out) != value {
					t.Errorf("%q arrives as %q, %v", value, out, err)
				}
			}
		})
	}
	// PowerShell doubles the quote, and takes all else as it stands.
	if got := syntaxes["powershell"].quote(`it's $x`); got != `'it''s $x'` {
		t.Errorf("powershell: %s", got)
	}
	if got := syntaxes["fish"].quote(`\'`); got != `'\\\''` {
		t.Errorf("fish: %s", got)
	}
}

// --yes is said before anybody has seen what a CA is good for.
func TestYesCoversLocalNamesOnly(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	ca, err := localtls.Load(t.TempDir(), "dev.example.com")
	if err != nil {
		t.Fatal(err)
	}
	socket := serve(t, ca.RootPEM())
	tests := []struct {
		args string
		want int
	}{
		{"--yes", exitUsage},
		{"--yes --domain example.com", exitUsage},
		{"--yes --domain dev.example.com", exitOK},
		{"--dry-run", exitOK},
		{"--remove --yes", exitOK},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			args := append([]string{"--socket", socket, "trust", "--only", "user"}, strings.Fields(tt.args)...)
			if got := run(t.Context(), args, &stdout, &stderr); got != tt.want {
				t.Errorf("exit status %d, want %d\n%s%s", got, tt.want, &stdout, &stderr)
			}
			if hint := "hint: if that is the domain in your configuration: --domain dev.example.com\n"; tt.want == exitUsage && !strings.HasSuffix(stderr.String(), hint) {
				t.Errorf("%s; want %s", &stderr, hint)
			}
		})
	}
}

// What another process says is shown, and does no more to a terminal.
func TestPrintable(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"text", "tunneld local root düsseldorf 1a2b", "tunneld local root düsseldorf 1a2b"},
		{"escapes", "\x1b[1A\x1b[2Kgood", "�[1A�[2Kgood"},
		{"one byte escape", "\u009b2Kgood", "�2Kgood"},
		{"lines", "a\nb\tc\r", "a b c�"},
		{"from right to left", "a\u202eb", "a�b"},
		{"not UTF-8", "a\xffb", "a�b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := terminal.Printable(tt.text); got != tt.want {
				t.Errorf("%q; want %q", got, tt.want)
			}
			var out bytes.Buffer
			(&ui{out: &out}).table([][]string{{tt.text}})
			if got := strings.TrimRight(out.String(), "\n"); got != tt.want {
				t.Errorf("in a table: %q; want %q", got, tt.want)
			}
		})
	}
}
