package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/usage"
	"github.com/tunneld/tunneld/internal/version"
)

func newVersion(ui *ui, client *localapi.Client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of tunnelctl and of the daemon",
		Args:  usage.Args(cobra.NoArgs),
	}
	format := output(cmd, "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		both := struct {
			Client status.Version  `json:"client"`
			Daemon *status.Version `json:"daemon"` // null if it does not run
		}{Client: version.Get()}
		daemon, err := client.Version(cmd.Context())
		switch {
		case err == nil:
			both.Daemon = &daemon
		case !errors.Is(err, localapi.ErrNotRunning):
			return err
		}
		if *format == "json" {
			return ui.json(both)
		}
		fmt.Fprintf(ui.out, "tunnelctl %s (%s, %s)\n", both.Client.Version, both.Client.Go, both.Client.OS)
		switch {
		case both.Daemon == nil:
			fmt.Fprintln(ui.out, "tunneld is not running")
		default:
			fmt.Fprintf(ui.out, "tunneld %s (%s, %s)\n", both.Daemon.Version, both.Daemon.Go, both.Daemon.OS)
			if both.Daemon.Version != both.Client.Version {
				ui.note("the two differ: restart tunneld after an upgrade")
			}
		}
		return nil
	}
	return cmd
}
