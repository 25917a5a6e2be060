//go:build unix

package localapi

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// hasModes says that a directory's mode means something.
const hasModes = true

func isReparse(fs.FileInfo) bool { return false }

// ownedByUs reports whether the path, or else the directory that it would be
// in, belongs to this user.
func ownedByUs(path string) bool {
	info, err := os.Lstat(path)
	if err != nil {
		if info, err = os.Stat(filepath.Dir(path)); err != nil {
			return false
		}
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
