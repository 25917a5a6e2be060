// Package dnsmasqconf finds the dnsmasq that programs of this system ask, and what it
// has been told by its arguments and its files. It changes neither.
package dnsmasqconf

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// A Resident is a dnsmasq that programs ask.
type Resident struct {
	Unit string   // whose restart, or reload, makes it a new process
	PID  int      // 0: it has failed, maybe because of us
	Args []string // with which it was started, but for its name
	Conf Conf
}

// The units that a dnsmasq is part of.
const (
	Unit           = "dnsmasq.service"
	NetworkManager = "NetworkManager.service"
)

// networkManagerPID is noted by the dnsmasq that NetworkManager starts.
const networkManagerPID = "/run/NetworkManager/dnsmasq.pid"

// ErrNone: there is no dnsmasq of those that Find knows.
var ErrNone = errors.New("dnsmasq does not run as a service")

// Find finds the dnsmasq that runs, or has failed, and what it has been told: of one
// that has failed, nothing is known. One that is just being started or stopped is
// waited for. ErrNone: there is none.
func Find(ctx context.Context, s machine.System) (Resident, error) {
	r := Resident{Unit: NetworkManager}
	file, err := s.ReadFile(networkManagerPID)
	if err == nil {
		r.PID, _ = strconv.Atoi(strings.TrimSpace(string(file)))
	}
	if args := arguments(s, r.PID); args != nil {
		r.Args = args[1:]
		r.Conf, err = Read(s, args)
		return r, err
	}
	state, pid, err := settled(ctx, s, Unit)
	if ctx.Err() != nil { // which says nothing about dnsmasq
		return Resident{}, err
	}
	if err != nil {
		return Resident{}, fmt.Errorf("%w: %w", ErrNone, err)
	}
	r = Resident{Unit: Unit}
	if state == "failed" {
		return r, nil
	}
	args := arguments(s, pid)
	if state != "active" || args == nil {
		return Resident{}, ErrNone
	}
	r.PID, r.Args = pid, args[1:]
	r.Conf, err = Read(s, args)
	return r, err
}

// settled is the state of a unit that is not just being started or stopped: who was
// killed may have left it so, and what it reads then is what was in force then.
func settled(ctx context.Context, s machine.System, unit string) (state string, pid int, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		state, pid, err = s.ServiceState(ctx, unit)
		if err != nil || !slices.Contains([]string{"activating", "deactivating", "reloading"}, state) {
			return state, pid, err
		}
		select {
		case <-ctx.Done():
			return "", 0, fmt.Errorf("%s is %s: %w", unit, state, ctx.Err())
		case <-tick.C:
		}
	}
}

// arguments are the arguments of a process, if it is a dnsmasq.
func arguments(s machine.System, pid int) []string {
	if pid <= 0 {
		return nil
	}
	line, err := s.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	if filepath.Base(args[0]) != "dnsmasq" {
		return nil
	}
	return args
}
