package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/environ"
	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/setup/loginshell"
	"github.com/tunneld/tunneld/internal/statedir"
	"github.com/tunneld/tunneld/internal/usage"
)

// captureCommand is for captureFromShell, in a shell of the user's.
const captureCommand = "capture-environment"

func newCapture(stdout io.Writer) *cobra.Command {
	var stateDir, done string
	cmd := &cobra.Command{
		Use:    captureCommand,
		Short:  "Keep this process's environment for the service",
		Long:   `Write down what of this environment credential plugins may need, for the service to run with.`,
		Hidden: true,
		Args:   usage.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := captureOwn(cmd.Context(), stateDir)
			if err != nil {
				return err
			}
			fmt.Fprintf(stdout, "captured %d variables\n", n)
			if done != "" {
				fmt.Fprintln(stdout, done)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", "", "directory to write it into (default ~/.local/state/tunneld)")
	cmd.Flags().StringVar(&done, "done", "", "what to print when it is done")
	return cmd
}

// captureOwn writes down this process's environment, and returns how many variables
// that is.
func captureOwn(ctx context.Context, stateDir string) (int, error) {
	who, err := invoker.Find(ctx)
	if err != nil {
		return 0, err
	}
	if who.Sudo {
		return 0, withHint(errors.New("root would write into another user's home"), "run it as that user, without sudo")
	}
	if stateDir == "" {
		if err := who.CheckHome(); err != nil {
			return 0, err
		}
		if stateDir, err = statedir.DefaultPath(); err != nil {
			return 0, err
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/" // it may have been removed; only relative paths need it
	}
	variables, _ := environ.Take(os.Environ(), dir)
	return len(variables), environ.Save(environ.Path(stateDir), environ.Capture{Time: time.Now(), Variables: variables})
}

// captureFromShell has the user's login shell run program, which is this one where the
// user can reach it, so that it writes down that shell's environment. stateDir is the
// service's, which does not see the shell's XDG_STATE_HOME.
func captureFromShell(ctx context.Context, who invoker.User, program, stateDir string) error {
	path, err := who.Shell(ctx)
	if err != nil {
		return err
	}
	done := "done-" + rand.Text() // which no startup file prints
	return loginshell.Shell{User: who, Path: path}.Exec(ctx, done, program, captureCommand, "--done", done, "--state-dir", stateDir)
}
