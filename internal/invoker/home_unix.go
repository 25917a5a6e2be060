//go:build unix

package invoker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// CheckHome returns an error if the home directory is another user's than the one
// that this program runs as, as with "su -m": root would leave files there, and follow
// links of theirs.
func (u User) CheckHome() error {
	info, err := os.Stat(u.Home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the home directory: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("the home directory %s belongs to another user", u.Home)
	}
	return nil
}
