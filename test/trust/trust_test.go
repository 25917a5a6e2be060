//go:build trust

// Package trust shows on a whole Debian that what tunnelctl trust says is so: that
// browsers and other clients trust the local CA after it, and for local names only,
// that every store is afterwards what it was, and that nothing goes where it does
// not belong. It changes trust stores, users and sudo's rules, in namespaces of each
// test's own, where the machine's directories are covered: see "make trust". It
// takes root, and Debian.
package trust

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/demo"
)

// programsVariable says where the programs are, once they are built: a test is run
// again in its namespaces.
const programsVariable = "TUNNELD_TEST_PROGRAMS"

func TestMain(m *testing.M) {
	demo.RedirectKlog(nil)
	if os.Getenv(programsVariable) != "" {
		os.Exit(m.Run())
	}
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "trust: namespaces take root")
		os.Exit(2)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if err := complete(); err != nil {
		fmt.Fprintln(os.Stderr, "trust:", err)
		return 2
	}
	dir, err := os.MkdirTemp("", "tunneld-trust")
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "trust:", err)
		return 2
	}
	os.Setenv(programsVariable, dir)
	before, err := ownMachine()
	if err != nil {
		fmt.Fprintln(os.Stderr, "trust:", err)
		return 2
	}
	code := m.Run()
	after, err := ownMachine()
	if err != nil {
		fmt.Fprintln(os.Stderr, "trust:", err)
		return 1
	}
	if diff := differences(before, after); diff != "" {
		fmt.Fprintf(os.Stderr, "trust: the tests have changed this machine:\n%s", diff)
		return 1
	}
	return code
}

// complete says what is missing, so that nothing is passed over in silence.
func complete() error {
	for _, program := range []struct{ path, pkg string }{
		{"/usr/bin/chromium", "chromium"},
		{"/usr/bin/firefox-esr", "firefox-esr"},
		{"/usr/bin/certutil", "libnss3-tools"},
		{"/usr/bin/trust", "p11-kit"},
		{"/usr/bin/sudo", "sudo"},
		{"/usr/bin/curl", "curl"},
		{"/usr/bin/openssl", "openssl"},
		{"/usr/bin/python3", "python3"},
		{"/usr/bin/node", "nodejs"},
		{"/usr/bin/javac", "default-jdk-headless"},
		{"/usr/sbin/update-ca-certificates", "ca-certificates"},
		{"/etc/ca-certificates/update.d/jks-keystore", "ca-certificates-java"},
		{"/usr/sbin/ip", "iproute2"},
	} {
		if _, err := os.Stat(program.path); err != nil {
			return fmt.Errorf("there is no %s: install %s", program.path, program.pkg)
		}
	}
	return nil
}

// build compiles our programs, and clients that a machine does not have.
func build(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil { // for all users
		return err
	}
	for _, args := range [][]string{
		{"go", "build", "-trimpath", "-o", dir + "/", "github.com/tunneld/tunneld/cmd/..."},
		{"go", "build", "-trimpath", "-o", dir + "/", "github.com/tunneld/tunneld/test/trust/programs/..."},
		{"/usr/bin/javac", "-d", dir, "testdata/Fetch.java"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// ownMachine describes what the tests must never change: the trust stores of the
// machine that they run on, its users, and what root has at home.
func ownMachine() (map[string]string, error) {
	found := make(map[string]string)
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	for _, path := range []string{
		"/etc/ssl", "/etc/ca-certificates", "/etc/ca-certificates.conf", "/etc/pki", "/etc/java-17-openjdk/security",
		"/usr/local/share/ca-certificates", "/usr/share/pki", "/usr/share/ca-certificates", "/usr/local/bin",
		"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/sudoers.d",
		"/var/lib/tunneld", "/var/lib/tunneld-trust", "/run/sudo", "/home",
		filepath.Join(home, ".pki"), filepath.Join(home, ".local/share/pki"), filepath.Join(home, ".mozilla"),
		filepath.Join(home, ".config/mozilla"), filepath.Join(home, ".local/state/tunneld"), filepath.Join(home, ".config/tunneld"),
	} {
		if err := describeTree(found, path, ""); err != nil {
			return nil, err
		}
	}
	return found, nil
}
