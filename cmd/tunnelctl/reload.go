package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/usage"
)

func newReload(ui *ui, client *localapi.Client) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration and the kubeconfigs again",
		Long: `Read the configuration and the kubeconfigs again, and try at once what has been
refused. (A saved configuration is read without it.)`,
		Args: usage.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := client.Reload(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(ui.out, "reloaded")
			return nil
		},
	}
}
