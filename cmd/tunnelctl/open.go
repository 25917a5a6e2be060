package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/usage"
)

// browserFails is within what time a browser that cannot be started says so.
const browserFails = 2 * time.Second

func newOpen(ui *ui, client *localapi.Client) *cobra.Command {
	var printOnly bool
	cmd := &cobra.Command{
		Use:   "open NAME",
		Short: "Open a forward in the browser",
		Long: `Open a forward in the browser: $BROWSER, or what the system takes for it. As long
as nothing makes the system ask tunneld for names, that is the .localhost URL,
which browsers resolve by themselves.`,
		Args: usage.Args(cobra.ExactArgs(1)),
	}
	format := output(cmd, "json")
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
		url := openable(found[0], namesHint(s.DNS, found[0]) == "")
		if url == "" {
			return &localapi.Error{
				Message: fmt.Sprintf("%s has no HTTP port that is known", found[0].Name),
				Hint:    "say which of its ports speaks HTTP: http: PORT in the configuration, or add it with --http PORT",
			}
		}
		if *format == "json" {
			return ui.json(map[string]any{"name": found[0].Name, "url": url, "urls": found[0].URLs})
		}
		fmt.Fprintln(ui.out, url)
		if printOnly {
			return nil
		}
		return start(browser(url))
	}
	return cmd
}

// openable is the URL that a browser can open; names says that it can resolve
// the forward's own.
func openable(f status.Forward, names bool) string {
	alias := func(url string) bool { return strings.Contains(url, ".localhost") }
	if i := slices.IndexFunc(f.URLs, alias); i >= 0 && !names {
		return f.URLs[i]
	}
	return f.URL
}

// start starts a program that may go on after this one has ended.
func start(argv []string) error {
	program := exec.Command(argv[0], argv[1:]...)
	program.Stderr = os.Stderr // a file, so that it can be written to afterwards
	err := program.Start()
	if err == nil {
		ended := make(chan error, 1)
		go func() { ended <- program.Wait() }()
		timer := time.NewTimer(browserFails)
		defer timer.Stop()
		select {
		case err = <-ended:
		case <-timer.C: // it is the browser itself
		}
	}
	if err == nil {
		return nil
	}
	return &localapi.Error{
		Message: fmt.Sprintf("no browser could be started with %s: %v", argv[0], err),
		Hint:    "open the URL yourself, or set $BROWSER",
	}
}

// browser is the command that opens a URL.
func browser(url string) []string {
	if b := strings.Fields(os.Getenv("BROWSER")); len(b) > 0 {
		return append(b, url)
	}
	switch runtime.GOOS {
	case "darwin":
		return []string{"open", url}
	case "windows":
		return []string{"rundll32", "url.dll,FileProtocolHandler", url}
	}
	return []string{"xdg-open", url}
}
