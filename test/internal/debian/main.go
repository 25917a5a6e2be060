//go:build linux

package debian

import (
	"fmt"
	"os"
	"testing"
)

// Main runs tests that boot machines, as root, with a directory for Options.Programs,
// which *programs is until they have ended and build has filled. It returns the exit
// status.
func Main(m *testing.M, programs *string, build func(dir string) error) int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "booting a container takes root")
		return 2
	}
	dir, err := os.MkdirTemp("", "tunneld-machines")
	if err == nil {
		defer os.RemoveAll(dir)
		*programs = dir
		if err = os.Chmod(dir, 0o755); err == nil { // for all users of a machine
			err = build(dir)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the programs of the machines:", err)
		return 2
	}
	return m.Run()
}
