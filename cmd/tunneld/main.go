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
	"github.com/tunneld/tunneld/internal/usage"
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
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "tunneld: error: %v\n", err)
	if hint := hintFor(cmd, err); hint != "" {
		fmt.Fprintf(stderr, "tunneld: hint: %s\n", hint)
	}
	if usage.Is(err) {
		return 2
	}
	return 1
}

// A hinted error comes with what to do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func withHint(err error, hint string) error { return hinted{err, hint} }

// hintFor says what to do about an error of a command, such as one that keeps
// the daemon from starting.
func hintFor(cmd *cobra.Command, err error) string {
	if h, ok := errors.AsType[hinted](err); ok {
		return h.hint
	}
	switch {
	case usage.Is(err):
		return usage.Hint(cmd, err)
	case errors.Is(err, localapi.ErrRunning), errors.Is(err, statedir.ErrInUse):
		return "use the one that runs (tunnelctl status), or give this one its own --socket and --state-dir"
	case errors.Is(err, localapi.ErrForeign), errors.Is(err, localapi.ErrNoSocket):
		return "name a socket of your own with --socket, here and for tunnelctl"
	case errors.Is(err, statedir.ErrNewer):
		return "upgrade tunneld, or name another directory with --state-dir"
	case errors.Is(err, statedir.ErrUnusable):
		return "name a directory of your own with --state-dir"
	case errors.Is(err, statedir.ErrNoHome), errors.Is(err, config.ErrNoHome):
		return "set HOME, or say where things are: --config FILE --state-dir DIR --socket PATH"
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
	}
	usage.Setup(root)
	root.AddCommand(newRun(stderr), newDemo(stdout, stderr), newInstall(stdout, stderr), newUninstall(stdout, stderr), newHome(stdout), newCapture(stdout), newVersion(stdout))
	return root
}
