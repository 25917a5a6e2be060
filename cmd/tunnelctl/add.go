package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/usage"
)

// settle is how long "add" looks for the state that a new forward comes to,
// where it is not told to wait.
const settle = 2 * time.Second

func newAdd(ui *ui, client *localapi.Client) *cobra.Command {
	var req localapi.AddRequest
	cmd := &cobra.Command{
		Use:   "add SERVICE",
		Short: "Forward a Service, for good",
		Long: `Forward a Service, or deployment/NAME, statefulset/NAME or pod/NAME, under a name
and an address of its own, until it is removed.

Without -n it is looked for in the context's namespace, and then in all others.
Adding the same forward again changes nothing.`,
		Example: `  tunnelctl add task-api
  tunnelctl add postgres -n billing --context staging --port 5432
  tunnelctl add deployment/web --name shop --wait`,
		Args: usage.Args(cobra.ExactArgs(1)),
	}
	format := output(cmd, "json")
	wait, timeout := waiting(cmd, "wait until the forward is ready")
	flags := cmd.Flags()
	flags.StringVarP(&req.Namespace, "namespace", "n", "", "namespace of the target")
	flags.StringVar(&req.Context, "context", "", "context of the kubeconfig (default the current one)")
	flags.StringVar(&req.Name, "name", "", "name of the forward (default that of the target)")
	flags.StringSliceVar(&req.Ports, "port", nil, "port to forward, by number or name; may be repeated (default all TCP ports)")
	flags.StringVar(&req.HTTP, "http", "", "port that the http and https URLs lead to, or \"none\" (default found from the Service)")
	flags.BoolVar(&req.AllowProduction, "allow-production", false, "allow a context that contexts.deny forbids")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.Target = args[0]
		req.Kubeconfig = kubeconfig()
		answer, err := client.Add(cmd.Context(), req)
		if err != nil {
			return err
		}
		limit := settle
		if *wait {
			limit = *timeout
		}
		f, err := client.Wait(cmd.Context(), answer.Forward.Name, limit)
		if err != nil {
			return err
		}
		answer.Forward = f
		all, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		if *format == "json" {
			if err := ui.json(answer); err != nil {
				return err
			}
		} else {
			ui.added(answer, namesHint(all.DNS, answer.Forward), trustHint(all.TLS, answer.Forward))
		}
		if *wait {
			return notReady(f, *timeout)
		}
		return nil
	}
	return cmd
}

// waiting adds --wait, and --timeout, which is nothing without it.
func waiting(cmd *cobra.Command, what string) (wait *bool, timeout *time.Duration) {
	flags := cmd.Flags()
	wait = flags.Bool("wait", false, what)
	timeout = flags.Duration("timeout", 30*time.Second, "how long --wait waits")
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if flags.Changed("timeout") && !*wait {
			return usage.WithHint(errors.New("--timeout says how long to wait, and without --wait nothing waits"), "--wait")
		}
		return check(cmd, args)
	}
	return wait, timeout
}

func (u *ui) added(a localapi.AddResponse, hints ...string) {
	u.forward(a.Forward)
	if a.Note != "" {
		fmt.Fprintf(u.out, "  note: %s\n", a.Note)
	}
	if !a.Added {
		fmt.Fprintln(u.out, "  note: it was there already; nothing was changed")
	}
	fmt.Fprintln(u.out, status.DevOnly)
	for _, hint := range hints {
		if hint != "" {
			u.hint(hint)
		}
	}
}

// notReady is the error of a wait that ended without success.
func notReady(f status.Forward, timeout time.Duration) error {
	if f.State == status.Ready || f.State == status.Degraded {
		return nil
	}
	message := fmt.Sprintf("%s is %s", f.Name, f.State)
	if f.State != status.Failed {
		message = fmt.Sprintf("%s is not ready after %v: it is %s", f.Name, timeout, f.State)
	}
	if f.Cause != "" {
		message += ": " + f.Cause
	}
	return &localapi.Error{Message: message, Hint: f.Hint}
}

// kubeconfig is what the shell says about where the kubeconfig is, with
// absolute paths: the service has neither the shell's variables nor its
// directory. It is empty where the shell says nothing.
func kubeconfig() string {
	var paths []string
	for _, p := range filepath.SplitList(os.Getenv("KUBECONFIG")) {
		if p == "" {
			continue
		}
		if abs, err := filepath.Abs(p); err == nil {
			p = abs
		}
		paths = append(paths, p)
	}
	if len(paths) == 0 {
		return defaultKubeconfig()
	}
	return strings.Join(paths, string(filepath.ListSeparator))
}

// defaultKubeconfig is where the kubeconfig is if nobody says where; empty if
// there is no home directory.
func defaultKubeconfig() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".kube", "config")
}
