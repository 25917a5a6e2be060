//go:build unix

package truststore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mayAct returns why this process must not act in the scope; nil if it may. What is below
// a home is for its owner alone: root would leave files there that are not theirs, and
// follow links of theirs.
func (s *Stores) mayAct() error {
	euid := os.Geteuid()
	if s.Scope == Machine {
		if euid != 0 {
			return &blockedError{"it takes root", ""}
		}
		return nil
	}
	info, err := os.Stat(s.Home)
	if err != nil {
		return &blockedError{fmt.Sprintf("the home directory cannot be looked at: %v", err), ""}
	}
	if uid := owner(info); uid != euid {
		return &blockedError{fmt.Sprintf("%s belongs to another user", s.Home), "run this as its owner, without sudo"}
	}
	return nil
}

// owner is the user id of a file's owner.
func owner(info os.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// onlyRoots returns a *blockedError unless root alone decides what a path is: another user who can
// could have root write elsewhere, or run something else. A group is root's to choose.
func onlyRoots(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for p := real; ; p = filepath.Dir(p) {
		info, err := os.Lstat(p)
		if err != nil {
			return err
		}
		if !rootsAlone(info) {
			return notRoots(p)
		}
		if p == "/" {
			return nil
		}
	}
}

// onlyRootsBelow is onlyRoots for a directory and all that is in it.
func onlyRootsBelow(dir string) error {
	if err := onlyRoots(dir); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Type() == fs.ModeSymlink {
			if err := onlyRoots(path); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil // it leads nowhere
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !rootsAlone(info) {
			return notRoots(path)
		}
		return nil
	})
}

func rootsAlone(info fs.FileInfo) bool {
	return owner(info) == 0 && (info.Mode().Perm()&0o002 == 0 || info.Mode()&fs.ModeSticky != 0)
}

func notRoots(path string) error {
	return &blockedError{path + " can be changed by others than root", "give it to root, with a mode of 0755"}
}

// writable returns a *blockedError if this process may not write to a file.
func writable(path string) error {
	switch err := unix.Access(path, unix.W_OK); {
	case errors.Is(err, unix.EROFS):
		return &blockedError{path + " is on a file system that is read-only", ""}
	case errors.Is(err, unix.EACCES):
		return &blockedError{"you may not write to " + path, "give it to yourself, if it is yours: sudo chown $USER '" + path + "'"}
	case err != nil:
		return &fs.PathError{Op: "access", Path: path, Err: err}
	}
	return nil
}

func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
