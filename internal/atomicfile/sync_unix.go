//go:build unix

package atomicfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isInvalid reports that the file system has no way to sync a directory.
func isInvalid(err error) bool { return errors.Is(err, unix.EINVAL) }
