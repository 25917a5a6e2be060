package setup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/atomicfile"
)

// receiptVersion is what is written, and the newest that is read.
const receiptVersion = 1

// ErrNewer: a receipt is one of a newer version of this program.
var ErrNewer = errors.New("was installed by a newer version")

// A receipt is what is noted of one user's installation. It is on disk before a
// change is made, and keeps it until it has been taken back.
type receipt struct {
	path    string
	changes []Change
}

type receiptFile struct {
	Version int      `json:"version"`
	Changes []Change `json:"changes"`
}

func (m *Machine) receipt() (*receipt, error) { return readReceipt(m.receiptPath(m.UID)) }

func (m *Machine) receiptPath(uid string) string {
	return filepath.Join(m.Root, m.Receipts, uid+".json")
}

func readReceipt(path string) (*receipt, error) {
	r := &receipt{path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was installed: %w", err)
	}
	if r.changes, err = parseReceipt(data); err != nil {
		return nil, fmt.Errorf("read what was installed: %s: %w", path, err)
	}
	return r, nil
}

// parseReceipt reads a receipt. Only root may write one, so what it says is done.
func parseReceipt(data []byte) ([]Change, error) {
	var file receiptFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.Version > receiptVersion {
		return nil, fmt.Errorf("it %w: version %d; this one reads %d", ErrNewer, file.Version, receiptVersion)
	}
	for _, c := range file.Changes {
		if slices.Contains([]Kind{Directory, File, Link}, c.Kind) && !filepath.IsAbs(c.Path) {
			return nil, fmt.Errorf("%s %q is no absolute path", c.Kind, c.Path)
		}
	}
	return file.Changes, nil
}

func (r *receipt) find(c Change) int { return slices.IndexFunc(r.changes, c.same) }
func (r *receipt) has(c Change) bool { return r.find(c) >= 0 }

func (r *receipt) where(ok func(Change) bool) []Change {
	return slices.DeleteFunc(slices.Clone(r.changes), func(c Change) bool { return !ok(c) })
}

// note writes down that a change is going to be made. What was noted of the same
// thing before may still be there.
func (r *receipt) note(c Change) error {
	if i := r.find(c); i >= 0 {
		old := r.changes[i]
		c.Former = slices.Clone(old.Former)
		if old.SHA256 != c.SHA256 && old.SHA256 != "" {
			c.Former = append(c.Former, old.SHA256)
		}
		c.Missing = old.Missing // what it was like before the first time
		r.changes[i] = c
	} else {
		if c.Kind == File {
			c.Former = []string{""}
		}
		r.changes = append(r.changes, c)
	}
	return r.write()
}

// unsettled reports whether something else was at its place when whatever runs it was
// started last.
func (r *receipt) unsettled(c Change) bool {
	i := r.find(c)
	return i >= 0 && len(r.changes[i].Former) > 0
}

// settled writes down that what was at the place of these changes before is gone, and
// that nothing runs it any more.
func (r *receipt) settled(changes []Change) error {
	changed := false
	for _, c := range changes {
		if r.unsettled(c) {
			r.changes[r.find(c)].Former, changed = nil, true
		}
	}
	if !changed {
		return nil
	}
	return r.write()
}

// forget writes down that a change is no longer there, or no longer ours.
func (r *receipt) forget(c Change) error {
	r.changes = slices.DeleteFunc(r.changes, c.same)
	if len(r.changes) == 0 {
		return r.remove()
	}
	return r.write()
}

func (r *receipt) write() error {
	if err := os.MkdirAll(filepath.Dir(r.path), 0o755); err != nil {
		return fmt.Errorf("note what is installed: %w", err)
	}
	text, err := json.MarshalIndent(receiptFile{receiptVersion, r.changes}, "", "  ")
	if err != nil {
		return fmt.Errorf("note what is installed: %w", err)
	}
	if err := atomicfile.Write(r.path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("note what is installed: %w", err)
	}
	return nil
}

// remove removes a receipt that has nothing left, and the directories that are there
// for receipts only.
func (r *receipt) remove() error {
	if len(r.changes) > 0 {
		return nil
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sweep(r.path)
	dir := filepath.Dir(r.path)
	// Both, if they are empty; the first may be gone with a removal that was killed.
	if err := os.Remove(dir); (err == nil || errors.Is(err, fs.ErrNotExist)) && filepath.Base(filepath.Dir(dir)) == "tunneld" {
		os.Remove(filepath.Dir(dir))
	}
	return nil
}

// Users are those whose installation is noted, by their ids.
func (m *Machine) Users() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(m.Root, m.Receipts))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look who has an installation: %w", err)
	}
	var users []string
	for _, e := range entries {
		if uid, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(uid, ".") {
			users = append(users, uid)
		}
	}
	return users, nil
}

// others are the receipts of other users.
func (m *Machine) others() ([]*receipt, error) {
	users, err := m.Users()
	if err != nil {
		return nil, err
	}
	var all []*receipt
	for _, uid := range users {
		if uid == m.UID {
			continue
		}
		r, err := readReceipt(m.receiptPath(uid))
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// shared reports whether another user's installation has it, too.
func (m *Machine) shared(c Change) (bool, error) {
	others, err := m.others()
	return slices.ContainsFunc(others, func(r *receipt) bool { return r.has(c) }), err
}

// leave leaves a file, link or directory to other users whose installations have it,
// too, and reports whether there are any. What it holds now is theirs from then on.
func (m *Machine) leave(c Change) (shared bool, err error) {
	if c.Kind != File && c.Kind != Link && c.Kind != Directory {
		return false, nil
	}
	others, err := m.others()
	if err != nil {
		return false, err
	}
	for _, r := range others {
		i := r.find(c)
		if i < 0 {
			continue
		}
		shared = true
		theirs := &r.changes[i]
		if c.SHA256 == theirs.SHA256 || slices.Contains(theirs.Former, c.SHA256) {
			continue
		}
		theirs.Former = append(theirs.Former, c.SHA256)
		if err := r.write(); err != nil {
			return shared, err
		}
	}
	return shared, nil
}

// sweep removes what was being written beside path when a process was killed.
func sweep(path string) {
	dir, base := filepath.Split(path)
	left, _ := filepath.Glob(filepath.Join(dir, "."+escape(base)+".*.tmp"))
	for _, file := range left {
		os.Remove(file)
	}
}

// escape is name as a pattern that matches nothing else.
func escape(name string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
}
