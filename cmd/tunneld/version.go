package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/usage"
	"github.com/tunneld/tunneld/internal/version"
)

func newVersion(stdout io.Writer) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usage.Args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			v := version.Get()
			if asJSON {
				return json.NewEncoder(stdout).Encode(v)
			}
			_, err := fmt.Fprintf(stdout, "tunneld %s (%s, %s)\n", v.Version, v.Go, v.OS)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
