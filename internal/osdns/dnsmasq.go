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
	"strings"

	"github.com/tunneld/tunneld/internal/osdns/dnsmasqconf"
	"github.com/tunneld/tunneld/internal/osdns/hostsfile"
	"github.com/tunneld/tunneld/internal/osdns/machine"
	"github.com/tunneld/tunneld/internal/osdns/survey"
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

// restart makes a new process of it.
func (d *dnsmasq) restart(ctx context.Context, r *dnsmasqconf.Resident) error {
	if r.Unit == dnsmasqconf.NetworkManager {
		return d.ReloadService(ctx, r.Unit)
	}
	return d.RestartService(ctx, r.Unit)
}

// startable is an error if it would not start again, for reasons that are not ours:
// its configuration may have been changed since it started. Of one that has failed,
// there is nothing to lose.
func (d *dnsmasq) startable(ctx context.Context, r *dnsmasqconf.Resident) error {
	if r == nil || r.PID == 0 {
		return nil
	}
	if _, err := d.Run(ctx, "dnsmasq", append(slices.Clone(r.Args), "--test")...); err != nil {
		return fmt.Errorf("dnsmasq would not start again with its configuration as it is, so it is not restarted: %w", err)
	}
	return nil
}

const (
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
	servers, err := survey.NameServers(d.System)
	if err != nil {
		return err.Error(), false
	}
	if len(servers) == 0 {
		return survey.ResolvConf + " names no server", false
	}
	addr, err := netip.ParseAddr(servers[0])
	if err != nil || !addr.IsLoopback() || survey.IsResolvedStub(servers[0]) {
		return "programs do not ask dnsmasq: " + survey.ResolvConf + " leads to " + servers[0], false
	}
	r, err := d.find(ctx)
	if err != nil {
		return err.Error(), false
	}
	switch {
	case r.PID == 0:
		return "dnsmasq has failed", false
	case r.Conf.Servers != "" && r.Conf.Servers != d.servers():
		return "dnsmasq has a servers-file of its own: " + r.Conf.Servers, false
	case confDir(r) == "":
		return "dnsmasq reads no directory in which its configuration is usual", false
	}
	if _, err := d.confIn(confDir(r)); err != nil {
		return err.Error(), false
	}
	sources, _, err := survey.Sources(d.System)
	if err != nil {
		return err.Error(), false
	}
	isDNS := func(s survey.Source) bool { return s.Name == "dns" }
	if before, _ := survey.Before(sources, isDNS); slices.ContainsFunc(before, func(s survey.Source) bool { return s.Name == "resolve" && s.Ends(survey.NotFound) }) {
		if _, err := d.ResolvedVersion(ctx); err == nil {
			return "nsswitch.conf has programs ask systemd-resolved, which runs", false
		}
	}
	// Whether Avahi runs or not: nss-mdns first has DNS say who has all of local, and
	// dnsmasq passes that on to servers that may not answer for seconds.
	if name, sees := survey.MDNSSees(sources, bare(c.Names), isDNS); sees {
		return fmt.Sprintf("nsswitch.conf has names like %s go to nss-mdns first", name), false
	}
	return fmt.Sprintf("dnsmasq, of %s, is what programs ask", r.Unit), true
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
	var running *dnsmasqconf.Resident
	r, err := d.find(ctx)
	switch {
	case err == nil:
		running = &r
	case !errors.Is(err, dnsmasqconf.ErrNone):
		return err
	}
	return d.put(ctx, running, func(servers []byte) []byte { return hostsfile.Remove(servers, owner) })
}

// put changes the file of servers, and has dnsmasq (nil: it does not run) read what
// has changed.
func (d *dnsmasq) put(ctx context.Context, r *dnsmasqconf.Resident, change func([]byte) []byte) error {
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
	if err := d.startable(ctx, r); err != nil {
		if len(now) >= len(clean) {
			return err
		}
		// Names that go can go without a restart; the rest has to wait.
		pending := append(bytes.Clone(now), unread...)
		return errors.Join(err, d.ReplaceFile(d.servers(), pending), d.Reread(r.PID))
	}
	// The servers are there before the file that leads to them, and go after it.
	if err := d.ReplaceFile(d.servers(), append(bytes.Clone(now), unread...)); err != nil {
		return err
	}
	if err := d.writeConf(wanted); err != nil {
		return err
	}
	if r != nil {
		if err := d.restart(ctx, r); err != nil {
			return err // and it is started without us by remove
		}
	}
	return d.reread(nil, nil, now)
}

// reread writes the servers (nil: none) and tells dnsmasq, if it has to know.
func (d *dnsmasq) reread(r *dnsmasqconf.Resident, old, now []byte) error {
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
	if r == nil || r.PID == 0 {
		return nil
	}
	// Even where nothing has changed: a crash may have come before this.
	return d.Reread(r.PID)
}

// wantedConf is what each of the directories shall have of ours; nil: nothing.
func (d *dnsmasq) wantedConf(r *dnsmasqconf.Resident, servers []byte) (map[string][]byte, error) {
	wanted := make(map[string][]byte)
	if servers == nil {
		return wanted, nil
	}
	dir := confDir(*r)
	if dir == "" {
		return nil, errors.New("dnsmasq reads no directory in which its configuration is usual")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%sservers-file=%s\n", dnsmasqMark, d.servers())
	if r.Conf.Rebind && !r.Conf.RebindLocal {
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
	path := filepath.Join(dir, dnsmasqconf.Ours)
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
		path := filepath.Join(dir, dnsmasqconf.Ours)
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

// find finds the dnsmasq that runs, or has failed, and what it has been told.
func (d *dnsmasq) find(ctx context.Context) (dnsmasqconf.Resident, error) {
	r, err := dnsmasqconf.Find(ctx, d.System)
	if err == nil && r.PID == 0 {
		r.Conf = d.told()
	}
	return r, err
}

// told is what is known of a dnsmasq that has failed: where it was told of us, and
// how.
func (d *dnsmasq) told() (c dnsmasqconf.Conf) {
	for _, dir := range dnsmasqDirs {
		if data, _ := d.confIn(dir); data != nil {
			c.Dirs = append(c.Dirs, dnsmasqconf.Dir{Path: dir})
			c.Rebind = c.Rebind || bytes.Contains(data, []byte(rebindOK))
		}
	}
	return c
}

// rereadHosts has a dnsmasq that runs read the hosts file again: it goes by what
// that was when it started.
func (d *dnsmasq) rereadHosts(ctx context.Context) {
	if r, err := d.find(ctx); err == nil && r.PID != 0 {
		_ = d.Reread(r.PID) // its own end, if it has come to one, does as well
	}
}

// confDir is the directory that a dnsmasq reads our file from; empty if it reads none
// of those that configuration is put in.
func confDir(r dnsmasqconf.Resident) string {
	for _, dir := range dnsmasqDirs {
		if slices.ContainsFunc(r.Conf.Dirs, func(c dnsmasqconf.Dir) bool { return c.Path == dir && c.Reads(dnsmasqconf.Ours) }) {
			return dir
		}
	}
	return ""
}
