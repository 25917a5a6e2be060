package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/statedir"
)

// That the state directory cannot be written is said once for each cause,
// however often it is tried.
func TestFailureToRememberIsSaidOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	state, err := statedir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	var log bytes.Buffer
	d := &Daemon{Log: slog.New(slog.NewTextHandler(&log, nil)), state: state, config: config.Default(), good: true}
	forwards := map[string]statedir.Forward{"a": {Address: netip.MustParseAddr("127.0.0.2")}}
	said := func() int { return strings.Count(log.String(), "will not outlive this run") }

	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		d.remember(forwards)
	}
	if said() != 1 {
		t.Errorf("said %d times; want once:\n%s", said(), log.String())
	}
	if want := path + " cannot be written: "; !strings.HasPrefix(d.forgetting, want) || strings.Contains(d.forgetting, ".tmp") {
		t.Errorf("the problem is %q; want %q and the bare cause", d.forgetting, want)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	d.remember(forwards)
	if d.forgetting != "" {
		t.Errorf("when it can be written again, the problem is %q", d.forgetting)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	d.remember(nil)
	if said() != 2 {
		t.Errorf("said %d times; want it once more:\n%s", said(), log.String())
	}
}

func TestBare(t *testing.T) {
	full := errors.New("no space left on device")
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"a path", fmt.Errorf("write: %w", &fs.PathError{Op: "open", Path: "/x.1.tmp", Err: full}), "no space left on device"},
		{"a link", fmt.Errorf("write: %w", &os.LinkError{Op: "rename", Old: "/x.1.tmp", New: "/x", Err: full}), "no space left on device"},
		{"joined", errors.Join(&fs.PathError{Op: "write", Path: "/x.1.tmp", Err: full}, nil), "no space left on device"},
		{"another", full, "no space left on device"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := bare(tt.err).Error(); got != tt.want {
				t.Errorf("%q; want %q", got, tt.want)
			}
		})
	}
}

// Only of those that are not written down is it said that they will be forgotten.
func TestWhoWillBeForgotten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	state, err := statedir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	d := &Daemon{
		Log: slog.New(slog.DiscardHandler), state: state, config: config.Default(), good: true,
		clusters: new(kube.Clusters), meters: new(forward.Meters),
	}
	forwards := []*planned{
		{name: "old", place: place{address: netip.MustParseAddr("127.0.0.2")}},
		{name: "new", place: place{address: netip.MustParseAddr("127.0.0.3")}},
	}
	d.remember(map[string]statedir.Forward{"old": {Address: forwards[0].address}})
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	d.remember(map[string]statedir.Forward{"old": {Address: forwards[0].address}, "new": {Address: forwards[1].address}})
	for i, f := range forwards {
		notes := d.report(f, bindings{}).Notes
		if said := strings.Contains(strings.Join(notes, " "), "will not outlive this run"); said != (i == 1) {
			t.Errorf("%s has the notes %q", f.name, notes)
		}
	}
}
