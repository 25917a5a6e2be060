package machine

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

func swapFile(path string, old, data []byte) error {
	return replaceFile(path, data, func() error {
		now, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			now, err = nil, nil
		}
		if err == nil && (!bytes.Equal(now, old) || (now == nil) != (old == nil)) {
			err = ErrChanged
		}
		return err
	})
}

// overwrite writes to the file itself, and only what is different: what comes before
// that is safe whatever happens. If not all of it can be written, as on a full disk,
// what was there is put back, for which there is room.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	same := 0
	for same < min(len(old), len(data)) && old[same] == data[same] {
		same++
	}
	if err := rewrite(f, data, same); err != nil {
		return errors.Join(err, rewrite(f, old, same))
	}
	return f.Close()
}

// rewrite makes data, of which from bytes are there, all that is in the file.
func rewrite(f *os.File, data []byte, from int) error {
	if _, err := f.WriteAt(data[from:], int64(from)); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		return err
	}
	return f.Sync()
}

// Temporary is the name under which a file is written before it takes the place of
// another. It is always the same, so that what a crash has left is found.
func Temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tunneld")
}
