// Package lockfile keeps a second process from doing what only one may do.
package lockfile

import (
	"errors"
	"fmt"
	"os"
)

// ErrLocked: another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// Lock creates the file at path if need be and locks it until release is
// called or the process ends, however it ends. It does not wait. Who holds the lock may
// remove the file, and then must only release it.
func Lock(path string) (release func(), err error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// Open is Lock for who passes the lock on: a process that is given the file holds it,
// too, and it is free when all have closed it, or have ended.
func Open(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lock(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// A lock on a file that was removed meanwhile keeps out nobody.
		if still(f, path) {
			return f, nil
		}
		f.Close()
	}
}

// still reports whether f is what path names.
func still(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(opened, named)
}
