// Package terminal has what is done to a text of somebody else's before it is printed.
package terminal

import (
	"strings"
	"unicode"
)

// Printable is text that does no more to a terminal than to appear there. Its lines
// become one.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
