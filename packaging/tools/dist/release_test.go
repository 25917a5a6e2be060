package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestVersions(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1795651200")
	tests := []struct {
		given, version, number, pack string // no version: refused
	}{
		{"0.6.0", "v0.6.0", "0.6.0", "0.6.0"},
		{"v0.6.0", "v0.6.0", "0.6.0", "0.6.0"},
		{"1.0.0-rc.1", "v1.0.0-rc.1", "1.0.0-rc.1", "1.0.0~rc.1"},
		{"0.0.0-20261126050231-0bc04c4dd7e2", "v0.0.0-20261126050231-0bc04c4dd7e2", "0.0.0-20261126050231-0bc04c4dd7e2", "0.0.0~20261126050231.0bc04c4dd7e2"},
		{"0.6.1-0.20261126050231-0bc04c4dd7e2+dirty", "v0.6.1-0.20261126050231-0bc04c4dd7e2+dirty", "0.6.1-0.20261126050231-0bc04c4dd7e2+dirty", "0.6.1~0.20261126050231.0bc04c4dd7e2+dirty"},
		{"0.6.0+with-more", "v0.6.0+with-more", "0.6.0+with-more", "0.6.0+with.more"},
		{"0.6", "", "", ""},
		{"latest", "", "", ""},
		{"0.6.0 -X main.a=b", "", "", ""},
		{"../0.6.0", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.given, func(t *testing.T) {
			r, err := newRelease(t.TempDir(), tt.given)
			if (err != nil) != (tt.version == "") {
				t.Fatalf("error %v; want one: %v", err, tt.version == "")
			}
			if err != nil {
				return
			}
			if r.version != tt.version || r.number() != tt.number || r.packageVersion() != tt.pack {
				t.Errorf("%q, %q, %q; want %q, %q, %q", r.version, r.number(), r.packageVersion(), tt.version, tt.number, tt.pack)
			}
			if want := time.Date(2026, time.November, 26, 0, 0, 0, 0, time.UTC); !r.time.Equal(want) {
				t.Errorf("time %v; want %v", r.time, want)
			}
		})
	}
}

// TestCommits follows a repository through its life: each version must be later
// than those before, in Go's order.
func TestCommits(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	dir := t.TempDir()
	if _, err := newRelease(dir, ""); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("without a repository: %v; want an error that says what to set", err)
	}
	run := func(date string, args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "tag.gpgSign=false", "-c", "commit.gpgSign=false"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE="+date)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	expect := func(when, start, end string) {
		t.Helper()
		r, err := newRelease(dir, "")
		if err != nil || !strings.HasPrefix(r.version, start) || !strings.HasSuffix(r.version, end) {
			t.Errorf("%s: %q, %v; want %s…%s", when, r.version, err, start, end)
		}
	}
	run("", "init", "-q")
	run("2026-01-01T00:00:00Z", "commit", "-q", "--allow-empty", "-m", "a")
	expect("before any tag", "v0.0.0-20260101000000-", "")
	run("", "tag", "nightly")
	expect("with a tag that is no version", "v0.0.0-20260101000000-", "")
	run("", "tag", "v0.6.0")
	expect("tagged", "v0.6.0", "v0.6.0")
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("changed", "v0.6.0+dirty", "v0.6.0+dirty")
	run("", "add", "new")
	run("2026-01-02T02:00:00+02:00", "commit", "-q", "-m", "b")
	expect("after the tag", "v0.6.1-0.20260102000000-", "")
	run("2026-01-03T00:00:00Z", "tag", "-m", "annotated", "v0.7.0-rc.1")
	expect("tagged before a release", "v0.7.0-rc.1", "v0.7.0-rc.1")
	run("2026-01-04T00:00:00Z", "commit", "-q", "--allow-empty", "-m", "c")
	expect("after that", "v0.7.0-rc.1.0.20260104000000-", "")

	r, err := newRelease(dir, "1.2.3")
	if want := time.Date(2026, time.January, 4, 0, 0, 0, 0, time.UTC); err != nil || r.version != "v1.2.3" || !r.time.Equal(want) {
		t.Errorf("with a version of its own: %+v, %v; want v1.2.3 at the commit's time", r, err)
	}
}
