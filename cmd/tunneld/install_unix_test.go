//go:build unix

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/setup"
)

// Nobody else can change what root runs.
func TestOnlyRoots(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has directories of root's")
	}
	tests := []struct {
		name string
		do   func(dir string) error // to the directory above
		good bool
	}{
		{"root's", func(string) error { return nil }, true},
		{"not there yet", os.Remove, true},
		{"another user's", func(dir string) error { return os.Chown(dir, 65534, 0) }, false},
		{"for a group to write", func(dir string) error { return os.Chmod(dir, 0o775) }, false},
		{"for all to write, but not to exchange", func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			above := filepath.Join(t.TempDir(), "above")
			if err := os.Mkdir(above, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(above); err != nil {
				t.Fatal(err)
			}
			if err := onlyRoots(filepath.Join(above, "programs")); (err == nil) != tt.good {
				t.Errorf("looked: %v", err)
			}
		})
	}
}

// A process of the user's holds nothing up, and fills nothing.
func TestRunAsUser(t *testing.T) {
	who := invoker.User{UID: strconv.Itoa(os.Getuid()), Name: "dev", Home: t.TempDir()}
	t.Setenv("XDG_CONFIG_HOME", "/root/elsewhere")
	tests := []struct{ name, script, out, err string }{
		{"as a service", `echo "$HOME ${XDG_CONFIG_HOME-none}"`, who.Home + " none\n", ""},
		{"without an end", "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done", "", "without an end"},
		{"stopped", "kill -STOP $$", "", "did not end within"},
		{"what it says", `printf 'tunneld: error: a\033[2Jb\n' >&2; exit 1`, "", "as user dev: a\ufffd[2Jb"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			patience := time.Minute
			if tt.name == "stopped" {
				patience = 100 * time.Millisecond
			}
			out, err := runAsUser(t.Context(), who, patience, "/bin/sh", "-c", tt.script)
			if string(out) != tt.out || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q, %v; want %q, %q", out, err, tt.out, tt.err)
			}
		})
	}
}

// A directory that cannot be removed, since what is above it is another user's by now,
// keeps nothing from being taken out.
func TestClearHomeOfOthers(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may remove all")
	}
	dir := atHome(t, nil)
	above := filepath.Join(dir, "above")
	if err := errors.Join(os.MkdirAll(filepath.Join(above, "made"), 0o700), os.Chmod(above, 0o500)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(above, 0o700) })
	kept, err := clearHome("", []string{filepath.Join(above, "made")}, false, false)
	if err != nil || len(kept) != 1 {
		t.Errorf("kept %q, %v", kept, err)
	}
}

// Of a user who is gone, nothing is looked at or run.
func TestGone(t *testing.T) {
	who, err := invoker.Former("3999999999")
	if err != nil {
		t.Fatal(err)
	}
	h := home{who: who}
	if v, err := h.view(t.Context()); err != nil || v.State != "" {
		t.Errorf("view: %+v, %v", v, err)
	}
	there := t.TempDir()
	for path, said := range map[string]bool{there: true, filepath.Join(there, "none"): false} {
		left, err := h.Undo(t.Context(), setup.Change{Kind: setup.Home, Path: path})
		if err != nil || (left != "") != said {
			t.Errorf("%s: left %q, %v", path, left, err)
		}
	}
	if err := who.Command(t.Context(), "/bin/true").Run(); !errors.Is(err, invoker.ErrUnknown) {
		t.Errorf("run as nobody: %v", err)
	}
}
