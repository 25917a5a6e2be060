package config

import (
	"errors"
	"fmt"
	"maps"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The limits are far beyond any real configuration: a thousand forwards take
// less than maxSize. The YAML parser's time grows with the square of some of
// these and its stack with others.
const (
	maxSize    = 256 << 10
	maxLine    = 16 << 10
	maxDepth   = 16  // of brackets
	maxIndent  = 200 // of the first thing in a line
	maxDashes  = 4   // in one line
	maxSibling = 100 // keys of one mapping
)

// A source is a text with its tokens, where they are, and its tree. Offsets
// are into text, which differs from the bytes given in that it has no byte
// order mark and that its lines end in \n.
type source struct {
	given  []byte
	text   string
	starts []int // of the lines, in text
	orig   []int // of the same lines, in given
	// tokens are in the order of the text, comments among them, and spans
	// tells where they are. The positions that the tokens carry are of no use:
	// goccy/go-yaml v1.19.2 does not count tabs, and miscounts after comments
	// and tags.
	tokens token.Tokens
	spans  map[*token.Token]span
	// root is nil if the text says nothing.
	root *ast.MappingNode
}

// A span is a range of offsets, without its end.
type span struct{ start, end int }

// scan reads src as far as the tree. Its errors are of type *Error.
func scan(src []byte) (*source, error) {
	s := &source{given: src}
	if err := s.normalise(); err != nil {
		return nil, err
	}
	s.tokens = lexer.Tokenize(s.text)
	if err := s.locate(); err != nil {
		return nil, err
	}
	if err := s.checkShape(); err != nil {
		return nil, err
	}
	return s, s.parse()
}

// errorf is an error about what is at offset off.
func (s *source) errorf(off int, format string, args ...any) *Error {
	line := s.line(off)
	return &Error{
		Line:   line + 1,
		Column: utf8.RuneCountInString(s.text[s.starts[line]:off]) + 1,
		Msg:    fmt.Sprintf(format, args...),
	}
}

// normalise fills text, starts and orig, and refuses what no YAML text holds.
func (s *source) normalise() error {
	src := s.given
	bom := 0
	if strings.HasPrefix(string(src[:min(3, len(src))]), "\ufeff") {
		bom = 3
	}
	var b strings.Builder
	s.starts, s.orig = []int{0}, []int{bom}
	fail := func(format string, args ...any) error {
		s.text = b.String()
		return s.errorf(len(s.text), format, args...)
	}
	if len(src) > maxSize {
		return fail("the file is larger than %d KiB: it is no configuration", maxSize>>10)
	}
	for i := bom; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return fail("this is not UTF-8 text")
		case r == '\r':
			if i+1 == len(src) || src[i+1] != '\n' {
				return fail("a carriage return stands alone: end lines with a line feed")
			}
			i++
			continue
		case r != '\n' && r != '\t' && unicode.IsControl(r):
			return fail("the control character %U cannot be in a YAML text", r)
		case b.Len()-s.starts[len(s.starts)-1] > maxLine:
			return fail("this line is longer than %d KiB", maxLine>>10)
		}
		b.Write(src[i : i+n])
		i += n
		if r == '\n' {
			s.starts, s.orig = append(s.starts, b.Len()), append(s.orig, i)
		}
	}
	s.text = b.String()
	return nil
}

// locate finds the tokens in the text, one after the other. Nothing but white
// space may be between them: what the lexer drops or changes without a word is
// refused. So is what the format leaves out of YAML.
func (s *source) locate() error {
	s.spans = make(map[*token.Token]span, len(s.tokens))
	at, content := 0, false
	for _, tk := range s.tokens {
		at += len(s.text[at:]) - len(strings.TrimLeft(s.text[at:], " \t\n"))
		if msg := refusal(tk, content); msg != "" {
			return s.errorf(at, "%s", msg)
		}
		n, err := s.length(tk, at)
		if err != nil {
			return err
		}
		s.spans[tk] = span{at, at + n}
		at += n
		content = content || tk.Type != token.CommentType
	}
	if rest := strings.TrimLeft(s.text[at:], " \t\n"); rest != "" {
		return s.errorf(len(s.text)-len(rest), "this is not valid YAML, or a part of it that is not supported here")
	}
	return nil
}

// refusal says why a token cannot be in the file, or "". content tells whether
// there were others than comments before it.
func refusal(tk *token.Token, content bool) string {
	switch tk.Type {
	case token.AnchorType:
		return `an unquoted & starts an anchor, and anchors are not supported here: write the value out, or put text in quotes`
	case token.AliasType:
		return `an unquoted * starts an alias, and aliases are not supported here: put text that starts with * in quotes, or write the value out`
	case token.MergeKeyType:
		return `merge keys (<<) are not supported here: write the values out`
	case token.TagType:
		return `an unquoted ! starts a tag, and tags are not supported here: put text in quotes`
	case token.DirectiveType:
		return `an unquoted % starts a directive, and directives are not supported here: put text in quotes`
	case token.MappingKeyType:
		return `an unquoted ? starts a complex key, and those are not supported here: put text in quotes`
	case token.LiteralType, token.FoldedType:
		return `block text (| and >) is not supported here: write the value on one line`
	case token.DocumentHeaderType:
		if content {
			return "a second document starts here: the file holds one"
		}
	case token.DocumentEndType:
		return "the document ends here: leave this line out, the file holds one document"
	}
	return ""
}

// length is how many bytes of the text the token takes at offset at.
func (s *source) length(tk *token.Token, at int) (int, error) {
	rest := s.text[at:]
	line, _, _ := strings.Cut(rest, "\n")
	switch tk.Type {
	case token.InvalidType:
		if strings.Contains(s.text[s.starts[s.line(at)]:at], "\t") {
			return 0, s.errorf(at, "a tab is in front of this: YAML wants spaces")
		}
		return 0, s.errorf(at, "this is not valid YAML: %s", tk.Error)
	case token.CommentType:
		if strings.HasPrefix(rest, "#") {
			return len(line), nil
		}
	case token.SingleQuoteType, token.DoubleQuoteType:
		return s.quoted(at, line)
	default:
		if strings.HasPrefix(rest, tk.Value) {
			return len(tk.Value), nil
		}
		raw := strings.Trim(tk.Origin, " \t\n")
		if first, next, ok := strings.Cut(raw, "\n"); ok && strings.HasPrefix(rest, first) {
			next = strings.TrimLeft(next, " \t\n")
			if i := strings.Index(rest[len(first):], next); i >= 0 {
				return 0, s.errorf(at+len(first)+i, "this continues the text of a line before, but values are on one line: is the indentation right?")
			}
		}
		if strings.Contains(raw, "\t") {
			return 0, s.errorf(at, "a tab is in this text: put the text in quotes")
		}
	}
	return 0, s.errorf(at, "this is not valid YAML, or a part of it that is not supported here")
}

// quoted is the length of the quoted text at offset at. The lexer reads any
// characters as the digits of an escape, so they are checked here.
func (s *source) quoted(at int, line string) (int, error) {
	for i := 1; line != "" && i < len(line); i++ {
		switch {
		case line[i] == '\\' && line[0] == '"':
			i++
			if i == len(line) {
				break
			}
			digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[line[i]]
			hex := line[i+1 : min(i+1+digits, len(line))]
			if len(hex) < digits || strings.Trim(hex, "0123456789abcdefABCDEF") != "" {
				return 0, s.errorf(at+i-1, `after \%c come %d hexadecimal digits`, line[i], digits)
			}
		case line[i] == line[0] && line[0] == '\'' && i+1 < len(line) && line[i+1] == '\'':
			i++
		case line[i] == line[0]:
			return i + 1, nil
		}
	}
	return 0, s.errorf(at, "this text goes over several lines, but values are on one line: is a quote missing?")
}

// checkShape refuses texts that are far deeper or wider than the format, before
// the parser recurses into them, and what the parser takes though YAML does not.
func (s *source) checkShape() error {
	depth, dashes, colons := 0, 0, 0
	siblings := map[int]int{} // keys so far in the mapping, by their column
	var last place            // of the token before, comments left out
	key := -1                 // the column of the key whose colon was the token before
	for i, tk := range s.tokens {
		if tk.Type == token.CommentType {
			continue
		}
		p := s.place(tk)
		if i == 0 || p.line != last.line {
			dashes = 0
			if err := s.checkIndent(p, depth); err != nil {
				return err
			}
			isKey := i+1 < len(s.tokens) && s.tokens[i+1].Type == token.MappingValueType
			if p.column <= key && !isKey && tk.Type != token.SequenceEntryType {
				return s.errorf(p.off, "if this is the value of the key above, indent it; if it is a key, a colon is missing")
			}
		}
		key = -1
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			colons = 0
			if depth++; depth > maxDepth {
				return s.errorf(p.off, "brackets are nested too deeply")
			}
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.CollectEntryType:
			colons = 0
		case token.SequenceEntryType:
			if dashes++; dashes > maxDashes {
				return s.errorf(p.off, "lists are nested too deeply")
			}
			maps.DeleteFunc(siblings, func(column, _ int) bool { return column > p.column })
		case token.MappingValueType:
			colons++
			switch {
			case depth > 0 && colons > 1:
				return s.errorf(p.off, "this is not valid YAML: a comma is missing before this key, or quotes around a text with a colon")
			case depth > 0:
			case p.line != last.line:
				return s.errorf(p.off, "this is not valid YAML: a colon belongs behind its key")
			case siblings[last.column] == maxSibling:
				return s.errorf(p.off, "this mapping has too many keys")
			default:
				key = last.column
				siblings[key]++
			}
		}
		last = p
	}
	return nil
}

// A place is where a token starts; line and column are counted from 0.
type place struct{ off, line, column int }

func (s *source) place(tk *token.Token) place {
	off := s.spans[tk].start
	line := s.line(off)
	return place{off, line, off - s.starts[line]}
}

// checkIndent looks at the white space before the first token of a line.
func (s *source) checkIndent(p place, depth int) error {
	indent := s.text[p.off-p.column : p.off]
	switch tab := strings.Index(indent, "\t"); {
	case depth > 0:
		return nil
	case tab >= 0:
		return s.errorf(p.off-p.column+tab, "a tab indents this line: YAML wants spaces")
	case p.column > maxIndent:
		return s.errorf(p.off, "this is indented too deeply")
	}
	return nil
}

// parse fills root.
func (s *source) parse() error {
	f, err := parser.Parse(s.tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		// The error's own text shows an excerpt of the source over several lines.
		var syntax interface {
			GetMessage() string
			GetToken() *token.Token
		}
		if !errors.As(err, &syntax) {
			return s.errorf(0, "this is not valid YAML: %v", err)
		}
		return s.errorf(s.spans[syntax.GetToken()].start, "this is not valid YAML: %s", syntax.GetMessage())
	}
	for _, doc := range f.Docs {
		switch body := doc.Body.(type) {
		case nil:
		case *ast.MappingNode:
			if s.root != nil {
				return s.errorf(s.start(body, 0), "a second document starts here: the file holds one")
			}
			s.root = body
		default:
			return s.errorf(s.start(body, 0), "the file must hold keys and values, such as `version: 1`, not %s", kind(body))
		}
	}
	return nil
}

// line is the line, counted from 0, of an offset.
func (s *source) line(off int) int {
	return sort.Search(len(s.starts), func(i int) bool { return s.starts[i] > off }) - 1
}

// start is where a node starts; instead says so for one that is not there, as
// what follows a colon at the end of a line.
func (s *source) start(n ast.Node, instead int) int {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return s.start(n.Values[0].Key, instead)
		}
	case *ast.MappingValueNode:
		return s.start(n.Key, instead)
	}
	if sp, ok := s.spans[n.GetToken()]; ok {
		return sp.start
	}
	return instead
}

// kind names a node for a message.
func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	}
	return "text"
}
