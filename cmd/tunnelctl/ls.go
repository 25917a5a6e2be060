package main

import (
	"cmp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/usage"
)

func newList(ui *ui, client *localapi.Client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the forwards",
		Args:    usage.Args(cobra.NoArgs),
	}
	format := output(cmd, "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *format == "yaml" {
			text, err := client.Configured(cmd.Context())
			if err == nil {
				_, err = ui.out.Write(text)
			}
			return err
		}
		s, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		if *format == "json" {
			return ui.json(s.Forwards)
		}
		ui.list(s.Forwards)
		return nil
	}
	return cmd
}

func (u *ui) list(forwards []status.Forward) {
	if len(forwards) == 0 {
		u.note("nothing is forwarded yet: tunnelctl add SERVICE")
		return
	}
	rows := [][]string{{"NAME", "STATE", "WHERE", "TARGET"}}
	for _, f := range forwards {
		rows = append(rows, []string{f.Name, string(f.State), where(f), f.Target + pods(f.Endpoints)})
	}
	u.table(rows)
}

// where is what leads to a forward: its URL, else its raw ports, else its
// address as long as nothing listens.
func where(f status.Forward) string {
	if f.URL != "" {
		return f.URL
	}
	var listen []string
	for _, p := range f.Ports {
		if p.Listen != "" {
			listen = append(listen, p.Listen)
		}
	}
	return cmp.Or(strings.Join(listen, ","), f.Address)
}
