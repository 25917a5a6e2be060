package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
)

func newRemove(ui *ui, client *localapi.Client) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove", "delete"},
		Short:   "End a forward, and its connections",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				if err := client.Remove(cmd.Context(), name); err != nil {
					return err
				}
				fmt.Fprintf(ui.out, "%s removed\n", name)
			}
			return nil
		},
	}
}
