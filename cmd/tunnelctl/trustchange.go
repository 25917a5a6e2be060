package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/terminal"
	"github.com/tunneld/tunneld/internal/tls/truststore"
	"github.com/tunneld/tunneld/internal/usage"
)

// A trustChange puts a root certificate into the trust stores, or takes it out.
//
// Under sudo, what is the user's is done by another tunnelctl that runs as the user:
// root does not read, write or start anything below a home directory.
type trustChange struct {
	*trust
	who invoker.User

	root   *x509.Certificate // nil: not known, which a removal can do without
	source string            // of the root: the daemon's state directory
}

// A trustStep is a step of the plan, and what became of it.
type trustStep struct {
	truststore.Step
	// Changed says that it was done in this call.
	Changed bool   `json:"changed"`
	Error   string `json:"error,omitempty"`
}

// A trustReport is what "trust -o json" prints.
type trustReport struct {
	Fingerprint string      `json:"fingerprint,omitempty"`
	Steps       []trustStep `json:"steps"`
}

func (c *trustChange) run(ctx context.Context) error {
	if c.renew && c.dryRun {
		c.ui.note("a new CA would be made first, and what is said here of the present one done with that")
	}
	if c.renew && !c.dryRun {
		if ok, err := c.makeNew(ctx); !ok {
			return err
		}
	}
	if err := c.findRoot(ctx); err != nil {
		return err
	}
	if err := c.checkDomains(); err != nil {
		return err
	}
	steps, err := c.plan(ctx)
	if err != nil {
		return err
	}
	if *c.format == "" {
		c.show(steps)
	}
	if c.dryRun {
		return c.report(steps)
	}
	if slices.ContainsFunc(steps, trustStep.open) {
		if ok, err := c.confirmed(ctx); !ok {
			return err
		}
		steps = c.apply(ctx, steps)
	}
	return errors.Join(c.report(steps), c.refreshEnv())
}

// open reports whether there is something to do that can be done.
func (s trustStep) open() bool { return !s.Done && s.Blocked == "" }

// makeNew has a new CA made, after it has asked.
func (c *trustChange) makeNew(ctx context.Context) (bool, error) {
	if !c.yes {
		fmt.Fprintln(c.ui.out, "A new CA will be made. Whoever trusts the old one has to trust the new one.")
	}
	if ok, err := c.confirmed(ctx); !ok {
		return false, err
	}
	c.yes = true
	if !c.who.Sudo {
		err := c.client.RenewCA(ctx)
		return err == nil, err
	}
	// As a user with nothing of the machine's to change it only makes one.
	_, err := c.asUser(ctx, "trust", "--renew", "--yes", "--only", string(truststore.Machine), "-o", "json")
	return err == nil, err
}

// findRoot asks the daemon for its root certificate. A removal does without if need
// be: there are receipts.
func (c *trustChange) findRoot(ctx context.Context) error {
	r, err := c.daemonRoot(ctx)
	if err == nil {
		c.source = r.Dir
		c.root, err = r.root()
	}
	if !c.remove {
		return err
	}
	if err != nil {
		c.ui.note("what was noted when it was installed is taken out; the CA that is in use is not known: " + err.Error())
	}
	if c.root != nil && os.Geteuid() == 0 && c.others(truststore.Fingerprint(c.root)) {
		c.root = nil
	}
	return nil
}

// others reports whether another user of this machine has had that certificate
// installed: it is public, so that anybody can hand it out as one's own.
func (c *trustChange) others(fingerprint string) bool {
	receipts := machineReceipts(c.who)
	found, _ := filepath.Glob(filepath.Join(filepath.Dir(receipts), "*", fingerprint+".json"))
	return slices.ContainsFunc(found, func(path string) bool { return filepath.Dir(path) != receipts })
}

// checkDomains refuses a CA that is good for more than local names, unless its user
// says the domain: root does not take the daemon's word for it, and --yes is said
// before anybody has seen it.
func (c *trustChange) checkDomains() error {
	if c.remove || c.dryRun || c.root == nil {
		return nil
	}
	var missing []string
	for _, domain := range c.root.PermittedDNSDomains {
		if !slices.Contains([]string{"local", "localhost", "test"}, domain) && !slices.Contains(c.domains, domain) {
			missing = append(missing, domain)
		}
	}
	if len(missing) == 0 || !c.yes {
		c.domains = append(c.domains, missing...) // they are in the question
		return nil
	}
	return usage.WithHint(
		fmt.Errorf("the CA is good for names in %s, too, which --yes does not cover", strings.Join(missing, ", ")),
		"if that is the domain in your configuration: --domain "+strings.Join(missing, " --domain "))
}

func (c *trustChange) daemonRoot(ctx context.Context) (r trusted, err error) {
	if c.who.Sudo {
		out, err := c.asUser(ctx, "trust", "--pem", "-o", "json")
		if err != nil {
			return r, err
		}
		return r, json.Unmarshal(out, &r)
	}
	text, err := c.client.RootPEM(ctx)
	if err != nil {
		return r, err
	}
	s, err := c.client.Status(ctx)
	return trusted{s.TLS, string(text)}, err
}

// scopes are those that this call is about. On macOS and Windows every program reads
// the user's store, so the machine's is only for who asks for it.
func (c *trustChange) scopes() []truststore.Scope {
	if c.only == "" && !c.remove && runtime.GOOS != "linux" && os.Geteuid() != 0 {
		return []truststore.Scope{truststore.User}
	}
	var scopes []truststore.Scope
	for _, scope := range []truststore.Scope{truststore.Machine, truststore.User} {
		if c.only == "" || c.only == string(scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

func (c *trustChange) stores(scope truststore.Scope) *truststore.Stores {
	receipts := machineReceipts(c.who)
	if scope == truststore.User {
		receipts = filepath.Join(userDir(c.who), "trust")
	}
	return &truststore.Stores{
		Scope: scope, Home: c.who.Home, Getenv: os.Getenv, Receipts: receipts,
		Log: slog.New(slog.NewTextHandler(c.ui.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// userDir is where a user's receipts are, and the files of "tunnelctl env", whatever
// daemon they have and whatever the environment says: they must be found again.
func userDir(who invoker.User) string {
	return filepath.Join(who.Home, ".local", "state", "tunneld")
}

// machineReceipts is where root notes what it has done for a user.
func machineReceipts(who invoker.User) string {
	switch runtime.GOOS {
	case "darwin":
		return "/Library/Application Support/tunneld/trust/" + who.UID
	case "windows":
		// Not ProgramData, where anybody may make a directory.
		return filepath.Join(os.Getenv("ProgramFiles"), "tunneld", "trust", who.UID)
	}
	return "/var/lib/tunneld-trust/" + who.UID
}

func (c *trustChange) plan(ctx context.Context) ([]trustStep, error) {
	var steps []trustStep
	for _, scope := range c.scopes() {
		if scope == truststore.User && c.who.Sudo {
			r, err := c.userReport(ctx, "--dry-run")
			if err != nil && c.remove && ctx.Err() == nil {
				// What is the machine's is to be taken out none the less.
				steps = append(steps, trustStep{Step: truststore.Step{
					Action: truststore.Remove, Blocked: err.Error(),
					Place: truststore.Place{Path: c.who.Home, Scope: truststore.User, Readers: "programs of user " + c.who.Name},
				}})
				continue
			}
			if err != nil {
				return nil, err
			}
			steps = append(steps, r.Steps...)
			continue
		}
		planned, err := c.planIn(ctx, c.stores(scope))
		if err != nil {
			return nil, err
		}
		for _, s := range planned {
			steps = append(steps, trustStep{Step: s})
		}
		if scope == truststore.User {
			steps = append(steps, c.planEnv()...)
		}
	}
	return steps, nil
}

func (c *trustChange) planIn(ctx context.Context, stores *truststore.Stores) ([]truststore.Step, error) {
	if c.remove {
		return stores.Removal(ctx, c.root)
	}
	return stores.Install(ctx, c.root, c.source)
}

// environment is the kind of the place where the files of "tunnelctl env" are.
const environment truststore.Kind = "environment"

// planEnv plans the removal of these files.
func (c *trustChange) planEnv() []trustStep {
	env := newEnv(c.who)
	if !c.remove || !env.Present() {
		return nil
	}
	return []trustStep{{Step: truststore.Step{
		Action: truststore.Remove,
		Place:  truststore.Place{Kind: environment, Path: env.Dir, Scope: truststore.User, Readers: "shells that have called tunnelctl env"},
	}}}
}

// apply does what can be done, and goes on after what fails. Under sudo the user's
// steps are what another process said, and that process does them.
func (c *trustChange) apply(ctx context.Context, steps []trustStep) []trustStep {
	var after, users []trustStep
	for _, s := range steps {
		if c.who.Sudo && s.Place.Scope == truststore.User {
			users = append(users, s)
			continue
		}
		if s.open() {
			if err := c.do(ctx, s.Step); err != nil {
				s.Error = err.Error()
			} else {
				s.Done, s.Changed = true, true
			}
		}
		after = append(after, s)
	}
	if !slices.ContainsFunc(users, trustStep.open) {
		return append(after, users...)
	}
	r, err := c.userReport(ctx, "--yes")
	if err == nil {
		return append(after, r.Steps...)
	}
	// What was planned is what has failed.
	for _, s := range users {
		if s.open() {
			s.Error = fmt.Sprintf("%s: %v", s.Place.Path, err)
		}
		after = append(after, s)
	}
	return after
}

func (c *trustChange) do(ctx context.Context, s truststore.Step) error {
	if s.Place.Kind == environment {
		return newEnv(c.who).Remove()
	}
	return c.stores(s.Place.Scope).Do(ctx, s)
}

// refreshEnv brings the files of "tunnelctl env" up to date.
func (c *trustChange) refreshEnv() error {
	if c.who.Sudo || c.only == string(truststore.Machine) {
		return nil
	}
	env := newEnv(c.who)
	if c.remove {
		if len(env.Unmake()) > 0 && !env.Present() {
			c.ui.hint(`this shell still names files that are gone: eval "$(tunnelctl env --unset)"`)
		}
		return nil
	}
	return env.Refresh(c.root)
}

// show prints the plan.
func (c *trustChange) show(steps []trustStep) {
	if c.root != nil && !c.remove {
		fmt.Fprintln(c.ui.out, terminal.Printable(c.root.Subject.CommonName))
		fmt.Fprintf(c.ui.out, "  SHA-256 %s\n", truststore.Fingerprint(c.root))
		fmt.Fprintf(c.ui.out, "  good for names in %s, for addresses of this machine, and for nothing else; until %s\n",
			strings.Join(c.root.PermittedDNSDomains, ", "), c.root.NotAfter.Format(time.DateOnly))
	}
	var rows [][]string
	for _, s := range steps {
		verb, note := string(s.Action), s.Place.Readers
		switch {
		case s.Done && s.Action == truststore.Add:
			verb = "is in"
		case s.Done:
			verb = "is not in"
		case s.Blocked != "":
			verb, note = "cannot "+verb, note+": "+s.Blocked
		case s.Asks != "":
			note += ": " + s.Asks
		}
		rows = append(rows, []string{"  " + verb, short(s.Place.Path, c.who.Home), note})
	}
	c.ui.table(rows)
}

// report tells what became of the plan.
func (c *trustChange) report(steps []trustStep) error {
	if *c.format != "" {
		r := trustReport{Steps: steps}
		if c.root != nil {
			r.Fingerprint = truststore.Fingerprint(c.root)
		}
		if err := c.ui.json(r); err != nil {
			return err
		}
	} else {
		c.result(steps)
	}
	var failed []error
	for _, s := range steps {
		switch {
		case s.Error != "":
			failed = append(failed, &localapi.Error{Message: s.Error, Hint: s.Fix})
		case s.Done || s.Blocked == "":
		case c.takesRoot(s) && !c.remove && (c.only == "" || c.renew):
			// That is no failure: the rest, or the new CA, is what was asked for. It is
			// said once.
		case c.dryRun:
			if s.Fix != "" {
				c.ui.hint(s.Fix)
			}
		default:
			failed = append(failed, &localapi.Error{Message: s.Place.Path + ": " + s.Blocked, Hint: s.Fix})
		}
	}
	if slices.ContainsFunc(steps, c.takesRoot) {
		c.ui.hint("for what takes root: " + c.withSudo())
	}
	return errors.Join(failed...)
}

// result says in a line what was changed.
func (c *trustChange) result(steps []trustStep) {
	changed, left := 0, 0
	for _, s := range steps {
		switch {
		case s.Changed:
			changed++
		case !s.Done:
			left++
		}
	}
	done := "it is in place everywhere"
	if c.remove {
		done = "it is nowhere"
	}
	switch {
	case c.dryRun:
		fmt.Fprintln(c.ui.out, "nothing was changed")
	case len(steps) == 0:
		fmt.Fprintln(c.ui.out, "nothing to do")
	case left > 0:
		fmt.Fprintf(c.ui.out, "%d changed, %d left as %s\n", changed, left, map[bool]string{true: "it is", false: "they are"}[left == 1])
	case changed > 0:
		fmt.Fprintf(c.ui.out, "%d changed; all that there is to do is done: tunnelctl trust --check asks the clients\n", changed)
	default:
		fmt.Fprintf(c.ui.out, "nothing to do: %s\n", done)
	}
}

// takesRoot reports whether a step is left to root.
func (c *trustChange) takesRoot(s trustStep) bool {
	return !s.Done && s.Blocked != "" && s.Place.Scope == truststore.Machine && os.Geteuid() > 0
}

// withSudo is this command as root.
func (c *trustChange) withSudo() string {
	command := "sudo tunnelctl"
	if socket := localapi.Named(c.client.Socket); socket != "" {
		command += " --socket " + syntaxes["sh"].quote(socket)
	}
	command += " trust"
	if c.remove {
		command += " --remove"
	}
	for _, domain := range c.domains {
		command += " --domain " + domain
	}
	return command
}
