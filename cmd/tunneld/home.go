package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/environ"
	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/statedir"
	"github.com/tunneld/tunneld/internal/terminal"
	"github.com/tunneld/tunneld/internal/usage"
)

// A homeView is what an installation has to know of what is the user's. Root does
// not look below a home directory itself: a process of the user's does.
type homeView struct {
	Config string `json:"config"`
	State  string `json:"state"`
	// Missing are the directories that a daemon would make, the outermost first.
	Missing   []string     `json:"missing"`
	Domain    string       `json:"domain"`
	Addresses netip.Prefix `json:"addresses"`
	Ports     []uint16     `json:"ports"`
	// Captured says that there is a captured environment.
	Captured bool `json:"captured"`
	// Trusted says that there are notes of trust stores of the user's.
	Trusted bool `json:"trusted"`
	// Problem is what is wrong with the home or the configuration; the domain, addresses and ports are not known then.
	Problem string `json:"problem,omitempty"`
}

// viewHome looks at the home of the user that this process runs as, with the eyes of
// the service: where its configuration is, the captured environment may say.
func viewHome() (v homeView, err error) {
	if v.Config, err = config.DefaultPath(); err != nil {
		return v, err
	}
	if v.State, err = statedir.DefaultPath(); err != nil {
		return v, err
	}
	captured, err := environ.Load(environ.Path(v.State)) // without it, the service does without
	v.Captured = !errors.Is(err, environ.ErrNone)
	if dir := captured.Variables["XDG_CONFIG_HOME"]; filepath.IsAbs(dir) {
		v.Config = filepath.Join(dir, "tunneld", "config.yaml")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return v, err
	}
	// Where tunnelctl notes them, whatever the environment says.
	_, err = os.Lstat(filepath.Join(home, ".local", "state", "tunneld", "trust"))
	v.Trusted = err == nil
	if _, err := os.Stat(home); err != nil {
		v.Problem = fmt.Sprintf("there is no home directory: %v", err)
		return v, nil
	}
	if cfg, err := config.Load(v.Config); err != nil {
		v.Problem = "the configuration has an error: " + err.Error()
	} else {
		v.Domain, v.Addresses = cfg.Domain, cfg.Addresses
		v.Ports = []uint16{cfg.Gateway.HTTP, cfg.Gateway.HTTPS}
	}
	for _, dir := range []string{v.State, filepath.Dir(v.Config)} {
		v.Missing = append(v.Missing, missing(dir)...)
	}
	slices.Sort(v.Missing)
	v.Missing = slices.Compact(v.Missing)
	return v, nil
}

// missing are dir and the directories above it that are not there.
func missing(dir string) (dirs []string) {
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// same reports whether an installation for both would be the same one.
func (v homeView) same(other homeView) bool {
	return v.Config == other.Config && v.Domain == other.Domain && v.Addresses == other.Addresses && slices.Equal(v.Ports, other.Ports)
}

// check returns an error unless it is what viewHome may have said: the user has the
// process that says it in their hands, and root prints it and goes by it.
func (v *homeView) check() error {
	v.Problem = printable(v.Problem)
	for _, path := range append([]string{v.Config, v.State}, v.Missing...) {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || printable(path) != path {
			return fmt.Errorf("%q is not the path of a file or directory", path)
		}
	}
	for _, dir := range v.Missing {
		below := func(path string) bool { return path == dir || strings.HasPrefix(path, dir+string(filepath.Separator)) }
		if !below(v.State) && !below(filepath.Dir(v.Config)) {
			return fmt.Errorf("%q is not on the way to anything of tunneld's", dir)
		}
	}
	if printable(v.Domain) != v.Domain {
		return fmt.Errorf("%q is no domain", v.Domain)
	}
	return nil
}

// printable is a text of the user's for root's terminal, on one line.
func printable(text string) string {
	const most = 4096
	return terminal.Printable(strings.TrimSpace(text[:min(most, len(text))]))
}

// clearHome takes back what an installation, and the daemon after it, made in the home
// of the user that this process runs as, and says in a line each what is kept. path is
// the configuration; empty where it is by custom.
func clearHome(path string, missing []string, environment, purge bool) (kept []string, err error) {
	state, err := statedir.DefaultPath()
	if err != nil {
		return nil, err
	}
	if path == "" {
		if path, err = config.DefaultPath(); err != nil {
			return nil, err
		}
	}
	if environment {
		if err := removeFile(environ.Path(state)); err != nil {
			return nil, err
		}
		return nil, nil
	}
	if purge {
		if err := removeFile(path); err != nil {
			return nil, err
		}
	} else if _, err := os.Lstat(path); err == nil {
		kept = append(kept, path+": your configuration (--purge removes it)")
	}
	switch _, err := os.Lstat(state); {
	case errors.Is(err, fs.ErrNotExist):
	case purge || slices.Contains(missing, state):
		if err := os.RemoveAll(state); err != nil {
			return kept, err
		}
	default:
		kept = append(kept, state+": it was there before (--purge removes it)")
	}
	if purge {
		missing = append(missing, filepath.Dir(path))
	}
	for _, dir := range slices.Backward(missing) {
		err := os.Remove(dir)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, fs.ErrExist):
		case errors.Is(err, fs.ErrPermission): // what is above is somebody else's by now
			kept = append(kept, err.Error())
		default:
			return kept, err
		}
	}
	return kept, nil
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	return nil
}

// newHome is a command for installations only, which run it as the user.
func newHome(stdout io.Writer) *cobra.Command {
	cmd := &cobra.Command{Use: "home", Short: "What an installation does as the user", Hidden: true}
	view := &cobra.Command{
		Use: "view", Short: "Say where things are", Args: usage.Args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			v, err := viewHome()
			if err != nil {
				return err
			}
			return json.NewEncoder(stdout).Encode(v)
		},
	}
	var path string
	var dirs []string
	var environment, purge bool
	clear := &cobra.Command{
		Use: "clear", Short: "Take back what the daemon made", Args: usage.Args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			kept, err := clearHome(path, dirs, environment, purge)
			for _, line := range kept {
				fmt.Fprintln(stdout, line)
			}
			return err
		},
	}
	clear.Flags().StringVar(&path, "config", "", "the configuration")
	clear.Flags().StringArrayVar(&dirs, "made", nil, "a directory that was not there before")
	clear.Flags().BoolVar(&environment, "environment", false, "the captured environment only")
	clear.Flags().BoolVar(&purge, "purge", false, "the configuration, too")
	cmd.AddCommand(view, clear)
	return cmd
}

// A home is the user's part of an installation: a setup.Actor that has another process
// do everything as the user.
type home struct {
	who    invoker.User
	purge  bool
	config string // the configuration's path
	// capture writes the captured environment.
	capture func(context.Context) error
}

// ourself is this program, which a user may not be able to reach by its path.
func ourself() (string, error) {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe", nil
	}
	return os.Executable()
}

// homePatience is how long a process may look at a home, which may be far away.
const homePatience = 30 * time.Second

// asUser runs this program as the user, with the environment that a service has, and
// returns what it prints.
func asUser(ctx context.Context, who invoker.User, args ...string) ([]byte, error) {
	program, err := ourself()
	if err != nil {
		return nil, err
	}
	return runAsUser(ctx, who, homePatience, program, args...)
}

func runAsUser(ctx context.Context, who invoker.User, patience time.Duration, program string, args ...string) ([]byte, error) {
	out, errOut, err := invoker.Output(ctx, patience, func(ctx context.Context) *exec.Cmd {
		cmd := who.Command(ctx, program, args...)
		if !who.Sudo {
			cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
				name, _, _ := strings.Cut(variable, "=")
				return name == "XDG_CONFIG_HOME" || name == "XDG_STATE_HOME" || name == "HOME"
			})
			cmd.Env = append(cmd.Env, "HOME="+who.Home)
		}
		return cmd
	})
	if err != nil {
		return nil, fmt.Errorf("as user %s: %w", who.Name, said(err, string(errOut)))
	}
	return out, nil
}

// said is what another process of ours said why it failed.
func said(err error, stderr string) error {
	if _, ended := errors.AsType[*exec.ExitError](err); !ended {
		return err
	}
	for line := range strings.Lines(stderr) {
		if text, ok := strings.CutPrefix(line, "tunneld: error: "); ok {
			return errors.New(printable(text))
		}
	}
	return err
}

// view looks at the home. Of who is gone, nothing is known.
func (h home) view(ctx context.Context) (v homeView, err error) {
	if h.who.Gone {
		return v, nil
	}
	if h.inProcess() {
		return viewHome()
	}
	out, err := asUser(ctx, h.who, "home", "view")
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return v, err
	}
	return v, v.check()
}

// inProcess: on Windows this process is the user's in any case, and its program may
// have stepped aside.
func (h home) inProcess() bool { return runtime.GOOS == "windows" }

// isEnvironment tells the two changes of the kind apart.
func isEnvironment(c setup.Change) bool { return c.Path == environ.Path(filepath.Dir(c.Path)) }

// Done implements setup.Actor. That the daemon may keep something is no change until
// it does.
func (h home) Done(ctx context.Context, c setup.Change) (bool, error) {
	if !isEnvironment(c) {
		return true, nil
	}
	v, err := h.view(ctx)
	return v.Captured, err
}

// Do implements setup.Actor.
func (h home) Do(ctx context.Context, c setup.Change) (string, error) {
	if err := h.capture(ctx); err != nil {
		return "the environment of your shell was not captured: " + err.Error() + " (tunnelctl reload --env does it from a shell)", nil
	}
	return "", nil
}

// Undo implements setup.Actor.
func (h home) Undo(ctx context.Context, c setup.Change) (string, error) {
	if h.who.Gone {
		if _, err := os.Lstat(c.Path); errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return printable(c.Path) + ": it was user " + h.who.UID + "'s, whom the system knows no more", nil
	}
	if h.inProcess() {
		kept, err := clearHome(h.config, c.Missing, isEnvironment(c), h.purge)
		return strings.Join(kept, "\n"), err
	}
	args := []string{"home", "clear", "--config=" + h.config}
	for _, dir := range c.Missing {
		args = append(args, "--made="+dir)
	}
	if isEnvironment(c) {
		args = append(args, "--environment")
	}
	if h.purge {
		args = append(args, "--purge")
	}
	out, err := asUser(ctx, h.who, args...)
	var kept []string
	for line := range strings.Lines(string(out)) {
		kept = append(kept, printable(line))
	}
	return strings.Join(kept, "\n"), err
}
