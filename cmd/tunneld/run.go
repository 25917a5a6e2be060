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
	"github.com/tunneld/tunneld/internal/usage"
	"github.com/tunneld/tunneld/internal/version"
)

// stopTimeout is how long the daemon may take to end: whoever stops a service
// does not wait much longer.
const stopTimeout = 4500 * time.Millisecond

func newRun(stderr io.Writer) *cobra.Command {
	d := &daemon.Daemon{Version: version.Get()}
	var verbose bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the service in the foreground",
		Long: `Run the service in the foreground until SIGTERM or SIGINT. SIGHUP reads the
configuration and the kubeconfigs again; a configuration that is saved is read
without it.`,
		Args: usage.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.Log = newLog(stderr, verbose)
			return runUntilSignal(cmd.Context(), d)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&d.ConfigPath, "config", "", "configuration file (default ~/.config/tunneld/config.yaml)")
	flags.StringVar(&d.StateDir, "state-dir", "", "directory for addresses and the local CA (default ~/.local/state/tunneld)")
	flags.StringVar(&d.Socket, "socket", "", "control socket (default $TUNNELD_SOCKET, then $XDG_RUNTIME_DIR/tunneld/tunneld.sock)")
	flags.BoolVarP(&verbose, "verbose", "v", false, "log connections and requests too")
	return cmd
}

// runUntilSignal runs the daemon and feeds it the process's signals.
func runUntilSignal(ctx context.Context, d *daemon.Daemon) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	started := make(chan struct{})
	d.Started = func() { close(started) }
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
		case <-ctx.Done():
			stop() // a second signal ends the process at once
			timer := time.NewTimer(stopTimeout)
			defer timer.Stop()
			select {
			case err := <-ended:
				return err
			case <-timer.C:
				return errors.New("stopping took too long; gave up waiting")
			}
		}
	}
}
