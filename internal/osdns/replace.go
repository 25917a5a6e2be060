package osdns

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
)

func swapFile(path string, old, data []byte) error {
	return replaceFile(path, data, func() error {
		now, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			now, err = nil, nil
		}
		if err == nil && (!bytes.Equal(now, old) || (now == nil) != (old == nil)) {
			err = errChanged
		}
		return err
	})
}

// overwrite writes to the file itself, and only what is different: what comes before
// that is safe whatever happens.
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
	if _, err := f.WriteAt(data[same:], int64(same)); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}
