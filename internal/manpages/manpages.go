// Package manpages keeps the manual pages in packaging/man what the commands
// say. It is for tests: what writes the pages stays out of the programs.
package manpages

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write the manual pages")

// Check compares the pages of root and of the commands below it with those in
// dir, which no others of root may be in; with -update it makes them so.
func Check(t *testing.T, root *cobra.Command, dir string) {
	t.Helper()
	want := map[string]string{}
	write(t, root, want)
	got := read(t, root, dir)
	if !*update {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the pages in %s are not up to date: run this test with -update (- commands, + pages)\n%s", dir, diff)
		}
		return
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	}
	for name, page := range want {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(page), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// write adds the pages of cmd, and of all below it, to pages, by their files'
// names.
func write(t *testing.T, cmd *cobra.Command, pages map[string]string) {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && !c.IsAdditionalHelpTopicCommand() {
			write(t, c, pages)
		}
	}
	cmd.DisableAutoGenTag = true
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	// Neither version nor day of a build, so that pages change with the commands
	// only.
	day := time.Date(2026, time.November, 26, 0, 0, 0, 0, time.UTC)
	header := &doc.GenManHeader{Title: strings.ToUpper(name), Section: "1", Date: &day, Source: "tunneld", Manual: "User Commands"}
	var page bytes.Buffer
	if err := doc.GenMan(cmd, header, &page); err != nil {
		t.Fatalf("writing the page of %s: %v", name, err)
	}
	pages[name+".1"] = page.String()
}

// read returns the pages of root that are in dir, by their names.
func read(t *testing.T, root *cobra.Command, dir string) map[string]string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	for _, entry := range entries {
		name := entry.Name()
		if name != root.Name()+".1" && (!strings.HasPrefix(name, root.Name()+"-") || !strings.HasSuffix(name, ".1")) {
			continue
		}
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		pages[name] = string(page)
	}
	return pages
}
