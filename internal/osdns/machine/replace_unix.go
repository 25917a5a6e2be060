//go:build unix

package machine

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func removeFile(path string) error {
	if err := unix.Unlink(path); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return syncDir(filepath.Dir(path))
}

// replaceFile writes a whole file under a temporary name and lets it take the place
// of the one that was there, with all that it had but its content. Where that cannot
// be, the file itself is written to. still is asked right before that whether it
// may happen.
func replaceFile(path string, data []byte, still func() error) error {
	old, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return moveInto(path, data, nil, still)
	}
	if err != nil {
		return err
	}
	defer old.Close()
	var info unix.Stat_t
	if err := unix.Fstat(int(old.Fd()), &info); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if info.Nlink == 1 { // another name of the file would keep the old content
		err := moveInto(path, data, old, still)
		if err == nil || !slices.ContainsFunc(inPlace, func(e error) bool { return errors.Is(err, e) }) {
			return err
		}
	}
	if err := still(); err != nil {
		return err
	}
	return overwrite(path, data)
}

// inPlace are the errors after which a file may still be written to in place: it is
// mounted where it is, as that of a container (EBUSY), its directory is read-only
// and the file is not, or what it has cannot be given to another.
var inPlace = []error{unix.EBUSY, unix.EROFS, unix.EACCES, unix.EPERM, unix.ENOTSUP, unix.EXDEV}

// moveInto is replaceFile by another file; model is the one that it replaces, or nil.
func moveInto(path string, data []byte, model *os.File, still func() error) (err error) {
	temp := Temporary(path)
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // a second time, maybe
			_ = os.Remove(temp)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := likeModel(f, model); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := still(); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// likeModel gives a file the owner, mode and extended attributes of another: among
// these are the security label and the access list. No model: mode 0644.
func likeModel(f, model *os.File) error {
	if model == nil {
		return f.Chmod(0o644)
	}
	fd, from := int(f.Fd()), int(model.Fd())
	var info unix.Stat_t
	if err := unix.Fstat(from, &info); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := f.Chown(int(info.Uid), int(info.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(info.Mode&0o7777)); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	names, err := xattrs(from)
	if err != nil {
		return os.NewSyscallError("flistxattr", err)
	}
	for _, name := range names {
		value, err := grown(func(b []byte) (int, error) { return unix.Fgetxattr(from, name, b) })
		if err != nil {
			return os.NewSyscallError("fgetxattr", err)
		}
		has, err := grown(func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		if err == nil && bytes.Equal(has, value) {
			continue // a label that the directory gives, which we may not even set
		}
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil {
			return os.NewSyscallError("fsetxattr", err)
		}
	}
	return nil
}

// xattrs are the names of a file's extended attributes; none where there are no such
// things.
func xattrs(fd int) ([]string, error) {
	list, err := grown(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.ENOTSUP) || len(list) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00"), nil
}

// grown calls get with a buffer that is large enough.
func grown(get func([]byte) (int, error)) ([]byte, error) {
	for size := 1 << 10; ; size *= 2 {
		b := make([]byte, size)
		n, err := get(b)
		if errors.Is(err, unix.ERANGE) && size < 1<<20 {
			continue
		}
		return b[:max(n, 0)], err
	}
}

// syncDir makes a rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // not every file system can
		return err
	}
	return nil
}
