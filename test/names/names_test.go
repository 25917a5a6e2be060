//go:build names

// Package names shows on whole systems that our names resolve for every
// program, that no other name is touched, and that nothing stays behind. Each
// system is a Debian of its own in a container, booted for one test: see "make
// names". It takes root, and Linux.
package names

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tunneld/tunneld/test/internal/debian"
)

// programs is a directory with all programs that run in a machine.
var programs string

// soak says that the tests take their long form.
var soak = os.Getenv("TUNNELD_SOAK") != ""

func TestMain(m *testing.M) { os.Exit(debian.Main(m, &programs, build)) }

// build compiles our programs, those of this directory, and the clients: the
// same look-ups with each libc, and with Go's resolver built both ways. The probe
// asks as libc does.
func build(dir string) error {
	const ours, tests = "github.com/tunneld/tunneld/cmd/", "github.com/tunneld/tunneld/test/names/programs/"
	for _, b := range []struct {
		env  string
		args []string
	}{
		{"CGO_ENABLED=0", []string{"go", "build", "-trimpath", "-o", dir + "/", ours + "..."}},
		{"CGO_ENABLED=0", []string{"go", "build", "-trimpath", "-o", dir + "/", tests + "..."}},
		{"CGO_ENABLED=0", []string{"go", "build", "-trimpath", "-o", filepath.Join(dir, "lookup-go"), tests + "lookup"}},
		{"CGO_ENABLED=1", []string{"go", "build", "-trimpath", "-o", filepath.Join(dir, "lookup-cgo"), tests + "lookup"}},
		{"CGO_ENABLED=1", []string{"go", "build", "-trimpath", "-o", dir + "/", tests + "probe"}},
		{"", []string{"gcc", "-O1", "-Wall", "-Werror", "-o", filepath.Join(dir, "lookup-glibc"), "testdata/lookup.c"}},
		{"", []string{"musl-gcc", "-static", "-O1", "-Wall", "-Werror", "-o", filepath.Join(dir, "lookup-musl"), "testdata/lookup.c"}},
	} {
		cmd := exec.Command(b.args[0], b.args[1:]...)
		cmd.Env = append(os.Environ(), b.env)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
	}
	return nil
}
