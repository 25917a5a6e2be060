package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFormula(t *testing.T) {
	t.Chdir("../../..")
	d := dist{release: release{version: "v1.2.3"}, out: t.TempDir(), log: t.Output()}
	formula := filepath.Join(d.out, "tunneld.rb")
	for _, p := range platforms {
		if err := d.formula(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(formula); err == nil && p.os != "windows" {
			t.Fatalf("there is a formula before there is an archive for %s", p)
		}
		if err := d.save(d.name(p)+".tar.gz", []byte(p.String())); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.formula(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(formula)
	if err != nil {
		t.Fatal(err)
	}
	// Each URL is followed by the checksum of what is there.
	_, rest, _ := strings.Cut(string(text), `version "1.2.3"`)
	for _, p := range []platform{{"darwin", "arm64"}, {"darwin", "amd64"}, {"linux", "arm64"}, {"linux", "amd64"}} {
		want := fmt.Sprintf("/v#{version}/tunneld_#{version}_%s_%s.tar.gz\"\n      sha256 \"%x\"\n", p.os, p.arch, sha256.Sum256([]byte(p.String())))
		found := false
		if _, rest, found = strings.Cut(rest, want); !found {
			t.Errorf("not there, or not in its place: %s", want)
		}
	}
	if strings.Contains(string(text), "{{") {
		t.Errorf("not all was filled in:\n%s", text)
	}
}
