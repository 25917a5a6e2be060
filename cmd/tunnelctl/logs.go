package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/usage"
)

func newLogs(ui *ui, client *localapi.Client) *cobra.Command {
	var follow bool
	var last int
	cmd := &cobra.Command{
		Use:   "logs [NAME]",
		Short: "Show what the daemon did, for one forward or for all",
		Long: `Show what the daemon did lately, for one forward or for all: states and why they
changed, connections and requests. Bodies and query strings are never logged.`,
		Args: usage.Args(cobra.MaximumNArgs(1)),
	}
	format := output(cmd, "json")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	cmd.Flags().IntVar(&last, "tail", 100, "how many of the last lines to show; 0 for all there are")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if last < 0 {
			return usage.Errorf("--tail %d: a number of lines is not negative", last)
		}
		name := ""
		if len(args) > 0 {
			name = args[0]
			s, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := only(s.Forwards, args); err != nil {
				return err
			}
		}
		lines := json.NewEncoder(ui.out)
		for rec, err := range client.Logs(cmd.Context(), name, last, follow) {
			if err != nil {
				return err
			}
			if *format == "json" {
				err = lines.Encode(rec)
			} else {
				_, err = fmt.Fprintln(ui.out, logLine(rec))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// logLine writes a record for people.
func logLine(r status.LogRecord) string {
	var b strings.Builder
	b.WriteString(r.Time.Local().Format(time.DateTime))
	if r.Level != "INFO" && r.Level != "DEBUG" {
		b.WriteString(" " + strings.ToLower(r.Level) + ":")
	}
	if r.Forward != "" {
		b.WriteString(" " + r.Forward)
	}
	b.WriteString(" " + r.Msg)
	for _, a := range r.Attrs {
		if a[1] == "" {
			continue
		}
		value := a[1]
		if strings.ContainsAny(value, " \"") {
			value = fmt.Sprintf("%q", value)
		}
		b.WriteString(" " + a[0] + "=" + value)
	}
	return b.String()
}
