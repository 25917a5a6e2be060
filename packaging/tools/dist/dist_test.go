//go:build dist

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/semver"
)

// repository is where all is made from; the tests run in this package's directory.
const repository = "../../.."

const (
	version = "9.8.7-rc.6"
	epoch   = "1795651200" // of the files that are made: 2026-11-26
)

// made has what was made of the working copy, once for all tests.
var made string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		temporary, err := os.MkdirTemp("", "tunneld-distcheck-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(temporary)
		made = filepath.Join(temporary, "dist")
		if err := runDist(temporary, repository, made); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// runDist makes a release of what is in root, for this test's platform only, or
// for all in the long form. The program that does so is put into temporary, if it
// is not there.
func runDist(temporary, root, out string, env ...string) error {
	program := filepath.Join(temporary, "made-by")
	if _, err := os.Stat(program); err != nil {
		if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
			return fmt.Errorf("building: %w\n%s", err, out)
		}
	}
	// umask is the shell's to set.
	cmd := exec.Command("sh", "-c", `umask "${TEST_UMASK:-022}" && exec "$@"`, "sh", program, "-root", root, "-out", out, "-version", version)
	if os.Getenv("TUNNELD_SOAK") == "" {
		cmd.Args = append(cmd.Args, "-platform", "linux/amd64")
	}
	cmd.Env = slices.Concat(os.Environ(), []string{"SOURCE_DATE_EPOCH=" + epoch}, env)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a release: %w\n%s", err, out)
	}
	return nil
}

// TestReproducible makes it all a second time, elsewhere, of the sources without
// their repository, from nothing that was compiled before: what the compiler has
// in its cache would hide that a directory gets into it.
func TestReproducible(t *testing.T) {
	other := filepath.Join(t.TempDir(), "elsewhere", "sources of tunneld")
	listed := printed(t, "git", "-C", repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	for name := range strings.SplitSeq(strings.TrimSuffix(listed, "\x00"), "\x00") {
		if err := copyFile(filepath.Join(other, name), filepath.Join(repository, name)); err != nil {
			t.Fatal(err)
		}
	}
	// Home has a cache of its own; modules are not fetched again.
	home := t.TempDir()
	modules := strings.TrimSpace(printed(t, "go", "env", "GOMODCACHE"))
	again := filepath.Join(t.TempDir(), "again")
	err := runDist(filepath.Dir(made), other, again,
		"TEST_UMASK=077", "TZ=Asia/Kathmandu", "LANG=tr_TR.UTF-8", "HOME="+home, "USER=somebody", "TMPDIR="+t.TempDir(),
		"GOCACHE="+filepath.Join(home, "cache"), "GOMODCACHE="+modules, "GOMAXPROCS=3",
		"GOFLAGS=-tags=other", "GOAMD64=v2", "CGO_ENABLED=1")
	if err != nil {
		t.Fatal(err)
	}
	first, second := read(t, filepath.Join(made, "SHA256SUMS")), read(t, filepath.Join(again, "SHA256SUMS"))
	if len(lines(first)) < 4 || !bytes.Equal(first, second) {
		t.Errorf("not the same bytes; first\n%s\nand then\n%s", first, second)
	}
}

// TestChecksums has the list read by the program that users have.
func TestChecksums(t *testing.T) {
	cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	cmd.Dir = made
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	listed := len(lines(read(t, filepath.Join(made, "SHA256SUMS"))))
	if all, err := os.ReadDir(made); err != nil || len(all) != listed+1 {
		t.Errorf("%d of %d files are listed: %v", listed, len(all), err)
	}
}

// TestPrograms runs what is in the archive.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	printed(t, "tar", "-xzf", one(t, "*_linux_amd64.tar.gz"), "-C", dir, "--strip-components=1")
	for _, program := range []string{"tunneld", "tunnelctl", "tunneld-helper"} {
		got := printed(t, filepath.Join(dir, program), "version")
		if fields := strings.Fields(got); len(fields) < 2 || fields[1] != "v"+version {
			t.Errorf("%s says that it is %q; want v%s", program, got, version)
		}
		binary := read(t, filepath.Join(dir, program))
		here, err := filepath.Abs(repository)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(binary, []byte(here+"/internal")) {
			t.Errorf("%s knows that it was built in %s", program, here)
		}
	}
	for _, name := range []string{"LICENSE", "NOTICES", "README.md", "CHANGELOG.md", "man/tunneld.1", "completions/bash/tunnelctl", "completions/zsh/_tunneld", "completions/fish/tunnelctl.fish"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// TestContents compares what the packages install with what they should.
func TestContents(t *testing.T) {
	want := map[string]string{
		"/usr/bin/tunneld":            "-rwxr-xr-x",
		"/usr/bin/tunnelctl":          "-rwxr-xr-x",
		"/usr/libexec/tunneld-helper": "-rwxr-xr-x",
	}
	for pattern, dir := range map[string]string{
		"packaging/systemd/*@.*": "/usr/lib/systemd/system/",
		"packaging/man/*.1":      "/usr/share/man/man1/",
		"packaging/man/*.8":      "/usr/share/man/man8/",
	} {
		names, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v, %v", pattern, names, err)
		}
		for _, name := range names {
			if strings.Contains(dir, "/man/") {
				name += ".gz"
			}
			want[dir+filepath.Base(name)] = "-rw-r--r--"
		}
	}
	for _, program := range []string{"tunneld", "tunnelctl"} {
		want["/usr/share/bash-completion/completions/"+program] = "-rw-r--r--"
		want["/usr/share/fish/vendor_completions.d/"+program+".fish"] = "-rw-r--r--"
	}
	own := map[string][]string{
		"deb": {"/usr/share/zsh/vendor-completions/_tunneld", "/usr/share/zsh/vendor-completions/_tunnelctl", "/usr/share/lintian/overrides/tunneld",
			"/usr/share/doc/tunneld/copyright", "/usr/share/doc/tunneld/notices.gz", "/usr/share/doc/tunneld/changelog.gz", "/usr/share/doc/tunneld/changelog.Debian.gz"},
		"rpm": {"/usr/share/zsh/site-functions/_tunneld", "/usr/share/zsh/site-functions/_tunnelctl",
			"/usr/share/doc/tunneld/README.md", "/usr/share/doc/tunneld/CHANGELOG.md", "/usr/share/licenses/tunneld/LICENSE", "/usr/share/licenses/tunneld/NOTICES"},
	}
	// Each line is mode, owner, and last the name.
	listings := map[string]string{
		"deb": printed(t, "dpkg-deb", "-c", one(t, "*_amd64.deb")),
		"rpm": printed(t, "rpm", "-qp", "--qf", `[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]`, one(t, "*.x86_64.rpm")),
	}
	for format, listing := range listings {
		t.Run(format, func(t *testing.T) {
			missing := map[string]string{}
			for name, mode := range want {
				missing[name] = mode
			}
			for _, name := range own[format] {
				missing[name] = "-rw-r--r--"
			}
			for line := range strings.Lines(listing) {
				fields := strings.Fields(line)
				mode, owner, name := fields[0], fields[1], strings.TrimPrefix(fields[len(fields)-1], ".")
				if owner != "root/root" {
					t.Errorf("%s is %s's", name, owner)
				}
				if strings.HasPrefix(mode, "d") {
					if mode != "drwxr-xr-x" {
						t.Errorf("%s has the mode %s", name, mode)
					}
					continue
				}
				if wanted, ok := missing[name]; !ok || wanted != mode {
					t.Errorf("%s has the mode %s; want %q (empty: it should not be there)", name, mode, wanted)
				}
				delete(missing, name)
			}
			for name := range missing {
				t.Errorf("%s is missing", name)
			}
		})
	}
}

// TestVersionsInOrder asks dpkg and rpm, to which an upgrade must be one.
func TestVersionsInOrder(t *testing.T) {
	ordered := []string{"v0.0.0-20261126050231-0bc04c4dd7e2", "v0.6.0-rc.1", "v0.6.0", "v0.6.1-0.20261126050231-0bc04c4dd7e2", "v0.6.1-0.20261126050231-0bc04c4dd7e2+dirty", "v0.6.1", "v0.10.0"}
	for i, a := range ordered[:len(ordered)-1] {
		b := ordered[i+1]
		if semver.Compare(a, b) > 0 {
			t.Errorf("Go does not have %s before %s", a, b)
		}
		before, after := release{version: a}.packageVersion()+"-1", release{version: b}.packageVersion()+"-1"
		if out, err := exec.Command("dpkg", "--compare-versions", before, "lt", after).CombinedOutput(); err != nil {
			t.Errorf("dpkg does not have %s before %s: %v %s", before, after, err, out)
		}
		compared := fmt.Sprintf(`%%{lua: print(rpm.vercmp(%q, %q))}`, before, after)
		if got := strings.TrimSpace(printed(t, "rpm", "--eval", compared)); got != "-1" {
			t.Errorf("rpm does not have %s before %s: %s", before, after, got)
		}
	}
}

// TestLintian asks Debian's own judge. What it is told to overlook has a reason,
// in packaging/nfpm/lintian-overrides.
func TestLintian(t *testing.T) {
	out, err := exec.Command("lintian", "--fail-on", "error,warning", "--tag-display-limit", "0", one(t, "*_amd64.deb")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRPM has rpm read the package, and the scripts.
func TestRPM(t *testing.T) {
	file := one(t, "*.x86_64.rpm")
	if got := printed(t, "rpm", "-K", "--nosignature", file); !strings.Contains(got, "digests OK") {
		t.Error(got)
	}
	scripts := printed(t, "rpm", "-qp", "--scripts", file)
	for _, kind := range []string{"postinstall", "preuninstall", "postuninstall"} {
		if !strings.Contains(scripts, kind+" scriptlet (using /bin/sh)") {
			t.Errorf("there is no %s", kind)
		}
	}
	if host := printed(t, "rpm", "-qp", "--qf", "%{BUILDHOST}", file); host != "localhost" {
		t.Errorf("it says that it was made on %q", host)
	}
}

// TestSyntax has the shells, man and Ruby read what is theirs.
func TestSyntax(t *testing.T) {
	dir := t.TempDir()
	printed(t, "tar", "-xzf", one(t, "*_linux_amd64.tar.gz"), "-C", dir, "--strip-components=1")
	for _, check := range []struct {
		pattern string
		program []string
	}{
		{repository + "/packaging/nfpm/p*", []string{"dash", "-n"}},
		{repository + "/packaging/homebrew/*.rb", []string{"ruby", "-c"}},
		{dir + "/completions/bash/*", []string{"bash", "-n"}},
		{dir + "/completions/zsh/*", []string{"zsh", "-n"}},
		{dir + "/completions/fish/*", []string{"fish", "--no-execute"}},
		{dir + "/man/*", []string{"man", "--warnings", "-l", "-Tutf8", "-Z"}},
	} {
		names, err := filepath.Glob(check.pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v, %v", check.pattern, names, err)
		}
		for _, name := range names {
			cmd := exec.Command(check.program[0], append(check.program[1:], name)...)
			cmd.Stdout = io.Discard
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Run(); err != nil || stderr.Len() > 0 {
				t.Errorf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, &stderr)
			}
		}
	}
}

// one is the only file that was made with such a name.
func one(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(made, pattern))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s: %v, %v; want one", pattern, names, err)
	}
	return names[0]
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// printed is what a program prints, which must succeed.
func printed(t *testing.T, program string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, &stderr)
	}
	return string(out)
}
