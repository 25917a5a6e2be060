package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	localtls "github.com/tunneld/tunneld/internal/tls"
	"github.com/tunneld/tunneld/internal/tls/truststore"
	"github.com/tunneld/tunneld/internal/usage"
)

// A trust is one call of the command.
type trust struct {
	ui     *ui
	client *localapi.Client
	in     io.Reader // where the answer to a question is typed

	pem, check, remove, renew, yes, dryRun bool
	only                                   string
	domains                                []string
	format                                 *string
}

func newTrust(ui *ui, client *localapi.Client) *cobra.Command {
	t := &trust{ui: ui, client: client, in: os.Stdin}
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Have the local CA trusted, or look who trusts it",
		Long: `Put the root certificate of the local CA into the trust stores of this machine:
the system's, the browsers', Java's. It shows what it would do, and asks.

The CA can sign for local names only, and its root key exists no more. The
system's own store takes root: sudo tunnelctl trust does that part as root, and
the rest as you, in your home.`,
		Example: `  tunnelctl trust
  sudo tunnelctl trust --yes
  tunnelctl trust --check
  tunnelctl trust --remove
  tunnelctl trust --pem > tunneld-ca.pem`,
		Args: usage.Args(cobra.NoArgs),
	}
	t.format = output(cmd, "json")
	flags := cmd.Flags()
	flags.BoolVar(&t.check, "check", false, "ask the TLS clients of this machine, by a handshake of each, whether they trust it")
	flags.BoolVar(&t.remove, "remove", false, "take it out of all trust stores, by its fingerprint")
	flags.BoolVar(&t.renew, "renew", false, "make a new CA first; the old one is taken out")
	flags.BoolVar(&t.pem, "pem", false, "print the root certificate in PEM, and change nothing")
	flags.BoolVar(&t.dryRun, "dry-run", false, "show what would be done")
	flags.BoolVarP(&t.yes, "yes", "y", false, "do not ask")
	flags.StringSliceVar(&t.domains, "domain", nil, "trust it for names in this domain, too; may be repeated (--yes alone covers local, localhost and test)")
	flags.StringVar(&t.only, "only", "", "leave out the trust stores of the other: user or machine")
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := t.sensible(); err != nil {
			return err
		}
		return check(cmd, args)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return t.run(cmd.Context()) }
	return cmd
}

// sensible finds flags that do not go together.
func (t *trust) sensible() error {
	what := 0
	for _, set := range []bool{t.pem, t.check, t.remove, t.renew} {
		if set {
			what++
		}
	}
	changes := !t.pem && !t.check
	switch {
	case what > 1:
		return usage.Errorf("--pem, --check, --remove and --renew exclude each other")
	case t.only != "" && t.only != string(truststore.User) && t.only != string(truststore.Machine):
		return usage.Errorf("--only %q: say user or machine", t.only)
	case !changes && (t.yes || t.dryRun || t.only != "" || len(t.domains) > 0):
		return usage.Errorf("--yes, --dry-run, --only and --domain are for what changes something")
	case changes && *t.format != "" && !t.yes && !t.dryRun:
		return usage.WithHint(errors.New("with -o nobody is asked"), "--yes or --dry-run")
	}
	return nil
}

func (t *trust) run(ctx context.Context) error {
	switch {
	case t.pem:
		return t.printPEM(ctx)
	case t.check:
		return t.askClients(ctx)
	}
	who, err := invoker.Find(ctx)
	if errors.Is(err, invoker.ErrUnknown) && t.remove && t.only == string(truststore.Machine) {
		who, err = invoker.Former(who.UID) // what root has done for them is root's to take out
	}
	if err != nil {
		return err
	}
	c := &trustChange{trust: t, who: who}
	return c.run(ctx)
}

// A trusted is what is known of a root certificate; it is what "trust --pem -o json"
// prints.
type trusted struct {
	status.TLS
	PEM string `json:"pem"`
}

func (t *trust) printPEM(ctx context.Context) error {
	text, err := t.client.RootPEM(ctx)
	if err != nil {
		return err
	}
	if *t.format == "" {
		_, err = t.ui.out.Write(text)
		return err
	}
	s, err := t.client.Status(ctx)
	if err != nil {
		return err
	}
	return t.ui.json(trusted{s.TLS, string(text)})
}

// root reads a root certificate, and refuses one that could be used for more than
// local names: what a daemon hands out, whoever speaks for it, root is about to make
// the whole machine trust.
func (r trusted) root() (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(r.PEM))
	if block == nil {
		return nil, errors.New("the daemon's root certificate is not in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the daemon's root certificate: %w", err)
	}
	if _, err := localtls.Bounds(cert); err != nil {
		return nil, &localapi.Error{
			Message: "the daemon's root certificate must not be trusted: " + err.Error(),
			Hint:    "if it is your own tunneld that answers, have it make a new one: tunnelctl trust --renew",
		}
	}
	return cert, nil
}

// confirmed asks whoever sits at the terminal, unless --yes has been said; nobody there
// is a mistake.
func (t *trust) confirmed(ctx context.Context) (bool, error) {
	if t.yes {
		return true, nil
	}
	if !interactive(t.in) {
		return false, usage.WithHint(errors.New("there is no terminal to ask at"), "--yes, or --dry-run")
	}
	fmt.Fprint(t.ui.out, "Go on? [y/N] ")
	answer := make(chan string, 1)
	go func() {
		// A read from a terminal cannot be given up: it ends with the process.
		line, _ := bufio.NewReader(t.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(t.ui.out)
		return false, ctx.Err()
	case line := <-answer:
		if line == "y" || line == "yes" {
			return true, nil
		}
	}
	fmt.Fprintln(t.ui.out, "nothing was changed")
	return false, nil
}

// interactive reports whether somebody can be asked.
func interactive(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// short is a path as it is said to people.
func short(path, home string) string {
	if rest, err := filepath.Rel(home, path); err == nil && filepath.IsLocal(rest) && home != "" {
		return filepath.Join("~", rest)
	}
	return path
}
