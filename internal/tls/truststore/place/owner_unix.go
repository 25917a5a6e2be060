//go:build unix

package place

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Owner is the user id of a file's owner.
func Owner(info os.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// OnlyRoots returns a *BlockedError unless root alone decides what a path is: another user who can
// could have root write elsewhere, or run something else. A group is root's to choose.
func OnlyRoots(path string) error {
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

// OnlyRootsBelow is OnlyRoots for a directory and all that is in it.
func OnlyRootsBelow(dir string) error {
	if err := OnlyRoots(dir); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Type() == fs.ModeSymlink {
			if err := OnlyRoots(path); !errors.Is(err, fs.ErrNotExist) {
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
	return Owner(info) == 0 && (info.Mode().Perm()&0o002 == 0 || info.Mode()&fs.ModeSticky != 0)
}

func notRoots(path string) error {
	return Blocked(path+" can be changed by others than root", "give it to root, with a mode of 0755")
}

// Writable returns a *BlockedError if this process may not write to a file.
func Writable(path string) error {
	switch err := unix.Access(path, unix.W_OK); {
	case errors.Is(err, unix.EROFS):
		return Blocked(path+" is on a file system that is read-only", "")
	case errors.Is(err, unix.EACCES):
		return Blocked("you may not write to "+path, "give it to yourself, if it is yours: sudo chown $USER '"+path+"'")
	case err != nil:
		return &fs.PathError{Op: "access", Path: path, Err: err}
	}
	return nil
}

// GlobQuote is a pattern of filepath.Glob for that very path.
func GlobQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
