package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/terminal"
	"github.com/tunneld/tunneld/internal/usage"
)

func newStatus(ui *ui, client *localapi.Client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [NAME...]",
		Short: "Show how the forwards are doing, and why",
		Args:  usage.Args(cobra.ArbitraryArgs),
	}
	format := output(cmd, "json")
	wait, timeout := waiting(cmd, "wait until the forwards are ready")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		s, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		if s.Forwards, err = only(s.Forwards, names); err != nil {
			return err
		}
		var late error
		if *wait {
			if late, err = awaitAll(cmd.Context(), client, s.Forwards, *timeout); err != nil {
				return err
			}
		}
		if *format == "json" {
			err = ui.json(s)
		} else {
			ui.status(s, len(names) > 0)
		}
		return errors.Join(err, late)
	}
	return cmd
}

// awaitAll waits for all the forwards at once, and puts what they have become
// in their place. late says which are not ready.
func awaitAll(ctx context.Context, client *localapi.Client, forwards []status.Forward, timeout time.Duration) (late, err error) {
	failed := make([]error, len(forwards))
	var waiting sync.WaitGroup
	for i := range forwards {
		waiting.Go(func() {
			now, err := client.Wait(ctx, forwards[i].Name, timeout)
			if err != nil {
				failed[i] = err
				return
			}
			forwards[i] = now
		})
	}
	waiting.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	for i, f := range forwards {
		failed[i] = notReady(f, timeout)
	}
	return errors.Join(failed...), nil
}

// only picks the forwards that are named; all if none is.
func only(forwards []status.Forward, names []string) ([]status.Forward, error) {
	if len(names) == 0 {
		return forwards, nil
	}
	byName := make(map[string]status.Forward)
	for _, f := range forwards {
		byName[f.Name] = f
	}
	var picked []status.Forward
	for _, name := range names {
		f, ok := byName[name]
		if !ok {
			return nil, &localapi.Error{Message: "there is no forward " + name, Hint: "tunnelctl ls"}
		}
		picked = append(picked, f)
	}
	return picked, nil
}

// status prints the daemon's own affairs, where they matter or nothing else
// was asked for, and each forward.
func (u *ui) status(s status.Status, named bool) {
	if !named {
		fmt.Fprintf(u.out, "tunneld %s, configuration %s\n", s.Version, s.Config.Path)
		if s.DNS.Listen != "" {
			fmt.Fprintf(u.out, "DNS on %s", s.DNS.Listen)
			if s.DNS.Wanted != "" {
				fmt.Fprintf(u.out, " (%s was taken)", s.DNS.Wanted)
			}
			fmt.Fprintf(u.out, ", %d names\n", s.DNS.Names)
		}
		if s.DNS.Rung != "" {
			fmt.Fprintf(u.out, "names are claimed by %s (%s)\n", s.DNS.Rung, s.DNS.Why)
		}
	}
	if !named && s.DNS.Hint != "" && len(s.Forwards) > 0 {
		fmt.Fprintf(u.out, "  hint: %s\n", s.DNS.Hint)
	}
	for _, problem := range []struct{ what, text string }{
		{"configuration error", s.Config.Error},
		{"configuration", s.Config.Restart},
		{"configuration", s.Config.Unwatched},
		{"DNS error", s.DNS.Error},
		{"names", s.DNS.Problem},
	} {
		if problem.text != "" {
			fmt.Fprintf(u.out, "%s: %s\n", problem.what, problem.text)
		}
	}
	if e := s.Environment; e != nil && e.Problem != "" {
		fmt.Fprintf(u.out, "environment: %s\n  hint: %s\n", terminal.Printable(e.Problem), e.Hint)
	}
	u.trust(s.TLS, len(s.Forwards) > 0)
	for _, c := range s.Clusters {
		if c.State != status.Ready && !named {
			fmt.Fprintf(u.out, "context %s%s  %s  %s\n", c.Context, ofFile(c.Kubeconfig), c.State, c.Cause)
		}
	}
	for _, f := range s.Forwards {
		fmt.Fprintln(u.out)
		u.forward(f)
		if named {
			u.details(f)
		}
	}
	if len(s.Forwards) == 0 {
		u.note("nothing is forwarded yet: tunnelctl add SERVICE")
	}
}

// trust prints what has to be done about the CA: one hint at most, and none where
// there is nothing that it is of use for.
func (u *ui) trust(s status.TLS, forwards bool) {
	if s.Expiring != "" {
		fmt.Fprintf(u.out, "TLS: %s\n", s.Expiring)
	}
	switch {
	case s.Error != "":
		fmt.Fprintf(u.out, "TLS error: %s\n", s.Error)
		if s.Hint != "" {
			fmt.Fprintf(u.out, "  hint: %s\n", s.Hint)
		}
	case s.Renewed != "" && !s.Trusted:
		fmt.Fprintf(u.out, "TLS: the local CA is a new one, so clients have to trust it anew (the old one: %s)\n", s.Renewed)
		fmt.Fprintln(u.out, "  hint: tunnelctl trust")
	case s.Hint != "" && forwards:
		fmt.Fprintf(u.out, "https: %s\n", s.Hint)
	}
}

// trustHint says why browsers warn of a forward's URL; empty if they do not, or it is
// not known.
func trustHint(s status.TLS, f status.Forward) string {
	switch {
	case !strings.HasPrefix(f.URL, "https:"):
		return ""
	case s.Error != "":
		return "https: " + s.Error
	case s.Hint != "":
		return "https: " + s.Hint
	}
	return ""
}

// ofFile says which kubeconfig a context is of, where that is not the default
// one: several may have a context of the same name.
func ofFile(kubeconfig string) string {
	if kubeconfig == defaultKubeconfig() {
		return ""
	}
	return " of " + kubeconfig
}

// details prints what is of interest about one forward only.
func (u *ui) details(f status.Forward) {
	fmt.Fprintf(u.out, "  %s since %s\n", f.State, f.Since.Local().Format(time.DateTime))
	fmt.Fprintf(u.out, "  names: %s\n", strings.Join(ownNames(f), " "))
	if len(f.Unresolved) > 0 {
		fmt.Fprintf(u.out, "  of which this system does not resolve: %s\n", strings.Join(f.Unresolved, " "))
	}
	rows := [][]string{{"  PORT", "NAME", "LISTENS ON", "SERVED BY"}}
	for _, p := range f.Ports {
		listen := p.Listen
		if listen == "" {
			listen = "- " + p.Error
		}
		rows = append(rows, []string{fmt.Sprintf("  %d", p.Port), p.Name, listen, p.ServedBy})
	}
	u.table(rows)
	if len(f.Pods) > 0 {
		rows = [][]string{{"  POD", "READY", "ADDRESS", "NAMES"}}
		for _, pod := range f.Pods {
			ready := "no"
			if pod.Ready {
				ready = "yes"
			}
			rows = append(rows, []string{"  " + pod.Name, ready, pod.Address, strings.Join(pod.Hostnames, " ")})
		}
		u.table(rows)
	}
	fmt.Fprintf(u.out, "  connections: %d active, %d in all, %d failed; %s in, %s out\n",
		f.Connections.Active, f.Connections.Total, f.Connections.Failed, size(f.Bytes.In), size(f.Bytes.Out))
	if f.LastError != "" {
		fmt.Fprintf(u.out, "  last error: %s\n", f.LastError)
	}
}

// namesHint says how to reach a forward whose names do not resolve; it is empty if
// they do.
func namesHint(d status.DNS, f status.Forward) string {
	if d.Rung != "" && len(f.Unresolved) == 0 {
		return ""
	}
	return d.Hint
}

// ownNames are the names that lead to any pod of a forward.
func ownNames(f status.Forward) []string {
	var own []string
	for _, name := range f.Hostnames {
		if !slices.ContainsFunc(f.Pods, func(p status.Pod) bool { return slices.Contains(p.Hostnames, name) }) {
			own = append(own, name)
		}
	}
	return own
}

// size writes a number of bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v := float64(n)
	for i, unit := range units {
		if v < 1024 || i == len(units)-1 {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + unit
		}
		v /= 1024
	}
	return ""
}
