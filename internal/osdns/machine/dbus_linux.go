package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// What is on the system bus.
const (
	busName  = "org.freedesktop.DBus"
	systemd  = "org.freedesktop.systemd1"
	resolve1 = "org.freedesktop.resolve1"
)

// A bus is a connection to the system bus.
type bus struct{ *dbus.Conn }

func openBus(ctx context.Context) (bus, error) {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		// That the context was over is not to be seen from the error.
		return bus{}, fmt.Errorf("system bus: %w", cmp.Or(ctx.Err(), err))
	}
	return bus{conn}, nil
}

// call calls a method of a service that runs: one that does not is not started.
func (b bus) call(ctx context.Context, service string, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return b.Object(service, path).CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
}

func (b bus) get(ctx context.Context, service string, path dbus.ObjectPath, iface, property string, value any) error {
	return b.call(ctx, service, path, "org.freedesktop.DBus.Properties.Get", iface, property).Store(value)
}

// has reports whether somebody has the name.
func (b bus) has(ctx context.Context, name string) (bool, error) {
	var has bool
	err := b.call(ctx, busName, "/org/freedesktop/DBus", busName+".NameHasOwner", name).Store(&has)
	return has, err
}

// resolvedVersion is that of the systemd which runs, if its resolver does.
func resolvedVersion(ctx context.Context) (int, error) {
	b, err := openBus(ctx)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	has, err := b.has(ctx, resolve1)
	if err != nil {
		return 0, fmt.Errorf("system bus: %w", err)
	}
	if !has {
		return 0, ErrNoResolved
	}
	var version string
	if err := b.get(ctx, systemd, systemdPath, systemdManager, "Version", &version); err != nil {
		return 0, fmt.Errorf("ask systemd for its version: %w", err)
	}
	// "252.39-1~deb12u1", "262~rc1-1": what comes first is what counts.
	digits := version
	if i := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = version[:i]
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("systemd has version %q: %w", version, err)
	}
	return n, nil
}

func resolvedProperty(ctx context.Context, name string) (value string, err error) {
	err = withBus(ctx, func(b bus) error {
		return b.get(ctx, resolve1, resolvePath, resolveManager, name, &value)
	})
	return value, err
}

const (
	systemdPath    = dbus.ObjectPath("/org/freedesktop/systemd1")
	systemdManager = systemd + ".Manager"
	resolvePath    = dbus.ObjectPath("/org/freedesktop/resolve1")
	resolveManager = resolve1 + ".Manager"
)

func serviceState(ctx context.Context, unit string) (state string, pid int, err error) {
	b, err := openBus(ctx)
	if err != nil {
		return "", 0, err
	}
	defer b.Close()
	var path dbus.ObjectPath
	if err := b.call(ctx, systemd, systemdPath, systemdManager+".GetUnit", unit).Store(&path); err != nil {
		if isBusError(err, systemd+".NoSuchUnit") {
			return "inactive", 0, nil
		}
		return "", 0, fmt.Errorf("%s: %w", unit, err)
	}
	if err := b.get(ctx, systemd, path, systemd+".Unit", "ActiveState", &state); err != nil {
		return "", 0, fmt.Errorf("%s: %w", unit, err)
	}
	var main uint32
	if err := b.get(ctx, systemd, path, systemd+".Service", "MainPID", &main); err != nil {
		return "", 0, fmt.Errorf("%s: %w", unit, err)
	}
	var job unitJob
	if err := b.get(ctx, systemd, path, systemd+".Unit", "Job", &job); err != nil {
		return "", 0, fmt.Errorf("%s: %w", unit, err)
	}
	if job.ID != 0 && state != "deactivating" {
		state = "activating" // in the middle of a restart, it is inactive for a moment
	}
	return state, int(main), nil
}

// unitJob is what systemd is about to do to a unit; ID 0: nothing.
type unitJob struct {
	ID   uint32
	Path dbus.ObjectPath
}

func isBusError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}

func reloadService(ctx context.Context, unit string) error {
	return doJob(ctx, "ReloadUnit", unit)
}

func restartService(ctx context.Context, unit string) error {
	// systemd does not start a unit more than a few times within seconds, and
	// leaves it dead then. Ours shall not be the one too many.
	if err := withBus(ctx, func(b bus) error {
		return b.call(ctx, systemd, systemdPath, systemdManager+".ResetFailedUnit", unit).Err
	}); err != nil {
		return fmt.Errorf("%s: %w", unit, err)
	}
	return doJob(ctx, "RestartUnit", unit)
}

func withBus(ctx context.Context, do func(bus) error) error {
	b, err := openBus(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	return do(b)
}

// doJob has systemd do something to a unit, and waits for it.
func doJob(ctx context.Context, method, unit string) error {
	b, err := openBus(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.AddMatchSignalContext(ctx, dbus.WithMatchInterface(systemdManager), dbus.WithMatchMember("JobRemoved")); err != nil {
		return fmt.Errorf("%s: %w", unit, err)
	}
	signals := make(chan *dbus.Signal, 64)
	b.Signal(signals)
	// Without this, systemd tells its signals to nobody.
	if err := b.call(ctx, systemd, systemdPath, systemdManager+".Subscribe").Err; err != nil {
		return fmt.Errorf("%s: %w", unit, err)
	}
	var job dbus.ObjectPath
	if err := b.call(ctx, systemd, systemdPath, systemdManager+"."+method, unit, "replace").Store(&job); err != nil {
		return fmt.Errorf("%s: %w", unit, err)
	}
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", unit, ctx.Err())
		case s, ok := <-signals:
			if !ok {
				return fmt.Errorf("%s: %w", unit, dbus.ErrClosed)
			}
			if len(s.Body) < 4 || s.Body[1] != job {
				continue
			}
			if result, _ := s.Body[3].(string); result != "done" {
				return fmt.Errorf("%s: systemd says %q of the job", unit, result)
			}
			return nil
		}
	}
}

// The arguments of resolve1's methods.
type (
	linkServer struct {
		Family int32
		Addr   []byte
		Port   uint16
		Name   string
	}
	linkDomain struct {
		Domain    string
		RouteOnly bool
	}
)

// noticed is how long it may take until systemd's resolver has noticed an interface.
const noticed = 5 * time.Second

func setLinkDNS(ctx context.Context, name string, server netip.AddrPort, domains []string) error {
	index, err := linkIndex(name)
	if err != nil {
		return err
	}
	b, err := openBus(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	family := int32(2) // AF_INET
	if server.Addr().Is6() {
		family = 10
	}
	list := make([]linkDomain, len(domains))
	for i, d := range domains {
		list[i] = linkDomain{d, true}
	}
	// What would carry other names comes first, so that at no time it does.
	for _, set := range []struct {
		method string
		value  any
	}{
		{"SetLinkDefaultRoute", false},
		{"SetLinkMulticastDNS", "no"},
		{"SetLinkLLMNR", "no"},
		{"SetLinkDNSSEC", "no"},
		{"SetLinkDNSOverTLS", "no"},
		{"SetLinkDomains", list},
		{"SetLinkDNSEx", []linkServer{{family, server.Addr().AsSlice(), server.Port(), ""}}},
	} {
		err := until(ctx, noticed, func() (bool, error) {
			err := b.call(ctx, resolve1, resolvePath, resolveManager+"."+set.method, index, set.value).Err
			return !isBusError(err, resolve1+".NoSuchLink"), err
		})
		if err != nil {
			return fmt.Errorf("%s of %s: %w", set.method, name, err)
		}
	}
	return b.awaitScope(ctx, index)
}

// awaitScope waits until systemd's resolver asks over an interface.
func (b bus) awaitScope(ctx context.Context, index int32) error {
	var path dbus.ObjectPath
	if err := b.call(ctx, resolve1, resolvePath, resolveManager+".GetLink", index).Store(&path); err != nil {
		return fmt.Errorf("find the link: %w", err)
	}
	return until(ctx, noticed, func() (bool, error) {
		const dnsScope = 1 // SD_RESOLVED_DNS
		var mask uint64
		if err := b.get(ctx, resolve1, path, resolve1+".Link", "ScopesMask", &mask); err != nil {
			return true, fmt.Errorf("ask for the link's scopes: %w", err)
		}
		if mask&dnsScope == 0 {
			return false, errors.New("systemd-resolved does not use the link")
		}
		return true, nil
	})
}

// until calls try until it is done, or the limit is reached, and returns its last
// error.
func until(ctx context.Context, limit time.Duration, try func() (done bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := try()
		if done {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}
