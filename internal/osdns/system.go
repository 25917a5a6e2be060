package osdns

import (
	"context"
	"io/fs"
)

// A System is what the rungs do to a machine and see of it: functions, so that a
// test can play any machine, and stop at any step. All that changes something
// goes through here.
type System struct {
	// ReadFile reads a file.
	ReadFile func(path string) ([]byte, error)
	// ReplaceFile writes a whole file such that readers see the old or the new
	// one, and keeps the mode, owner and security label of the one that was
	// there. One that was not gets mode 0644.
	ReplaceFile func(path string, data []byte) error
	// RemoveFile removes a file. That it is not there is fs.ErrNotExist.
	RemoveFile func(path string) error
	// MakeDir makes one directory with mode 0755, and RemoveDir removes it if
	// it is empty.
	MakeDir   func(path string) error
	RemoveDir func(path string) error
	ReadDir   func(path string) ([]fs.DirEntry, error)
	// Run runs a program of the system, found in its own directories whatever
	// $PATH says, and returns its standard output.
	Run func(ctx context.Context, name string, args ...string) ([]byte, error)
}
