//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/environ"
	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/setup/loginshell"
)

// TestAsProgram is this program, for a shell to run.
func TestAsProgram(*testing.T) {
	if os.Getenv("TUNNELD_TEST_PROGRAM") != "" {
		os.Exit(run(context.Background(), flag.Args(), os.Stdout, os.Stderr))
	}
}

// The login shell's environment is written into the service's directory, wherever the
// shell has such things.
func TestCaptureFromShell(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const startup = "AWS_PROFILE=of-the-shell; export AWS_PROFILE\nAWS_SESSION_TOKEN=hidden; export AWS_SESSION_TOKEN\nXDG_STATE_HOME=/elsewhere; export XDG_STATE_HOME\n"
	home := atHome(t, map[string]string{".profile": startup, ".bash_profile": startup, ".zshrc": startup})
	program := filepath.Join(home, "program")
	script := "#!/bin/sh\nTUNNELD_TEST_PROGRAM=1 exec " + self + " -test.run '^TestAsProgram$' -- \"$@\"\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_UID", "65534") // as where root installs for itself
	who := invoker.User{UID: strconv.Itoa(os.Getuid()), Home: home}
	state := filepath.Join(home, ".local", "state", "tunneld")
	err = captureFromShell(t.Context(), who, program, state)
	if errors.Is(err, loginshell.ErrNoShell) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := environ.Load(environ.Path(state))
	if err != nil {
		t.Fatal(err)
	}
	if c.Variables["AWS_PROFILE"] != "of-the-shell" || c.Variables["PATH"] == "" || c.Variables["AWS_SESSION_TOKEN"] != "" {
		t.Errorf("captured %v", c.Variables)
	}
}

// Root writes nothing into another user's home.
func TestCaptureUnderSudo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root runs on behalf of others")
	}
	home := atHome(t, nil)
	t.Setenv("SUDO_UID", "65534")
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{captureCommand}, new(bytes.Buffer), &stderr); code != 1 || !strings.Contains(stderr.String(), "without sudo") {
		t.Errorf("exit status %d: %s", code, stderr.String())
	}
	t.Setenv("SUDO_UID", "")
	if err := os.Chown(home, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	stderr.Reset()
	if code := run(t.Context(), []string{captureCommand}, new(bytes.Buffer), &stderr); code != 1 || !strings.Contains(stderr.String(), "belongs to another user") {
		t.Errorf("in another's home: exit status %d: %s", code, stderr.String())
	}
	if left := tree(t, home); len(left) > 0 {
		t.Errorf("there is %v", left)
	}
}
