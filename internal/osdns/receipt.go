package osdns

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/osdns/hostsfile"
	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// A receipt says which rungs may have something in force for an owner. It is on
// disk before they do anything, and its file is named for the owner.
type receipt struct {
	Version int `json:"version"`
	// Rungs are those that have, or may have, something in force.
	Rungs []string `json:"rungs"`
	// Names are those that are claimed.
	Names []string `json:"names,omitempty"`
	// Files are those of others that the rungs write to, as they were before.
	Files []fileBefore `json:"files,omitempty"`

	// all: the receipt could not be read, so every rung may have something.
	all bool
}

// receiptVersion is what is written. A receipt of another version is not read: all
// that is marked as the owner's is what may be in force.
const receiptVersion = 1

type fileBefore struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256,omitempty"` // empty: it was not there
}

// sharesFiles is a rung that writes to files of others.
type sharesFiles interface{ sharedFiles() []string }

func (r *receipt) has(g rung) bool { return r.all || slices.Contains(r.Rungs, g.name()) }

func (l *Ladder) receiptPath(owner string) string {
	return filepath.Join(l.Receipts, owner+receiptExt)
}

const receiptExt = ".json"

// read reads an owner's receipt. What is not there, or cannot be trusted, says that
// every rung may have something in force: to look is cheap.
func (l *Ladder) read(owner string) receipt {
	path := l.receiptPath(owner)
	data, err := l.System.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return receipt{all: true}
	}
	var r receipt
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && r.Version != receiptVersion {
		err = fmt.Errorf("version %d; this program reads %d", r.Version, receiptVersion)
	}
	if err != nil {
		l.log().Warn("a receipt is not read, everything is looked through", "path", path, "err", err)
		return receipt{all: true}
	}
	return r
}

// note adds a rung to the receipt, before it does anything.
func (l *Ladder) note(c Claim, noted *receipt, r rung) error {
	added := receipt{Rungs: slices.Clone(noted.Rungs), Files: slices.Clone(noted.Files)}
	for _, n := range c.Names {
		added.Names = append(added.Names, n.Name)
	}
	if noted.all {
		for _, r := range l.all() {
			added.Rungs = append(added.Rungs, r.name())
		}
	}
	if !slices.Contains(added.Rungs, r.name()) {
		added.Rungs = append(added.Rungs, r.name())
	}
	if s, ok := r.(sharesFiles); ok {
		for _, path := range s.sharedFiles() {
			if !slices.ContainsFunc(added.Files, func(f fileBefore) bool { return f.Path == path }) {
				added.Files = append(added.Files, fileBefore{path, l.sum(path)})
			}
		}
	}
	err := l.write(c.Owner, noted, added)
	if err != nil && slices.Contains(noted.Rungs, r.name()) {
		// On a full disk, what is in force stays so: it can be undone.
		l.log().Warn("names are not noted, and others may claim them", "owner", c.Owner, "err", err)
		return nil
	}
	return err
}

// write replaces the receipt, if it says something else, on disk and then in noted.
func (l *Ladder) write(owner string, noted *receipt, r receipt) error {
	r.Version = receiptVersion
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("note what is done: %w", err)
	}
	data = append(data, '\n')
	old, err := l.System.ReadFile(l.receiptPath(owner))
	if err != nil || string(old) != string(data) {
		if _, err := l.System.ReadDir(l.Receipts); errors.Is(err, fs.ErrNotExist) {
			if err := l.System.MakeDir(l.Receipts); err != nil {
				return fmt.Errorf("note what is done: %w", err)
			}
		}
		if err := l.System.ReplaceFile(l.receiptPath(owner), data); err != nil {
			return fmt.Errorf("note what is done: %w", err)
		}
	}
	*noted = r
	return nil
}

// A TakenError says that names are claimed by another owner, or are below such names.
// What resolves for one user must not lead to another one's programs.
type TakenError struct {
	Names []string // those of the claim that are taken
}

func (e *TakenError) Error() string {
	if n := len(e.Names); n > 1 {
		return fmt.Sprintf("%d of the names are another user's, such as %s", n, e.Names[0])
	}
	return e.Names[0] + " is another user's"
}

// checkTaken returns a *TakenError if names are taken, as others' receipts say.
func (l *Ladder) checkTaken(c Claim) error {
	entries, err := l.System.ReadDir(l.Receipts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for others' names: %w", err)
	}
	others := make(map[string]bool)
	for _, e := range entries {
		owner, ok := strings.CutSuffix(e.Name(), receiptExt)
		if !ok || !hostsfile.IsOwner(owner) || owner == c.Owner {
			continue
		}
		for _, name := range l.read(owner).Names {
			others[name] = true
		}
	}
	var taken []string
	for _, n := range c.Names {
		if others[n.Name] || hasParent(n.Name, others) {
			taken = append(taken, n.Name)
		}
	}
	if taken != nil {
		return &TakenError{taken}
	}
	return nil
}

// discard removes the receipt, and the directory if it is empty and may go: that of
// a service manager may not.
func (l *Ladder) discard(owner string) error {
	path := l.receiptPath(owner)
	for _, path := range []string{path, machine.Temporary(path)} {
		if err := l.System.Discard(path); err != nil {
			return fmt.Errorf("remove the receipt: %w", err)
		}
	}
	_ = l.System.RemoveDir(l.Receipts)
	return nil
}

// compare tells of files that are not what they were: others have written to them
// as well, which is their right.
func (l *Ladder) compare(files []fileBefore) {
	for _, f := range files {
		if now := l.sum(f.Path); now != f.SHA256 {
			l.log().Info("a file was changed by others as well, and keeps that", "path", f.Path, "before", f.SHA256, "now", now)
		}
	}
}

// sum is a file's SHA-256; empty if it cannot be read.
func (l *Ladder) sum(path string) string {
	data, err := l.System.ReadFile(path)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
