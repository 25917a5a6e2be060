package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/lockfile"
	"github.com/tunneld/tunneld/internal/rootapi"
	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/usage"
)

// An installation is what "install" and "uninstall" have in common.
type installation struct {
	in       io.Reader
	out, err io.Writer
	user     string
	yes      bool
	dryRun   bool
	without  []string
	domains  []string // that --yes covers
	purge    bool
	all      bool
}

// A site is one user's installation on this kind of machine.
type site struct {
	machine *setup.Machine
	plan    []setup.Item
	// steps are those that the plan is about.
	steps []string
	view  homeView
	// look is how view came about.
	look func(context.Context) (homeView, error)
	// before, if set, is called when changes are going to be made.
	before func(context.Context, []setup.Standing) error
	// aside, if set, is called when programs are going to be taken out.
	aside func() error
}

func newInstall(stdout, stderr io.Writer) *cobra.Command {
	i := &installation{in: os.Stdin, out: stdout, err: stderr}
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install tunneld as a service of this machine, for one user",
		Long: `Install tunneld as a service of this machine, for one user: the daemon, which runs
as that user without any privilege, from the start of the machine on; the helper
that has names resolve and opens ports 80 and 443; and the local CA in the trust
stores. It shows what it is going to do, asks once, and notes each change before
it makes it: "tunneld uninstall" takes all of it out again. To install again is
to upgrade, or to go on after a failure.

It is run with sudo, by the user; or by root, with --user.`,
		Args: usage.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return i.install(cmd.Context()) },
	}
	i.flags(cmd)
	cmd.Flags().StringSliceVar(&i.without, "without", nil, "leave steps out: "+strings.Join(stepNames(), ", "))
	cmd.Flags().StringSliceVar(&i.domains, "domain", nil, "with --yes: the domain of your configuration that is not local, localhost or test")
	return cmd
}

func newUninstall(stdout, stderr io.Writer) *cobra.Command {
	i := &installation{in: os.Stdin, out: stdout, err: stderr}
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take out what install has put in",
		Long: `Take out what "tunneld install" has put in, whatever became of it: with the daemon
dead, after an upgrade, or when it was installed half. Only what is still as it
was made is taken out; the rest is left, and said. The configuration is kept.`,
		Args: usage.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return i.uninstall(cmd.Context()) },
	}
	i.flags(cmd)
	cmd.Flags().BoolVar(&i.purge, "purge", false, "remove the user's configuration and state, too")
	cmd.Flags().BoolVar(&i.all, "all", false, "for all users that have an installation")
	return cmd
}

func (i *installation) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&i.user, "user", "", "whose daemon it is: a name or an id (default who called sudo)")
	cmd.Flags().BoolVarP(&i.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&i.dryRun, "dry-run", false, "only say what would be done")
}

// who finds the user. Root's own daemon is for who says so.
func (i *installation) who(ctx context.Context) (invoker.User, error) {
	if i.user != "" {
		return invoker.Of(ctx, i.user)
	}
	who, err := invoker.Find(ctx)
	if err == nil && who.UID == "0" {
		return who, usage.WithHint(errors.New("this would be root's own daemon, with root's kubeconfigs"),
			"name the user: --user NAME; or say --user root")
	}
	return who, err
}

func (i *installation) install(ctx context.Context) error {
	for _, step := range i.without {
		if !slices.Contains(stepNames(), step) {
			return usage.WithHint(fmt.Errorf("there is no step %q", step), "steps are "+strings.Join(stepNames(), ", "))
		}
	}
	who, err := i.who(ctx)
	if err != nil {
		return err
	}
	s, err := i.site(ctx, who, false)
	if err != nil {
		return err
	}
	if slices.Contains(s.steps, setup.NamesStep) || slices.Contains(s.steps, setup.TrustStep) {
		if err := i.checkDomain(s.view.Domain); err != nil {
			return err
		}
	}
	if err := checkPolicies(s.plan); err != nil {
		return err
	}
	standing, err := s.machine.Look(ctx, s.plan)
	if err != nil {
		return err
	}
	fmt.Fprintf(i.out, "tunneld for the user %s (%s)\n\n", who.Name, who.UID)
	i.show(standing)
	if blocked := slices.IndexFunc(standing, func(s setup.Standing) bool { return s.Blocked != "" && !s.Optional }); blocked >= 0 {
		s := standing[blocked]
		return withHint(fmt.Errorf("%s: %s", s.Path, s.Blocked), "look what it is, and move it away; or leave that step out: --without "+s.Step)
	}
	if i.dryRun {
		fmt.Fprintln(i.out, "\nnothing was changed")
		return nil
	}
	if needsRoot && os.Geteuid() != 0 {
		return withHint(errors.New("this takes root: all of it is the machine's, but for what is yours in your home directory"), i.command(who))
	}
	ctx, end, err := i.begin(ctx)
	if end == nil {
		return err
	}
	defer end()
	if s.before != nil {
		if err := s.before(ctx, standing); err != nil {
			return err
		}
	}
	left, err := s.machine.Apply(ctx, s.plan, s.steps)
	i.say(left)
	if err == nil {
		err = s.unchanged(ctx)
	}
	if ctx.Err() != nil {
		err = errInterrupted
	}
	if _, told := errors.AsType[hinted](err); err != nil && !told {
		err = withHint(err, "mend that and install again, which goes on from here; or take it out: tunneld uninstall")
	}
	if err != nil {
		return err
	}
	i.nextStep(who)
	if len(left) > 0 {
		return errors.New("not everything could be done: see above")
	}
	return nil
}

// begin asks, and then keeps other installations out until end is called, which is nil
// if nothing is to be done.
func (i *installation) begin(ctx context.Context) (_ context.Context, end func(), err error) {
	if ok, err := i.confirmed(); !ok {
		return ctx, nil, err
	}
	ctx, stop := interruptible(ctx)
	release, err := lock()
	if err != nil {
		stop()
		return ctx, nil, err
	}
	fmt.Fprintln(i.out)
	return ctx, func() {
		release()
		stop()
	}, nil
}

// view looks at the user's home. Their configuration may be bad, and the home out of
// reach, where an installation is taken out.
func (i *installation) view(ctx context.Context, h home, out bool) (homeView, error) {
	view, err := h.view(ctx)
	if err != nil {
		if err = fmt.Errorf("look at what is user %s's: %w", h.who.Name, err); !out {
			return view, err
		}
		i.say([]string{err.Error()}) // the rest is to be taken out none the less
		return homeView{}, nil
	}
	if view.Problem != "" && !out {
		return view, withHint(fmt.Errorf("user %s: %s", h.who.Name, view.Problem), "mend that first: the plan depends on it")
	}
	return view, nil
}

// errInterrupted: Ctrl-C, or the like.
var errInterrupted = withHint(errors.New("interrupted"), "do the same again, which goes on from here")

// interruptible ends ctx where the process would be ended, so that what it has started
// ends with it. The second time it is ended. That nobody reads what it prints any more
// is no reason to stop in the middle.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ending := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
	ctx, stop := signal.NotifyContext(ctx, slices.DeleteFunc(ending, signal.Ignored)...) // as nohup has it
	context.AfterFunc(ctx, stop)
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE)
	return ctx, func() {
		stop()
		signal.Stop(unread)
	}
}

// unchanged returns an error if what the plan was made from is another thing by now: a
// shell may have said where the configuration is.
func (s *site) unchanged(ctx context.Context) error {
	now, err := s.look(ctx)
	if err != nil {
		return fmt.Errorf("look what has changed: %w", err)
	}
	if now.Problem != "" {
		return errors.New(now.Problem)
	}
	if !now.same(s.view) {
		return withHint(fmt.Errorf("the configuration that the service goes by is %s, and not what the plan was made from", now.Config), "install again")
	}
	return nil
}

// checkPolicies returns an error if tunneld-helper would refuse a policy of the plan.
func checkPolicies(plan []setup.Item) error {
	for _, item := range plan {
		if item.Step != setup.NamesStep || item.Kind != setup.File || filepath.Ext(item.Path) != ".json" {
			continue
		}
		if _, err := rootapi.ParsePolicy(item.Content); err != nil {
			return withHint(fmt.Errorf("tunneld-helper could do nothing by this configuration: %w", err), "change the configuration, or leave that step out: --without "+setup.NamesStep)
		}
	}
	return nil
}

// checkDomain has a domain of one's own be said where nobody is asked: root would have
// names in it resolve, and trust certificates for them.
func (i *installation) checkDomain(domain string) error {
	if !i.yes || slices.Contains(append(i.domains, "local", "localhost", "test"), domain) {
		if !slices.Contains([]string{"local", "localhost", "test"}, domain) {
			i.domains = []string{domain}
		}
		return nil
	}
	return usage.WithHint(fmt.Errorf("the names are below %s, which --yes does not cover", domain), "if that is the domain in your configuration: --domain "+domain)
}

// command is this one as root.
func (i *installation) command(who invoker.User) string {
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	words := []string{"sudo", program, "install"}
	if i.user != "" {
		words = append(words, "--user", i.user)
	}
	if len(i.without) > 0 {
		words = append(words, "--without", strings.Join(i.without, ","))
	}
	return strings.Join(words, " ")
}

// show prints the plan, alike changes together. Directories are on the way to what is
// in them.
func (i *installation) show(standing []setup.Standing) {
	var last setup.Standing
	explain := func() {
		if last.Path != "" {
			fmt.Fprintf(i.out, "    for: %s\n    undone: %s\n", last.Why, last.Undo)
		}
	}
	for _, s := range standing {
		if s.Kind == setup.Directory && s.Blocked == "" {
			continue
		}
		if s.Step != last.Step || s.Kind != last.Kind || s.Why != last.Why || s.Undo != last.Undo {
			explain()
			if s.Step != last.Step {
				fmt.Fprintf(i.out, "%s\n", s.Step)
			}
		}
		mark := "+"
		switch {
		case s.Done:
			mark = "="
		case s.Blocked != "":
			mark = "!"
		}
		fmt.Fprintf(i.out, "  %s %s %s\n", mark, s.Kind, s.Path)
		if s.Blocked != "" {
			fmt.Fprintf(i.out, "    left as it is: %s\n", s.Blocked)
		}
		last = s
	}
	explain()
	fmt.Fprintln(i.out, "\n+ will be made, = is there")
}

// confirmed asks, unless that was answered with --yes.
func (i *installation) confirmed() (bool, error) {
	if i.yes {
		return true, nil
	}
	if f, ok := i.in.(*os.File); ok && !term.IsTerminal(int(f.Fd())) {
		return false, usage.WithHint(errors.New("there is nobody to ask"), "--yes goes on without, --dry-run only shows the plan")
	}
	fmt.Fprint(i.out, "\nGo on? [y/N] ")
	answer, err := bufio.NewReader(i.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer == "y" || answer == "yes" {
		return true, nil
	}
	fmt.Fprintln(i.out, "nothing was changed")
	return false, nil
}

// lock keeps a second installation from going on at the same time.
func lock() (release func(), err error) {
	unlock, err := lockfile.Lock(lockPath)
	if errors.Is(err, lockfile.ErrLocked) {
		return nil, withHint(errors.New("another installation is under way"), "wait for its end")
	}
	if err != nil {
		return nil, err
	}
	return func() {
		os.Remove(lockPath)
		unlock()
	}, nil
}

func (i *installation) say(left []string) {
	for _, text := range left {
		for line := range strings.Lines(text) {
			fmt.Fprintf(i.err, "tunneld: note: %s\n", strings.TrimSpace(line))
		}
	}
}

func (i *installation) progress(c setup.Change, what string) {
	fmt.Fprintf(i.out, "%-15s %s %s\n", what, c.Kind, c.Path)
}

func (i *installation) nextStep(who invoker.User) {
	fmt.Fprintf(i.out, `
installed. As %s:
  tunnelctl add SERVICE        and then https://SERVICE.local
  tunnelctl completion --help  for your shell's completions
`, who.Name)
}

func (i *installation) uninstall(ctx context.Context) error {
	if i.all && i.user != "" {
		return usage.Errorf("--all is for all users, --user for one")
	}
	if !i.all {
		who, err := i.who(ctx)
		if errors.Is(err, invoker.ErrUnknown) {
			who, err = former(i.user, err)
		}
		if err != nil {
			return err
		}
		return i.remove(ctx, who)
	}
	users, err := installed()
	if err != nil {
		return err
	}
	var failed []error
	for _, uid := range users {
		who, err := invoker.Of(ctx, uid)
		if errors.Is(err, invoker.ErrUnknown) {
			who, err = former(uid, err)
		}
		if err == nil {
			err = i.remove(ctx, who)
		}
		failed = append(failed, err)
		if errors.Is(err, errInterrupted) {
			break
		}
	}
	return errors.Join(failed...)
}

// former is a user of that id whom the system knows no more, and who left an
// installation behind.
func former(uid string, unknown error) (invoker.User, error) {
	users, err := installed()
	if err != nil {
		return invoker.User{}, err
	}
	if !slices.Contains(users, uid) {
		return invoker.User{}, withHint(unknown, "of a user who is gone, name the id; or --all")
	}
	return invoker.Former(uid)
}

func (i *installation) remove(ctx context.Context, who invoker.User) error {
	s, err := i.site(ctx, who, true)
	if err != nil {
		return err
	}
	plan := s.plan
	if !i.purge || s.view.State == "" { // without a receipt it is not known what was there before
		plan = slices.DeleteFunc(plan, func(i setup.Item) bool { return i.Kind == setup.Home })
	}
	there, err := s.machine.Noted(ctx, plan)
	if err != nil {
		return err
	}
	if len(there) == 0 {
		fmt.Fprintf(i.out, "nothing is installed for the user %s\n", who.Name)
		if i.dryRun || needsRoot && os.Geteuid() != 0 {
			return nil
		}
		_, err := s.machine.Remove(ctx, nil) // a removal that was killed may have left empty directories
		return err
	}
	fmt.Fprintf(i.out, "tunneld of the user %s (%s) will be taken out:\n\n", who.Name, who.UID)
	for _, c := range there {
		fmt.Fprintf(i.out, "- %s %s: %s\n", c.Kind, c.Path, c.Undo)
	}
	if i.dryRun {
		fmt.Fprintln(i.out, "\nnothing was changed")
		return nil
	}
	if needsRoot && os.Geteuid() != 0 {
		return withHint(errors.New("this takes root"), "sudo "+strings.Join(append([]string{os.Args[0]}, os.Args[1:]...), " "))
	}
	ctx, end, err := i.begin(ctx)
	if end == nil {
		return err
	}
	defer end()
	if s.aside != nil {
		if err := s.aside(); err != nil {
			return err
		}
	}
	left, err := s.machine.Remove(ctx, plan)
	i.say(left)
	if _, stat := os.Lstat(s.view.State); stat == nil && !slices.ContainsFunc(there, func(c setup.Change) bool { return c.Path == s.view.State }) {
		i.say([]string{s.view.State + ": it is not noted whether it was there before (--purge removes it)"})
	}
	if ctx.Err() != nil {
		err = errInterrupted
	}
	if _, told := errors.AsType[hinted](err); err != nil && !told {
		err = withHint(err, "uninstall again when that is mended: it goes on from here")
	}
	return err
}
