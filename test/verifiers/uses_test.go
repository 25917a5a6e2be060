//go:build verifiers

package verifiers_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A use is what a certificate may be for, in the words of those who are asked;
// empty: they cannot be asked. (OpenSSL 3.0 has no purpose for code, NSS accepts
// nothing for it, and Java's own signatures of code are of another kind.)
type use struct {
	name                       string
	extended                   x509.ExtKeyUsage
	openssl, gnutls, nss, java string
}

var uses = []use{
	{"a server", x509.ExtKeyUsageServerAuth, "sslserver", "1.3.6.1.5.5.7.3.1", "1", "server"},
	{"a client", x509.ExtKeyUsageClientAuth, "sslclient", "1.3.6.1.5.5.7.3.2", "0", "client"},
	{"mail", x509.ExtKeyUsageEmailProtection, "smimesign", "1.3.6.1.5.5.7.3.4", "4", ""},
	{"code", x509.ExtKeyUsageCodeSigning, "", "1.3.6.1.5.5.7.3.3", "", ""},
}

// useColumns are those who can be asked about uses.
var useColumns = []string{"Go", "OpenSSL", "GnuTLS", "NSS", "Java"}

// A papers is a chain in files: what whoever is asked needs.
type papers struct {
	home, root, leaf, intermediate, chain, nss, java string
}

// TestUses has the stolen key sign for what is no server. The intermediate is for
// servers only, so nobody may accept it but those that holes has.
func TestUses(t *testing.T) {
	for _, table := range []struct {
		name      string
		authority func(*testing.T) *authority
		ours      bool
	}{
		{"uses", func(t *testing.T) *authority { return ours(t, "local") }, true},
		{"unconstrained uses", unconstrained, false},
	} {
		t.Run(table.name, func(t *testing.T) {
			a := table.authority(t)
			got := make(map[cell]said)
			for _, u := range uses {
				p := write(t, a, u)
				for _, column := range useColumns {
					at := cell{u.name, column}
					got[at] = judgeUse(t, column, u, p, a)
					want := accepts
					if table.ours && u.extended != x509.ExtKeyUsageServerAuth && holes[at] == "" {
						want = refuses
					}
					if got[at].verdict != "" && got[at].verdict != want {
						t.Errorf("%s, for %s: %s %s", column, u.name, got[at].verdict, got[at].why)
					}
					t.Logf("%s, for %s: %s %s", column, u.name, got[at].verdict, got[at].why)
				}
			}
			rows := make([][]string, len(uses))
			for i, u := range uses {
				rows[i] = []string{u.name}
			}
			checkTable(t, table.name, markdown([]string{"for"}, rows, useColumns, got, table.ours))
		})
	}
}

// write writes a chain for a use into files, with the stores that trust its root
// for everything.
func write(t *testing.T, a *authority, u use) papers {
	t.Helper()
	template := named("task-api.local")
	template.EmailAddresses = []string{"a@task-api.local"}
	template.ExtKeyUsage = []x509.ExtKeyUsage{u.extended}
	leaf := parse(t, a.stolen(t, template).Certificate[0])
	home := t.TempDir()
	file := func(name string, certs ...*x509.Certificate) string {
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, certPEM(certs...), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p := papers{home: home, root: file("root.pem", a.root), leaf: file("leaf.pem", leaf),
		intermediate: file("intermediate.pem", a.intermediate), chain: file("chain.pem", leaf, a.intermediate)}
	p.nss = nssStore(t, home, p.root, "CT,C,C")
	p.java = javaStore(t, home, p.root)
	run(t, command(t, home, "javac", "-d", home, testdata(t, "Uses.java")))
	return p
}

// judgeUse asks one of useColumns. No answer means that it cannot be asked.
func judgeUse(t *testing.T, column string, u use, p papers, a *authority) said {
	t.Helper()
	var cmd *exec.Cmd
	var refusal int
	switch {
	case column == "Go":
		return goUse(t, u, p, a)
	case column == "OpenSSL" && u.openssl != "":
		cmd, refusal = command(t, p.home, "openssl", "verify", "-purpose", u.openssl, "-no-CApath", "-no-CAstore", "-CAfile", p.root, "-untrusted", p.intermediate, p.leaf), 2
	case column == "GnuTLS":
		cmd, refusal = command(t, p.home, "certtool", "--verify", "--load-ca-certificate", p.root, "--verify-purpose", u.gnutls, "--infile", p.chain), 1
	case column == "NSS" && u.nss != "":
		cmd, refusal = command(t, p.home, "vfychain", "-d", p.nss, "-u", u.nss, "-a", p.leaf, "-a", p.intermediate), 1
	case column == "Java" && u.java != "":
		cmd, refusal = javaWith(t, p.home, p.java, "Uses", u.java, p.chain), 3
	default:
		return said{}
	}
	text, err := cmd.CombinedOutput()
	return exitVerdict(t, cmd, err, string(text), []int{refusal})
}

func goUse(t *testing.T, u use, p papers, a *authority) said {
	t.Helper()
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.root)
	intermediates.AddCert(a.intermediate)
	leaf := parse(t, readPEM(t, p.leaf, "CERTIFICATE"))
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{u.extended}}); err != nil {
		return said{refuses, strings.TrimSpace(fmt.Sprint(err))}
	}
	return said{verdict: accepts}
}
