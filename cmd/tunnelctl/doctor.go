package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/usage"
)

func newDoctor(ui *ui, client *localapi.Client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether names resolve, and what is in the way",
		Long: `Look whether the system's programs find the names, by which way, and what else
answers for names on this machine. The exit status is 1 if something failed.`,
		Args: usage.Args(cobra.NoArgs),
	}
	format := output(cmd, "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		checks, err := client.Doctor(cmd.Context())
		if err != nil {
			return err
		}
		if *format == "json" {
			err = ui.json(checks)
		} else {
			ui.checks(checks)
		}
		if err != nil {
			return err
		}
		failed := 0
		for _, c := range checks {
			if c.Result == status.Fail {
				failed++
			}
		}
		if failed > 0 {
			return &localapi.Error{Message: fmt.Sprintf("%d of %d checks failed", failed, len(checks))}
		}
		return nil
	}
	return cmd
}

// checks prints each check on a line, and its fix, if there is one, below it.
func (u *ui) checks(checks []status.Check) {
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	for _, c := range checks {
		fmt.Fprintf(u.out, "%-4s  %-*s  %s\n", c.Result, width, c.Name, c.Evidence)
		if c.Fix != "" {
			fmt.Fprintf(u.out, "      %-*s  fix: %s\n", width, "", c.Fix)
		}
	}
}
