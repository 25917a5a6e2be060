// Command tunneld-helper does the few things for tunneld that take root: it has
// the operating system ask for names of this machine's forwards, listens on low
// ports and passes the sockets. It runs when it is asked, for one user, within
// the rules of that user's policy, and ends when it is idle. It knows nothing of
// clusters, and reads no file of any user's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/tunneld/tunneld/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

const help = `tunneld-helper does for tunneld what takes root, for one user.

  tunneld-helper serve [--policy FILE] [--inetd | --socket PATH] [--idle TIME]
      answer that user's tunneld on the socket that systemd passes, and end when
      nobody has asked for TIME (5s); with --inetd, on the one that is the standard
      input, as launchd passes it; or, with --socket, on a socket of its own, and
      end only if TIME is given
  tunneld-helper release [--policy FILE | --uid UID]
      take back all that was done for that user and is still in force
  tunneld-helper version [--json]

The policy says who the user is and what may be asked; without --policy it is the
only one in ` + policyDir + `.
`

// A mistake is one in the command line, with what would have been right.
type mistake struct{ text, hint string }

func (m *mistake) Error() string { return m.text }

// A hinted error comes with what to do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// run is main without the process. It returns the exit status: 0 done, 1
// failed, 2 usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "tunneld-helper: error: %v\n", err)
	if h, ok := errors.AsType[hinted](err); ok {
		fmt.Fprintf(stderr, "tunneld-helper: hint: %s\n", h.hint)
	}
	if m, ok := errors.AsType[*mistake](err); ok {
		fmt.Fprintf(stderr, "tunneld-helper: hint: %s\n", m.hint)
		return 2
	}
	return 1
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return &mistake{"no command is named", "tunneld-helper help"}
	}
	switch args[0] {
	case "serve":
		return serve(ctx, args[1:], stderr)
	case "release":
		return release(ctx, args[1:], stderr)
	case "version":
		return printVersion(args[1:], stdout)
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(stdout, help)
		return err
	}
	return &mistake{fmt.Sprintf("unknown command %q", args[0]), "tunneld-helper help"}
}

// parse reads a command's flags. All that is wrong is a mistake.
func parse(flags *flag.FlagSet, args []string) error {
	flags.SetOutput(io.Discard)
	hint := "tunneld-helper help"
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return &mistake{"the flags are explained elsewhere", hint}
		}
		return &mistake{strings.Replace(err.Error(), ": -", ": --", 1), hint}
	}
	if flags.NArg() > 0 {
		return &mistake{fmt.Sprintf("%s takes no argument, such as %q", flags.Name(), flags.Arg(0)), hint}
	}
	return nil
}

func printVersion(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("version", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "")
	if err := parse(flags, args); err != nil {
		return err
	}
	v := version.Get()
	if *asJSON {
		return json.NewEncoder(stdout).Encode(v)
	}
	_, err := fmt.Fprintf(stdout, "tunneld-helper %s (%s, %s)\n", v.Version, v.Go, v.OS)
	return err
}
