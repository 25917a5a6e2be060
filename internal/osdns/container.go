package osdns

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// A container is a directory or a registry key that is everybody's, and that is
// not there before somebody needs it. One that we have made is taken away again
// when nothing is left in it.
type container struct {
	sys  machine.System
	name string // for people
	// note is a file of ours that is there if we have made it. It is written
	// before that: after a crash, an empty one is known to be ours.
	note string
	// list reports how much there is in it; that it is not there is
	// fs.ErrNotExist. remove is asked for only if there is nothing.
	list   func() (int, error)
	make   func() error
	remove func() error
}

// ensure makes it where it is not.
func (c *container) ensure() error {
	_, err := c.list()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := c.sys.ReplaceFile(c.note, []byte(c.name+"\n")); err != nil {
		return err
	}
	err = c.make()
	if errors.Is(err, fs.ErrExist) { // somebody was faster: it is not ours
		return c.sys.RemoveFile(c.note)
	}
	return err
}

// drop takes it away if we have made it and nothing is in it.
func (c *container) drop() error {
	if err := c.sys.Discard(machine.Temporary(c.note)); err != nil {
		return err
	}
	if _, err := c.sys.ReadFile(c.note); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	n, err := c.list()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case n > 0: // whoever leaves last takes it away
		return nil
	default:
		if err := c.remove(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", c.name, err)
		}
	}
	return c.sys.RemoveFile(c.note)
}
