package rootapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

const (
	// policyVersion is the newest form of a policy that is understood.
	policyVersion = 1

	// More than these nobody needs, and the files that they end up in stay small.
	maxNames = 4096
	maxAddrs = 16 // of one name
	maxSkip  = 16

	// unprivileged is the first port that needs no helper.
	unprivileged = 1024
)

var (
	// ErrPolicy: what should be a policy is none.
	ErrPolicy = errors.New("no policy of tunneld-helper")
	// ErrNewerPolicy: it is one, of a newer helper.
	ErrNewerPolicy = errors.New("a policy of a newer tunneld-helper")
)

// A Policy says what the helper does for one user. It is written when the helper
// is installed, and nobody but root may change it. There are rules besides that
// no policy can loosen.
type Policy struct {
	// UID is the only user, besides root, for whom anything is done.
	UID uint32
	// Suffixes are the domains below which names may be claimed.
	Suffixes []string
	// Addresses are what names may lead to, and where any low port may be
	// listened on.
	Addresses netip.Prefix
	// SharedPorts are the low ports that may be listened on at 127.0.0.1 and ::1.
	SharedPorts []uint16
}

// ParsePolicy reads a policy. Its error Is ErrPolicy or ErrNewerPolicy.
func ParsePolicy(data []byte) (*Policy, error) {
	var file struct {
		Version     int          `json:"version"`
		UID         *uint32      `json:"uid"`
		Suffixes    []string     `json:"suffixes"`
		Addresses   netip.Prefix `json:"addresses"`
		SharedPorts []uint16     `json:"sharedPorts"`
	}
	// The version comes first: a newer policy may well have fields that are
	// not known here.
	var head struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(data, &head) == nil && head.Version > policyVersion {
		return nil, fmt.Errorf("%w: version %d; this one knows %d", ErrNewerPolicy, head.Version, policyVersion)
	}
	if err := decode(data, &file); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	if file.Version != policyVersion {
		return nil, fmt.Errorf(`%w: "version" is %d and must be %d`, ErrPolicy, file.Version, policyVersion)
	}
	if file.UID == nil {
		return nil, fmt.Errorf(`%w: "uid" is missing`, ErrPolicy)
	}
	p := &Policy{UID: *file.UID, Suffixes: file.Suffixes, Addresses: file.Addresses, SharedPorts: file.SharedPorts}
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	return p, nil
}

// decode reads one JSON value, with no fields that out does not have, and
// nothing behind it.
func decode(data []byte, out any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("it is empty")
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind the JSON value")
	}
	return nil
}

func (p *Policy) validate() error {
	if len(p.Suffixes) == 0 {
		return errors.New(`"suffixes" has none, so no name could be claimed`)
	}
	for _, suffix := range p.Suffixes {
		if why := checkSuffix(suffix); why != "" {
			return fmt.Errorf("suffix %q %s", suffix, why)
		}
	}
	// The same rules as for the configuration's range.
	a, system := p.Addresses, netip.MustParsePrefix("127.0.0.0/16")
	switch {
	case !a.IsValid():
		return errors.New(`"addresses" is missing`)
	case !a.Addr().Is4() || !a.Addr().IsLoopback() || a.Bits() < 8 || a != a.Masked():
		return fmt.Errorf("addresses %v is not a range inside 127.0.0.0/8", a)
	case a.Overlaps(system):
		return fmt.Errorf("addresses %v overlaps %v, where the system has addresses of its own", a, system)
	}
	for _, port := range p.SharedPorts {
		if port == 0 || port >= unprivileged {
			return fmt.Errorf("shared port %d is not from 1 to %d: others need no helper", port, unprivileged-1)
		}
	}
	return nil
}

// ownTLDs are the top-level domains below which no name is anybody's on the
// Internet: RFC 6761, RFC 6762 with its appendix G, and ICANN's "internal".
var ownTLDs = []string{"local", "localhost", "test", "internal", "intranet", "private", "corp", "home", "lan"}

// checkSuffix says what is wrong with a suffix, or "".
func checkSuffix(suffix string) string {
	tld := suffix[strings.LastIndexByte(suffix, '.')+1:]
	switch {
	case !isHostName(suffix):
		return "is not a domain in lower case"
	case strings.Trim(tld, "0123456789") == "":
		return "ends in a number"
	case tld == suffix && !slices.Contains(ownTLDs, tld):
		return "is a top-level domain of others: take one below it, or one of " + strings.Join(ownTLDs, ", ")
	case tld == "arpa" && !within(suffix, "home.arpa"):
		return "belongs to the Internet's own infrastructure"
	}
	return ""
}

// A Refusal is why the rules do not allow a request. It Is ErrRefused.
type Refusal struct {
	// Reason is a sentence that names the rule.
	Reason string
	// Names are those of a claim's that no claim may have, if it is for them.
	Names []string
}

func (r *Refusal) Error() string { return ErrRefused.Error() + ": " + r.Reason }

// Is reports whether target is ErrRefused.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }

func refuse(format string, args ...any) *Refusal {
	return &Refusal{Reason: fmt.Sprintf(format, args...)}
}

// check returns why a request is not allowed, or nil. Only what a verb needs is
// looked at: nothing else of the request may be used.
func (p *Policy) check(r *request, hostname string) *Refusal {
	switch r.Verb {
	case verbClaim:
		return p.checkClaim(r, hostname)
	case verbRelease:
		return nil
	case verbListen:
		return p.checkListen(r.Listen)
	case verbAddress:
		if !p.Addresses.Contains(r.Address) {
			return refuse("address %v is not within %v", r.Address, p.Addresses)
		}
		return nil
	}
	return refuse("there is no verb %s", quote(r.Verb))
}

func (p *Policy) checkListen(at netip.AddrPort) *Refusal {
	switch {
	case at.Port() == 0:
		return refuse("listening takes an address and a port")
	case at.Port() >= unprivileged:
		return refuse("port %d needs no helper: only those below %d do", at.Port(), unprivileged)
	case p.Addresses.Contains(at.Addr()):
		return nil
	case !isShared(at.Addr()):
		return refuse("listening on %v is for none but %v, 127.0.0.1 and ::1", at.Addr(), p.Addresses)
	case !slices.Contains(p.SharedPorts, at.Port()):
		return refuse("port %d of %v is none of the shared ports %v", at.Port(), at.Addr(), p.SharedPorts)
	}
	return nil
}

func (p *Policy) checkClaim(r *request, hostname string) *Refusal {
	if a := r.Server.Addr(); !a.IsLoopback() || a.Is4In6() || a.Zone() != "" || r.Server.Port() == 0 {
		return refuse("the server %v is not a port of a loopback address", r.Server)
	}
	if len(r.Skip) > maxSkip {
		return refuse("%d rungs to skip are more than there are", len(r.Skip))
	}
	for _, rung := range r.Skip {
		if !isHostName(rung) {
			return refuse("%s is not the name of a rung", quote(rung))
		}
	}
	if len(r.Names) > maxNames {
		return refuse("%d names are more than the %d that may be claimed", len(r.Names), maxNames)
	}
	var refused *Refusal
	seen := make(map[string]bool, len(r.Names))
	for _, n := range r.Names {
		why := p.checkName(n.Name, hostname)
		if why == "" && seen[n.Name] {
			why = "is there twice"
		}
		if why == "" {
			why = p.checkAddrs(n.Addrs)
		}
		seen[n.Name] = true
		if why == "" {
			continue
		}
		if refused == nil {
			refused = refuse("the name %s %s", quote(n.Name), why)
		}
		refused.Names = append(refused.Names, n.Name)
	}
	return refused
}

// checkAddrs says why a name may not lead to addrs, or "".
func (p *Policy) checkAddrs(addrs []netip.Addr) string {
	if len(addrs) == 0 || len(addrs) > maxAddrs {
		return fmt.Sprintf("has %d addresses; it takes from 1 to %d", len(addrs), maxAddrs)
	}
	for _, a := range addrs {
		if !p.Addresses.Contains(a) && !isShared(a) {
			return fmt.Sprintf("leads to %v, which is neither within %v nor 127.0.0.1 or ::1", a, p.Addresses)
		}
	}
	return ""
}

// checkName says why a name may not be claimed, or "". What is claimed is taken
// from whoever had it: so nobody gets a domain that others may have names in,
// or the name of the machine.
func (p *Policy) checkName(name, hostname string) string {
	const cluster, services = "cluster.local", "svc.cluster.local"
	host, _, _ := strings.Cut(strings.ToLower(hostname), ".")
	switch {
	case !isHostName(name):
		return "is not a host name in lower case"
	case name == host+".local" || within(strings.ToLower(hostname), name):
		return "is this machine's own, or a domain that it is in" // which would come with it
	}
	suffixes := p.Suffixes
	if within(name, cluster) {
		// The domain of every cluster, and of other programs that connect to
		// one: only single Services are ours, and only if the policy is for
		// them. ".local" does not say so.
		below, ok := strings.CutSuffix(name, "."+services)
		if !ok || !strings.Contains(below, ".") {
			return "is not SERVICE.NAMESPACE." + services + ", or below such a name"
		}
		suffixes = nil
		for _, s := range p.Suffixes {
			if within(s, cluster) {
				suffixes = append(suffixes, s)
			}
		}
	}
	for _, suffix := range suffixes {
		if name != suffix && within(name, suffix) {
			return ""
		}
	}
	return "is below none of the domains " + strings.Join(p.Suffixes, ", ")
}

// within reports whether name is domain, or below it.
func within(name, domain string) bool { return name == domain || strings.HasSuffix(name, "."+domain) }

// isShared reports whether a is one of the addresses that all users share.
func isShared(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || a == netip.IPv6Loopback()
}

// isHostName reports whether s is labels of lower-case letters, digits and
// hyphens, with dots between them: nothing that could mean anything else in a
// file or a command line.
func isHostName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return len(s) <= 253
}

// quote is for what a client has sent: of any length, with anything in it.
func quote(s string) string {
	const enough = 80
	if len(s) > enough {
		return fmt.Sprintf("%+q and more", s[:enough])
	}
	return fmt.Sprintf("%+q", s)
}
