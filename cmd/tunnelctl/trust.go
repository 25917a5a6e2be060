package main

import (
	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/usage"
)

func newTrust(ui *ui, client *localapi.Client) *cobra.Command {
	var pem bool
	cmd := &cobra.Command{
		Use:   "trust --pem",
		Short: "Print the certificate that clients must trust",
		Long: `Print the root certificate of the local CA, which clients must trust for the
https URLs. The CA can sign for local names only, and its root key exists no
more.`,
		Example: "  tunnelctl trust --pem > tunneld-ca.pem\n  curl --cacert tunneld-ca.pem https://task-api.local/",
		Args:    usage.Args(cobra.NoArgs),
	}
	format := output(cmd, "json")
	cmd.Flags().BoolVar(&pem, "pem", false, "print the root certificate in PEM")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !pem && *format == "" {
			return usage.Errorf("say what to do: tunnelctl trust --pem")
		}
		text, err := client.RootPEM(cmd.Context())
		if err != nil {
			return err
		}
		if *format == "" {
			_, err = ui.out.Write(text)
			return err
		}
		s, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		return ui.json(struct {
			status.TLS
			PEM string `json:"pem"`
		}{s.TLS, string(text)})
	}
	return cmd
}
