package terminal_test

import (
	"testing"

	"github.com/tunneld/tunneld/internal/terminal"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "",
		"Größe 日本":              "Größe 日本",
		"two\nlines\tand a tab": "two lines and a tab",
		"\x1b[2Jgone\r\x07":     "\uFFFD[2Jgone\uFFFD\uFFFD",
		"not \xff UTF-8":        "not \uFFFD UTF-8",
		"right\u202eto left":    "right\uFFFDto left",
	} {
		if got := terminal.Printable(text); got != want {
			t.Errorf("%q is %q; want %q", text, got, want)
		}
	}
}
