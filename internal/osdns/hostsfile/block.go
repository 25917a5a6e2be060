// Package hostsfile puts lines of ours into a hosts file, or another file of lines in
// which what follows a "#" is a comment, and takes them out such that the file is what
// it was. It knows bytes only: nothing is read or written.
package hostsfile

import (
	"bytes"
	"fmt"
	"strings"
)

// In a hosts file, each line of ours says whose it is, and only such lines are
// ever taken out: what somebody else has put among them is his, and a block that
// lost its beginning or its end takes nothing along.
//
//	# BEGIN tunneld 1000
//	127.77.31.4 task-api.local task-api.localhost # tunneld 1000
//	# END tunneld 1000
//
// The first line notes, in parentheses, what else has to be taken back: a newline
// that the file's last line did not have, or the file itself. Both are found at the
// block, and not in a receipt, since one file may have blocks of several owners,
// of which any may go first.
const (
	beginPrefix = "# BEGIN tunneld "
	endPrefix   = "# END tunneld "
	markPrefix  = " # tunneld "

	fileNote    = " (file added)"
	newlineNote = " (newline added after byte %d)"
)

// notes are what the first line of a block says beyond its owner.
type notes struct {
	file    bool
	newline int // the size of the file before the newline was added; -1: it was not
}

func (n notes) String() string {
	var s string
	if n.file {
		s += fileNote
	}
	if n.newline >= 0 {
		s += fmt.Sprintf(newlineNote, n.newline)
	}
	return s
}

// Put returns the file with the owner's block made of lines: where it is
// already, or at the end. No lines: no block. A nil file is one that is not there.
// eol ends the lines. file is not changed.
func Put(file []byte, owner string, lines []string, eol string) []byte {
	if len(lines) == 0 {
		return Remove(file, owner)
	}
	rest, at, n := cutBlock(file, owner)
	if at < 0 {
		at, n = len(rest), notes{file: file == nil, newline: -1}
		if at > 0 && rest[at-1] != '\n' {
			n.newline = at
			rest = append(bytes.Clone(rest), eol...)
			at = len(rest)
		}
	}
	var block bytes.Buffer
	block.WriteString(beginPrefix + owner + n.String() + eol)
	for _, line := range lines {
		block.WriteString(line + markPrefix + owner + eol)
	}
	block.WriteString(endPrefix + owner + eol)
	return splice(rest[:at], block.Bytes(), rest[at:])
}

// Remove returns the file without the owner's lines, byte for byte what it was
// if nobody else has written to it meanwhile; nil if it was not there, and nothing
// else is in it. file is not changed.
func Remove(file []byte, owner string) []byte {
	rest, at, n := cutBlock(file, owner)
	switch {
	case at < 0:
		return file
	case len(rest) == 0 && n.file:
		return nil
	case at == len(rest) && n.newline >= 0:
		return rest[:n.newline]
	}
	return inherit(rest, at, n)
}

// inherit notes at the block of another owner, if it begins at that offset, what
// the block before it had to take back.
func inherit(file []byte, at int, n notes) []byte {
	line, after := cutLine(file[at:])
	text, eol := cutEOL(line)
	other, own, ok := parseBegin(text)
	if !ok {
		return file
	}
	n.file = n.file || own.file
	if n.newline < 0 {
		n.newline = own.newline
	}
	return splice(file[:at], []byte(beginPrefix+other+n.String()+eol), after)
}

// cutBlock takes the owner's lines out, and tells where the first of them was
// (-1: there were none) and what it noted.
func cutBlock(file []byte, owner string) (rest []byte, at int, n notes) {
	rest, at, n = make([]byte, 0, len(file)), -1, notes{newline: -1}
	for left := file; len(left) > 0; {
		var line []byte
		line, left = cutLine(left)
		text, eol := cutEOL(line)
		who, noted, begins := parseBegin(text)
		begins = begins && who == owner
		if !begins && !isOurs(text, owner) {
			rest = append(rest, line...)
			continue
		}
		if at < 0 {
			at = len(rest)
		}
		if !begins {
			continue
		}
		n.file = n.file || noted.file
		// Where something was put before the block, the newline is its own.
		if noted.newline >= 0 && noted.newline+len(eol) == at && bytes.HasSuffix(rest, []byte(eol)) {
			n.newline = noted.newline
		}
	}
	if at < 0 {
		return file, at, n
	}
	return rest, at, n
}

// isOurs reports whether a line, but the first one of a block, is the owner's.
func isOurs(text, owner string) bool {
	if strings.HasPrefix(text, "#") {
		return text == endPrefix+owner
	}
	return strings.HasSuffix(text, markPrefix+owner)
}

// parseBegin reads the first line of a block.
func parseBegin(text string) (owner string, n notes, ok bool) {
	n.newline = -1
	rest, ok := strings.CutPrefix(text, beginPrefix)
	if !ok {
		return "", n, false
	}
	owner, _, _ = strings.Cut(rest, " ")
	rest = rest[len(owner):]
	rest, n.file = strings.CutPrefix(rest, fileNote)
	if rest != "" {
		if _, err := fmt.Sscanf(rest, newlineNote, &n.newline); err != nil || n.newline < 0 {
			return "", n, false
		}
	}
	// Only what we would have written ourselves is ours.
	return owner, n, IsOwner(owner) && text == beginPrefix+owner+n.String()
}

// IsOwner reports whether s can own a block: it is decimal digits, and not too many.
func IsOwner(s string) bool {
	return s != "" && len(s) <= 20 && strings.Trim(s, "0123456789") == ""
}

// cutLine cuts after the first newline.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n') + 1
	if i == 0 {
		i = len(b)
	}
	return b[:i], b[i:]
}

// cutEOL cuts a line before what ends it.
func cutEOL(line []byte) (text, eol string) {
	text = strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
	return text, string(line[len(text):])
}

// splice joins slices into one that shares memory with none of them.
func splice(parts ...[]byte) []byte {
	return bytes.Join(parts, nil)
}
