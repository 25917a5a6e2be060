package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tunneld/tunneld/internal/atomicfile"
)

// errChanged: somebody else wrote the file between its reading and its
// replacement.
var errChanged = errors.New("the file was changed by another program at the same time: try again")

// Edit replaces the file at path with what change makes of it; change gets nil
// if there is no file, and may be called twice. A path that is a link stays
// one, and the file that it leads to is replaced, which keeps its mode and,
// where that is allowed, its owner. A new file is only for its owner.
//
// The file is replaced at once or, on any error, not at all: if change fails,
// if its result is no configuration, if the file may not be written
// ([fs.ErrPermission]) or is on a read-only file system. What another program
// writes meanwhile is not lost: then change is called once more with that.
// Except on Windows, concurrent Edits of one file wait for each other.
func Edit(path string, change func(src []byte) ([]byte, error)) error {
	err := edit(path, change)
	if errors.Is(err, errChanged) {
		err = edit(path, change)
	}
	if err != nil {
		return fmt.Errorf("edit configuration: %w", withPath(err, path))
	}
	return nil
}

func edit(path string, change func(src []byte) ([]byte, error)) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return explain(err, filepath.Dir(path))
	}
	at, err := follow(path)
	if err != nil {
		return err
	}
	if at.missing != "" {
		return fmt.Errorf("%s is a link to %s, whose directory does not exist", path, at.final)
	}
	defer lockDir(filepath.Dir(at.final))()

	old, info, err := readRegular(at.final)
	if err != nil {
		return err
	}
	src, err := change(bytes.Clone(old))
	if err != nil {
		return err
	}
	if _, err := Parse(src); err != nil {
		// Not wrapped: where it is in the result says nothing about the file.
		return fmt.Errorf("the result would be no configuration: %v", err)
	}
	if info != nil && bytes.Equal(src, old) {
		return nil
	}
	if err := checkWritable(at.final, info); err != nil {
		return err
	}
	return replace(at.final, src, info, func() error {
		again, err := follow(path)
		if err != nil || again.final != at.final {
			return errChanged
		}
		now, nowInfo, err := readRegular(at.final)
		if err != nil {
			return err
		}
		if (nowInfo == nil) != (info == nil) || !bytes.Equal(now, old) {
			return errChanged
		}
		return nil
	})
}

// readRegular reads a file; info is nil if there is none.
func readRegular(path string) (src []byte, info fs.FileInfo, err error) {
	info, err = os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	src, err = readLimited(path)
	return src, info, err
}

// checkWritable refuses what its mode says is not to be written. A rename does
// not ask for the file's mode, and root is not asked for any.
func checkWritable(path string, info fs.FileInfo) error {
	if info != nil && info.Mode()&0o200 == 0 {
		return fmt.Errorf("%s is read-only: allow writing (chmod u+w), or, if another program makes the file, change it there: %w", path, fs.ErrPermission)
	}
	return checkDirWritable(filepath.Dir(path))
}

// replace puts src in the place of the file at path, whose info is nil if there
// is none, unless check, called at the last moment, fails.
func replace(path string, src []byte, info fs.FileInfo, check func() error) error {
	mode := fs.FileMode(0o600)
	if info != nil {
		mode = info.Mode().Perm()
	}
	err := atomicfile.WriteFunc(path, src, mode, func(temporary string) error {
		if info != nil {
			if err := keepOwner(temporary, info); err != nil {
				return err
			}
		}
		return check()
	})
	return explain(err, filepath.Dir(path))
}

// explain says what to do about a directory that cannot be written.
func explain(err error, dir string) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the directory %s is read-only for this user: allow writing (chmod u+w), or, if another program makes it, change the file there: %w", dir, err)
	case isReadOnlyFS(err):
		return fmt.Errorf("the directory %s is on a read-only file system: make it writable, or use a file elsewhere: %w", dir, err)
	}
	return err
}

// A trail is where a path leads.
type trail struct {
	// final has no links in it. It need not exist.
	final string
	// links are those on the way, each with its path and what it says. Their
	// directories have no links in them.
	links []link
	// missing is set if a directory on the way does not exist, or is none; then
	// it is the last that does.
	missing string
}

type link struct{ path, to string }

// follow resolves path, with the links in its directories.
func follow(path string) (trail, error) {
	var t trail
	abs, err := filepath.Abs(path)
	if err != nil {
		return t, err
	}
	split := func(p string) []string { return strings.Split(filepath.ToSlash(p), "/") }
	root := filepath.VolumeName(abs) + string(filepath.Separator)
	at, rest := root, split(abs[len(root):])
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if len(rest) > 0 {
				t.missing = at
			}
			t.final = filepath.Join(next, filepath.Join(rest...))
			return t, nil
		case err != nil:
			return t, err
		case info.IsDir(), info.Mode()&fs.ModeSymlink == 0 && len(rest) == 0:
			at = next
			continue
		case info.Mode()&fs.ModeSymlink == 0:
			t.missing, t.final = at, filepath.Join(next, filepath.Join(rest...))
			return t, nil
		}
		to, err := os.Readlink(next)
		if err != nil {
			return t, err
		}
		if t.links = append(t.links, link{next, to}); len(t.links) > 40 { // as Linux
			return t, fmt.Errorf("%s: too many links, or links in a circle", path)
		}
		if filepath.IsAbs(to) {
			root := filepath.VolumeName(to) + string(filepath.Separator)
			at, rest = root, append(split(to[len(root):]), rest...)
		} else {
			rest = append(split(to), rest...)
		}
	}
	t.final = at
	return t, nil
}
