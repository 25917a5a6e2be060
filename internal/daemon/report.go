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
	gateways map[netip.Addr][]gateway.Binding // by the wanted address
	shared   []gateway.Binding
}

func newBindings(raw []forward.Binding, gateways []gateway.Binding) bindings {
	b := bindings{
		raw:      make(map[forward.Spec]forward.Binding, len(raw)),
		gateways: make(map[netip.Addr][]gateway.Binding, len(gateways)/2),
	}
	for _, r := range raw {
		b.raw[r.Spec] = r
	}
	for _, g := range gateways {
		if g.Listener.Forward == "" {
			b.shared = append(b.shared, g)
			continue
		}
		at := g.Listener.Addr.Addr()
		b.gateways[at] = append(b.gateways[at], g)
	}
	return b
}

// gateway returns the place's own two listeners of the gateway.
func (b bindings) gateway(at *place) (plain, secure gateway.Binding) {
	for _, g := range b.gateways[at.address] {
		if g.Listener.TLS {
			secure = g
		} else {
			plain = g
		}
	}
	return plain, secure
}

// any reports whether anything listens at the place.
func (b bindings) any(at *place) bool {
	plain, secure := b.gateway(at)
	return plain.Addr.IsValid() || secure.Addr.IsValid() ||
		slices.ContainsFunc(at.ports, func(p plannedPort) bool {
			return p.spec != nil && b.raw[*p.spec].Addr.IsValid()
		})
}

// complete reports whether all is bound that is wanted.
func (b bindings) complete() bool {
	for _, r := range b.raw {
		if r.Err != nil {
			return false
		}
	}
	for _, of := range b.gateways {
		if slices.ContainsFunc(of, failed) {
			return false
		}
	}
	return !slices.ContainsFunc(b.shared, failed)
}

func failed(g gateway.Binding) bool { return g.Err != nil }

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
	own := f.place.report(b, f.gateway)
	s.URLs, s.Ports, s.Notes = own.urls, append(s.Ports, own.ports...), append(s.Notes, own.notes...)
	if len(s.URLs) > 0 {
		s.URL = s.URLs[0]
	}
	all := own.listening
	for _, at := range f.pods {
		r := at.report(b, f.gateway)
		all.add(r.listening)
		// What moved has moved as the forward's own has, which says so.
		pod := status.Pod{Name: at.pod, Address: at.address.String(), Hostnames: at.hostnames, Ports: r.ports}
		if len(r.urls) > 0 {
			pod.URL = r.urls[0]
		}
		pod.Ready = slices.Contains(cluster.Pods, kube.Pod{Hostname: at.pod, Ready: true})
		s.Pods = append(s.Pods, pod)
		s.Hostnames = append(s.Hostnames, at.hostnames...)
	}
	s.Condition = f.condition(cluster, all)
	return s
}

// A listening is what became of the listeners that were wanted.
type listening struct {
	wanted int
	// unbound is why, for each that could not be bound, and at is the address
	// of the first.
	unbound []error
	at      netip.Addr
}

func (l *listening) add(other listening) {
	if len(l.unbound) == 0 {
		l.at = other.at
	}
	l.wanted += other.wanted
	l.unbound = append(l.unbound, other.unbound...)
}

func (l *listening) note(at netip.Addr, err error) {
	one := listening{wanted: 1, at: at}
	if err != nil {
		one.unbound = []error{err}
	}
	l.add(one)
}

// A placeReport describes a place.
type placeReport struct {
	listening
	urls  []string
	ports []status.Port
	notes []string
}

// report describes a place; gateway says whether the gateway serves it.
func (at *place) report(b bindings, gateway bool) placeReport {
	r := placeReport{ports: []status.Port{}}
	plain, secure := b.gateway(at)
	if gateway {
		for _, g := range b.gateways[at.address] {
			r.note(at.address, g.Err)
		}
		r.urls = at.urls(plain, secure, b.shared)
		r.notes = movedGateway(plain, secure)
	}
	for _, p := range at.ports {
		port := status.Port{Name: p.name, Port: p.number}
		switch {
		case p.spec == nil && p.tls:
			port.ServedBy = "gateway"
			port.Listen, port.Error = listenText(secure.Addr, secure.Err)
		case p.spec == nil:
			port.ServedBy = "gateway"
			port.Listen, port.Error = listenText(plain.Addr, plain.Err)
		default:
			raw := b.raw[*p.spec]
			port.ServedBy = "forward"
			port.Listen, port.Error = listenText(raw.Addr, raw.Err)
			r.note(at.address, raw.Err)
			if raw.Addr.IsValid() && raw.Addr.Port() != p.number {
				r.notes = append(r.notes, fmt.Sprintf("port %d is at %v, because port %d could not be bound here", p.number, raw.Addr, p.number))
			}
		}
		r.ports = append(r.ports, port)
	}
	return r
}

// condition is the first of the states that hold.
func (f *planned) condition(cluster kube.Report, l listening) status.Condition {
	all := []status.Condition{f.problem, cluster.Condition}
	if c := f.nowhere(cluster); c.State != "" {
		all = append(all, c)
	}
	if !f.sure && cluster.Seen {
		all = append(all, status.Condition{State: status.Connecting, Cause: "its ports have just become known"})
	}
	if len(l.unbound) > 0 {
		local := status.Condition{State: status.Degraded, Cause: "a port could not be bound: ", Hint: bindHint(l.at)}
		if len(l.unbound) == l.wanted {
			local.State, local.Cause = status.Failed, "no listener could be bound: "
		}
		local.Cause += l.unbound[0].Error()
		if _, ok := errors.AsType[noCA](l.unbound[0]); ok {
			local.Hint = noCAHint
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
func (at *place) urls(plain, secure gateway.Binding, shared []gateway.Binding) []string {
	var all []string
	for i, host := range at.hostnames {
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
