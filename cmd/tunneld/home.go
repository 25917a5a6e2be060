package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/statedir"
	"github.com/tunneld/tunneld/internal/usage"
)

// environmentFile is the captured environment's name in the state directory.
const environmentFile = "environment.json"

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
	// Problem is what is wrong with the configuration; the last three are not known then.
	Problem string `json:"problem,omitempty"`
}

// viewHome looks at the home of the user that this process runs as.
func viewHome() (v homeView, err error) {
	if v.Config, err = config.DefaultPath(); err != nil {
		return v, err
	}
	if v.State, err = statedir.DefaultPath(); err != nil {
		return v, err
	}
	if cfg, err := config.Load(v.Config); err != nil {
		v.Problem = err.Error()
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

// clearHome takes back what an installation, and the daemon after it, made in the home
// of the user that this process runs as, and says in a line each what is kept.
func clearHome(missing []string, environment, purge bool) (kept []string, err error) {
	path, err := config.DefaultPath()
	if err != nil {
		return nil, err
	}
	state, err := statedir.DefaultPath()
	if err != nil {
		return nil, err
	}
	if environment {
		if err := removeFile(filepath.Join(state, environmentFile)); err != nil {
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
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, fs.ErrExist) {
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
	var dirs []string
	var environment, purge bool
	clear := &cobra.Command{
		Use: "clear", Short: "Take back what the daemon made", Args: usage.Args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			kept, err := clearHome(dirs, environment, purge)
			for _, line := range kept {
				fmt.Fprintln(stdout, line)
			}
			return err
		},
	}
	clear.Flags().StringArrayVar(&dirs, "made", nil, "a directory that was not there before")
	clear.Flags().BoolVar(&environment, "environment", false, "the captured environment only")
	clear.Flags().BoolVar(&purge, "purge", false, "the configuration, too")
	cmd.AddCommand(view, clear)
	return cmd
}

// A home is the user's part of an installation: a setup.Actor that has another process
// do everything as the user.
type home struct {
	who   invoker.User
	purge bool
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

// asUser runs this program as the user, and returns what it prints.
func asUser(ctx context.Context, who invoker.User, args ...string) ([]byte, error) {
	program, err := ourself()
	if err != nil {
		return nil, err
	}
	cmd := who.Command(ctx, program, args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("as user %s: %w", who.Name, said(err, errOut.String()))
	}
	return out, nil
}

// said is what another process of ours said why it failed.
func said(err error, stderr string) error {
	for line := range strings.Lines(stderr) {
		if text, ok := strings.CutPrefix(line, "tunneld: error: "); ok {
			return errors.New(strings.TrimSpace(text))
		}
	}
	return err
}

func (h home) view(ctx context.Context) (v homeView, err error) {
	if !h.who.Sudo {
		return viewHome()
	}
	out, err := asUser(ctx, h.who, "home", "view")
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(out, &v)
}

// isEnvironment tells the two changes of the kind apart.
func isEnvironment(c setup.Change) bool { return filepath.Base(c.Path) == environmentFile }

// Done implements setup.Actor. That the daemon may keep something is no change until
// it does.
func (h home) Done(_ context.Context, c setup.Change) (bool, error) {
	if !isEnvironment(c) {
		return true, nil
	}
	_, err := os.Lstat(c.Path)
	return err == nil, nil
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
	if !h.who.Sudo {
		kept, err := clearHome(c.Missing, isEnvironment(c), h.purge)
		return strings.Join(kept, "\n"), err
	}
	args := []string{"home", "clear"}
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
	return strings.TrimSpace(string(out)), err
}
