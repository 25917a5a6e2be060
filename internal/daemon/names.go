package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tunneld/tunneld/internal/claim"
	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/dns"
	"github.com/tunneld/tunneld/internal/lookup"
	"github.com/tunneld/tunneld/internal/osdns"
	"github.com/tunneld/tunneld/internal/status"
)

const (
	// goneTimeout is how long a listener waits for its name to be taken back,
	// before it goes itself.
	goneTimeout = time.Second
	// knownTimeout is how long whoever adds a forward waits for its name.
	knownTimeout = 2 * time.Second
	// barelyKnown is that where nobody claims it.
	barelyKnown = 300 * time.Millisecond
)

// A Helper does what takes privileges: *rootapi.Client is one, whose errors it
// returns.
type Helper interface {
	claim.Helper
	// Listen listens on a port that this user may not have.
	Listen(ctx context.Context, at netip.AddrPort) (net.Listener, error)
	// AddAddress makes a loopback address one of this machine's.
	AddAddress(ctx context.Context, addr netip.Addr) error
}

// names make names lead to addresses: the responder, and that the system asks it.
// Its methods are called with Daemon.applying held, but for claimed, known and drop.
type names struct {
	server   *dns.Server
	listen   netip.AddrPort
	sockets  *dns.Listeners
	err      error           // why the responder does not listen
	claimant *claim.Claimant // nil: the system is not concerned
	now      []dns.Name      // as they were set
	giveUp   context.CancelFunc
	ended    chan struct{} // closed when nothing is claimed any more
	silence  context.CancelFunc
}

// startNames opens the responder's sockets, and claims. If it cannot listen, status
// says so, and everything but the names works.
func (d *Daemon) startNames(ctx context.Context, running *errgroup.Group) {
	n := &d.names
	n.server, n.ended, n.giveUp = &dns.Server{Log: d.Log}, make(chan struct{}), func() {}
	n.silence = func() {}
	l, err := d.keeper.ListenDNS(d.config.DNS.Listen)
	if err != nil {
		n.err = err
		close(n.ended)
		d.Log.Error("no DNS", "err", err)
		return
	}
	n.sockets, n.listen = l, l.Addr()
	d.Log.Info("answering DNS", "addr", n.listen)
	if d.Helper == nil {
		close(n.ended)
	} else {
		n.claim(ctx, d, running)
	}
}

// answer begins to answer, which it does until silence is called. That is once the
// names are known: whoever asks at a restart is not told that there are none.
func (n *names) answer(running *errgroup.Group) {
	if n.sockets == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.silence = cancel
	running.Go(func() error { return n.server.Serve(ctx, n.sockets) })
}

// claim has the system ask us, until drain takes that back.
func (n *names) claim(watching context.Context, d *Daemon, running *errgroup.Group) {
	helper := &alone{Helper: d.Helper, path: d.NamesLock}
	n.claimant = &claim.Claimant{
		Helper:  helper,
		Lookup:  d.Lookup,
		Server:  n.listen,
		Canary:  claim.NewCanary(d.config.Domain, lastOf(d.config.Addresses)),
		Changed: d.somethingChanged,
		Log:     d.Log,
	}
	if n.claimant.Lookup == nil {
		n.claimant.Lookup = lookup.Names
	}
	n.server.Refused = n.claimant.Saw
	ctx, giveUp := context.WithCancel(context.Background())
	n.giveUp = giveUp
	running.Go(func() error {
		defer close(n.ended)
		defer helper.unlock()
		return n.claimant.Run(ctx)
	})
	running.Go(func() error {
		if err := claim.WatchFiles(watching, osdns.Watched(), n.claimant.Recheck); err != nil {
			d.Log.Warn("changes of the system's resolver are noticed late", "err", err)
		}
		return nil
	})
}

// lastOf is the last address of a range.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// keep takes back the names that are not among these.
func (n *names) keep(kept []dns.Name) {
	if n.lacks(kept) {
		n.set(kept)
	}
}

// lacks reports whether a name that is answered is not among these.
func (n *names) lacks(now []dns.Name) bool {
	same := make(map[string][]dns.Name, len(now))
	for _, name := range now {
		same[name.Name] = append(same[name.Name], name)
	}
	return slices.ContainsFunc(n.now, func(old dns.Name) bool { return !slices.ContainsFunc(same[old.Name], old.Equal) })
}

// set has exactly these names answered. The responder knows a name for as long as
// the system asks for it: one that comes before, and one that goes until after
// the system has been told. For the latter, set waits a while.
func (n *names) set(now []dns.Name) {
	defer func() { n.now = now }()
	if n.claimant == nil {
		n.server.SetZone(dns.NewZone(now))
		return
	}
	canary := dns.Name{Name: n.claimant.Canary.Name, Addrs: n.claimant.Canary.Addrs}
	n.server.SetZone(dns.NewZone(slices.Concat(now, n.now, []dns.Name{canary})))
	n.claimant.Set(claimable(now))
	if n.lacks(now) {
		ctx, cancel := context.WithTimeout(context.Background(), goneTimeout)
		defer cancel()
		n.claimant.Applied(ctx)
	}
	n.server.SetZone(dns.NewZone(slices.Concat(now, []dns.Name{canary})))
}

// claimable are names as they are claimed.
func claimable(all []dns.Name) []osdns.Name {
	out := make([]osdns.Name, len(all))
	for i, name := range all {
		out[i] = osdns.Name{Name: name.Name, Addrs: name.Addrs, Wildcard: name.Wildcard}
	}
	return out
}

// drop takes all names back from the system, or leaves them to the next process; it
// waits for that for a while.
func (n *names) drop(leave bool) {
	if leave && n.claimant != nil {
		n.claimant.Leave()
	}
	n.giveUp()
	timer := time.NewTimer(goneTimeout)
	defer timer.Stop()
	select {
	case <-n.ended:
	case <-timer.C:
	}
}

// known waits until the system knows the names that were set, or cannot.
func (n *names) known(ctx context.Context) {
	if n.claimant == nil {
		return
	}
	timeout := knownTimeout
	if r := n.claimed(); r.Asked && !r.Installed {
		timeout = barelyKnown // names that nobody answers for take seconds
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	n.claimant.Checked(ctx)
}

func (n *names) claimed() claim.Report {
	if n.claimant == nil {
		return claim.Report{}
	}
	return n.claimant.Report()
}

// status tells about the responder, and how the system is made to ask it.
func (n *names) status(cfg *config.Config) status.DNS { return n.statusOf(cfg, n.claimed()) }

func (n *names) statusOf(cfg *config.Config, r claim.Report) status.DNS {
	s := status.DNS{Names: len(n.now)}
	if n.err != nil {
		s.Error, s.Hint = n.err.Error(), "nothing answers for these names"+otherwise
		return s
	}
	s.Listen = n.listen.String()
	if want := cfg.DNS.Listen; want.Port() != 0 && want != n.listen {
		s.Wanted = want.String()
	}
	s.Rung, s.Why, s.Problem = r.Outcome.Rung, r.Outcome.Why, r.Problem
	for _, p := range r.Outcome.Passed {
		s.Passed = append(s.Passed, status.Passed(p))
	}
	if n.claimant == nil || slices.ContainsFunc(n.now, func(name dns.Name) bool { return !r.Names[name.Name].Right }) {
		s.Hint = n.hint(s.Listen, r)
	}
	return s
}

// otherwise is how names that do not resolve lead there.
const otherwise = ": browsers resolve the .localhost URLs by themselves, and curl takes --resolve NAME:PORT:ADDRESS"

// hint says what to do about names that do not resolve.
func (n *names) hint(listen string, r claim.Report) string {
	switch {
	case r.Outcome.Rung != "":
		return "tunnelctl doctor tells which names do not resolve, and why"
	case r.Problem != "":
		return "this system cannot be made to ask " + listen + " for these names" + otherwise
	case n.claimant != nil && !r.Asked:
		return "this system is not yet made to ask " + listen + " for these names" + otherwise
	case r.Installed:
		return "names that no claim may have do not resolve" + otherwise
	case n.claimant != nil:
		return "nothing makes this system ask " + listen + " for these names, since tunneld-helper is not installed" + otherwise
	}
	return "nothing makes this system ask " + listen + " for these names" + otherwise
}

// tell adds to a forward's report which of its names do not resolve; wildcard is
// the one below which every name should.
func (n *names) tell(s *status.Forward, wildcard string) {
	if n.claimant != nil {
		tellOf(n.claimed(), s, wildcard)
	}
}

func tellOf(r claim.Report, s *status.Forward, wildcard string) {
	if wildcard != "" && r.Outcome.Rung != "" && !r.Outcome.Wildcards {
		s.Notes = append(s.Notes, fmt.Sprintf("names below %s do not resolve, since %s carries no wildcards", wildcard, r.Outcome.Rung))
	}
	cause := ""
	for _, name := range s.Hostnames {
		got, looked := r.Names[name]
		switch {
		case r.Refused[name] != "":
			s.Unresolved = append(s.Unresolved, name)
			s.Notes = append(s.Notes, fmt.Sprintf("%s is not claimed: %s", name, r.Refused[name]))
		case !looked || got.Right:
		default:
			s.Unresolved = append(s.Unresolved, name)
			if cause == "" {
				cause = name + " does not resolve on this system"
				if len(got.Addrs) > 0 {
					cause = fmt.Sprintf("%s leads to %v on this system", name, got.Addrs[0])
				}
			}
		}
	}
	if cause == "" || !r.Installed {
		return // what was never claimed is no fault
	}
	if r.Problem != "" {
		cause += ": " + r.Problem
	}
	bad := status.Condition{State: status.Degraded, Cause: cause, Hint: "tunnelctl doctor"}
	if order := status.States(); rank(order, bad.State) < rank(order, s.State) {
		s.Condition = bad
	}
}
