package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/daemon"
	"github.com/tunneld/tunneld/internal/rootapi"
	"github.com/tunneld/tunneld/internal/systemd"
	"github.com/tunneld/tunneld/internal/usage"
	"github.com/tunneld/tunneld/internal/version"
)

// stopTimeout is how long the daemon may take to end: whoever stops a service
// does not wait much longer.
const stopTimeout = 4500 * time.Millisecond

// noHelper is the --helper that says not to ask one, nor to look names up.
const noHelper = "none"

func newRun(stderr io.Writer) *cobra.Command {
	d := &daemon.Daemon{Version: version.Get()}
	var verbose bool
	var socket string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the service in the foreground",
		Long: `Run the service in the foreground until SIGTERM or SIGINT, after which what is in
the middle of something may finish, for up to three seconds; a second one does
not wait for that. SIGHUP reads the configuration and the kubeconfigs again; a
configuration that is saved is read without it.`,
		Args: usage.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.Manager = systemd.Take()
			d.Log = newLog(stderr, verbose)
			if socket != noHelper {
				d.Helper = &rootapi.Client{Socket: socket}
			}
			run := func(ctx context.Context) error { return runUntilSignal(ctx, d) }
			if d.Service {
				return runService(cmd.Context(), run)
			}
			return run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&d.ConfigPath, "config", "", "configuration file (default ~/.config/tunneld/config.yaml)")
	flags.StringVar(&d.StateDir, "state-dir", "", "directory for addresses and the local CA (default ~/.local/state/tunneld)")
	flags.StringVar(&d.Socket, "socket", "", "control socket (default $TUNNELD_SOCKET, then $XDG_RUNTIME_DIR/tunneld/tunneld.sock)")
	flags.StringVar(&socket, "helper", "", "socket of tunneld-helper (default that of the installed one), or \"none\" to leave the system alone")
	flags.BoolVar(&d.Service, "service", false, "run as the installed service: with the environment that was captured from your shell")
	flags.BoolVarP(&verbose, "verbose", "v", false, "log connections and requests too")
	return cmd
}

// runUntilSignal runs the daemon and feeds it the process's signals. The second
// one to end it does not wait for connections, and the third for nothing.
func runUntilSignal(ctx context.Context, d *daemon.Daemon) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if d.Service {
		defer outliveReaders()()
	}
	terminate := make(chan os.Signal, 2)
	signal.Notify(terminate, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(terminate)
	started, hurry := make(chan struct{}), make(chan struct{})
	d.Started = func() { close(started) }
	d.Hurry = hurry
	hurryUp := sync.OnceFunc(func() { close(hurry) })
	ended := make(chan error, 1)
	var reloading sync.WaitGroup
	go func() {
		err := d.Run(ctx)
		reloading.Wait()
		ended <- err
	}()

	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	timeout.Stop()
	stopping := ctx.Done()
	for {
		select {
		case err := <-ended:
			return err
		case <-hangup:
			select {
			case <-started:
				reloading.Go(func() { d.Reload(ctx) }) // other signals must be heard
			default: // what it starts with is read anyway
			}
		case <-stopping:
			stopping = nil
			timeout.Reset(stopTimeout)
		case <-terminate:
			if ctx.Err() == nil {
				stop()
				continue
			}
			signal.Stop(terminate)
			hurryUp()
		case <-timeout.C:
			return errors.New("stopping took too long; gave up waiting")
		}
	}
}

// outliveReaders has the process go on, until it is undone, where nobody reads its log
// any more: writing to it would end a Go program. To ignore the signal would have
// plugins ignore it, too.
func outliveReaders() (undo func()) {
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE)
	return func() { signal.Stop(unread) }
}
