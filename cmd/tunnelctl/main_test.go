package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/usage"
)

func TestHintFor(t *testing.T) {
	notRunning := fmt.Errorf("%w: nothing answers", localapi.ErrNotRunning)
	tests := []struct {
		name      string
		flag, env string // the socket's
		err       error
		want      string
	}{
		{"not running", "", "", notRunning, "start it: tunneld run; or have it always: sudo tunneld install"},
		{"not running on the socket of the flag", "/s", "", notRunning, "start it: tunneld run --socket /s"},
		{"not running on the socket of the variable", "", "/e", notRunning, "start it: tunneld run --socket /e"},
		{"the flag comes first", "/s", "/e", notRunning, "start it: tunneld run --socket /s"},
		{"another user's", "/s", "", localapi.ErrForeign, "run tunnelctl as that user, or name your own daemon's socket with --socket"},
		{"a mistake", "", "", usage.Errorf("no"), "tunnelctl help"},
		{"the daemon's own", "", "", &localapi.Error{Message: "no", Hint: "tunnelctl ls"}, "tunnelctl ls"},
		{"any other", "", "", errors.New("no"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TUNNELD_SOCKET", tt.env)
			got := hintFor(&cobra.Command{Use: "tunnelctl"}, &localapi.Client{Socket: tt.flag}, tt.err)
			if got != tt.want {
				t.Errorf("%q; want %q", got, tt.want)
			}
		})
	}
}
