// Package setuptest has what tests of plans have in common.
package setuptest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/setup"
)

var update = flag.Bool("update", false, "write the golden files")

// Golden compares with the file of that name in testdata; with -update it makes it so.
func Golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// Line is an item to be read, without its content.
func Line(i setup.Item) string {
	line := fmt.Sprintf("%s: %s %s", i.Step, i.Kind, i.Path)
	if i.Mode != 0 {
		line += fmt.Sprintf(" %04o", i.Mode)
	}
	if i.Target != "" {
		line += " -> " + i.Target
	}
	if len(i.Missing) > 0 {
		line += fmt.Sprintf(" missing %q", i.Missing)
	}
	if len(i.Runs) > 0 {
		line += fmt.Sprintf(" runs %q", i.Runs)
	}
	if i.Optional {
		line += " optional"
	}
	return line + "\n"
}

// Lines are a plan to be read.
func Lines(plan []setup.Item) []byte {
	var b bytes.Buffer
	for _, i := range plan {
		b.WriteString(Line(i))
	}
	return b.Bytes()
}

// Check finds what no item of a plan may lack.
func Check(t *testing.T, plan []setup.Item) {
	t.Helper()
	for _, i := range plan {
		if i.Why == "" || i.Undo == "" {
			t.Errorf("%s %s does not say why, or how it is undone", i.Kind, i.Path)
		}
		if i.Kind == setup.File && i.SHA256 != setup.Sum(i.Content) {
			t.Errorf("%s has the sum of something else", i.Path)
		}
	}
}
