//go:build unix

package rootapi

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// ReadPolicy reads the policy in a file, which nobody but root, or the user who
// runs the program, may be able to write.
func ReadPolicy(path string) (*Policy, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold it up
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %w: not a file", path, ErrPolicy)
	case !ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s: %w: it is not root's", path, ErrPolicy)
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("%s: %w: others than its owner may write it (mode %v)", path, ErrPolicy, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, err
	}
	p, err := ParsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}
