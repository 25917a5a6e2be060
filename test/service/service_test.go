//go:build service

// Package service shows what becomes of a machine on which tunneld is installed: that
// it works from then on, after a reboot, a crash and an upgrade, what the daemon and
// its helper may do there, and that nothing stays behind. Each machine is a Debian in
// a container, the cluster is outside of it: see "make service". It takes root, and
// Linux.
package service

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/tunneld/tunneld/test/internal/debian"
)

// programs is a directory with all that a machine is given: our programs as they are
// built, packages, and the programs of the tests.
var programs string

// soak says that the tests take their long form.
var soak = os.Getenv("TUNNELD_SOAK") != ""

// The versions that there are packages of.
const oldVersion, newVersion = "1.0.0", "1.1.0"

func TestMain(m *testing.M) { os.Exit(debian.Main(m, &programs, build)) }

// build compiles our programs and those of the tests, and makes the packages. What
// makes load looks names up as libc does.
func build(dir string) error {
	const module = "github.com/tunneld/tunneld/"
	const ours, own, others = module + "cmd/...", module + "test/service/programs/", module + "test/names/programs/"
	if err := os.Mkdir(filepath.Join(dir, "plain"), 0o755); err != nil {
		return err
	}
	commands := [][]string{
		{"CGO_ENABLED=0", "go", "build", "-trimpath", "-o", filepath.Join(dir, "plain") + "/", ours},
		{"CGO_ENABLED=0", "go", "build", "-trimpath", "-o", dir + "/", others + "abuse", others + "ask", others + "cluster", others + "upstream"},
		{"CGO_ENABLED=1", "go", "build", "-trimpath", "-o", dir + "/", own + "load"},
	}
	for _, version := range []string{oldVersion, newVersion} {
		commands = append(commands, []string{"", "go", "run", "-C", "../../packaging/tools", "./dist", "-root", "../..",
			"-out", filepath.Join(dir, version), "-version", version, "-only", "deb", "-platform", "linux/" + runtime.GOARCH})
	}
	for _, c := range commands {
		cmd := exec.Command(c[1], c[2:]...)
		cmd.Env = append(os.Environ(), c[0])
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
	}
	for _, version := range []string{oldVersion, newVersion} {
		found, err := filepath.Glob(filepath.Join(dir, version, "*.deb"))
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("packages of version %s: %v", version, found)
		}
		if err == nil {
			err = os.Rename(found[0], filepath.Join(dir, "tunneld_"+version+".deb"))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
