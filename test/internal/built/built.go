// Package built has our programs built for tests that run them.
package built

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Main runs tests with the packages' programs built into a directory, which *dir is
// until they have ended, and returns the exit status.
func Main(m *testing.M, dir *string, packages ...string) int {
	var err error
	if *dir, err = os.MkdirTemp("", "tunneld-bin"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(*dir)
	build := exec.Command("go", append([]string{"build", "-o", *dir + "/"}, packages...)...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}
