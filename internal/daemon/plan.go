package daemon

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/dns"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/gateway"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/nearest"
	"github.com/tunneld/tunneld/internal/statedir"
	"github.com/tunneld/tunneld/internal/status"
)

// A plan is what shall be in force. It follows from its inputs alone.
type plan struct {
	forwards []*planned
	// workloads are what the clusters are watched for.
	workloads []forward.Workload
	specs     []forward.Spec
	listeners []gateway.Listener
	rows      []*gateway.Row
	// remember is for the state directory.
	remember map[string]statedir.Forward
}

// A planned is one forward of a plan.
type planned struct {
	name     string
	workload forward.Workload
	place
	// pods are the places of the pods that have names of their own.
	pods  []*place
	notes []string // say which names lead elsewhere, or are missing
	// http is the port that the gateway leads to; 0: none, or not known yet.
	http uint16
	// gateway says that the gateway serves the forward.
	gateway bool
	// sure says that the ports are those that the cluster says.
	sure bool
	// some says that the configuration names the ports: others are not missed.
	some bool
	// problem is a local one, or a port that does not exist; State is empty
	// if there is none.
	problem status.Condition
}

// A place is an address of its own, what leads there, and what listens there.
type place struct {
	// pod is the hostname of the only pod to which it leads; empty for a
	// forward's own place.
	pod     string
	address netip.Addr
	// hostnames are what it answers to, the first the one to show.
	hostnames []string
	// wildcard is the one of them below which every name leads here too.
	wildcard string
	ports    []plannedPort
}

// places are the forward's own and those of its pods.
func (f *planned) places() []*place { return append([]*place{&f.place}, f.pods...) }

// A sighting is what a cluster says about a workload.
type sighting struct {
	ports []kube.Port
	// pods are the hostnames that cluster DNS has for its pods, and subdomain
	// is the Service under which it has them, if any.
	pods      []string
	subdomain string
	// whole says that there are no others.
	whole bool
}

func sightingOf(r kube.Report) sighting {
	s := sighting{ports: r.Ports, subdomain: r.Subdomain, whole: r.Whole}
	for _, pod := range r.Pods {
		s.pods = append(s.pods, pod.Hostname)
	}
	return s
}

type plannedPort struct {
	name   string
	number uint16
	// spec is the port's own listener; nil where the gateway serves it.
	spec *forward.Spec
	// tls says that the gateway's TLS listener is the one that serves it.
	tls bool
}

// makePlan plans. seen holds the workloads that have been seen in their
// clusters; known is what the state directory remembers.
func makePlan(cfg *config.Config, known map[string]statedir.Forward, seen map[forward.Workload]sighting) *plan {
	sights := make([]sighting, len(cfg.Forwards))
	pods := make([]podNames, len(cfg.Forwards))
	for i, f := range cfg.Forwards {
		sights[i], pods[i] = sight(f, known[f.Name], seen)
	}
	addrs := addresses(cfg, known, pods)

	p := &plan{remember: make(map[string]statedir.Forward)}
	claimed := make(claims)
	for i, f := range cfg.Forwards {
		one := &planned{name: f.Name, workload: f.Workload, place: place{address: addrs[f.Name]}}
		p.forwards = append(p.forwards, one)
		if one.problem = refusal(cfg, f, one.address); one.problem.State != "" {
			continue
		}
		_, sure := seen[f.Workload]
		if !slices.Contains(p.workloads, f.Workload) {
			p.workloads = append(p.workloads, f.Workload)
		}
		for _, host := range hostnames(cfg.Domain, f) {
			if first, ok := claimed.claim(host, f.Name); !ok {
				one.notes = append(one.notes, fmt.Sprintf("%s belongs to the forward %s, which comes first in the configuration", host, first))
				continue
			}
			one.hostnames = append(one.hostnames, host)
		}
		planPods(cfg, f, one, pods[i], sights[i].subdomain, addrs, claimed)
		if name := f.Name + "." + cfg.Domain; slices.Contains(one.hostnames, name) && !named(f, sights[i], pods[i]) {
			one.wildcard = name
		}
		p.remember[f.Name] = one.toRemember(sights[i])
		p.planPorts(cfg, f, one, sights[i].ports, sure)
	}
	for name, k := range known {
		if _, ok := p.remember[name]; !ok && addrs[name].IsValid() {
			p.remember[name] = k // a forward that is refused keeps its address
		}
	}
	if len(p.rows) > 0 {
		for _, at := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			p.listeners = append(p.listeners, gatewayListeners(cfg.Gateway, at, "", nil)...)
		}
	}
	return p
}

// sight is what the cluster says about a forward's workload, or else what is
// remembered of it, and which of its pods get names.
func sight(f config.Forward, known statedir.Forward, seen map[forward.Workload]sighting) (sighting, podNames) {
	if known.Target != f.Workload.String() {
		known = statedir.Forward{} // of another target it is of no use
	}
	s, sure := seen[f.Workload]
	pods := choosePods(known.Pods, s.pods)
	if len(s.pods) == 0 {
		s.subdomain = known.Subdomain
	}
	if !sure {
		s.ports = remembered(known.Ports)
	}
	// Whoever had no pods with names when they were last seen has none until
	// they are seen again.
	s.whole = s.whole || known.Whole
	return s, pods
}

// named reports whether what is below a forward's name are its pods, or may be:
// then a name that is no pod's must not lead to any of them.
func named(f config.Forward, s sighting, pods podNames) bool {
	switch f.Workload.Kind {
	case forward.Service:
		return len(pods.names) > 0 || !s.whole
	case forward.StatefulSet:
		return true
	}
	return false
}

// addresses assigns the addresses of all places: the forwards' by their names,
// the pods' by podKey.
func addresses(cfg *config.Config, known map[string]statedir.Forward, pods []podNames) map[string]netip.Addr {
	var names, places []string
	had := make(map[string]netip.Addr, len(known))
	for name, k := range known {
		had[name] = k.Address
		for _, pod := range k.Pods {
			had[podKey(name, pod.Name)] = pod.Address
		}
	}
	for _, f := range cfg.Forwards {
		names = append(names, f.Name)
	}
	places = slices.Clone(names)
	for i, f := range cfg.Forwards {
		for _, pod := range pods[i].names {
			places = append(places, podKey(f.Name, pod))
		}
	}
	addrs := assign(places, cfg.Addresses, had)
	if slices.ContainsFunc(names, func(name string) bool { return !addrs[name].IsValid() }) {
		// Pods have what a forward needs.
		maps.Copy(had, assign(names, cfg.Addresses, had))
		addrs = assign(places, cfg.Addresses, had)
	}
	return addrs
}

// claims tell which forward has a name, or "*." and a name: the pods below it.
type claims map[string]string

// claim reports whether the name is the forward's now, or else whose it is.
func (c claims) claim(host, name string) (first string, ok bool) {
	if first, taken := c[host]; taken {
		return first, false
	}
	c[host] = name
	return name, true
}

// refusal is why a forward must not run, if so.
func refusal(cfg *config.Config, f config.Forward, addr netip.Addr) status.Condition {
	pattern, denied := cfg.Contexts.Denies(f.Workload.Context)
	switch {
	case denied && !f.AllowProduction:
		return status.Condition{
			State: status.Failed,
			Cause: fmt.Sprintf("context %s is denied by %q in contexts.deny", f.Workload.Context, pattern),
			Hint:  "if you mean it, set allowProduction: true for this forward",
		}
	case !addr.IsValid():
		return status.Condition{
			State: status.Failed,
			Cause: fmt.Sprintf("no address is left in %v", cfg.Addresses),
			Hint:  "set a larger range as addresses in the configuration",
		}
	}
	return status.Condition{}
}

// hostnames are the names that lead to a forward.
func hostnames(domain string, f config.Forward) []string {
	names := []string{f.Name + "." + domain}
	if domain != "localhost" {
		names = append(names, f.Name+".localhost")
	}
	if w := f.Workload; w.Kind == forward.Service {
		names = append(names, clusterName(w.Name, w.Namespace))
	}
	return names
}

// clusterName is where cluster DNS has the Service.
func clusterName(service, namespace string) string {
	return service + "." + namespace + ".svc.cluster.local"
}

// planPorts plans the listeners of a forward. sure says that ports are what
// the cluster says now, and not what it said once, or nothing.
func (p *plan) planPorts(cfg *config.Config, f config.Forward, one *planned, ports []kube.Port, sure bool) {
	chosen, missing := choose(f.Ports, ports, sure && f.Workload.Kind == forward.Service)
	switch {
	case sure && len(missing) > 0:
		one.problem = noSuchPort(f.Workload, missing[0], ports)
	case sure && len(chosen) == 0 && (f.HTTP.Number == 0 || f.Workload.Kind == forward.Service):
		one.problem = undeclared(f.Workload)
	}
	http, found := httpPort(f.HTTP, chosen)
	unknown := len(chosen) == 0 && !f.HTTP.Off // the gateway can say why
	one.http, one.gateway, one.sure, one.some = http, found || unknown, sure, len(f.Ports) > 0
	if want := f.HTTP; sure && want.Name != "" && !found {
		one.problem = noSuchPort(f.Workload, want.Name, ports)
	} else if sure && want.Number != 0 && f.Workload.Kind == forward.Service && !has(ports, want.Number) {
		one.problem = noSuchPort(f.Workload, strconv.Itoa(int(want.Number)), ports)
	}

	first := len(p.rows)
	for _, at := range one.places() {
		p.planPlace(cfg, f, one, at, chosen)
	}
	if http == 0 || f.Workload.Kind == forward.Service && !has(ports, http) {
		for _, row := range p.rows[first:] {
			row.Problem = one.problem
		}
	}
}

// planPlace plans what listens at one of a forward's places.
func (p *plan) planPlace(cfg *config.Config, f config.Forward, one *planned, at *place, chosen []chosenPort) {
	var raw []uint16
	for _, c := range chosen {
		port := plannedPort{name: c.Name, number: c.Number}
		switch {
		case one.gateway && c.Number == cfg.Gateway.HTTP:
		case one.gateway && c.Number == cfg.Gateway.HTTPS:
			port.tls = true
		default:
			port.spec = &forward.Spec{
				Name:   f.Name,
				Listen: netip.AddrPortFrom(at.address, c.Number),
				Target: forward.Target{Workload: f.Workload, Pod: at.pod, Port: c.Number},
				TLS:    c.tls,
				Hold:   cfg.Hold,
			}
			if c.tls && speaksH2(c.Port) {
				port.spec.ALPN = "h2"
			}
			raw = append(raw, c.Number)
			p.specs = append(p.specs, *port.spec)
		}
		at.ports = append(at.ports, port)
	}
	if !one.gateway {
		return
	}
	p.listeners = append(p.listeners, gatewayListeners(cfg.Gateway, at.address, f.Name, raw)...)
	hosts := append(slices.Clone(at.hostnames), at.address.String())
	if at.wildcard != "" {
		hosts = append(hosts, "*."+at.wildcard)
	}
	p.rows = append(p.rows, &gateway.Row{
		Forward:  f.Name,
		Hosts:    hosts,
		Scope:    at.address,
		Backends: []gateway.Backend{{Target: forward.Target{Workload: f.Workload, Pod: at.pod, Port: one.http}}},
		Hold:     cfg.Hold,
	})
}

// gatewayListeners are the gateway's listeners on one address. Where its ports
// cannot be had, it moves up by 8000, or more, but not onto the forward's own
// ports.
func gatewayListeners(ports config.Gateway, at netip.Addr, name string, raw []uint16) []gateway.Listener {
	listener := func(port uint16, tls bool) gateway.Listener {
		l := gateway.Listener{Addr: netip.AddrPortFrom(at, port), TLS: tls, Forward: name}
		n := 0
		for _, up := range []uint16{8000, 18000, 28000} {
			if port != 0 && port < 1024 && !slices.Contains(raw, port+up) {
				l.Otherwise[n] = port + up
				n++
			}
		}
		return l
	}
	return []gateway.Listener{listener(ports.HTTP, false), listener(ports.HTTPS, true)}
}

// A chosenPort is one that the configuration asks for.
type chosenPort struct {
	kube.Port
	tls bool
}

// choose finds the ports that the configuration names, all of them if it names
// none. A number that is not declared is taken all the same unless all must be
// declared: nothing may be known yet, and pods need not say what they listen on.
func choose(wanted []config.Port, ports []kube.Port, declared bool) (chosen []chosenPort, missing []string) {
	if len(wanted) == 0 {
		for _, port := range ports {
			chosen = append(chosen, chosenPort{Port: port})
		}
		return chosen, nil
	}
	for _, w := range wanted {
		i := slices.IndexFunc(ports, func(p kube.Port) bool {
			return w.Number != 0 && p.Number == w.Number || w.Number == 0 && p.Name == w.Name
		})
		twice := i >= 0 && slices.ContainsFunc(chosen, func(c chosenPort) bool { return c.Number == ports[i].Number })
		switch {
		case twice: // once by number and once by name
		case i >= 0:
			chosen = append(chosen, chosenPort{ports[i], w.TLS})
		case w.Number != 0 && !declared:
			chosen = append(chosen, chosenPort{kube.Port{Number: w.Number}, w.TLS})
		case w.Number != 0:
			missing = append(missing, strconv.Itoa(int(w.Number)))
		default:
			missing = append(missing, w.Name)
		}
	}
	return chosen, missing
}

func has(ports []kube.Port, number uint16) bool {
	return slices.ContainsFunc(ports, func(p kube.Port) bool { return p.Number == number })
}

func noSuchPort(w forward.Workload, want string, ports []kube.Port) status.Condition {
	var names []string
	for _, p := range ports {
		if p.Name != "" {
			names = append(names, p.Name)
		}
	}
	c := status.Condition{
		State: status.NotFound,
		Cause: fmt.Sprintf("%s has no TCP port %s", w.Ref(), want),
		Hint:  kube.Having(ports),
	}
	if near := nearest.To(want, names, 1); len(near) > 0 {
		c.Hint = "did you mean " + near[0] + "?"
	}
	return c
}

// undeclared is the problem of a forward of which nobody says what its ports
// are.
func undeclared(w forward.Workload) status.Condition {
	c := status.Condition{
		State: status.NotFound,
		Cause: w.Ref() + " declares no TCP port",
		Hint:  "say in the configuration what it listens on: ports: [NUMBER]",
	}
	if w.Kind == forward.Service {
		c.Hint = "give the Service a TCP port"
	}
	return c
}

// httpPort is the port that the gateway leads to: the configured one, or what
// looks most like HTTP by its appProtocol, else its name, else its number.
func httpPort(want config.HTTP, ports []chosenPort) (uint16, bool) {
	if want.Off {
		return 0, false
	}
	if want.Number != 0 {
		return want.Number, true
	}
	for _, looksRight := range []func(kube.Port) bool{
		func(p kube.Port) bool { return want.Name != "" && p.Name == want.Name },
		func(p kube.Port) bool { return want.Name == "" && httpProtocol(p.AppProtocol) },
		func(p kube.Port) bool { return want.Name == "" && p.AppProtocol == "" && httpName(p.Name) },
		func(p kube.Port) bool {
			return want.Name == "" && p.AppProtocol == "" && p.Name == "" && httpNumber(p.Number)
		},
	} {
		for _, p := range ports {
			if !p.tls && looksRight(p.Port) {
				return p.Number, true
			}
		}
	}
	return 0, false
}

// httpProtocol knows the values of appProtocol (KEP-3726 and IANA) for HTTP/1
// without TLS.
func httpProtocol(p string) bool {
	return p == "http" || p == "kubernetes.io/ws"
}

// speaksH2 knows the ports that take HTTP/2 without TLS and nothing else. Over
// TLS, clients of it insist on ALPN (RFC 9113, section 3.2).
func speaksH2(p kube.Port) bool {
	switch p.AppProtocol {
	case "kubernetes.io/h2c", "grpc":
		return true
	case "":
		first, _, _ := strings.Cut(p.Name, "-")
		return p.Name != "grpc-web" && (first == "grpc" || first == "h2c" || first == "http2")
	}
	return false
}

// httpName knows the customary names of ports, with the suffixes that Istio
// brought into use ("http-admin").
func httpName(name string) bool {
	first, _, _ := strings.Cut(name, "-")
	return first == "http" || first == "web" || strings.HasSuffix(name, "-http")
}

// httpNumber knows the ports that web servers and frameworks come with.
func httpNumber(n uint16) bool {
	return slices.Contains([]uint16{80, 3000, 5000, 8000, 8008, 8080, 8081, 8888}, n)
}

func remembered(ports []statedir.Port) []kube.Port {
	var out []kube.Port
	for _, p := range ports {
		out = append(out, kube.Port(p))
	}
	return out
}

// toRemember is what shall be known of the forward at the next start.
func (f *planned) toRemember(s sighting) statedir.Forward {
	k := statedir.Forward{Address: f.address, Subdomain: s.subdomain, Whole: s.whole, Target: f.workload.String()}
	for _, p := range s.ports {
		k.Ports = append(k.Ports, statedir.Port(p))
	}
	for _, at := range f.pods {
		k.Pods = append(k.Pods, statedir.Pod{Name: at.pod, Address: at.address})
	}
	return k
}

// places are those of all forwards.
func (p *plan) places() []*place {
	var all []*place
	for _, f := range p.forwards {
		all = append(all, f.places()...)
	}
	return all
}

// names are the zone's names of the places that bound reports true for: a name
// must not lead to an address where nothing listens.
func (p *plan) names(bound func(*place) bool) []dns.Name {
	var names []dns.Name
	for _, at := range p.places() {
		if !bound(at) {
			continue
		}
		for _, host := range at.hostnames {
			names = append(names, dns.Name{Name: host, Addrs: []netip.Addr{at.address}, Wildcard: host == at.wildcard})
		}
	}
	return names
}

// serves reports whether a name leads to the address.
func (p *plan) serves(addr netip.Addr, host string) bool {
	return slices.ContainsFunc(p.places(), func(at *place) bool {
		return at.address == addr && (slices.Contains(at.hostnames, host) ||
			at.wildcard != "" && strings.HasSuffix(host, "."+at.wildcard))
	})
}

// keeps reports whether the plan has the place at the same address and under
// the same names.
func (p *plan) keeps(at *place) bool {
	return slices.ContainsFunc(p.places(), func(now *place) bool {
		return now.address == at.address && slices.Equal(now.hostnames, at.hostnames)
	})
}
