package osdns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/osdns/hostsfile"
	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// dnsmasq is the rung for systems whose programs ask dnsmasq, as a service of its
// own or as NetworkManager's. It is told by two files: one with the servers for the
// names, a block for each owner, which it reads again at a signal; and one among its
// configuration, which leads to that, and which takes a restart to be read.
//
// servers-file may be given only once, or dnsmasq does not start: so that second
// file is all owners', and is there as long as there is a block.
type dnsmasq struct {
	machine.System
	dir string // where the servers are
}

// A resident is a dnsmasq that programs ask.
type resident struct {
	unit string // whose restart, or reload, makes it a new process
	pid  int    // 0: it has failed, maybe because of us
	conf dnsmasqConf
}

// restart makes a new process of it.
func (r resident) restart(ctx context.Context, s machine.System) error {
	if r.unit == networkManager {
		return s.ReloadService(ctx, r.unit)
	}
	return s.RestartService(ctx, r.unit)
}

const (
	dnsmasqUnit    = "dnsmasq.service"
	networkManager = "NetworkManager.service"
	// networkManagerPID is noted by the dnsmasq that NetworkManager starts.
	networkManagerPID = "/run/NetworkManager/dnsmasq.pid"

	dnsmasqFile    = "tunneld.conf"
	dnsmasqMark    = "# Written by tunneld-helper, and removed by it.\n" // what it begins with
	dnsmasqServers = "dnsmasq.servers"
	rebindOK       = "rebind-domain-ok="
	// unread, in the file of servers, says that dnsmasq has to be restarted.
	unread = "# dnsmasq is to be restarted\n"
)

// dnsmasqDirs are where configuration is put: those of the systems' own packages.
var dnsmasqDirs = []string{"/etc/dnsmasq.d", "/etc/NetworkManager/dnsmasq.d"}

func (d *dnsmasq) name() string { return "dnsmasq" }

func (d *dnsmasq) wildcards() bool { return true }

func (d *dnsmasq) fits(ctx context.Context, c Claim) (string, bool) {
	servers, err := nameservers(d.System)
	if err != nil {
		return err.Error(), false
	}
	if len(servers) == 0 {
		return resolvPath + " names no server", false
	}
	addr, err := netip.ParseAddr(servers[0])
	if err != nil || !addr.IsLoopback() || slices.Contains(resolvedStubs, servers[0]) {
		return "programs do not ask dnsmasq: " + resolvPath + " leads to " + servers[0], false
	}
	r, err := d.find(ctx)
	if err != nil {
		return err.Error(), false
	}
	switch {
	case r.pid == 0:
		return "dnsmasq has failed", false
	case r.conf.servers != "" && r.conf.servers != d.servers():
		return "dnsmasq has a servers-file of its own: " + r.conf.servers, false
	case r.dir() == "":
		return "dnsmasq reads no directory in which its configuration is usual", false
	}
	if _, err := d.confIn(r.dir()); err != nil {
		return err.Error(), false
	}
	sources, _, err := readNsswitch(d.System)
	if err != nil {
		return err.Error(), false
	}
	isDNS := func(s source) bool { return s.name == "dns" }
	if before, _ := first(sources, isDNS); slices.ContainsFunc(before, func(s source) bool { return s.name == "resolve" && s.ends(answerNotFound) }) {
		if _, err := d.ResolvedVersion(ctx); err == nil {
			return "nsswitch.conf has programs ask systemd-resolved, which runs", false
		}
	}
	// Whether Avahi runs or not: nss-mdns first has DNS say who has all of local, and
	// dnsmasq passes that on to servers that may not answer for seconds.
	if name, sees := mdnsSees(sources, c.Names, isDNS); sees {
		return fmt.Sprintf("nsswitch.conf has names like %s go to nss-mdns first", name), false
	}
	return fmt.Sprintf("dnsmasq, of %s, is what programs ask", r.unit), true
}

func (d *dnsmasq) servers() string { return filepath.Join(d.dir, dnsmasqServers) }

func (d *dnsmasq) apply(ctx context.Context, c Claim) error {
	r, err := d.find(ctx)
	if err != nil {
		return err
	}
	domains := routes(c.Names)
	lines := make([]string, len(domains))
	for i, domain := range domains {
		lines[i] = fmt.Sprintf("server=/%s/%v#%d", domain, c.Server.Addr(), c.Server.Port())
	}
	return d.put(ctx, &r, func(servers []byte) []byte { return hostsfile.Put(servers, c.Owner, lines, "\n") })
}

func (d *dnsmasq) remove(ctx context.Context, owner string) error {
	var running *resident
	r, err := d.find(ctx)
	switch {
	case err == nil:
		running = &r
	case !errors.Is(err, errNoDnsmasq):
		return err
	}
	return d.put(ctx, running, func(servers []byte) []byte { return hostsfile.Remove(servers, owner) })
}

// put changes the file of servers, and has dnsmasq (nil: it does not run) read what
// has changed.
func (d *dnsmasq) put(ctx context.Context, r *resident, change func([]byte) []byte) error {
	old, err := d.ReadFile(d.servers())
	if errors.Is(err, fs.ErrNotExist) {
		old, err = nil, nil
	}
	if err != nil {
		return err
	}
	clean, pending := bytes.CutSuffix(old, []byte(unread))
	if old == nil {
		clean = nil
	}
	now := change(clean)
	if len(now) == 0 {
		now = nil
	}
	if r == nil && now != nil {
		return d.reread(nil, old, now) // others' names are there, and read when it starts
	}
	wanted, err := d.wantedConf(r, now)
	if err != nil {
		return err
	}
	same, err := d.confIs(wanted)
	if err != nil {
		return err
	}
	if same && !pending {
		return d.reread(r, old, now)
	}
	// The servers are there before the file that leads to them, and go after it.
	if err := d.ReplaceFile(d.servers(), append(bytes.Clone(now), unread...)); err != nil {
		return err
	}
	if err := d.writeConf(wanted); err != nil {
		return err
	}
	if r != nil {
		if err := r.restart(ctx, d.System); err != nil {
			return err // and it is started without us by remove
		}
	}
	return d.reread(nil, nil, now)
}

// reread writes the servers (nil: none) and tells dnsmasq, if it has to know.
func (d *dnsmasq) reread(r *resident, old, now []byte) error {
	if err := d.Discard(machine.Temporary(d.servers())); err != nil {
		return err
	}
	if now == nil {
		return d.Discard(d.servers())
	}
	if !bytes.Equal(old, now) {
		if err := d.ReplaceFile(d.servers(), now); err != nil {
			return err
		}
	}
	if r == nil || r.pid == 0 {
		return nil
	}
	// Even where nothing has changed: a crash may have come before this.
	return d.Reread(r.pid)
}

// wantedConf is what each of the directories shall have of ours; nil: nothing.
func (d *dnsmasq) wantedConf(r *resident, servers []byte) (map[string][]byte, error) {
	wanted := make(map[string][]byte)
	if servers == nil {
		return wanted, nil
	}
	dir := r.dir()
	if dir == "" {
		return nil, errors.New("dnsmasq reads no directory in which its configuration is usual")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%sservers-file=%s\n", dnsmasqMark, d.servers())
	if r.conf.rebind && !r.conf.rebindLocal {
		// What answers with an address of this machine is else taken for an attack.
		for line := range strings.Lines(string(servers)) {
			if rest, ok := strings.CutPrefix(line, "server=/"); ok {
				domain, _, _ := strings.Cut(rest, "/")
				fmt.Fprintf(&b, "%s/%s/\n", rebindOK, domain)
			}
		}
	}
	wanted[dir] = b.Bytes()
	return wanted, nil
}

var errForeignConf = errors.New("it is not ours")

// confIn is what is in a directory of ours; nil: nothing. A file of that name may be
// somebody else's: errForeignConf.
func (d *dnsmasq) confIn(dir string) ([]byte, error) {
	path := filepath.Join(dir, dnsmasqFile)
	data, err := d.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !bytes.HasPrefix(data, []byte(dnsmasqMark)):
		return nil, fmt.Errorf("%s: %w", path, errForeignConf)
	}
	return data, nil
}

// confIs reports whether the directories have what they shall have.
func (d *dnsmasq) confIs(wanted map[string][]byte) (bool, error) {
	for _, dir := range dnsmasqDirs {
		data, err := d.confIn(dir)
		if errors.Is(err, errForeignConf) && wanted[dir] == nil {
			continue
		}
		if err != nil {
			return false, err
		}
		if !bytes.Equal(data, wanted[dir]) {
			return false, nil
		}
	}
	return true, nil
}

// writeConf makes it so; before that, confIs has had no error.
func (d *dnsmasq) writeConf(wanted map[string][]byte) error {
	for _, dir := range dnsmasqDirs {
		path := filepath.Join(dir, dnsmasqFile)
		if err := d.Discard(machine.Temporary(path)); err != nil {
			return err
		}
		if wanted[dir] != nil {
			if err := d.ReplaceFile(path, wanted[dir]); err != nil {
				return err
			}
		} else if data, _ := d.confIn(dir); data != nil {
			if err := d.Discard(path); err != nil {
				return err
			}
		}
	}
	return nil
}

var errNoDnsmasq = errors.New("dnsmasq does not run as a service")

// find finds the dnsmasq that runs, or has failed, and what it has been told.
func (d *dnsmasq) find(ctx context.Context) (resident, error) {
	r := resident{unit: networkManager}
	file, err := d.ReadFile(networkManagerPID)
	if err == nil {
		r.pid, _ = strconv.Atoi(strings.TrimSpace(string(file)))
	}
	if args := d.args(r.pid); args != nil {
		r.conf, err = readDnsmasqConf(d.System, args)
		return r, err
	}
	state, pid, err := d.settled(ctx, dnsmasqUnit)
	if ctx.Err() != nil { // which says nothing about dnsmasq
		return resident{}, err
	}
	if err != nil {
		return resident{}, fmt.Errorf("%w: %w", errNoDnsmasq, err)
	}
	r = resident{unit: dnsmasqUnit}
	if state == "failed" {
		r.conf = d.told()
		return r, nil
	}
	args := d.args(pid)
	if state != "active" || args == nil {
		return resident{}, errNoDnsmasq
	}
	r.pid = pid
	r.conf, err = readDnsmasqConf(d.System, args)
	return r, err
}

// told is what is known of a dnsmasq that has failed: where it was told of us, and
// how.
func (d *dnsmasq) told() (c dnsmasqConf) {
	for _, dir := range dnsmasqDirs {
		if data, _ := d.confIn(dir); data != nil {
			c.dirs = append(c.dirs, confDir{path: dir})
			c.rebind = c.rebind || bytes.Contains(data, []byte(rebindOK))
		}
	}
	return c
}

// settled is the state of a unit that is not just being started or stopped: who was
// killed may have left it so, and what it reads then is what was in force then.
func (d *dnsmasq) settled(ctx context.Context, unit string) (state string, pid int, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		state, pid, err = d.ServiceState(ctx, unit)
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

// rereadHosts has a dnsmasq that runs read the hosts file again: it goes by what
// that was when it started.
func (d *dnsmasq) rereadHosts(ctx context.Context) {
	if r, err := d.find(ctx); err == nil && r.pid != 0 {
		_ = d.Reread(r.pid) // its own end, if it has come to one, does as well
	}
}

// args are the arguments of a process, if it is a dnsmasq.
func (d *dnsmasq) args(pid int) []string {
	if pid <= 0 {
		return nil
	}
	line, err := d.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	if filepath.Base(args[0]) != "dnsmasq" {
		return nil
	}
	return args
}

// dir is the directory that it reads our file from; empty if it reads none of those
// that configuration is put in.
func (r resident) dir() string {
	for _, dir := range dnsmasqDirs {
		if slices.ContainsFunc(r.conf.dirs, func(c confDir) bool { return c.path == dir && c.reads(dnsmasqFile) }) {
			return dir
		}
	}
	return ""
}
