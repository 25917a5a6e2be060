package tls_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	localtls "github.com/tunneld/tunneld/internal/tls"
)

func TestFirstStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "to", "be", "made")
	ca := load(t, dir, "local")
	if ca.Created != "first start" {
		t.Errorf("Created is %q", ca.Created)
	}
	checkWhole(t, dir, "local", ca)

	if runtime.GOOS != "windows" {
		for name, want := range map[string]fs.FileMode{"": 0o700, keyFile: 0o600} {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != want {
				t.Errorf("mode of %q is %#o; want %#o", name, info.Mode().Perm(), want)
			}
		}
	}

	th := steal(t, dir)
	if !th.key.PublicKey.Equal(th.intermediate.PublicKey) || th.key.PublicKey.Equal(th.root.PublicKey) {
		t.Error("the key on disk is not the intermediate's alone")
	}
	onDisk, err := os.ReadFile(filepath.Join(dir, rootFile))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ca.RootPEM(), onDisk) || !ca.Root().Equal(th.root) {
		t.Error("the root on disk is another one")
	}
	if sum := sha256.Sum256(pemFile(t, dir, rootFile)); ca.Fingerprint() != hex.EncodeToString(sum[:]) {
		t.Errorf("Fingerprint is %s", ca.Fingerprint())
	}
	if life := time.Until(ca.NotAfter()); life < 5*365*24*time.Hour-time.Hour || life > 5*366*24*time.Hour {
		t.Errorf("lives %v; want 5 years", life)
	}
	for name, cert := range map[string]*x509.Certificate{"root": th.root, "intermediate": th.intermediate} {
		pathLen := map[string]int{"root": 1, "intermediate": 0}[name]
		if !cert.IsCA || cert.MaxPathLen != pathLen || cert.KeyUsage&x509.KeyUsageDigitalSignature != 0 {
			t.Errorf("%s: CA %v, path length %d, key usage %b", name, cert.IsCA, cert.MaxPathLen, cert.KeyUsage)
		}
		if !cert.PermittedDNSDomainsCritical || !cmp.Equal(cert.PermittedDNSDomains, ca.Permitted()) {
			t.Errorf("%s: permits %v, critical %v", name, cert.PermittedDNSDomains, cert.PermittedDNSDomainsCritical)
		}
		var ranges []string
		for _, r := range cert.PermittedIPRanges {
			ranges = append(ranges, r.String())
		}
		if diff := cmp.Diff([]string{"127.0.0.0/8", "::1/128"}, ranges); diff != "" {
			t.Errorf("%s: IP ranges (-want +got):\n%s", name, diff)
		}
		if cn := cert.Subject.CommonName; !strings.HasPrefix(cn, "tunneld local "+name) || len(cn) > 64 {
			t.Errorf("%s: common name %q", name, cn)
		}
		if cert.SerialNumber.BitLen() < 100 || cert.SerialNumber.Sign() < 0 || cert.SerialNumber.BitLen() >= 160 {
			t.Errorf("%s: serial number %v", name, cert.SerialNumber)
		}
		if cert.PublicKey.(*ecdsa.PublicKey).Curve != elliptic.P256() {
			t.Errorf("%s: not P-256", name)
		}
		// OpenSSL and others find the issuer by these.
		if len(cert.SubjectKeyId) == 0 || name == "intermediate" && !bytes.Equal(cert.AuthorityKeyId, th.root.SubjectKeyId) {
			t.Errorf("%s: key ids %x, %x", name, cert.SubjectKeyId, cert.AuthorityKeyId)
		}
	}
	other := load(t, t.TempDir(), "local").Root()
	if other.Subject.String() == ca.Root().Subject.String() || other.SerialNumber.Cmp(ca.Root().SerialNumber) == 0 {
		t.Errorf("two roots are both %v, number %v and %v", other.Subject, other.SerialNumber, ca.Root().SerialNumber)
	}
}

func TestPermittedDomains(t *testing.T) {
	tests := []struct {
		domain string
		want   []string // besides the usual three
		err    bool
	}{
		{domain: ""},
		{domain: "local"},
		{domain: "Local."},
		{domain: "dev.local"},
		{domain: "test"},
		{domain: "a.b.localhost"},
		{domain: "home.arpa", want: []string{"home.arpa"}},
		{domain: "Dev.Example.COM.", want: []string{"dev.example.com"}},
		{domain: "foo.dev", want: []string{"foo.dev"}},
		{domain: "Dev.", err: true},
		{domain: "co.uk", err: true},
		{domain: "github.io", err: true},
		{domain: "evillocal", want: []string{"evillocal"}},
		{domain: ".", err: false},
		{domain: "..", err: true},
		{domain: ".example.com", err: true},
		{domain: "*.example.com", err: true},
		{domain: "-a.example.com", err: true},
		{domain: "bücher.example", err: true},
		{domain: "a b", err: true},
		{domain: "10.0.0.1", err: true},
		{domain: "::1", err: true},
		{domain: strings.Repeat("a", 64) + ".example", err: true},
		{domain: strings.Repeat("a.", 130) + "example", err: true},
	}
	for _, tt := range tests {
		t.Run(tt.domain, func(t *testing.T) {
			dir := t.TempDir()
			ca, err := localtls.Load(dir, tt.domain)
			if tt.err {
				if err == nil {
					t.Errorf("permits %v; want an error", ca.Permitted())
				}
				if got := keys(t, dir); len(got) != 0 {
					t.Errorf("left a key in %v", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(append([]string{"local", "localhost", "test"}, tt.want...), ca.Permitted()); diff != "" {
				t.Errorf("permitted (-want +got):\n%s", diff)
			}
			checkWhole(t, dir, tt.domain, ca)
		})
	}
}

// TestUnusableIsReplaced damages a CA in every way, and wants another one that
// works in its place, with the reason, and nothing left over.
func TestUnusableIsReplaced(t *testing.T) {
	put := func(t *testing.T, dir, name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	get := func(t *testing.T, dir, name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	without := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, name := range names {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	with := func(name string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) { put(t, dir, name, change(get(t, dir, name))) }
	}
	foreign := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			other := t.TempDir()
			load(t, other, "local")
			for _, name := range names {
				put(t, dir, name, get(t, other, name))
			}
		}
	}
	empty := func([]byte) []byte { return nil }
	half := func(b []byte) []byte { return b[:len(b)/2] }
	twice := func(b []byte) []byte { return append(b, b...) }
	resigned := func(b []byte) []byte { // with another signature
		block, _ := pem.Decode(b)
		block.Bytes[len(block.Bytes)-1] ^= 1
		return pem.EncodeToMemory(block)
	}

	tests := []struct {
		name   string
		domain string // "local" if empty
		damage func(*testing.T, string)
		reason string
	}{
		{name: "crashed before the root", damage: without(keyFile), reason: "ca-key.pem was missing"},
		{name: "crashed before the intermediate", damage: func(t *testing.T, dir string) {
			without(keyFile)(t, dir)
			foreign(rootFile)(t, dir)
		}, reason: "ca-key.pem was missing"},
		{name: "crashed before the key", damage: func(t *testing.T, dir string) {
			without(keyFile)(t, dir)
			foreign(rootFile, intermediateFile)(t, dir)
		}, reason: "ca-key.pem was missing"},
		{name: "crashed while writing the key", damage: func(t *testing.T, dir string) {
			put(t, dir, keyFile+".tmp", get(t, dir, keyFile))
			without(keyFile)(t, dir)
		}, reason: "ca-key.pem was missing"},
		{name: "crashed while writing the first certificate ever", damage: func(t *testing.T, dir string) {
			without(keyFile, intermediateFile, rootFile)(t, dir)
			put(t, dir, rootFile+".tmp", []byte("-----BEG"))
		}, reason: "first start"},
		{name: "crashed before the first intermediate ever", damage: without(keyFile, intermediateFile), reason: "missing"},

		{name: "no root", damage: without(rootFile), reason: "ca.pem was missing"},
		{name: "no intermediate", damage: without(intermediateFile), reason: "ca-intermediate.pem was missing"},
		{name: "only a key", damage: without(rootFile, intermediateFile), reason: "missing"},
		{name: "empty root", damage: with(rootFile, empty), reason: "ca.pem was damaged"},
		{name: "empty intermediate", damage: with(intermediateFile, empty), reason: "ca-intermediate.pem was damaged"},
		{name: "empty key", damage: with(keyFile, empty), reason: "ca-key.pem was damaged"},
		{name: "half a root", damage: with(rootFile, half), reason: "ca.pem was damaged"},
		{name: "half an intermediate", damage: with(intermediateFile, half), reason: "ca-intermediate.pem was damaged"},
		{name: "half a key", damage: with(keyFile, half), reason: "ca-key.pem was damaged"},
		{name: "two roots", damage: with(rootFile, twice), reason: "ca.pem was damaged"},
		{name: "two keys", damage: with(keyFile, twice), reason: "ca-key.pem was damaged"},
		{name: "a forged root", damage: with(rootFile, resigned), reason: "has not signed itself"},
		{name: "a forged intermediate", damage: with(intermediateFile, resigned), reason: "not signed by its root"},
		{name: "a key of another kind", damage: with(keyFile, func([]byte) []byte {
			key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				panic(err)
			}
			der, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				panic(err)
			}
			return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		}), reason: "ca-key.pem was damaged"},
		{name: "a foreign key", damage: foreign(keyFile), reason: "do not belong together"},
		{name: "a foreign intermediate", damage: foreign(intermediateFile), reason: "do not belong together"},
		{name: "a foreign intermediate with its key", damage: foreign(intermediateFile, keyFile), reason: "not signed by its root"},
		{name: "a foreign root", damage: foreign(rootFile), reason: "not signed by its root"},
		{name: "certificates in each other's place", damage: func(t *testing.T, dir string) {
			root, intermediate := get(t, dir, rootFile), get(t, dir, intermediateFile)
			put(t, dir, rootFile, intermediate)
			put(t, dir, intermediateFile, root)
		}, reason: "do not belong together"},
		{name: "without constraints", damage: selfMade(func(*x509.Certificate) {}), reason: "not constrained"},
		{name: "with DNS constraints only", damage: selfMade(func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"local"}
		}), reason: "not constrained"},
		{name: "that permits everything", damage: selfMade(func(c *x509.Certificate) {
			*c = constrainedLike(t, c)
			c.PermittedDNSDomains = append(c.PermittedDNSDomains, "")
		}), reason: "not constrained"},
		{name: "with constraints that need not be understood", damage: selfMade(func(c *x509.Certificate) {
			*c = constrainedLike(t, c)
			c.PermittedDNSDomainsCritical = false
		}), reason: "not constrained"},
		{name: "with a root that may sign more", damage: selfMade(func(c *x509.Certificate) {
			*c = constrainedLike(t, c)
			if c.Subject.CommonName == "root" {
				c.PermittedIPRanges = nil
			}
		}), reason: "not constrained"},
		{name: "with an intermediate that may sign more", damage: selfMade(func(c *x509.Certificate) {
			*c = constrainedLike(t, c)
			if c.Subject.CommonName == "intermediate" {
				c.PermittedDNSDomains = append(c.PermittedDNSDomains, "example")
			}
		}), reason: "not constrained"},
		{name: "expired", damage: expired, reason: "it expired on 2005-01-01"},
		{name: "another domain", domain: "dev.example", damage: without(), reason: "it does not permit the domain dev.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			domain := tt.domain
			if domain == "" {
				domain = "local"
			}
			dir := t.TempDir()
			old := load(t, dir, "local")
			tt.damage(t, dir)
			ca := load(t, dir, domain)
			if !strings.Contains(ca.Created, tt.reason) || ca.Created == "" {
				t.Errorf("Created is %q; want what has %q", ca.Created, tt.reason)
			}
			if ca.Fingerprint() == old.Fingerprint() {
				t.Error("it is the old one")
			}
			checkWhole(t, dir, domain, ca)
			if _, err := ca.Leaf(t.Context(), "task-api."+domain); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("self-made, but like ours", func(t *testing.T) {
		// Shows that the self-made ones above fail for their constraints.
		dir := t.TempDir()
		selfMade(func(c *x509.Certificate) { *c = constrainedLike(t, c) })(t, dir)
		if ca := load(t, dir, "local"); ca.Created != "" {
			t.Errorf("was replaced: %s", ca.Created)
		}
	})
}

// expired makes a CA at the beginning of the year 2000, which is when the
// clock of a bubble starts.
func expired(t *testing.T, dir string) {
	for _, name := range []string{rootFile, intermediateFile, keyFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) { load(t, dir, "local") })
}

// constrainedLike is c with the constraints of ours.
func constrainedLike(t *testing.T, c *x509.Certificate) x509.Certificate {
	ours := load(t, t.TempDir(), "local").Root()
	out := *c
	out.PermittedDNSDomainsCritical = true
	out.PermittedDNSDomains = ours.PermittedDNSDomains
	out.PermittedIPRanges = ours.PermittedIPRanges
	return out
}

// selfMade writes a CA that change has changed the certificates of.
func selfMade(change func(*x509.Certificate)) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		var parent *x509.Certificate
		var parentKey *ecdsa.PrivateKey
		for _, ca := range []struct {
			name, file string
			pathLen    int
		}{{"root", rootFile, 1}, {"intermediate", intermediateFile, 0}} {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
				KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
				MaxPathLen: ca.pathLen, MaxPathLenZero: ca.pathLen == 0,
			}
			template.Subject.CommonName = ca.name
			change(template)
			if parent == nil {
				parent, parentKey = template, key
			}
			der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
			if err != nil {
				t.Fatal(err)
			}
			parent, parentKey = parse(t, der), key
			if err := os.WriteFile(filepath.Join(dir, ca.file), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		der, err := x509.MarshalPKCS8PrivateKey(parentKey)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, keyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUsableIsKept(t *testing.T) {
	t.Run("clock set back", func(t *testing.T) {
		dir := t.TempDir()
		ca := load(t, dir, "local")
		synctest.Test(t, func(t *testing.T) { checkWhole(t, dir, "local", ca) })
	})
	t.Run("domain no longer wanted", func(t *testing.T) {
		dir := t.TempDir()
		ca := load(t, dir, "dev.example")
		checkWhole(t, dir, "local", ca)
		checkWhole(t, dir, "a.dev.example", ca)
	})
	t.Run("left over from a crash", func(t *testing.T) {
		dir := t.TempDir()
		ca := load(t, dir, "local")
		key, err := os.ReadFile(filepath.Join(dir, keyFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, keyFile+".tmp"), key, 0o600); err != nil {
			t.Fatal(err)
		}
		if again := load(t, dir, "local"); again.Created != "" {
			t.Errorf("was replaced: %s", again.Created)
		}
		checkWhole(t, dir, "local", ca)
	})
}

func TestTroubleIsNotAnsweredByReplacing(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, dir string) error
		err  string
	}{
		{"key that others can read", func(_ *testing.T, dir string) error {
			return os.Chmod(filepath.Join(dir, keyFile), 0o640)
		}, "chmod 600"},
		{"key that cannot be read", func(t *testing.T, dir string) error {
			path := filepath.Join(dir, keyFile)
			if err := os.Rename(path, filepath.Join(t.TempDir(), "key")); err != nil {
				return err
			}
			return os.Mkdir(path, 0o700)
		}, keyFile},
		{"root that cannot be read", func(t *testing.T, dir string) error {
			path := filepath.Join(dir, rootFile)
			if err := os.Rename(path, filepath.Join(t.TempDir(), "root")); err != nil {
				return err
			}
			return os.Mkdir(path, 0o700)
		}, rootFile},
		{"directory that is a file", func(_ *testing.T, dir string) error {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			return os.WriteFile(dir, nil, 0o600)
		}, "state directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS == "windows" {
				t.Skip("needs Unix file modes and errors")
			}
			dir := filepath.Join(t.TempDir(), "state")
			ca := load(t, dir, "local")
			if err := tt.make(t, dir); err != nil {
				t.Fatal(err)
			}
			if _, err := localtls.Load(dir, "local"); err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "PRIVATE") {
				t.Fatalf("error is %v; want one with %q", err, tt.err)
			}
			if tt.err == "chmod 600" {
				if err := os.Chmod(filepath.Join(dir, keyFile), 0o600); err != nil {
					t.Fatal(err)
				}
				checkWhole(t, dir, "local", ca)
			}
		})
	}
}

// TestKilledAtAnyTime kills a process that replaces its CA without end.
func TestKilledAtAnyTime(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file that a killed process had open may not be removable at once")
	}
	dir := filepath.Join(t.TempDir(), "state")
	for round := range 15 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + round%4 {
			if !lines.Scan() {
				t.Fatal("the other process ended by itself")
			}
			if line := lines.Text(); !strings.Contains(line, "first start") && !strings.Contains(line, "does not permit") && round == 0 {
				t.Fatalf("the other process says %q", line)
			}
		}
		// It is at any place of its next replacement now.
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // says that it was killed

		if got := keys(t, dir); len(got) > 1 {
			t.Errorf("private keys in %v", got)
		}
		checkWhole(t, dir, "local", load(t, dir, "local"))
	}
}
