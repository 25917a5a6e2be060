//go:build unix

package config

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives the file at path the owner and group that info has. That is
// not always allowed, and then the file stays this user's.
func keepOwner(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	mine, err := os.Stat(path)
	if err != nil {
		return err
	}
	own, ok2 := mine.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || st.Uid == own.Uid && st.Gid == own.Gid {
		return nil
	}
	if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// checkDirWritable is for root, who may write anywhere but should not.
func checkDirWritable(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode()&0o200 == 0 {
		return explain(&fs.PathError{Op: "write", Path: dir, Err: fs.ErrPermission}, dir)
	}
	return nil
}

// lockDir waits until no other Edit is at work in dir. Where the directory
// cannot be locked, it does not wait.
func lockDir(dir string) (unlock func()) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	for errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX), syscall.EINTR) {
	}
	return func() { f.Close() } // which unlocks
}

func isReadOnlyFS(err error) bool { return errors.Is(err, syscall.EROFS) }
