package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/usage"
)

func newRemove(ui *ui, client *localapi.Client) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove", "delete"},
		Short:   "End a forward, and its connections",
		Args:    usage.Args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var failed error
			for _, name := range args {
				if err := client.Remove(cmd.Context(), name); err != nil {
					failed = errors.Join(failed, err)
					continue
				}
				fmt.Fprintf(ui.out, "%s removed\n", name)
			}
			return failed
		},
	}
}
