//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/setup"
)

// checkParents returns an error if a file of the plan would be in a directory that
// somebody but root can change.
func checkParents(plan []setup.Item) error {
	for _, item := range plan {
		if item.Kind != setup.File {
			continue
		}
		if err := onlyRoots(filepath.Dir(item.Path)); err != nil {
			return withHint(err, "what root runs must be out of others' reach: mend that directory, or install a package where there is one")
		}
	}
	return nil
}

// onlyRoots returns an error if somebody but root can change what is in the directory,
// or exchange it or one above it.
func onlyRoots(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it will be made
		case err != nil:
			return err
		case info.Sys().(*syscall.Stat_t).Uid != 0:
			return fmt.Errorf("directory %s is not root's", dir)
		case info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
			return fmt.Errorf("directory %s may be written by others (mode %v)", dir, info.Mode().Perm())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// rootEnvironment is what a program gets that root runs for the user.
func rootEnvironment(who invoker.User) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + rootHome}
	if who.Sudo {
		env = append(env, "SUDO_UID="+who.UID)
	}
	for _, name := range []string{"LANG", "LC_ALL", "JAVA_HOME"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
