package systemd_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/packaging/systemd"
)

// analyze runs systemd-analyze.
func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze: this system has no systemd")
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	return string(out), err
}

// The daemon is exposed by no more than 3.0 of 10.
func TestDaemonIsConfined(t *testing.T) {
	if out, err := analyze(t, "security", "--offline=true", "--threshold=30", "--no-pager", "tunneld@.service"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// systemd knows all that the units say, but for what is for newer ones.
func TestUnitsAreUnderstood(t *testing.T) {
	files, err := systemd.Units.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		out, err := analyze(t, "verify", f.Name())
		if err != nil {
			t.Errorf("%s: %v\n%s", f.Name(), err, out)
		}
		for line := range strings.Lines(out) {
			newer := strings.Contains(line, "'RestartSteps'") || strings.Contains(line, "'RestartMaxDelaySec'")
			if strings.Contains(line, f.Name()) && !newer {
				t.Error(line)
			}
		}
	}
}

// What runs as root takes no program, and no library, from where the unit's environment
// says: that may be a directory of the user's.
func TestRootHasAnEnvironmentOfItsOwn(t *testing.T) {
	text, err := systemd.Units.ReadFile("tunneld@.service")
	if err != nil {
		t.Fatal(err)
	}
	const bare = "/usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "
	asRoot := 0
	for line := range strings.Lines(string(text)) {
		name, command, _ := strings.Cut(line, "=")
		program := strings.TrimLeft(command, "-@:+!")
		if !strings.HasPrefix(name, "Exec") || !strings.Contains(strings.TrimSuffix(command, program), "+") {
			continue
		}
		asRoot++
		if !strings.HasPrefix(program, bare) {
			t.Errorf("not by %s:\n%s", bare, line)
		}
	}
	if asRoot != 1 {
		t.Errorf("%d commands are root's; want 1", asRoot)
	}
}
