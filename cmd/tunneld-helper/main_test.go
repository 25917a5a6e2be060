package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/leakcheck"
	"github.com/tunneld/tunneld/internal/status"
)

// asProgram makes the test binary the program.
const asProgram = "HELPER_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	leakcheck.Main(m)
}

func TestMistakes(t *testing.T) {
	tests := []struct {
		args  string
		error string
	}{
		{"", "no command is named"},
		{"install", `unknown command "install"`},
		{"serve --frobnicate", "flag provided but not defined: --frobnicate"},
		{"serve --idle soon", `invalid value "soon" for flag -idle: parse error`},
		{"serve --idle -1s", "--idle -1s is no time to wait for requests"},
		{"serve /etc/tunneld/helper/1000.json", `serve takes no argument, such as "/etc/tunneld/helper/1000.json"`},
		{"release all", `release takes no argument, such as "all"`},
		{"release --uid me", `invalid value "me" for flag -uid: parse error`},
		{"version --yaml", "flag provided but not defined: --yaml"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if got := run(t.Context(), strings.Fields(tt.args), &stdout, &stderr); got != 2 {
				t.Errorf("exit status %d; want 2", got)
			}
			want := "tunneld-helper: error: " + tt.error + "\ntunneld-helper: hint: tunneld-helper help\n"
			if stderr.String() != want || stdout.Len() > 0 {
				t.Errorf("%s%s; want %s", &stdout, &stderr, want)
			}
		})
	}
}

func TestVersionAndHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	for _, args := range []string{"version", "help", "--help"} {
		stdout.Reset()
		if got := run(t.Context(), []string{args}, &stdout, &stderr); got != 0 || !strings.HasPrefix(stdout.String(), "tunneld-helper ") {
			t.Errorf("%s: %d, %s", args, got, &stdout)
		}
	}
	stdout.Reset()
	var v status.Version
	if got := run(t.Context(), []string{"version", "--json"}, &stdout, &stderr); got != 0 || json.Unmarshal(stdout.Bytes(), &v) != nil || v.Go == "" {
		t.Errorf("version --json: %d, %s", got, &stdout)
	}
	if stderr.Len() > 0 {
		t.Error(&stderr)
	}
}
