// Package atomicfile writes files that are either the old one or the new one,
// whatever happens meanwhile.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write puts data into the file at path, which it creates or replaces, with
// the given mode whatever the umask. The data is on disk when it returns. If
// it fails, the old file is untouched and nothing is left beside it.
//
// It replaces what path names: a symbolic link would become a file.
func Write(path string, data []byte, mode fs.FileMode) error {
	return WriteFunc(path, data, mode, nil)
}

// WriteFunc is Write with a last word: ready is called when all is on disk
// under a temporary name, which it may change (its owner, say), and an error
// of it gives up.
func WriteFunc(path string, data []byte, mode fs.FileMode, ready func(temporary string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	temporary := f.Name()
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(f.Close()), os.Remove(temporary))
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if ready != nil {
		if err := ready(temporary); err != nil {
			return err
		}
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	syncDir(filepath.Dir(path))
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// syncDir makes a rename last. It has happened in any case, and not every
// system can do more.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}
