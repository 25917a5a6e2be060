package setup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/tunneld/tunneld/internal/atomicfile"
)

// Sum is a content's SHA-256 as a Change has it.
func Sum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// actor is who makes an item of the user whose receipt it is.
func (m *Machine) actor(i Item, r *receipt) Actor { return m.actorOf(i.Kind, &i, r) }

func (m *Machine) actorOf(k Kind, i *Item, r *receipt) Actor {
	switch k {
	case Directory:
		return directories{m}
	case File:
		return files{m, i, r}
	case Link:
		return links{m}
	}
	if actor := m.Actors[k]; actor != nil {
		return actor
	}
	return unknown{k}
}

// unknown is for kinds that this version, or this machine, knows nothing of.
type unknown struct{ kind Kind }

func (u unknown) Done(context.Context, Change) (bool, error) {
	return false, fmt.Errorf("nothing is known of a %s here", u.kind)
}

func (u unknown) Do(context.Context, Change) (string, error) {
	return "", fmt.Errorf("nothing is known of a %s here", u.kind)
}

func (u unknown) Undo(_ context.Context, c Change) (string, error) {
	return "", fmt.Errorf("nothing is known of a %s here", u.kind)
}

func (m *Machine) at(c Change) string { return filepath.Join(m.Root, c.Path) }

type directories struct{ *Machine }

func (d directories) Done(_ context.Context, c Change) (bool, error) {
	info, err := os.Stat(d.at(c))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && !info.IsDir() {
		err = errors.New("something is in the way that is no directory")
	}
	return err == nil, err
}

func (d directories) Do(_ context.Context, c Change) (string, error) {
	if err := os.Mkdir(d.at(c), fs.FileMode(c.Mode)); err != nil {
		return "", err
	}
	return "", os.Chmod(d.at(c), fs.FileMode(c.Mode)) // whatever the umask
}

func (d directories) Undo(_ context.Context, c Change) (string, error) {
	err := os.Remove(d.at(c))
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTDIR):
		return c.Path + ": there is something of somebody else's in it", nil
	case errors.Is(err, syscall.EBUSY):
		return c.Path + ": something is mounted there", nil
	}
	return "", err
}

// files are replaced only while they are what was written, by this installation or
// another user's.
type files struct {
	*Machine
	item *Item // nil: only to be taken back
	own  *receipt
}

func (f files) read(c Change) (data []byte, there bool, err error) {
	info, err := os.Lstat(f.at(c))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		return nil, true, nil // of ours it is none
	}
	data, err = os.ReadFile(f.at(c))
	return data, true, err
}

func (f files) Done(_ context.Context, c Change) (bool, error) {
	data, there, err := f.read(c)
	if errors.Is(err, fs.ErrPermission) {
		return f.own.has(c), nil // a plan is for all to see, and not all that it is about
	}
	if err != nil || !there {
		return false, err
	}
	if data != nil && Sum(data) == c.SHA256 {
		return f.hasMode(c), nil
	}
	ours, err := f.ours(c, data)
	if err == nil && !ours {
		err = errors.New("there is one already that is not ours")
	}
	return false, err
}

// hasMode is for what a killed installation left, and for who has changed it.
func (f files) hasMode(c Change) bool {
	info, err := os.Lstat(f.at(c))
	return err == nil && uint32(info.Mode().Perm()) == c.Mode
}

// ours reports whether somebody's receipt has a file with this content there.
func (f files) ours(c Change, data []byte) (bool, error) {
	if data == nil {
		return false, nil
	}
	others, err := f.others()
	if err != nil {
		return false, err
	}
	sum := Sum(data)
	return slices.ContainsFunc(append(others, f.own), func(r *receipt) bool {
		i := r.find(c)
		return i >= 0 && (r.changes[i].SHA256 == sum || slices.Contains(r.changes[i].Former, sum))
	}), nil
}

func (f files) Do(_ context.Context, c Change) (string, error) {
	path := f.at(c)
	sweep(path)
	return "", atomicfile.Write(path, f.item.Content, fs.FileMode(c.Mode))
}

func (f files) Undo(_ context.Context, c Change) (string, error) {
	sweep(f.at(c))
	data, there, err := f.read(c)
	if err != nil || !there {
		return "", err
	}
	if data == nil || Sum(data) != c.SHA256 && !slices.Contains(c.Former, Sum(data)) {
		return c.Path + ": it was changed since", nil
	}
	return "", os.Remove(f.at(c))
}

type links struct{ *Machine }

func (l links) Done(_ context.Context, c Change) (bool, error) {
	target, err := os.Readlink(l.at(c))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err == nil && target == c.Target:
		return true, nil
	}
	return false, fmt.Errorf("%s: there is one already that is not ours", c.Path)
}

func (l links) Do(_ context.Context, c Change) (string, error) {
	return "", os.Symlink(c.Target, l.at(c))
}

func (l links) Undo(_ context.Context, c Change) (string, error) {
	target, err := os.Readlink(l.at(c))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil || target != c.Target:
		return c.Path + ": it was changed since", nil
	}
	return "", os.Remove(l.at(c))
}
