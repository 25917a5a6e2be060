package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/claim"
	"github.com/tunneld/tunneld/internal/dns"
	"github.com/tunneld/tunneld/internal/osdns/survey"
	"github.com/tunneld/tunneld/internal/status"
)

const (
	// lookPatience is how long the doctor waits for one name: longer than the 5 s
	// that a multicast question takes which nobody answers.
	lookPatience = 6 * time.Second
	// lookMost is how long it waits for all of them: whoever asks waits, too.
	lookMost = 20 * time.Second
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
	checks = append(checks, d.names.lookAt(ctx, now, report)...)
	checks = append(checks, checkCA(d.tlsStatus()))
	if d.environment != nil {
		checks = append(checks, d.environment.check(ctx))
	}
	return append(checks, d.surroundings(ctx)...)
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
	case n.err != nil:
		c.Result = status.Warn
		c.Evidence = "nothing is claimed, since nothing answers for the names"
		c.Fix = "see the check of dns"
	case n.claimant == nil:
		c.Result = status.Warn
		c.Evidence = "the system is left alone: tunneld was started with --helper none"
		c.Fix = "start it without that"
	case !r.Asked:
		c.Result = status.Warn
		c.Evidence = "tunneld-helper has not answered yet"
		c.Fix = "ask again in a while"
	case !r.Installed:
		c.Result = status.Warn
		c.Evidence = "tunneld-helper is not installed, so nothing makes this system ask for the names"
		c.Fix = "tunneld install, or use the .localhost URLs"
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
func (n *names) lookAt(ctx context.Context, all []dns.Name, r claim.Report) []status.Check {
	if n.claimant == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookMost)
	defer cancel()
	checks := make([]status.Check, len(all))
	var looking sync.WaitGroup
	tickets := make(chan struct{}, looksAtOnce)
	for i, name := range all {
		tickets <- struct{}{}
		looking.Go(func() {
			defer func() { <-tickets }()
			checks[i] = n.look(ctx, name, r)
		})
	}
	looking.Wait()
	return checks
}

// look looks one name up.
func (n *names) look(ctx context.Context, name dns.Name, r claim.Report) status.Check {
	limited, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	got, err := n.claimant.LookUp(limited, name.Name, name.Addrs)
	switch {
	case err != nil && ctx.Err() != nil:
		return status.Check{
			Name: name.Name, Result: status.Warn,
			Evidence: fmt.Sprintf("was not looked up: the names before it have taken %v", lookMost),
			Fix:      "see what is in the way of these",
		}
	case err != nil && limited.Err() == nil:
		return status.Check{
			Name: name.Name, Result: status.Fail,
			Evidence: "cannot be looked up: " + err.Error(),
			Fix:      "getent ahosts " + name.Name + " should tell more",
		}
	case err != nil:
		got.Took = lookPatience
	}
	return judge(name, got, r.Outcome.Rung != "", r.Refused[name.Name])
}

func judge(name dns.Name, r claim.Resolution, claimed bool, refused string) status.Check {
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
	case refused != "":
		c.Evidence += "; it is not claimed: " + refused
		c.Result, c.Fix = status.Warn, "give the forward another name"
	case claimed:
		c.Result, c.Fix = status.Fail, "see which of the checks below explains it"
	default:
		c.Result, c.Fix = status.Warn, fmt.Sprintf("curl --resolve %s:PORT:%s", name.Name, name.Addrs[0])
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
func (d *Daemon) surroundings(ctx context.Context) []status.Check {
	if d.Helper == nil {
		return nil
	}
	f := survey.Examine(ctx)
	checks := []status.Check{checkResolver(f), checkNsswitch(f), checkMulticast(f)}
	for _, port := range []uint16{53, 5353} {
		checks = append(checks, checkPort(port, f.Listeners))
	}
	if len(f.Caches) > 0 {
		checks = append(checks, status.Check{
			Name:     "caches",
			Result:   status.Warn,
			Evidence: strings.Join(f.Caches, " and ") + " may remember for a while that a new name is not there",
			Fix:      "nscd --invalidate hosts, or turn off its cache of hosts",
		})
	}
	return checks
}

func checkResolver(f survey.Findings) status.Check {
	c := status.Check{Name: "resolver", Result: status.OK, Evidence: "nobody: there is no name server in resolv.conf"}
	if len(f.Nameservers) > 0 {
		c.Evidence = f.ResolvConf + " leads to " + strings.Join(f.Nameservers, ", ")
		if f.Resolver != "" {
			c.Evidence += ", which is " + f.Resolver
		}
	}
	if r := f.Resolved; r != nil {
		c.Evidence += fmt.Sprintf("; systemd-resolved %d runs (resolv.conf: %s, multicast DNS: %s)", r.Version, r.Mode, r.MulticastDNS)
	}
	return c
}

func checkNsswitch(f survey.Findings) status.Check {
	c := status.Check{Name: "nsswitch", Result: status.OK, Evidence: "hosts: " + f.Hosts}
	switch {
	case f.Hosts == "":
		c.Evidence = "there is no order of sources; the hosts file comes first, then the name server"
	case f.MDNSEnds:
		c.Evidence += "; names like task-api.local end at Avahi, so only the hosts file can carry them"
	case !f.FilesFirst:
		c.Result = status.Warn
		c.Evidence += "; the hosts file does not come first"
		c.Fix = "put files first in the hosts line of /etc/nsswitch.conf"
	}
	return c
}

func checkMulticast(f survey.Findings) status.Check {
	c := status.Check{Name: ".local", Result: status.OK, Evidence: "nobody else answers for it"}
	var others []string
	if f.Avahi {
		others = append(others, "Avahi")
	}
	if f.Resolved != nil && f.Resolved.MulticastDNS == "yes" {
		others = append(others, "systemd-resolved's multicast DNS")
	}
	if len(others) > 0 {
		c.Evidence = strings.Join(others, " and ") + " answers for other names in it, and keeps them: ours are claimed one by one"
	}
	return c
}

func checkPort(port uint16, all []survey.Listener) status.Check {
	c := status.Check{Name: fmt.Sprintf("port %d", port), Result: status.OK, Evidence: "nobody listens on it"}
	var who []string
	for _, l := range all {
		if l.Addr.Port() != port {
			continue
		}
		text := fmt.Sprintf("%s %v", l.Network, l.Addr.Addr())
		if l.Program != "" {
			text += fmt.Sprintf(" (%s, process %d)", l.Program, l.PID)
		} else {
			text += fmt.Sprintf(" (a process of user %d)", l.UID)
		}
		if !slices.Contains(who, text) {
			who = append(who, text)
		}
	}
	if len(who) > 0 {
		c.Evidence = strings.Join(who, ", ")
	}
	return c
}
