// Command tunneld is the service that keeps forwards to Kubernetes Services,
// under names of this machine. It is controlled with tunnelctl.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/statedir"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process. It returns the exit status: 0 done, 1
// failed, 2 usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "tunneld: error: %v\n", err)
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(stderr, "tunneld: hint: %s\n", hint)
	}
	if _, usage := errors.AsType[usageError](err); usage {
		return 2
	}
	return 1
}

// hintFor says what to do about an error that keeps the daemon from starting.
func hintFor(err error) string {
	_, usage := errors.AsType[usageError](err)
	_, inConfig := errors.AsType[*config.Error](err)
	switch {
	case usage:
		return "tunneld help"
	case errors.Is(err, localapi.ErrRunning), errors.Is(err, statedir.ErrInUse):
		return "use the one that runs (tunnelctl status), or give this one its own --socket and --state-dir"
	case errors.Is(err, localapi.ErrForeign):
		return "name a socket of your own with --socket"
	case errors.Is(err, statedir.ErrNewer):
		return "upgrade tunneld, or name another directory with --state-dir"
	case inConfig:
		return "mend the file, and start again"
	}
	return ""
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "tunneld",
		Short: "Keep forwards to Kubernetes Services, for development",
		Long: `tunneld keeps forwards to Kubernetes Services alive, gives each a name and an
address of this machine, terminates TLS and balances over the ready pods. It is
for development: see "tunneld demo" for how it feels, and tunnelctl to use it.`,
		Args:          usageArgs(cobra.NoArgs),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newRun(stderr), newDemo(stdout, stderr), newVersion(stdout))
	return root
}

// A usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usageArgs makes what a check of arguments finds a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}
