// Command tunnelctl tells the tunneld service what to forward, and shows what
// it does.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/terminal"
	"github.com/tunneld/tunneld/internal/usage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
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
	client := new(localapi.Client)
	root := newRoot(ui, client)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitFailed // interrupted: the user knows
	}
	if e, ok := errors.AsType[*saidError](err); ok {
		for line := range strings.Lines(e.said) {
			fmt.Fprintln(stderr, terminal.Printable(strings.TrimRight(line, "\n")))
		}
		return e.status
	}
	ui.fail(err, func(err error) string { return hintFor(cmd, client, err) })
	switch {
	case errors.Is(err, localapi.ErrNotRunning):
		return exitNotRunning
	case usage.Is(err), refused(err):
		return exitUsage
	}
	return exitFailed
}

// refused reports whether the daemon found that what was typed is wrong.
func refused(err error) bool {
	e, ok := errors.AsType[*localapi.Error](err)
	return ok && e.Code == http.StatusBadRequest
}

// hintFor says what to do about an error of a command: the hint that it has,
// or that follows from it.
func hintFor(cmd *cobra.Command, client *localapi.Client, err error) string {
	socket := localapi.Named(client.Socket)
	switch {
	case errors.Is(err, localapi.ErrNotRunning) && socket != "":
		return "start it: tunneld run --socket " + socket
	case errors.Is(err, localapi.ErrNotRunning):
		return "start it: tunneld run; or have it always: sudo tunneld install"
	case errors.Is(err, localapi.ErrForeign):
		return "run tunnelctl as that user, or name your own daemon's socket with --socket"
	case usage.Is(err):
		return usage.Hint(cmd, err)
	}
	if e, ok := errors.AsType[*localapi.Error](err); ok {
		return e.Hint
	}
	return ""
}

func newRoot(ui *ui, client *localapi.Client) *cobra.Command {
	root := &cobra.Command{
		Use:   "tunnelctl",
		Short: "Forward Kubernetes Services to names on this machine",
		Long: `tunnelctl tells the tunneld service which Kubernetes Services to forward to this
machine, under names like task-api.local, and shows how they are doing.`,
	}
	usage.Setup(root)
	root.PersistentFlags().StringVar(&client.Socket, "socket", "", "the daemon's control socket (default $TUNNELD_SOCKET, then the usual places)")
	root.AddCommand(
		newAdd(ui, client),
		newRemove(ui, client),
		newList(ui, client),
		newStatus(ui, client),
		newDoctor(ui, client),
		newOpen(ui, client),
		newLogs(ui, client),
		newTrust(ui, client),
		newEnvironment(ui, client),
		newReload(ui, client),
		newVersion(ui, client),
	)
	return root
}
