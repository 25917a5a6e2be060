package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/claim"
	"github.com/tunneld/tunneld/internal/dns"
	"github.com/tunneld/tunneld/internal/status"
)

const (
	// lookPatience is how long the doctor waits for one name: longer than the 5 s
	// that a multicast question takes which nobody answers.
	lookPatience = 6 * time.Second
	// looksAtOnce is how many names it looks up at a time.
	looksAtOnce = 8
	// slow is what a name takes that somebody has been asked for in vain.
	slow = 500 * time.Millisecond
)

// doctor looks at everything that can be looked at.
func (d *Daemon) doctor(ctx context.Context) []status.Check {
	d.applying.Lock()
	cfg, _ := d.current()
	told, now := d.names.status(cfg), d.names.now
	d.applying.Unlock()
	report := d.names.claimed()

	checks := []status.Check{checkResponder(told, d.names.server.Stats())}
	checks = append(checks, d.names.checkClaim(told, report))
	checks = append(checks, d.names.lookAt(ctx, now, told.Rung != "")...)
	return append(checks, d.names.surroundings(ctx)...)
}

func checkResponder(told status.DNS, asked dns.Stats) status.Check {
	c := status.Check{Name: "dns", Result: status.OK}
	switch {
	case told.Error != "":
		c.Result, c.Evidence = status.Fail, told.Error
		c.Fix = "free the port, or set another dns.listen in the configuration, and start tunneld again"
	default:
		c.Evidence = fmt.Sprintf("answers for %d names on %s; asked %d times so far, %d of them for names that are not ours",
			told.Names, told.Listen, asked.Total(), asked.Refused)
	}
	if told.Wanted != "" {
		c.Result = status.Warn
		c.Evidence += fmt.Sprintf(" (%s was taken)", told.Wanted)
		c.Fix = "free the port, or set another dns.listen in the configuration"
	}
	return c
}

// checkClaim tells by which way the system is made to ask us.
func (n *names) checkClaim(told status.DNS, r claim.Report) status.Check {
	c := status.Check{Name: "claim", Result: status.OK}
	switch {
	case n.claimant == nil:
		c.Result = status.Warn
		c.Evidence = "the system is left alone: tunneld was started with --helper none"
		c.Fix = "start it without that"
	case !r.Installed:
		c.Result = status.Warn
		c.Evidence = "tunneld-helper is not installed, so nothing makes this system ask for the names"
		c.Fix = "install it (docs/helper.md), or use the .localhost URLs"
	case r.Problem != "":
		c.Result = status.Fail
		c.Evidence = r.Problem
		c.Fix = "see which of the checks below explains it; until then use the .localhost URLs"
	case told.Rung == "":
		c.Evidence = "nothing is claimed, since there is no name"
	default:
		c.Evidence = fmt.Sprintf("by %s: %s", told.Rung, told.Why)
		if !r.Outcome.Wildcards {
			c.Evidence += "; it cannot carry wildcards, so what is below a name does not resolve"
		}
	}
	for _, p := range told.Passed {
		c.Evidence += fmt.Sprintf("; not by %s: %s", p.Rung, p.Why)
	}
	return c
}

// lookAt looks all names up, each by itself, as the programs of the system do.
func (n *names) lookAt(ctx context.Context, all []dns.Name, claimed bool) []status.Check {
	if n.claimant == nil {
		return nil
	}
	checks := make([]status.Check, len(all))
	var looking sync.WaitGroup
	tickets := make(chan struct{}, looksAtOnce)
	for i, name := range all {
		tickets <- struct{}{}
		looking.Go(func() {
			defer func() { <-tickets }()
			limited, cancel := context.WithTimeout(ctx, lookPatience)
			defer cancel()
			checks[i] = n.judge(name, n.claimant.LookUp(limited, name.Name, name.Addrs), claimed)
		})
	}
	looking.Wait()
	return checks
}

func (n *names) judge(name dns.Name, r claim.Resolution, claimed bool) status.Check {
	c := status.Check{Name: name.Name, Result: status.OK}
	took := r.Took.Round(100 * time.Microsecond)
	switch {
	case len(r.Addrs) > 0:
		c.Evidence = fmt.Sprintf("%s in %v", list(r.Addrs), took)
	default:
		c.Evidence = fmt.Sprintf("does not resolve (%v)", took)
	}
	switch {
	case r.Right && r.Took > slow:
		c.Result = status.Warn
		c.Fix = "somebody else is asked first, who does not know: see the checks of nsswitch and .local"
	case r.Right:
	case name.Name == n.own:
		c.Evidence += ": it is this machine's own name in mDNS"
		c.Result, c.Fix = status.Warn, "give the forward another name"
	case claimed:
		c.Result, c.Fix = status.Fail, "see which of the checks below explains it"
	default:
		c.Result, c.Fix = status.Warn, "curl --resolve NAME:PORT:"+name.Addrs[0].String()
	}
	return c
}

func list(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, addr := range addrs {
		texts[i] = addr.String()
	}
	return strings.Join(texts, " ")
}

// surroundings are what else answers for names on this machine.
func (n *names) surroundings(context.Context) []status.Check { return nil }
