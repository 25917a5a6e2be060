package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/windows"
)

// replaceFile writes a whole file under a temporary name and lets it take the place
// of the one that was there, with its access list. Where that cannot be, since
// somebody has the file open, the file itself is written to. still is asked right
// before that whether it may happen.
func replaceFile(path string, data []byte, still func() error) error {
	_, err := os.Stat(path)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err != nil && !isNew {
		return err
	}
	err = moveInto(path, data, isNew, still)
	if err == nil || isNew || !slices.ContainsFunc(inPlace, func(e error) bool { return errors.Is(err, e) }) {
		return err
	}
	if err := still(); err != nil {
		return err
	}
	return overwrite(path, data)
}

// inPlace are the errors after which a file may still be written to in place.
var inPlace = []error{windows.ERROR_ACCESS_DENIED, windows.ERROR_SHARING_VIOLATION}

func moveInto(path string, data []byte, isNew bool, still func() error) (err error) {
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
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if !isNew {
		if err := copyAccess(path, temp); err != nil {
			return err
		}
	}
	if err := still(); err != nil {
		return err
	}
	return os.Rename(temp, path) // replaces what is there
}

// copyAccess gives a file the access list of another. What that has from its
// directory, the new one has already.
func copyAccess(from, to string) error {
	sd, err := windows.GetNamedSecurityInfo(from, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("read the access list of %s: %w", from, err)
	}
	control, _, err := sd.Control()
	if err != nil {
		return fmt.Errorf("read the access list of %s: %w", from, err)
	}
	list, _, err := sd.DACL()
	if err != nil {
		return fmt.Errorf("read the access list of %s: %w", from, err)
	}
	var what windows.SECURITY_INFORMATION = windows.DACL_SECURITY_INFORMATION | windows.UNPROTECTED_DACL_SECURITY_INFORMATION
	if control&windows.SE_DACL_PROTECTED != 0 {
		what = windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION
	}
	if err := windows.SetNamedSecurityInfo(to, windows.SE_FILE_OBJECT, what, nil, nil, list, nil); err != nil {
		return fmt.Errorf("set the access list of %s: %w", to, err)
	}
	return nil
}
