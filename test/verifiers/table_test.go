//go:build verifiers

package verifiers_test

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the tables of docs/verifiers.md")

const doc = "../../docs/verifiers.md"

// markdown is the table of a matrix. Rows are what stands in the first columns,
// the first of which is the row's name. Of ours, what must not be is marked.
func markdown(heads []string, rows [][]string, columns []string, got map[cell]said, ours bool) string {
	var out strings.Builder
	line := func(cells ...string) { out.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(slices.Concat(heads, columns)...)
	out.WriteString(strings.Repeat("|---", len(heads)+len(columns)) + "|\n")
	for _, row := range rows {
		cells := slices.Clone(row)
		for _, column := range columns {
			at := cell{row[0], column}
			word := map[string]string{accepts: "**yes**", refuses: "no", "": "n/a"}[got[at].verdict]
			if ours && got[at].verdict == accepts && holes[at] != "" {
				word = "**hole**"
			}
			cells = append(cells, word)
		}
		line(cells...)
	}
	return out.String()
}

// checkTable prints a table and compares it with the one that the documentation
// has.
func checkTable(t *testing.T, name, text string) {
	t.Helper()
	t.Logf("%s:\n%s", name, text)
	if !*update {
		_, old, _ := block(t, name)
		if diff := cmp.Diff(old, text); diff != "" {
			t.Errorf("%s says something else (-documented +found):\n%s", doc, diff)
		}
		return
	}
	if t.Failed() {
		t.Fatal("what is wrong is not written down")
	}
	replaceBlock(t, name, text)
}

// block splits the documentation into what stands between the comments of a name,
// and what is before and after.
func block(t *testing.T, name string) (before, between, after string) {
	t.Helper()
	data, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+" -->\n\n", "\n<!-- end -->\n"
	head, rest, ok := strings.Cut(string(data), begin)
	between, tail, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no place for %q", doc, name)
	}
	return head + begin, between, end + tail
}

func replaceBlock(t *testing.T, name, text string) {
	t.Helper()
	before, _, after := block(t, name)
	if err := os.WriteFile(doc, []byte(before+text+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
