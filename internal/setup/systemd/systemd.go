// Package systemd plans tunneld as a service of a machine that systemd runs, and
// has systemd do its part.
package systemd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/setup"
)

// ErrNotRunning: this machine is run by something else.
var ErrNotRunning = errors.New("this system is not run by systemd")

// Running returns ErrNotRunning unless systemd is process 1: see sd_booted(3).
func Running() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return ErrNotRunning
	}
	return nil
}

// patience is how long systemctl may take. To start a service is to wait until it
// says that it has, for which systemd itself gives it 90 s.
const patience = 2 * time.Minute

// Manager is systemd, asked by systemctl. The zero value is ready.
type Manager struct {
	// Offline says that systemd does not run here, as in a chroot: services are not
	// there to be stopped, only to be taken out.
	Offline bool
	// Dir is where units are linked, /etc/systemd/system if it is empty.
	Dir string
	// runtime is where systemd makes directories for sockets, /run if it is empty.
	runtime string
	// run runs systemctl; nil means the real one.
	run func(ctx context.Context, args ...string) ([]byte, error)
	// journal has what a unit has said; nil means the real one.
	journal func(ctx context.Context, unit string) ([]byte, error)
}

func (m Manager) systemctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	run := m.run
	if run == nil {
		run = systemctl
	}
	out, err := run(ctx, args...)
	if err != nil {
		return "", fmt.Errorf("systemctl %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// dirs is where systemd's programs are: $PATH may lead root anywhere.
var dirs = [...]string{"/usr/bin", "/bin", "/run/current-system/sw/bin"}

func systemctl(ctx context.Context, args ...string) ([]byte, error) {
	return call(ctx, "systemctl", args...)
}

// journal is what a unit has said of late.
func journal(ctx context.Context, unit string) ([]byte, error) {
	_, _ = call(ctx, "journalctl", "--sync") // the last lines may be under way
	return call(ctx, "journalctl", "--quiet", "--no-pager", "--output=cat", "--since=-3min", "--lines=20", "--unit="+unit)
}

func call(ctx context.Context, name string, args ...string) ([]byte, error) {
	program := filepath.Join(dirs[0], name)
	for _, dir := range dirs {
		if p := filepath.Join(dir, name); exists(p) {
			program = p
			break
		}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"}
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if said := strings.Join(strings.Fields(errOut.String()), " "); err != nil && said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return out, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// State implements setup.Services.
func (m Manager) State(ctx context.Context, unit string) (setup.ServiceState, error) {
	if m.Offline {
		return setup.ServiceState{Enabled: len(m.links(unit)) > 0}, nil
	}
	out, err := m.systemctl(ctx, "show", "--property=UnitFileState,ActiveState", unit)
	if err != nil {
		return setup.ServiceState{}, err
	}
	var s setup.ServiceState
	for line := range strings.Lines(out) {
		switch strings.TrimSpace(line) {
		case "UnitFileState=enabled":
			s.Enabled = true
		case "ActiveState=active", "ActiveState=reloading":
			s.Active = true
		}
	}
	return s, nil
}

// Enable implements setup.Services.
func (m Manager) Enable(ctx context.Context, unit string) error {
	if _, err := m.systemctl(ctx, "enable", "--quiet", unit); err != nil {
		return err
	}
	_, err := m.systemctl(ctx, "start", unit)
	return m.explained(ctx, unit, err)
}

// failure is how our programs begin to say why they end.
var failure = regexp.MustCompile(`^tunneld(-helper)?: error: (.+)`)

// explained is err with what the service itself said last, which systemctl leaves to
// the journal. It is the user's process that says so, so it is quoted.
func (m Manager) explained(ctx context.Context, unit string, err error) error {
	if err == nil {
		return nil
	}
	read := m.journal
	if read == nil {
		read = journal
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, _ := read(ctx, unit) // there may be none
	why := ""
	for line := range strings.Lines(string(out)) {
		if said := failure.FindStringSubmatch(strings.TrimSpace(line)); said != nil {
			why = said[2]
		}
	}
	if why == "" {
		return err
	}
	const most = 500
	if len(why) > most {
		why = why[:most]
	}
	return fmt.Errorf("%w It said: %q", err, why)
}

// Disable implements setup.Services.
func (m Manager) Disable(ctx context.Context, unit string) error {
	if m.Offline {
		return m.unlink(unit)
	}
	load, err := m.systemctl(ctx, "show", "--property=LoadState", "--value", unit)
	if err != nil {
		return err
	}
	// A unit without a file may run none the less.
	if _, err := m.systemctl(ctx, "stop", unit); err != nil && load == "loaded" {
		return err
	}
	if load != "not-found" {
		if _, err := m.systemctl(ctx, "disable", "--quiet", unit); err != nil {
			return err
		}
	}
	if strings.HasSuffix(unit, ".service") {
		// A stop in the pause before a restart leaves its directory there.
		_, _ = m.systemctl(ctx, "clean", "--what=runtime", unit)
	}
	for _, name := range []string{"tunneld", "tunneld-helper"} {
		os.Remove(filepath.Join(cmp.Or(m.runtime, "/run"), name)) // if it is empty: systemd leaves what is above
	}
	// That it failed once is no longer of interest; and it may have never been known.
	_, _ = m.systemctl(ctx, "reset-failed", unit)
	return m.unlink(unit)
}

// unlink removes what Enable made, which systemctl does not find where the unit's
// file is gone.
func (m Manager) unlink(unit string) error {
	for _, link := range m.links(unit) {
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		os.Remove(filepath.Dir(link)) // if it is empty, as systemctl does
	}
	return nil
}

// links are what has the unit start by itself.
func (m Manager) links(unit string) []string {
	links, _ := filepath.Glob(filepath.Join(cmp.Or(m.Dir, unitDir), "*.wants", unit))
	return links
}

// Restart implements setup.Services.
func (m Manager) Restart(ctx context.Context, unit string) error {
	_, err := m.systemctl(ctx, "restart", unit)
	return m.explained(ctx, unit, err)
}

// Settle has systemd read the unit files again.
func (m Manager) Settle(ctx context.Context) error {
	if m.Offline {
		return nil
	}
	_, err := m.systemctl(ctx, "daemon-reload")
	return err
}
