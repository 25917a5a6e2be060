package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
)

func newOpen(ui *ui, client *localapi.Client) *cobra.Command {
	var printOnly bool
	cmd := &cobra.Command{
		Use:   "open NAME",
		Short: "Open a forward in the browser",
		Args:  usageArgs(cobra.ExactArgs(1)),
	}
	cmd.Flags().BoolVar(&printOnly, "print", false, "print the URL only")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		found, err := only(s.Forwards, args)
		if err != nil {
			return err
		}
		f := found[0]
		if f.URL == "" {
			return &localapi.Error{
				Message: fmt.Sprintf("%s has no HTTP port that is known", f.Name),
				Hint:    "say which of its ports speaks HTTP: http: PORT in the configuration, or add it with --http PORT",
			}
		}
		fmt.Fprintln(ui.out, f.URL)
		if printOnly {
			return nil
		}
		name, argv := browser(f.URL)
		if out, err := exec.CommandContext(cmd.Context(), name, argv...).CombinedOutput(); err != nil {
			return &localapi.Error{
				Message: fmt.Sprintf("no browser could be started with %s: %v %s", name, err, out),
				Hint:    "open the URL yourself, or set $BROWSER",
			}
		}
		return nil
	}
	return cmd
}

// browser is the command that opens a URL.
func browser(url string) (name string, args []string) {
	if b := os.Getenv("BROWSER"); b != "" {
		return b, []string{url}
	}
	switch runtime.GOOS {
	case "darwin":
		return "open", []string{url}
	case "windows":
		return "rundll32", []string{"url.dll,FileProtocolHandler", url}
	}
	return "xdg-open", []string{url}
}
