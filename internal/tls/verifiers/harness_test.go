package verifiers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/await"
)

// An authority is a CA of a test, made as ours is: the root and an intermediate have
// the same constraints. It has a certificate for 127.0.0.1.
type authority struct {
	file string // the root, as PEM
	cert tls.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{
			Subject:                     pkix.Name{CommonName: name},
			IsCA:                        true,
			BasicConstraintsValid:       true,
			KeyUsage:                    x509.KeyUsageCertSign,
			PermittedDNSDomainsCritical: true,
			PermittedDNSDomains:         []string{"local", "localhost"},
			PermittedIPRanges: []*net.IPNet{
				{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
				{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
			},
		}
	}
	root, intermediate := ca("a root of a test"), ca("an intermediate of a test")
	rootKey, rootDER := certify(t, root, nil, nil)
	intermediateKey, intermediateDER := certify(t, intermediate, root, rootKey)
	leaf := &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	key, der := certify(t, leaf, intermediate, intermediateKey)
	file := filepath.Join(t.TempDir(), "root.pem")
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER})))
	return authority{file, tls.Certificate{Certificate: [][]byte{der, intermediateDER}, PrivateKey: key}}
}

func certify(t *testing.T, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

// patient are limits that no client meets on a busy machine.
var patient = limits{program: 2 * time.Minute, browser: 2 * time.Minute}

// isolated gives a test an environment in which no client trusts or distrusts
// anything but by its defaults, with an empty home, which it returns, and with a proxy
// that does not answer. It fails if anything of a check is left.
func isolated(t *testing.T) (home string) {
	t.Helper()
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		for _, word := range []string{"SSL", "CERT", "CA_BUNDLE", "PROXY", "XDG_", "JAVA", "NODE_", "CURL", "PYTHON"} {
			if strings.Contains(strings.ToUpper(name), word) {
				unset(t, name)
			}
		}
	}
	home = t.TempDir()
	temp, err := os.MkdirTemp("", "check") // a short one: see socketPath
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(temp) })
	t.Setenv("HOME", home)
	t.Setenv("TMPDIR", temp)
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, "http://127.0.0.1:9") // discard, which no system of today has
	}
	t.Setenv("NODE_USE_ENV_PROXY", "1")
	t.Cleanup(func() {
		await.Until(t, "the end of all processes of the check", func() bool { return len(processesIn(temp)) == 0 })
		if left := tree(t, temp); len(left) > 0 {
			t.Errorf("left behind in the directory for temporary files: %v", left)
		}
	})
	return home
}

// processesIn finds the processes whose environment names a directory, but for this
// one and those that it may not look at. Where there is no /proc there are none.
func processesIn(dir string) []string {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	return slices.DeleteFunc(all, func(path string) bool {
		data, err := os.ReadFile(path)
		return err != nil || path == fmt.Sprintf("/proc/%d/environ", os.Getpid()) || !strings.Contains(string(data), dir)
	})
}

func unset(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "") // which has it restored
	os.Unsetenv(name)
}

// tree has the files below a directory, with what is in them.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, _ := filepath.Rel(root, path)
		all[name] = d.Type().String()
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			all[name] += string(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// unchanged fails the test if something below home is changed by what it does from
// now on.
func unchanged(t *testing.T, home string) {
	t.Helper()
	before := tree(t, home)
	t.Cleanup(func() {
		if diff := cmp.Diff(before, tree(t, home)); diff != "" {
			t.Errorf("the home directory has changed (-before +after):\n%s", diff)
		}
	})
}

func check(t *testing.T, c Checker, cert tls.Certificate) map[string]Result {
	t.Helper()
	if c.limits == (limits{}) {
		c.limits = patient
	}
	results, err := c.Check(t.Context(), cert)
	if err != nil {
		t.Fatal(err)
	}
	byClient := make(map[string]Result)
	for _, r := range results {
		t.Logf("%+v", r)
		byClient[r.Client] = r
	}
	return byClient
}

// run runs a program that prepares a test.
func run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// need skips a test for which a program is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}
