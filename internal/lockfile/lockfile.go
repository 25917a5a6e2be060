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
// called or the process ends, however it ends. It does not wait.
func Lock(path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
