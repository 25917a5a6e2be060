package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/gateway"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/status"
)

// bindings are what listens, and what could not.
type bindings struct {
	raw      map[forward.Spec]forward.Binding
	gateways map[string][]gateway.Binding // by the forward's name
	shared   []gateway.Binding
}

func newBindings(raw []forward.Binding, gateways []gateway.Binding) bindings {
	b := bindings{
		raw:      make(map[forward.Spec]forward.Binding, len(raw)),
		gateways: make(map[string][]gateway.Binding, len(gateways)/2),
	}
	for _, r := range raw {
		b.raw[r.Spec] = r
	}
	for _, g := range gateways {
		b.gateways[g.Listener.Forward] = append(b.gateways[g.Listener.Forward], g)
	}
	b.shared = b.gateways[""]
	return b
}

// gateway returns the forward's own two listeners of the gateway.
func (b bindings) gateway(f *planned) (plain, secure gateway.Binding) {
	for _, g := range b.gateways[f.name] {
		switch {
		case g.Listener.Addr.Addr() != f.address:
		case g.Listener.TLS:
			secure = g
		default:
			plain = g
		}
	}
	return plain, secure
}

// any reports whether anything of the forward listens.
func (b bindings) any(f *planned) bool {
	plain, secure := b.gateway(f)
	return plain.Addr.IsValid() || secure.Addr.IsValid() ||
		slices.ContainsFunc(f.ports, func(p plannedPort) bool {
			return p.spec != nil && b.raw[*p.spec].Addr.IsValid()
		})
}

// report describes a planned forward.
func (f *planned) report(b bindings, cluster kube.Report, counts forward.Counts) status.Forward {
	s := status.Forward{
		Name:        f.name,
		Hostnames:   append([]string{}, f.hostnames...),
		Target:      f.workload.String(),
		Endpoints:   status.Endpoints{Ready: cluster.Ready, Total: cluster.Total},
		Ports:       []status.Port{},
		Connections: status.Connections{Active: counts.Active, Total: counts.Total, Failed: counts.Failed},
		Bytes:       status.Bytes{In: counts.In, Out: counts.Out},
		LastError:   counts.LastError,
		Notes:       slices.Clone(f.notes),
	}
	if !f.some {
		s.Notes = slices.Concat(cluster.Notes, f.notes)
	}
	if f.address.IsValid() {
		s.Address = f.address.String()
	}
	var unbound []error // why, for each that could not be bound
	wanted := 0
	plain, secure := b.gateway(f)
	if f.gateway {
		for _, g := range []gateway.Binding{plain, secure} {
			if g.Listener.Addr.IsValid() {
				wanted++
				unbound = appendError(unbound, g.Err)
			}
		}
		s.URLs = f.urls(plain, secure, b.shared)
		if len(s.URLs) > 0 {
			s.URL = s.URLs[0]
		}
		s.Notes = append(s.Notes, movedGateway(plain, secure)...)
	}
	for _, p := range f.ports {
		port := status.Port{Name: p.name, Port: p.number}
		switch {
		case p.spec == nil && p.tls:
			port.ServedBy = "gateway"
			port.Listen, port.Error = listenText(secure.Addr, secure.Err)
		case p.spec == nil:
			port.ServedBy = "gateway"
			port.Listen, port.Error = listenText(plain.Addr, plain.Err)
		default:
			wanted++
			raw := b.raw[*p.spec]
			port.ServedBy = "forward"
			port.Listen, port.Error = listenText(raw.Addr, raw.Err)
			unbound = appendError(unbound, raw.Err)
			if raw.Addr.IsValid() && raw.Addr.Port() != p.number {
				s.Notes = append(s.Notes, fmt.Sprintf("port %d is at %v, because port %d could not be bound here", p.number, raw.Addr, p.number))
			}
		}
		s.Ports = append(s.Ports, port)
	}
	s.Condition = f.condition(cluster, wanted, unbound)
	return s
}

// condition is the first of the states that hold.
func (f *planned) condition(cluster kube.Report, wanted int, unbound []error) status.Condition {
	all := []status.Condition{f.problem, cluster.Condition}
	if c := f.nowhere(cluster); c.State != "" {
		all = append(all, c)
	}
	if !f.sure && cluster.Seen {
		all = append(all, status.Condition{State: status.Connecting, Cause: "its ports have just become known"})
	}
	if len(unbound) > 0 {
		local := status.Condition{State: status.Degraded, Cause: "a port could not be bound: ", Hint: bindHint(f.address)}
		if len(unbound) == wanted {
			local.State, local.Cause = status.Failed, "no listener could be bound: "
		}
		local.Cause += unbound[0].Error()
		if _, ok := errors.AsType[noCA](unbound[0]); ok {
			local.Hint = "mend it, and start tunneld again"
		}
		all = append(all, local)
	}
	order := status.States()
	return slices.MinFunc(all, func(a, b status.Condition) int {
		return rank(order, a.State) - rank(order, b.State)
	})
}

// nowhere is the condition of the forward's ports that no pod has, if there are
// any: it works in part, or not at all.
func (f *planned) nowhere(cluster kube.Report) status.Condition {
	var first status.Condition
	missing := 0
	for _, p := range f.ports {
		if c, ok := cluster.Nowhere[p.number]; ok {
			if missing++; missing == 1 {
				first = c
			}
		}
	}
	if missing > 0 && missing < len(f.ports) {
		first.State = status.Degraded
	}
	return first
}

func rank(order []status.State, s status.State) int {
	if i := slices.Index(order, s); i >= 0 {
		return i
	}
	return len(order)
}

func appendError(all []error, err error) []error {
	if err != nil {
		return append(all, err)
	}
	return all
}

func listenText(addr netip.AddrPort, err error) (listen, problem string) {
	if err != nil {
		return "", err.Error()
	}
	if !addr.IsValid() {
		return "", ""
	}
	return addr.String(), ""
}

// urls are where a browser may go, the best first. Names under .localhost lead
// to the shared listeners, whatever our DNS says.
func (f *planned) urls(plain, secure gateway.Binding, shared []gateway.Binding) []string {
	var all []string
	for i, host := range f.hostnames {
		alias := strings.HasSuffix(host, ".localhost")
		switch {
		case alias:
			for _, tls := range []bool{true, false} {
				for _, b := range shared {
					// Who resolves .localhost may try ::1 or 127.0.0.1; the
					// second is tried by all.
					if b.Listener.TLS == tls && b.Addr.Addr().Is4() {
						all = appendURL(all, host, b)
					}
				}
			}
		case i == 0:
			all = appendURL(all, host, secure)
			all = appendURL(all, host, plain)
		}
	}
	return all
}

func appendURL(all []string, host string, b gateway.Binding) []string {
	port := b.Addr.Port()
	switch {
	case !b.Addr.IsValid():
		return all
	case b.Listener.TLS && port == 443:
		return append(all, "https://"+host)
	case b.Listener.TLS:
		return append(all, fmt.Sprintf("https://%s:%d", host, port))
	case port == 80:
		return append(all, "http://"+host)
	}
	return append(all, fmt.Sprintf("http://%s:%d", host, port))
}

// movedGateway says loudly where the gateway is, if not where it was wanted.
func movedGateway(bindings ...gateway.Binding) []string {
	var notes []string
	for _, b := range bindings {
		want, got := b.Listener.Addr.Port(), b.Addr.Port()
		if want == 0 || !b.Addr.IsValid() || want == got {
			continue
		}
		scheme := "HTTP"
		if b.Listener.TLS {
			scheme = "HTTPS"
		}
		notes = append(notes, fmt.Sprintf("%s is on port %d, because port %d could not be bound here", scheme, got, want))
	}
	return notes
}

// A history knows since when each forward has its state.
type history map[string]transition

type transition struct {
	state status.State
	since time.Time
}

// note fills in Since, and reports whether the state is a new one, and which it
// was before.
func (h history) note(s *status.Forward, now time.Time) (was status.State, changed bool) {
	last, known := h[s.Name]
	if !known || last.state != s.State {
		h[s.Name] = transition{s.State, now}
		s.Since = now
		return last.state, true
	}
	s.Since = last.since
	return last.state, false
}
