//go:build unix

package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// programDirectories are those of root that programs of the system are in; the last one
// is that of NixOS. $PATH is not asked: it may name places of anybody's.
var programDirectories = [...]string{"/usr/sbin", "/usr/bin", "/sbin", "/bin", "/run/current-system/sw/bin"}

// Find returns the path of a program of the system. The error is exec.ErrNotFound.
func Find(name string) (string, error) {
	for _, dir := range programDirectories {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// cleanEnvironment is what programs get: their messages in English, and programs of
// the system where they start others.
func cleanEnvironment() []string {
	return []string{"LC_ALL=C", "PATH=" + strings.Join(programDirectories[:], ":")}
}

// ownGroup has a program that takes too long killed along with those that it started. It has no
// terminal, so that it does not ask for passwords.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
}
