package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

var (
	// ErrNoForward: no forward has that name.
	ErrNoForward = errors.New("no such forward")
	// ErrNameTaken: a forward with that name but other contents is there.
	ErrNameTaken = errors.New("the name is taken by another forward")
	// ErrLayout: the text is valid, but written in a way that this package
	// does not dare to edit.
	ErrLayout = errors.New("the file is laid out in a way that cannot be edited safely: edit it by hand")
)

// Add returns src with f added at the end of its forwards, in the style of the
// text and with nothing else changed. An empty src becomes a small file. If f
// is there already, the result is src.
//
// It fails if src is no configuration ([*Error]), if f is not valid, or with
// [ErrNameTaken].
func Add(src []byte, f Forward) ([]byte, error) {
	s, c, err := scanAndDecode(src)
	if err != nil {
		return nil, err
	}
	if f, err = f.checked(); err != nil {
		return nil, err
	}
	for _, g := range c.Forwards {
		if g.Equal(f) {
			return src, nil
		}
		if g.Name == f.Name {
			return nil, fmt.Errorf("add %q: %w", f.Name, ErrNameTaken)
		}
	}
	e := &editor{source: s}
	if err := e.add(f); err != nil {
		return nil, fmt.Errorf("add %q: %w", f.Name, err)
	}
	c.Forwards = append(c.Forwards, f)
	out, err := e.apply(c)
	if err != nil {
		return nil, fmt.Errorf("add %q: %w", f.Name, err)
	}
	return out, nil
}

// Remove returns src without the forward of that name. What goes with it: its
// lines, comments directly above them (but not above the only one, where they
// may be about the list), comments below them that are indented as its keys
// are, and the blank lines that set it apart. Nothing else changes.
//
// It fails if src is no configuration ([*Error]), or with [ErrNoForward].
func Remove(src []byte, name string) ([]byte, error) {
	s, c, err := scanAndDecode(src)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(c.Forwards, func(f Forward) bool { return f.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("remove %q: %w", name, ErrNoForward)
	}
	e := &editor{source: s}
	if err := e.remove(i); err != nil {
		return nil, fmt.Errorf("remove %q: %w", name, err)
	}
	if c.Forwards = slices.Delete(c.Forwards, i, i+1); len(c.Forwards) == 0 {
		c.Forwards = nil // as it is read
	}
	out, err := e.apply(c)
	if err != nil {
		return nil, fmt.Errorf("remove %q: %w", name, err)
	}
	return out, nil
}

func scanAndDecode(src []byte) (*source, *Config, error) {
	s, err := scan(src)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.decode()
	return s, c, err
}

// An editor collects changes to a text.
type editor struct {
	*source
	splices []splice
}

// A splice replaces a range of the text.
type splice struct {
	span
	text string // lines end in \n
}

func (e *editor) insert(at int, text string) { e.replace(span{at, at}, text) }
func (e *editor) cut(from, to int)           { e.replace(span{from, to}, "") }
func (e *editor) replace(r span, text string) {
	e.splices = append(e.splices, splice{r, text})
}

// insertLines inserts lines below line l.
func (e *editor) insertLines(l int, lines string) {
	if l+1 < len(e.starts) {
		e.insert(e.starts[l+1], lines)
	} else {
		e.insert(len(e.text), "\n"+lines)
	}
}

// cutLines removes the lines from and to and those between.
func (e *editor) cutLines(from, to int) { e.cut(e.starts[from], e.lineEnd(to)) }

// lineEnd is the offset after line l.
func (e *editor) lineEnd(l int) int {
	if l+1 < len(e.starts) {
		return e.starts[l+1]
	}
	return len(e.text)
}

// apply makes the changes in the bytes that were given, and returns the result
// if it is read as want.
func (e *editor) apply(want *Config) ([]byte, error) {
	eol := "\n"
	if i := bytes.IndexByte(e.given, '\n'); i > 0 && e.given[i-1] == '\r' {
		eol = "\r\n"
	}
	// Stable: of two changes at one place, the first made comes first.
	slices.SortStableFunc(e.splices, func(a, b splice) int { return a.start - b.start })
	var out []byte
	done := 0
	for _, sp := range e.splices {
		from, to := e.original(sp.start), e.original(sp.end)
		if from < done {
			return nil, ErrLayout
		}
		out = append(out, e.given[done:from]...)
		out = append(out, strings.ReplaceAll(sp.text, "\n", eol)...)
		done = to
	}
	out = append(out, e.given[done:]...)
	if got, err := Parse(out); err != nil || !reflect.DeepEqual(got, want) {
		return nil, ErrLayout
	}
	return out, nil
}

// original turns an offset in the text into one in the bytes given.
func (e *editor) original(off int) int {
	l := e.line(off)
	return e.orig[l] + off - e.starts[l]
}

// entry is the top-level key for the forwards, or nil.
func (e *editor) entry() *ast.MappingValueNode {
	for _, v := range e.root.Values {
		if v.Key.GetToken().Value == "forwards" {
			return v
		}
	}
	return nil
}

func (e *editor) add(f Forward) error {
	if e.root == nil {
		if strings.TrimSpace(e.text) == "" {
			e.atEnd("# What tunneld forwards. Edit it, or use tunnelctl add and tunnelctl rm.\n")
		}
		e.atEnd("version: 1\nforwards:\n" + f.block("", "- "))
		return nil
	}
	v := e.entry()
	if v == nil {
		if e.root.IsFlowStyle {
			e.addFlow(e.index(e.root.End), e.start(e.root.Values[0], 0), "forwards: ["+f.flow()+"]")
			return nil
		}
		indent := e.indent(e.line(e.start(e.root, 0)))
		e.atEnd(indent + "forwards:\n" + f.block(indent, "- "))
		return nil
	}
	colon, ok := e.spans[v.Start]
	if !ok || e.text[colon.start:colon.end] != ":" {
		return ErrLayout
	}
	switch list := v.Value.(type) {
	case *ast.NullNode:
		null, explicit := e.spans[list.GetToken()]
		switch {
		case explicit && (e.root.IsFlowStyle || e.line(null.start) != e.line(colon.start)):
			e.replace(null, "["+f.flow()+"]")
		case explicit:
			e.cut(colon.end, null.end)
			e.startList(colon, f)
		case e.root.IsFlowStyle:
			e.insert(colon.end, " ["+f.flow()+"]")
		default:
			e.startList(colon, f)
		}
		return nil
	case *ast.SequenceNode:
		if !list.IsFlowStyle {
			return e.addBlock(list, f)
		}
		open, end := e.spans[list.Start], e.spans[list.End]
		if len(list.Values) == 0 && !e.root.IsFlowStyle && e.line(colon.start) == e.line(end.start) {
			e.cut(colon.end, end.end)
			e.startList(colon, f)
			return nil
		}
		first := open.end
		if len(list.Values) > 0 {
			first = e.start(list.Values[0], first)
		}
		e.addFlow(e.index(list.End), first, f.flow())
		return nil
	}
	return ErrLayout
}

// atEnd inserts lines at the end of the text.
func (e *editor) atEnd(lines string) {
	if l := len(e.starts) - 1; e.starts[l] < len(e.text) && len(e.splices) == 0 {
		lines = "\n" + lines
	}
	e.insert(len(e.text), lines)
}

// startList inserts a block list of one below the key whose colon is given, and
// below the comments that introduce the list rather than what follows it.
func (e *editor) startList(colon span, f Forward) {
	key := e.line(colon.start)
	l := key
	for l+1 < len(e.starts) && e.isComment(l+1) {
		l++
	}
	if l+1 < len(e.starts) && !e.isBlank(l+1) {
		l = key
	}
	e.insertLines(l, f.block(e.indent(key), "- "))
}

// addBlock adds to a block list that is not empty.
func (e *editor) addBlock(list *ast.SequenceNode, f Forward) error {
	n := len(list.Entries)
	dash := e.spans[list.Entries[0].Start].start
	indent := e.text[e.starts[e.line(dash)]:dash]
	if strings.Trim(indent, " ") != "" {
		return ErrLayout
	}
	marker := "- "
	if key := e.start(list.Values[0], dash); e.line(key) == e.line(dash) {
		marker = e.text[dash:key]
	}
	lines := f.block(indent, marker)
	if n > 1 && e.isBlank(e.itemTop(list, n-1)-1) {
		lines = "\n" + lines
	}
	e.insertLines(e.itemEnd(list, n-1), lines)
	return nil
}

// addFlow adds an element to the flow collection that ends at the given token,
// in the style of the first element.
func (e *editor) addFlow(end, first int, element string) {
	before := e.before(end)
	prev := e.spans[e.tokens[before]]
	trailing := e.tokens[before].Type == token.CollectEntryType
	empty := e.tokens[before].Type == token.SequenceStartType
	l := e.line(first)
	switch indent := e.indent(l); {
	case empty:
		e.insert(prev.end, element)
	case e.starts[l]+len(indent) != first || e.line(prev.end) == e.line(e.spans[e.tokens[end]].start):
		// Not one element in each line.
		if trailing {
			e.insert(prev.end, " "+element+",")
		} else {
			e.insert(prev.end, ", "+element)
		}
	case trailing:
		e.insertLines(e.line(prev.end), indent+element+",\n")
	default:
		e.insert(prev.end, ",")
		e.insertLines(e.line(prev.end), indent+element+"\n")
	}
}

func (e *editor) remove(i int) error {
	v := e.entry()
	list, ok := v.Value.(*ast.SequenceNode)
	switch {
	case !ok:
		return ErrLayout
	case list.IsFlowStyle:
		return e.removeFlow(list, i)
	}
	top, end := e.itemTop(list, i), e.itemEnd(list, i)
	last := len(list.Entries) - 1
	switch {
	case last == 0:
		e.insert(e.spans[v.Start].end, " []")
		// What is above may introduce the list, and not this item.
		top = e.line(e.spans[list.Entries[0].Start].start)
	case i > 0:
		for floor := e.itemEnd(list, i-1); top-1 > floor && e.isBlank(top-1); {
			top--
		}
	default:
		for floor := e.itemTop(list, 1); end+1 < floor && e.isBlank(end+1); {
			end++
		}
	}
	e.cutLines(top, end)
	return nil
}

// itemTop is the first line of item i of a block list, with the comments
// directly above it.
func (e *editor) itemTop(list *ast.SequenceNode, i int) int {
	floor := 0
	if i > 0 {
		floor = e.itemEnd(list, i-1)
	} else {
		floor = e.line(e.spans[e.entry().Start].start)
	}
	top := e.line(e.spans[list.Entries[i].Start].start)
	for top-1 > floor && e.isComment(top-1) {
		top--
	}
	return top
}

// itemEnd is the last line of item i of a block list, with the comments
// directly below it that are indented deeper than its dash.
func (e *editor) itemEnd(list *ast.SequenceNode, i int) int {
	next := len(e.tokens) // what follows the item
	if i+1 < len(list.Entries) {
		next = e.index(list.Entries[i+1].Start)
	} else if k := slices.Index(e.root.Values, e.entry()); k+1 < len(e.root.Values) {
		next = e.index(e.root.Values[k+1].Key.GetToken())
	}
	end := e.line(e.spans[e.tokens[e.before(next)]].start)
	dash := e.spans[list.Entries[i].Start].start
	column := dash - e.starts[e.line(dash)]
	for end+1 < len(e.starts) && e.isComment(end+1) && len(e.indent(end+1)) > column {
		end++
	}
	return end
}

func (e *editor) removeFlow(list *ast.SequenceNode, i int) error {
	m, ok := list.Values[i].(*ast.MappingNode)
	if !ok || !m.IsFlowStyle {
		return ErrLayout // [name: a], a mapping without braces
	}
	from, to := e.spans[m.Start].start, e.spans[m.End].end
	prev := e.before(e.index(m.Start))
	next := e.after(e.index(m.End))
	if e.tokens[next].Type == token.CollectEntryType {
		comma := e.spans[e.tokens[next]]
		if strings.TrimLeft(e.text[to:comma.start], " \t") != "" {
			e.cut(comma.start, comma.end)
		} else {
			to = comma.end
		}
	} else if e.tokens[prev].Type == token.CollectEntryType {
		comma := e.spans[e.tokens[prev]]
		e.cut(comma.start, comma.end)
	}
	// Where the element has its lines to itself, the lines go. Nothing but a
	// comment may be left in the last one, which is about the element.
	top, end := e.line(from), e.line(to)
	rest := strings.TrimLeft(e.text[to:e.lineEnd(end)], " \t\n")
	if e.starts[top]+len(e.indent(top)) == from && (rest == "" || rest[0] == '#') {
		for top-1 > e.line(e.spans[e.tokens[prev]].start) && e.isComment(top-1) {
			top--
		}
		e.cutLines(top, end)
		return nil
	}
	if i == 0 {
		to += len(e.text[to:]) - len(strings.TrimLeft(e.text[to:], " \t"))
	} else {
		from = len(strings.TrimRight(e.text[:from], " \t"))
	}
	e.cut(from, to)
	return nil
}

// index is where a token is among all.
func (e *editor) index(tk *token.Token) int { return slices.Index(e.tokens, tk) }

// before is the index of the last token before i that is no comment.
func (e *editor) before(i int) int {
	for i--; i > 0 && e.tokens[i].Type == token.CommentType; {
		i--
	}
	return i
}

// after is the index of the first token after i that is no comment.
func (e *editor) after(i int) int {
	for i++; i < len(e.tokens)-1 && e.tokens[i].Type == token.CommentType; {
		i++
	}
	return i
}

// content is what line l holds, without white space around it. No value goes
// over several lines, so a line tells by itself what it is.
func (e *editor) content(l int) string { return strings.TrimSpace(e.text[e.starts[l]:e.lineEnd(l)]) }

func (e *editor) isComment(l int) bool { return strings.HasPrefix(e.content(l), "#") }

func (e *editor) isBlank(l int) bool { return e.content(l) == "" }

// indent is the white space in front of line l.
func (e *editor) indent(l int) string {
	line := e.text[e.starts[l]:e.lineEnd(l)]
	return line[:len(line)-len(strings.TrimLeft(line, " \t"))]
}
