// Package usage tells mistakes in a command line from failures: they have an
// exit status of their own, and say what would have been right.
package usage

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/nearest"
)

// An Error is a mistake in the command line.
type Error struct {
	error
	hint string // empty: the command's help
}

// Errorf formats an Error.
func Errorf(format string, args ...any) error { return Error{error: fmt.Errorf(format, args...)} }

// Unwrap returns what is wrong.
func (e Error) Unwrap() error { return e.error }

// WithHint makes err an Error with a hint of its own.
func WithHint(err error, hint string) error { return Error{err, hint} }

// Is reports whether err is a mistake in the command line.
func Is(err error) bool {
	_, ok := errors.AsType[Error](err)
	return ok
}

// Hint says what to do about a mistake in the command line of cmd; it is empty
// if err is none.
func Hint(cmd *cobra.Command, err error) string {
	e, ok := errors.AsType[Error](err)
	switch {
	case !ok:
		return ""
	case e.hint != "":
		return e.hint
	case !cmd.HasParent():
		return cmd.Name() + " help"
	}
	return cmd.Root().Name() + " help " + cmd.Name()
}

// Args makes what a check of the number of arguments finds an Error.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) != nil {
			return Errorf("wrong number of arguments: got %d, expected %s %s", len(args), cmd.Parent().CommandPath(), cmd.Use)
		}
		return nil
	}
}

// Setup makes root, which does nothing by itself, print its help, and its
// mistakes Errors. Errors are left to the caller to print.
func Setup(root *cobra.Command) {
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknown(cmd, args[0])
		}
		return nil
	}
	root.SilenceErrors, root.SilenceUsage = true, true
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// The flags of a mistyped command are not the root's.
		if before := cmd.Flags().Args(); !cmd.HasParent() && len(before) > 0 {
			return unknown(cmd, before[0])
		}
		return Error{error: err}
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := root.Find(args)
			if err != nil {
				return Error{error: err}
			}
			if len(rest) > 0 {
				return unknown(about, rest[0])
			}
			return about.Help()
		},
	})
}

// unknown is the mistake of a name that no command below parent has.
func unknown(parent *cobra.Command, name string) error {
	var names []string
	for _, c := range parent.Commands() {
		if !c.Hidden {
			names = slices.Concat(names, []string{c.Name()}, c.Aliases)
		}
	}
	err := fmt.Errorf("unknown command %q", name)
	if near := nearest.To(name, names, 3); len(near) > 0 {
		return WithHint(err, "did you mean "+strings.Join(near, " or ")+"?")
	}
	return WithHint(err, parent.Root().Name()+" help")
}
