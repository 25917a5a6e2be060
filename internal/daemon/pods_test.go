package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/statedir"
)

// sightings are what the clusters say about Service app: these pods.
func sightings(pods ...string) map[forward.Workload]sighting {
	return map[forward.Workload]sighting{workload("app"): {
		ports: []kube.Port{{Name: "db", Number: 5432}, {Name: "http", Number: 8000}}, pods: pods, subdomain: "app",
	}}
}

// podsOf are the pods of the first forward that have places.
func podsOf(p *plan) []string {
	var names []string
	for _, at := range p.forwards[0].pods {
		names = append(names, at.pod)
	}
	return names
}

func TestPlanPods(t *testing.T) {
	p := makePlan(parse(t, "name: a, target: app"), nil, sightings("db-0", "db-1"))
	f := p.forwards[0]
	var hosts [][]string
	addrs := map[netip.Addr]bool{f.address: true}
	for _, at := range f.pods {
		hosts = append(hosts, at.hostnames)
		addrs[at.address] = true
	}
	wantHosts := [][]string{
		{"db-0.a.local", "db-0.a.localhost", "db-0.app.ns.svc.cluster.local"},
		{"db-1.a.local", "db-1.a.localhost", "db-1.app.ns.svc.cluster.local"},
	}
	if diff := cmp.Diff(wantHosts, hosts); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if len(addrs) != 3 {
		t.Errorf("addresses %v; want three", addrs)
	}

	// Each port of the Service is served for any pod, and for each by its name,
	// on an address of its own.
	type listener struct {
		at   netip.Addr
		port uint16
		pod  string
	}
	raw, rows := make(map[listener]bool), make(map[listener]bool)
	for _, s := range p.specs {
		if s.Listen.Port() != s.Target.Port {
			t.Errorf("%v leads to port %d", s.Listen, s.Target.Port)
		}
		raw[listener{s.Listen.Addr(), s.Target.Port, s.Target.Pod}] = true
	}
	for _, r := range p.rows {
		target := r.Backends[0].Target
		rows[listener{r.Scope, target.Port, target.Pod}] = true
		if i := slices.IndexFunc(f.pods, func(at *place) bool { return at.pod == target.Pod }); i >= 0 {
			if diff := cmp.Diff(append(wantHosts[i], r.Scope.String()), r.Hosts); diff != "" {
				t.Errorf("hosts of the gateway (-want +got):\n%s", diff)
			}
		}
	}
	wantRaw, wantRows := make(map[listener]bool), make(map[listener]bool)
	listeners := make(map[netip.Addr]int)
	for _, at := range f.places() {
		wantRaw[listener{at.address, 5432, at.pod}], wantRaw[listener{at.address, 8000, at.pod}] = true, true
		wantRows[listener{at.address, 8000, at.pod}] = true
	}
	for _, l := range p.listeners {
		if l.Forward == "a" {
			listeners[l.Addr.Addr()]++
		}
	}
	equal := cmp.Comparer(func(a, b listener) bool { return a == b })
	if diff := cmp.Diff(wantRaw, raw, equal); diff != "" {
		t.Errorf("raw ports (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantRows, rows, equal); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	for addr := range addrs {
		if listeners[addr] != 2 {
			t.Errorf("%d listeners of the gateway on %v; want HTTP and HTTPS", listeners[addr], addr)
		}
	}

	// A name below that is no pod's leads nowhere, least of all to any pod.
	for _, n := range p.names(func(*place) bool { return true }) {
		if n.Wildcard {
			t.Errorf("every name below %s is answered", n.Name)
		}
	}
	for host, want := range map[string][]bool{
		"a.local": {true, false, false}, "db-0.a.local": {false, true, false},
		"db-1.app.ns.svc.cluster.local": {false, false, true}, "db-2.a.local": {false, false, false},
	} {
		for i, at := range f.places() {
			if got := p.serves(at.address, host); got != want[i] {
				t.Errorf("a certificate for %s on the address of %q: %v", host, at.pod, got)
			}
		}
	}
}

func TestPlanPodsNames(t *testing.T) {
	set := workload("db")
	set.Kind = forward.StatefulSet
	tests := []struct {
		name    string
		domain  string
		forward string
		s       sighting
		want    []string
	}{
		{"a StatefulSet, under its Service", "local", "name: a, target: statefulset/db", sighting{pods: []string{"db-0"}, subdomain: "peers"},
			[]string{"db-0.a.local", "db-0.a.localhost", "db-0.peers.ns.svc.cluster.local"}},
		{"a StatefulSet that names no Service", "local", "name: a, target: statefulset/db", sighting{pods: []string{"db-0"}},
			[]string{"db-0.a.local", "db-0.a.localhost"}},
		{"the domain is localhost", "localhost", "name: a, target: statefulset/db", sighting{pods: []string{"db-0"}},
			[]string{"db-0.a.localhost"}},
		{"what cannot be a name", "local", "name: a, target: statefulset/db", sighting{pods: []string{"db.0", "*", "-"}}, nil},
		{"no pods", "local", "name: a, target: statefulset/db", sighting{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := parse(t, tt.forward)
			cfg.Domain = tt.domain
			p := makePlan(cfg, nil, map[forward.Workload]sighting{set: tt.s})
			var got []string
			for _, at := range p.forwards[0].pods {
				got = append(got, at.hostnames...)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if p.forwards[0].wildcard != "" {
				t.Error("every name below is answered, which may be the name of a pod")
			}
		})
	}
}

// Every name below a forward's leads there only where it cannot be a pod's.
func TestPlanWildcard(t *testing.T) {
	whole := sighting{ports: []kube.Port{{Name: "http", Number: 80}}, whole: true}
	part, peers := whole, whole
	part.whole = false
	peers.pods = []string{"db-0"}
	known := func(pods ...statedir.Pod) *statedir.Forward {
		return &statedir.Forward{Target: workload("app").String(), Ports: []statedir.Port{{Number: 80}}, Whole: true, Pods: pods}
	}
	tests := []struct {
		name   string
		target string
		seen   *sighting
		known  *statedir.Forward
		want   bool
	}{
		{"a Service whose pods have no names", "app", &whole, nil, true},
		{"a Service whose pods have not been seen", "app", &part, nil, false},
		{"a Service whose pods have names", "app", &peers, nil, false},
		{"a Service whose pods had none when the cluster was last seen", "app", nil, known(), true},
		{"and when they have not been seen again yet", "app", &part, known(), true},
		{"a Service whose pods had some", "app", &whole, known(statedir.Pod{Name: "db-0"}), false},
		{"a Service of which nothing is known", "app", nil, nil, false},
		{"a Deployment of which nothing is known", "deployment/app", nil, nil, true},
		{"a StatefulSet without pods", "statefulset/app", &whole, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := parse(t, "name: a, target: "+tt.target)
			seen := make(map[forward.Workload]sighting)
			if tt.seen != nil {
				seen[cfg.Forwards[0].Workload] = *tt.seen
			}
			all := make(map[string]statedir.Forward)
			if tt.known != nil {
				all["a"] = *tt.known
			}
			f := makePlan(cfg, all, seen).forwards[0]
			if got := f.wildcard == "a.local"; got != tt.want {
				t.Errorf("the wildcard is below %q", f.wildcard)
			}
		})
	}
}

// What was remembered before the pods had been seen says nothing of them.
func TestPlanWildcardIsNotHasty(t *testing.T) {
	cfg := parse(t, "name: a, target: app")
	part := map[forward.Workload]sighting{workload("app"): {ports: []kube.Port{{Name: "http", Number: 80}}}}
	p := makePlan(cfg, nil, part)
	if again := makePlan(cfg, p.remember, part).forwards[0]; again.wildcard != "" {
		t.Errorf("every name below %s is answered, which may be the name of a pod", again.wildcard)
	}
}

// Of two forwards to the same pods, the first has their names in the cluster.
func TestPlanPodsOfTwoForwards(t *testing.T) {
	p := makePlan(parse(t, "name: a, target: app", "name: b, target: app"), nil, sightings("db-0", "db-1"))
	if got := p.forwards[1].pods[1].hostnames; !slices.Equal(got, []string{"db-1.b.local", "db-1.b.localhost"}) {
		t.Errorf("the second one's pod has the names %q", got)
	}
	want := []string{
		"app.ns.svc.cluster.local belongs to the forward a, which comes first in the configuration",
		"the names of its pods below app.ns.svc.cluster.local belong to the forward a, which comes first in the configuration",
	}
	if diff := cmp.Diff(want, p.forwards[1].notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if len(p.forwards[0].notes) != 0 {
		t.Errorf("the first one has the notes %q", p.forwards[0].notes)
	}

	// A Service of that name elsewhere has them before anybody knows its pods:
	// else some of the names would lead to one cluster and some to another.
	cfg := parse(t, "name: a, target: app", "name: b, target: app")
	cfg.Forwards[0].Workload.Context = "elsewhere"
	p = makePlan(cfg, nil, sightings("db-0"))
	if got := p.forwards[1].pods[0].hostnames; !slices.Equal(got, []string{"db-0.b.local", "db-0.b.localhost"}) {
		t.Errorf("beside the one elsewhere, the pod has the names %q", got)
	}
}

// A pod's place does not go when the pod does, nor when the daemon is started
// anew, whether its cluster can be reached or not.
func TestPlanPodsStay(t *testing.T) {
	cfg := parse(t, "name: a, target: app")
	first := makePlan(cfg, nil, sightings("db-0", "db-1"))
	for name, seen := range map[string]map[forward.Workload]sighting{
		"one is away": sightings("db-1"), "all are away": sightings(), "nothing is seen": nil, "another comes": sightings("db-0", "db-1", "ab-0"),
	} {
		t.Run(name, func(t *testing.T) {
			now := makePlan(cfg, first.remember, seen)
			for _, at := range first.places() {
				if !now.keeps(at) {
					t.Errorf("%s moved from %v, or away", at.hostnames[0], at.address)
				}
			}
			for _, s := range first.specs {
				if !slices.Contains(now.specs, s) {
					t.Errorf("%v does not listen any more", s.Listen)
				}
			}
		})
	}
	t.Run("another target", func(t *testing.T) {
		now := makePlan(parse(t, "name: a, target: other"), first.remember, nil)
		if pods := podsOf(now); len(pods) > 0 || len(now.remember["a"].Pods) > 0 {
			t.Errorf("it has the pods %q of the old one", pods)
		}
	})
	t.Run("refused for a while", func(t *testing.T) {
		refused := parse(t, "name: a, target: app", "name: b, target: b")
		refused.Contexts.Deny = []string{"lab"}
		now := makePlan(refused, first.remember, nil)
		if diff := cmp.Diff(first.remember["a"].Pods, now.remember["a"].Pods, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("it forgets (-want +got):\n%s", diff)
		}
	})
}

func TestChoosePods(t *testing.T) {
	numbered := func(from, to int) (names []string) {
		for i := from; i < to; i++ {
			names = append(names, fmt.Sprintf("db-%d", i))
		}
		return names
	}
	known := func(names ...string) (pods []statedir.Pod) {
		for _, name := range names {
			pods = append(pods, statedir.Pod{Name: name})
		}
		return pods
	}
	tests := []struct {
		name  string
		known []statedir.Pod
		seen  []string
		want  []string
		more  int
	}{
		{"none", nil, nil, nil, 0},
		{"in the order of their numbers", known("db-10"), []string{"db-9", "web", "db-2", "a-3"}, []string{"a-3", "db-2", "db-9", "db-10", "web"}, 0},
		{"too many", nil, numbered(0, 70), numbered(0, 64), 6},
		{"whoever has a name keeps it", known("db-69"), numbered(0, 70), append(numbered(0, 63), "db-69"), 6},
		{"whoever is there comes before who is away", known(numbered(0, 64)...), numbered(60, 70), append(numbered(0, 54), numbered(60, 70)...), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := choosePods(tt.known, tt.seen)
			if diff := cmp.Diff(tt.want, got.names); diff != "" || got.more != tt.more {
				t.Errorf("%d more; want %d; (-want +got):\n%s", got.more, tt.more, diff)
			}
		})
	}
}

// Pods without a name are told of; and rather than a forward, a pod has no
// address.
func TestPlanPodsWithoutRoom(t *testing.T) {
	var many []string
	for i := range 70 {
		many = append(many, fmt.Sprintf("db-%d", i))
	}
	cfg := parse(t, "name: a, target: app")
	told := func(p *plan, want string) {
		t.Helper()
		if !slices.ContainsFunc(p.forwards[0].notes, func(note string) bool { return strings.HasPrefix(note, want) }) {
			t.Errorf("notes %q; want %q", p.forwards[0].notes, want)
		}
	}
	p := makePlan(cfg, nil, sightings(many...))
	if n := len(p.forwards[0].pods); n != maxPods {
		t.Errorf("%d pods have places", n)
	}
	told(p, "6 of its pods have no names of their own: ")

	cfg.Addresses = netip.MustParsePrefix("127.77.0.0/28")
	p = makePlan(cfg, nil, sightings(many...))
	if n := len(p.forwards[0].pods); n != 14 {
		t.Errorf("%d pods have places, of 15 addresses", n)
	}
	told(p, "56 of its pods have no names of their own: ")
	both := parse(t, "name: a, target: app", "name: b, target: other")
	both.Addresses = cfg.Addresses
	now := makePlan(both, p.remember, sightings(many...))
	if b := now.forwards[1]; b.problem.State != "" || !b.address.IsValid() {
		t.Errorf("the second forward has no address: %+v", b.problem)
	}
	if n := len(now.forwards[0].pods); n != 13 || !now.keeps(&p.forwards[0].place) {
		t.Errorf("%d pods of the first have places, and it has the address %v; want 13, and %v", n, now.forwards[0].address, p.forwards[0].address)
	}
	kept := 0
	for _, at := range p.forwards[0].pods {
		if now.keeps(at) {
			kept++
		}
	}
	if kept != 13 {
		t.Errorf("%d places of pods are where they were; want all but the one that was taken", kept)
	}
}
