package osdns

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/internal/osdns/machine"
	"github.com/tunneld/tunneld/internal/osdns/survey"
)

// leadsToResolved reports whether the programs of this system ask systemd's resolver
// for the names, of at least the version given.
func leadsToResolved(ctx context.Context, s machine.System, names []Name, version int) (why string, ok bool) {
	runs, err := s.ResolvedVersion(ctx)
	if err != nil {
		return err.Error(), false
	}
	if runs < version {
		return fmt.Sprintf("systemd-resolved is of version %d; this takes %d", runs, version), false
	}
	sources, _, err := survey.Sources(s)
	if err != nil {
		return err.Error(), false
	}
	isResolve := func(s survey.Source) bool { return s.Name == "resolve" }
	_, byModule := survey.Before(sources, isResolve)
	servers, err := survey.NameServers(s)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err.Error(), false
	}
	byStub := len(servers) > 0 && survey.IsResolvedStub(servers[0])
	if !byModule && !byStub {
		return "programs do not ask systemd-resolved: " + survey.ResolvConf + " leads to " + cmp.Or(strings.Join(servers, ", "), "nobody"), false
	}
	asks := func(s survey.Source) bool { return s.Name == "resolve" && byModule || s.Name == "dns" && byStub }
	if name, sees := survey.MDNSSees(sources, bare(names), asks); sees && survey.AvahiRuns(s) {
		return fmt.Sprintf("nsswitch.conf has names like %s end at Avahi, which runs", name), false
	}
	return fmt.Sprintf("systemd-resolved %d is what programs ask", runs), true
}

// resolvedRoutes are the domains that systemd's resolver has to be given: what is in
// localhost it answers itself, with 127.0.0.1 and ::1.
func resolvedRoutes(names []Name) []string {
	return slices.DeleteFunc(routes(names), func(d string) bool { return strings.HasSuffix(d, ".localhost") })
}

// delegate is the rung made for this: a file that tells systemd's resolver which
// domains to ask whom for. It is in /run, so a reboot takes it away.
//
// Without any network at all, systemd's resolver asks nobody that a delegate
// names; link works then.
type delegate struct{ machine.System }

const (
	resolvedUnit    = "systemd-resolved.service"
	delegateVersion = 258
	delegateDir     = "/run/systemd/dns-delegate.d"
	delegateExt     = ".dns-delegate"
	// A file with more domains than 1,024 is dropped as a whole (measured, systemd
	// 262), so there may be several for an owner.
	delegateDomains = 1000
)

func (d *delegate) name() string { return "resolved-delegate" }

func (d *delegate) wildcards() bool { return true }

func (d *delegate) fits(ctx context.Context, c Claim) (string, bool) {
	return leadsToResolved(ctx, d.System, c.Names, delegateVersion)
}

func (d *delegate) apply(ctx context.Context, c Claim) error {
	files := make(map[string][]byte)
	for domains := range slices.Chunk(resolvedRoutes(c.Names), delegateDomains) {
		name := delegatePrefix(c.Owner) + strconv.Itoa(len(files)+1) + delegateExt
		files[name] = delegateFile(c, domains)
	}
	return d.put(ctx, c.Owner, files)
}

func (d *delegate) remove(ctx context.Context, owner string) error {
	if err := d.put(ctx, owner, nil); err != nil {
		return err
	}
	if left, err := d.ReadDir(delegateDir); err == nil && len(left) == 0 {
		_ = d.RemoveDir(delegateDir) // unless somebody has just put something in it
	}
	return nil
}

// put makes the files those of the owner, and has them read. That they are to be
// read is noted by a file beside them, which outlives a crash.
func (d *delegate) put(ctx context.Context, owner string, files map[string][]byte) error {
	pending := filepath.Join(delegateDir, delegatePrefix(owner)+"unread")
	old, err := d.list(owner)
	if err != nil {
		return err
	}
	same := len(old) == len(files)
	for _, name := range old {
		data, err := d.ReadFile(filepath.Join(delegateDir, name))
		same = same && err == nil && files[name] != nil && bytes.Equal(data, files[name])
	}
	if same {
		return nil
	}
	if len(old) == 0 {
		if err := d.MakeDir(delegateDir); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := d.ReplaceFile(pending, nil); err != nil {
		return err
	}
	for _, name := range old {
		path := filepath.Join(delegateDir, name)
		if files[name] != nil || path == pending {
			continue
		}
		if err := d.Discard(path); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := d.ReplaceFile(filepath.Join(delegateDir, name), files[name]); err != nil {
			return err
		}
	}
	if err := d.reload(ctx); err != nil {
		return err
	}
	return d.RemoveFile(pending)
}

// list lists what is there of the owner, also what a crash has left.
func (d *delegate) list(owner string) ([]string, error) {
	entries, err := d.ReadDir(delegateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(strings.TrimPrefix(e.Name(), "."), delegatePrefix(owner)) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// reload has systemd's resolver read the files, if it runs.
func (d *delegate) reload(ctx context.Context) error {
	if _, err := d.ResolvedVersion(ctx); errors.Is(err, machine.ErrNoResolved) {
		return nil
	}
	return d.ReloadService(ctx, resolvedUnit)
}

func delegatePrefix(owner string) string { return "tunneld-" + owner + "-" }

func delegateFile(c Claim, domains []string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by tunneld-helper for user %s, and removed by it.\n[Delegate]\nDNS=%v\nDefaultRoute=no\n", c.Owner, c.Server)
	for _, domain := range domains {
		fmt.Fprintf(&b, "Domains=~%s\n", domain)
	}
	return b.Bytes()
}

// link is the rung for older ones: an interface of ours, to which the names are
// tied. It stays as long as there are names, since programs drop connections when
// interfaces come and go.
type link struct{ machine.System }

const linkVersion = 246 // servers with a port

// linkDomains is how many domains a link may have (measured, systemd 252 and 262:
// to set one more fails).
func linkDomains(version int) int {
	if version < delegateVersion {
		return 256
	}
	return 1024
}

func (l *link) name() string { return "resolved-link" }

func (l *link) wildcards() bool { return true }

// linkName is what the owner's interface is called: at most 15 bytes, which is all
// that there may be.
func linkName(owner string) (string, error) {
	id, err := strconv.ParseUint(owner, 10, 32)
	if err != nil {
		return "", fmt.Errorf("user's id: %w", err)
	}
	return "tunneld-" + strconv.FormatUint(id, 36), nil
}

func (l *link) fits(ctx context.Context, c Claim) (string, bool) {
	if _, err := linkName(c.Owner); err != nil {
		return err.Error(), false
	}
	why, ok := leadsToResolved(ctx, l.System, c.Names, linkVersion)
	if !ok {
		return why, false
	}
	version, err := l.ResolvedVersion(ctx)
	if err != nil {
		return err.Error(), false
	}
	if n, most := len(resolvedRoutes(c.Names)), linkDomains(version); n > most {
		return fmt.Sprintf("systemd-resolved %d takes %d domains for a link, and not %d", version, most, n), false
	}
	return why, true
}

func (l *link) apply(ctx context.Context, c Claim) error {
	name, err := linkName(c.Owner)
	if err != nil {
		return err
	}
	if err := l.AddLink(name); err != nil {
		return err
	}
	return l.SetLinkDNS(ctx, name, c.Server, resolvedRoutes(c.Names))
}

func (l *link) remove(_ context.Context, owner string) error {
	name, err := linkName(owner)
	if err != nil {
		return nil // there can be none
	}
	ours, err := l.LinkIsOurs(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !ours {
		return nil
	}
	return l.RemoveLink(name)
}
