package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/terminal"
	"github.com/tunneld/tunneld/internal/usage"
)

// The printing rules: data goes to standard output and nothing else does;
// errors and hints go to standard error, one line each, with the program's
// name in front. Machines read -o json, which is the daemon's own answer.

// A ui prints for people.
type ui struct {
	out, err io.Writer
}

// fail prints an error, and the hint for it, if there is one; of several that
// were joined, each.
func (u *ui) fail(err error, hintFor func(error) string) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok && !hasOwnText(err) {
		for _, one := range joined.Unwrap() {
			u.fail(one, hintFor)
		}
		return
	}
	fmt.Fprintf(u.err, "tunnelctl: error: %s\n", terminal.Printable(err.Error()))
	if hint := hintFor(err); hint != "" {
		u.hint(hint)
	}
}

// hasOwnText reports whether an error says more than those that it joins.
func hasOwnText(err error) bool {
	return err.Error() != errors.Join(err.(interface{ Unwrap() []error }).Unwrap()...).Error()
}

func (u *ui) hint(text string) { fmt.Fprintf(u.err, "tunnelctl: hint: %s\n", terminal.Printable(text)) }
func (u *ui) note(text string) { fmt.Fprintf(u.err, "tunnelctl: note: %s\n", terminal.Printable(text)) }

func (u *ui) json(v any) error {
	e := json.NewEncoder(u.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table prints rows in columns, without trailing blanks.
func (u *ui) table(rows [][]string) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = terminal.Printable(cell)
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
	for line := range strings.Lines(text.String()) {
		fmt.Fprintln(u.out, strings.TrimRight(line, " \n"))
	}
}

// forward prints one forward: its state, where it is, and why it does not
// work, if so.
func (u *ui) forward(f status.Forward) {
	fmt.Fprintf(u.out, "%s  %s  %s%s\n", f.Name, f.State, f.Target, pods(f.Endpoints))
	if f.Cause != "" {
		fmt.Fprintf(u.out, "  cause: %s\n", f.Cause)
	}
	if f.Hint != "" {
		fmt.Fprintf(u.out, "  hint: %s\n", f.Hint)
	}
	var own, alias []string
	for _, url := range f.URLs {
		if strings.Contains(url, ".localhost") && !strings.Contains(f.URL, ".localhost") {
			alias = append(alias, url)
		} else {
			own = append(own, url)
		}
	}
	for _, urls := range [][]string{own, alias} {
		if len(urls) > 0 {
			fmt.Fprintf(u.out, "  %s\n", strings.TrimRight(fmt.Sprintf("%-32s  %s", urls[0], strings.Join(urls[1:], "  ")), " "))
		}
	}
	for _, p := range f.Ports {
		if p.ServedBy == "gateway" || p.Listen == "" || len(f.Hostnames) == 0 {
			continue
		}
		fmt.Fprintf(u.out, "  %s:%s  (%s)\n", f.Hostnames[0], p.Listen[strings.LastIndex(p.Listen, ":")+1:], f.Address)
	}
	if len(f.Pods) > 0 {
		fmt.Fprintf(u.out, "  %s\n", podNames(f.Pods))
	}
	for _, note := range f.Notes {
		fmt.Fprintf(u.out, "  note: %s\n", note)
	}
}

// podNames are a few of the pods' names, and how many more there are.
func podNames(pods []status.Pod) string {
	const few = 3
	text := "each pod:"
	for i, pod := range pods {
		if i == few {
			return fmt.Sprintf("%s and %d more", text, len(pods)-few)
		}
		if len(pod.Hostnames) > 0 {
			text += " " + pod.Hostnames[0]
		}
	}
	return text
}

func pods(e status.Endpoints) string {
	switch {
	case e.Total == 0:
		return ""
	case e.Total == 1:
		return fmt.Sprintf(", %d of 1 pod", e.Ready)
	}
	return fmt.Sprintf(", %d of %d pods", e.Ready, e.Total)
}

// output adds -o, with the formats that a command knows besides the text for
// people, which is the default.
func output(cmd *cobra.Command, formats ...string) *string {
	format := new(string)
	cmd.Flags().StringVarP(format, "output", "o", "", "output format: "+strings.Join(formats, " or "))
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		for _, known := range append(formats, "") {
			if *format == known {
				return check(cmd, args)
			}
		}
		return usage.Errorf("output format %q is not known: use %s", *format, strings.Join(formats, " or "))
	}
	return format
}
