//go:build verifiers

package verifiers_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the tables of docs/verifiers.md")

const doc = "../../docs/verifiers.md"

// markdown is the table of a matrix. What must not be is marked.
func markdown(got map[cell]said, ours bool) string {
	var out strings.Builder
	out.WriteString("| certificate | asked as |")
	for _, c := range clients() {
		fmt.Fprintf(&out, " %s |", c.name)
	}
	out.WriteString("\n|---|---|" + strings.Repeat("---|", len(clients())) + "\n")
	for _, row := range attempts() {
		fmt.Fprintf(&out, "| %s | %s |", row.name, row.host)
		for _, c := range clients() {
			at := cell{row.name, c.name}
			word := map[string]string{accepts: "**yes**", refuses: "no", "": "?"}[got[at].verdict]
			if ours && got[at].verdict == accepts && holes[at] != "" {
				word = "**hole**"
			}
			fmt.Fprintf(&out, " %s |", word)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// checkTable prints a matrix and compares it with the one that the documentation
// has.
func checkTable(t *testing.T, name string, got map[cell]said, ours bool) {
	t.Helper()
	text := markdown(got, ours)
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
