package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/internal/environ"
	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/rootapi"
	"github.com/tunneld/tunneld/internal/setup"
	"github.com/tunneld/tunneld/internal/setup/launchd"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

const (
	// needsRoot says that an installation is the machine's.
	needsRoot = true
	lockPath  = "/var/run/tunneld-install.lock"
	rootHome  = "/var/root"
	// receiptDir is where it is noted what was installed.
	receiptDir = "/var/db/tunneld/install"
)

func stepNames() []string { return launchd.Steps() }

// installed are the users that have an installation, by their ids.
func installed() ([]string, error) { return (&setup.Machine{Receipts: receiptDir}).Users() }

// site plans an installation for a Mac. To take one out, the user's configuration may
// be bad.
func (i *installation) site(ctx context.Context, who invoker.User, out bool) (*site, error) {
	h := home{who: who, purge: i.purge}
	view, err := i.view(ctx, h, out)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(who.UID)
	if err != nil {
		return nil, err
	}
	wish := launchd.Wish{
		Policy: setup.Policy{UID: who.UID, Domain: view.Domain, Addresses: view.Addresses, Ports: view.Ports},
		Home:   who.Home, Socket: rootapi.DefaultSocket(uid),
		State: view.State, Environment: environ.Path(view.State), Missing: view.Missing,
		Without: i.without,
	}
	if !out {
		if wish.Content, err = programs("tunneld", "tunnelctl", "tunneld-helper"); err != nil {
			return nil, err
		}
	}
	plan, err := launchd.Plan(wish)
	if err != nil {
		return nil, err
	}
	if err := checkParents(plan); err != nil && !out {
		return nil, err
	}
	h.config = view.Config
	h.capture = func(ctx context.Context) error {
		return captureFromShell(ctx, who, launchd.ProgramDir+"/tunneld", view.State)
	}
	services := setup.ServiceActor(launchd.Services{
		UID: who.UID, Home: who.Home, Programs: program.Real(),
		AsUser: func(ctx context.Context, path string, args ...string) error { return runAs(ctx, who, path, args...) },
	})
	return &site{
		plan: plan, steps: without(launchd.Steps(), i.without), view: view, look: h.view,
		machine: &setup.Machine{
			UID: who.UID, Receipts: receiptDir, Progress: i.progress,
			Actors: map[setup.Kind]setup.Actor{
				setup.Service: sessions{services, services.(setup.Restarter)},
				setup.Home:    h,
				setup.Trust: trust{
					who: who, client: launchd.ProgramDir + "/tunnelctl", domains: i.domains, out: i.out, look: h.view,
					socket: launchd.ControlSocket(who.Home),
				},
			},
		},
	}, nil
}

// sessions are the services of a user who may not be logged in. Those start at the
// next login, and need nobody to wait for that.
type sessions struct {
	setup.Actor
	setup.Restarter
}

// Do implements setup.Actor.
func (s sessions) Do(ctx context.Context, c setup.Change) (string, error) {
	left, err := s.Actor.Do(ctx, c)
	if errors.Is(err, launchd.ErrNoSession) {
		return c.Path + ": " + err.Error(), nil
	}
	return left, err
}

func runAs(ctx context.Context, who invoker.User, path string, args ...string) error {
	out, err := who.Command(ctx, path, args...).CombinedOutput()
	if text := bytes.TrimSpace(out); err != nil && len(text) > 0 {
		err = fmt.Errorf("%w: %s", err, text)
	}
	if err != nil {
		return fmt.Errorf("as user %s: %s: %w", who.Name, strings.Join(append([]string{path}, args...), " "), err)
	}
	return nil
}
