//go:build unix

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/osdns/machine"
	"github.com/tunneld/tunneld/internal/rootapi"
)

const (
	// policyDir has a policy for each user: UID.json.
	policyDir = "/etc/tunneld/helper"
	// receiptsDir is where what is in force is noted, for all users. It comes and
	// goes, unlike stateDir.
	receiptsDir = stateDir + "/receipts"
	// customaryIdle is how long to stay where systemd or launchd starts us again.
	customaryIdle = 5 * time.Second
)

// serve answers requests until nobody has any.
func serve(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	policyFile := flags.String("policy", "", "")
	socket := flags.String("socket", "", "")
	idle := flags.Duration("idle", 0, "")
	inetd := flags.Bool("inetd", false, "")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *inetd && *socket != "" {
		return &mistake{"--inetd and --socket name two sockets; one can be served", "tunneld-helper help"}
	}
	if *idle < 0 {
		return &mistake{fmt.Sprintf("--idle %v is no time to wait for requests", *idle), "tunneld-helper help"}
	}
	if err := needRoot(); err != nil {
		return err
	}
	find := activated
	if *inetd {
		find = standardInput
		// What inetd starts has the socket as its error output, too.
		if isSocket(os.Stderr) {
			stderr = systemLog(stderr)
		}
	}
	log := newLog(stderr)
	s := &rootapi.Server{LockDir: stateDir, Ladder: newLadder(log), Idle: *idle, Log: log}
	s.Policy, s.Unusable = readPolicy(*policyFile)
	if *socket != "" {
		if s.Unusable != nil {
			return s.Unusable
		}
		l, err := listen(*socket, s.Policy.UID)
		if err != nil {
			return fmt.Errorf("socket %s: %w", *socket, err)
		}
		return s.Serve(ctx, l)
	}
	l, err := find()
	if err != nil {
		return err
	}
	s.Idle = cmp.Or(s.Idle, customaryIdle)
	// A policy that is no good is told to whoever asks: if this ended at once,
	// it would be started again for the request that still waits.
	if s.Unusable != nil {
		log.Error("no policy", "error", s.Unusable)
	}
	return s.Serve(ctx, l)
}

// release takes back what is left of the user's claims.
func release(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	policyFile := flags.String("policy", "", "")
	uid := flags.Uint64("uid", 0, "")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *uid > math.MaxUint32 {
		return &mistake{fmt.Sprintf("--uid %d is no user's id", *uid), "id -u USER"}
	}
	if err := needRoot(); err != nil {
		return err
	}
	policy := &rootapi.Policy{UID: uint32(*uid)}
	if !given(flags, "uid") {
		var err error
		if policy, err = readPolicy(*policyFile); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	log := newLog(stderr)
	s := &rootapi.Server{Policy: policy, LockDir: stateDir, Ladder: newLadder(log), Log: log}
	return s.Release(ctx)
}

// given reports whether the command line has the flag.
func given(flags *flag.FlagSet, name string) (found bool) {
	flags.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("this takes root: systemd starts it as such, or sudo does")
	}
	return nil
}

func newLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func newLadder(log *slog.Logger) *osdns.Ladder {
	return &osdns.Ladder{System: machine.New(), Receipts: receiptsDir, Log: log}
}

// readPolicy reads the policy in the file, or else the only one that there is.
func readPolicy(file string) (*rootapi.Policy, error) {
	if file == "" {
		found, err := filepath.Glob(filepath.Join(policyDir, "*.json"))
		switch {
		case err != nil:
			return nil, err
		case len(found) == 0:
			return nil, hinted{fmt.Errorf("there is no policy in %s", policyDir), "name one with --policy"}
		case len(found) > 1:
			return nil, hinted{fmt.Errorf("there are %d policies in %s", len(found), policyDir), "name one of them with --policy"}
		}
		file = found[0]
	}
	p, err := rootapi.ReadPolicy(file)
	switch {
	case errors.Is(err, rootapi.ErrNewerPolicy):
		return nil, hinted{err, "upgrade tunneld-helper"}
	case errors.Is(err, rootapi.ErrPolicy):
		return nil, hinted{err, "docs/helper.md says what must be in it"}
	case errors.Is(err, fs.ErrNotExist):
		return nil, hinted{err, "name another with --policy"}
	}
	return p, err
}
