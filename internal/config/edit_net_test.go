package config

import (
	"errors"
	"testing"
)

// Whatever an editor does to a text, the result is only given out if it means
// what was wanted.
func TestEditorApply(t *testing.T) {
	const src = "version: 1\nhold: 5s\n"
	tests := []struct {
		name string
		do   func(*editor)
		ok   bool
	}{
		{"as wanted", func(e *editor) { e.insert(0, "# c\n") }, true},
		{"another meaning", func(e *editor) { e.replace(span{17, 18}, "6") }, false},
		{"none", func(e *editor) { e.cut(0, 3) }, false},
		{"changes over each other", func(e *editor) { e.cut(0, 11); e.insert(5, "# c\n") }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, want, err := scanAndDecode([]byte(src))
			if err != nil {
				t.Fatal(err)
			}
			e := &editor{source: s}
			tt.do(e)
			if out, err := e.apply(want); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrLayout) {
				t.Errorf("got %q, %v", out, err)
			}
		})
	}
}
