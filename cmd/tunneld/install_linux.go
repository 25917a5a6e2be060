package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/tunneld/tunneld/internal/environ"
	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/setup/systemd"
	"github.com/tunneld/tunneld/internal/usage"
	units "github.com/tunneld/tunneld/packaging/systemd"
)

const (
	// needsRoot says that an installation is the machine's.
	needsRoot = true
	lockPath  = "/run/tunneld-install.lock"
	rootHome  = "/root"
	// receiptDir is where it is noted what was installed.
	receiptDir = "/var/lib/tunneld/install"
	// packagedUnits is where a package puts its units.
	packagedUnits = "/usr/lib/systemd/system"
)

func stepNames() []string { return systemd.Steps() }

// installed are the users that have an installation, by their ids.
func installed() ([]string, error) { return (&setup.Machine{Receipts: receiptDir}).Users() }

// site plans an installation for a machine that systemd runs. To take one out, the
// machine may be one that is not running, and the user's configuration bad.
func (i *installation) site(ctx context.Context, who invoker.User, out bool) (*site, error) {
	manager := systemd.Manager{Offline: systemd.Running() != nil}
	if manager.Offline && !out {
		return nil, withHint(systemd.ErrNotRunning, "run \"tunneld run\" as yourself, and see docs/helper.md for names and low ports")
	}
	h := home{who: who, purge: i.purge}
	view, err := i.view(ctx, h, out)
	if err != nil {
		return nil, err
	}
	wish := systemd.Wish{
		UID: who.UID, State: view.State, Environment: environ.Path(view.State), Missing: view.Missing,
		Domain: view.Domain, Addresses: view.Addresses, Ports: view.Ports,
		Packaged: packaged(), Units: units.Units, Without: i.without,
	}
	if !wish.Packaged && !out && slices.Contains(i.without, setup.ServiceStep) && len(without(systemd.Steps(), i.without)) > 0 {
		return nil, usage.WithHint(errors.New("without the step service there are no programs and units for the others"), "leave them out, too; or install the package, which has them")
	}
	if !wish.Packaged {
		// To take out what is not noted, they are what it is compared with.
		if wish.Content, err = programs("tunneld", "tunnelctl", "tunneld-helper"); err != nil && !out {
			return nil, err
		}
	}
	plan, err := systemd.Plan(wish)
	if err != nil {
		return nil, err
	}
	if err := checkParents(plan); err != nil && !out {
		return nil, err
	}
	h.config = view.Config
	h.capture = func(ctx context.Context) error { return captureFromShell(ctx, who, wish.Programs().Daemon, view.State) }
	return &site{
		plan: plan, steps: without(systemd.Steps(), i.without), view: view, look: h.view,
		machine: &setup.Machine{
			UID: who.UID, Receipts: receiptDir, Settle: manager.Settle, Progress: i.progress,
			Actors: map[setup.Kind]setup.Actor{
				setup.Service: setup.ServiceActor(manager),
				setup.Home:    h,
				setup.Trust: trust{
					who: who, client: client(wish.Programs()), domains: i.domains, out: i.out, look: h.view,
					socket: "/run/tunneld/" + who.UID + "/tunneld.sock",
				},
			},
		},
	}, nil
}

// client is tunnelctl. To take out what is left of another installation, that one's
// will do.
func client(programs systemd.Programs) string {
	for _, path := range []string{programs.Client, systemd.Packaged.Client, systemd.Copied.Client} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return programs.Client
}

// packaged reports whether this program is a package's, which has put everything else
// in its place, too.
func packaged() bool {
	self, err := os.Executable()
	if err != nil || self != systemd.Packaged.Daemon {
		return false
	}
	for _, path := range []string{systemd.Packaged.Client, systemd.Packaged.Helper, filepath.Join(packagedUnits, "tunneld@.service")} {
		if _, err := os.Stat(path); err != nil {
			return false
		}
	}
	return true
}
