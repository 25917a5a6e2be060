// Package usage tells mistakes in a command line from failures: they have an
// exit status of their own.
package usage

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// An Error is a mistake in the command line.
type Error struct{ error }

// Errorf formats an Error.
func Errorf(format string, args ...any) error { return Error{fmt.Errorf(format, args...)} }

// Unwrap returns what is wrong.
func (e Error) Unwrap() error { return e.error }

// Is reports whether err is a mistake in the command line.
func Is(err error) bool {
	_, ok := errors.AsType[Error](err)
	return ok
}

// Args makes what a check of arguments finds an Error.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return Error{err}
		}
		return nil
	}
}

// Setup makes root, which does nothing by itself, print its help, and its
// mistakes Errors. Errors are left to the caller to print.
func Setup(root *cobra.Command) {
	root.Args = Args(cobra.NoArgs)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Error{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return Errorf("there is no command %q", args[len(args)-1])
			}
			return about.Help()
		},
	})
}
