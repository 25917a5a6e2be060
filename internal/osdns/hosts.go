package osdns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/tunneld/tunneld/internal/osdns/hostsfile"
	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// hosts is the rung that works where nothing else does: a hosts file, to which
// each name is written. It has no wildcards.
type hosts struct {
	machine.System
	path string
	// lines are those of the file for the names, and eol ends them.
	lines func([]Name) []string
	eol   string
	// order tells whether those who read the file do so before they ask anybody
	// else, and what was found; nil: they do.
	order func() (why string, ok bool)
	// flush makes the system forget what the file was; nil: it does not remember.
	flush func(context.Context)
}

func (h hosts) name() string { return "hosts" }

func (h hosts) wildcards() bool { return false }

func (h hosts) sharedFiles() []string { return []string{h.Real(h.path)} }

func (h hosts) fits(context.Context, Claim) (string, bool) {
	if h.order == nil {
		return h.path + " works everywhere", true
	}
	return h.order()
}

func (h hosts) apply(ctx context.Context, c Claim) error {
	changed, err := h.edit(func(file []byte) []byte { return hostsfile.Put(file, c.Owner, h.lines(c.Names), h.eol) })
	if changed && h.flush != nil {
		h.flush(ctx)
	}
	return err
}

func (h hosts) remove(ctx context.Context, owner string) error {
	_, err := h.edit(func(file []byte) []byte { return hostsfile.Remove(file, owner) })
	if err == nil && h.flush != nil {
		h.flush(ctx) // though nothing has changed: a crash may have come right before this
	}
	return err
}

// hostsTries is how often a change is made anew because somebody else was faster.
const hostsTries = 10

// edit changes the file, unless the change is none. A nil file is one that is not
// there.
func (h hosts) edit(change func([]byte) []byte) (changed bool, err error) {
	path := h.Real(h.path)
	// What an edit that was cut short has left.
	if err := h.Discard(machine.Temporary(path)); err != nil {
		return false, fmt.Errorf("edit %s: %w", path, err)
	}
	for range hostsTries {
		old, err := h.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			old, err = nil, nil
		}
		if err != nil {
			return false, fmt.Errorf("edit %s: %w", path, err)
		}
		now := change(old)
		switch {
		case bytes.Equal(old, now) && (old == nil) == (now == nil):
			return false, nil
		case now == nil:
			err = h.RemoveFile(path)
		default:
			err = h.SwapFile(path, old, now)
		}
		if errors.Is(err, machine.ErrChanged) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("edit %s: %w", path, err)
		}
		return true, nil
	}
	return false, fmt.Errorf("edit %s: %w", path, machine.ErrChanged)
}

// Lines of a hosts file that are longer, or have more names, are cut off or passed
// over by some of those who read it: old libcs have buffers of 1 KiB, and places
// for 35 aliases.
const (
	maxHostsLine  = 960
	maxHostsNames = 20
)

// hostsLines are the lines of a hosts file for the names: those of each address
// together, both in the order in which they come.
func hostsLines(names []Name) []string {
	var order []netip.Addr
	of := make(map[netip.Addr][]string)
	for _, n := range names {
		for _, a := range n.Addrs {
			if _, ok := of[a]; !ok {
				order = append(order, a)
			}
			of[a] = append(of[a], n.Name)
		}
	}
	var lines []string
	for _, a := range order {
		line, count := a.String(), 0
		for _, name := range of[a] {
			if count == maxHostsNames || count > 0 && len(line)+1+len(name) > maxHostsLine {
				lines = append(lines, line)
				line, count = a.String(), 0
			}
			line += " " + name
			count++
		}
		lines = append(lines, line)
	}
	return lines
}
