package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/environ"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/usage"
)

func newReload(ui *ui, client *localapi.Client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration and the kubeconfigs again",
		Long: `Read the configuration and the kubeconfigs again, and try at once what has been
refused. (A saved configuration is read without it.)

With --env the service first gets the environment of this shell, as far as
credential plugins need it: PATH, KUBECONFIG, proxies, profiles, agents and the
like, but no secrets. It keeps it over restarts. What changes is printed by name.`,
		Args: usage.Args(cobra.NoArgs),
	}
	format := output(cmd, "json")
	env := cmd.Flags().Bool("env", false, "give the service this shell's environment, without secrets")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *env {
			return reloadEnvironment(cmd.Context(), ui, client, *format)
		}
		if *format != "" {
			return usage.Errorf("there is nothing to print but with --env")
		}
		if err := client.Reload(cmd.Context()); err != nil {
			return err
		}
		fmt.Fprintln(ui.out, "reloaded")
		return nil
	}
	return cmd
}

func reloadEnvironment(ctx context.Context, ui *ui, client *localapi.Client, format string) error {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/" // it may have been removed; only relative paths need it
	}
	variables, left := environ.Take(os.Environ(), dir)
	answer, err := client.SetEnvironment(ctx, localapi.EnvironmentRequest{Variables: variables})
	if err != nil {
		return err
	}
	for _, l := range left { // it has not even been told of these
		answer.LeftOut = append(answer.LeftOut, localapi.LeftOut{Name: l.Name, Reason: string(l.Reason)})
	}
	slices.SortFunc(answer.LeftOut, func(a, b localapi.LeftOut) int { return strings.Compare(a.Name, b.Name) })
	if format == "json" {
		return ui.json(answer)
	}
	ui.environment(answer)
	return nil
}

// environment prints what has become of it: names, and no values.
func (u *ui) environment(answer localapi.EnvironmentResponse) {
	var rows [][]string
	for _, list := range []struct {
		what  string
		names []string
	}{{"set", answer.Set}, {"changed", answer.Changed}, {"unset", answer.Unset}} {
		for _, name := range list.names {
			rows = append(rows, []string{list.what, name})
		}
	}
	if len(rows) == 0 {
		rows = append(rows, []string{"unchanged"})
	}
	for _, l := range answer.LeftOut {
		rows = append(rows, []string{"left out", l.Name + ", which " + l.Reason})
	}
	u.table(rows)
	if answer.Note != "" {
		u.note(answer.Note)
	}
}
