// Command tunnelctl tells the tunneld service what to forward, and shows what
// it does.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit statuses. 3 is LSB's for "program is not running".
const (
	exitOK         = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
)

// run is main without the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ui := &ui{out: stdout, err: stderr}
	root := newRoot(ui)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitFailed // interrupted: the user knows
	}
	ui.fail(err)
	switch {
	case errors.Is(err, localapi.ErrNotRunning):
		return exitNotRunning
	case isUsage(err):
		return exitUsage
	}
	return exitFailed
}

func newRoot(ui *ui) *cobra.Command {
	client := new(localapi.Client)
	root := &cobra.Command{
		Use:   "tunnelctl",
		Short: "Forward Kubernetes Services to names on this machine",
		Long: `tunnelctl tells the tunneld service which Kubernetes Services to forward to this
machine, under names like task-api.local, and shows how they are doing.`,
		Args:          usageArgs(cobra.NoArgs),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.PersistentFlags().StringVar(&client.Socket, "socket", "", "the daemon's control socket (default $TUNNELD_SOCKET, then the usual places)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newAdd(ui, client),
		newRemove(ui, client),
		newList(ui, client),
		newStatus(ui, client),
		newOpen(ui, client),
		newLogs(ui, client),
		newTrust(ui, client),
		newReload(ui, client),
		newVersion(ui, client),
	)
	return root
}

// A usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func isUsage(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

// usageArgs makes what a check of arguments finds a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}
