package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/statedir"
	"github.com/tunneld/tunneld/internal/status"
)

func parse(t *testing.T, forwards ...string) *config.Config {
	t.Helper()
	text := "version: 1\nforwards:\n"
	for _, f := range forwards {
		text += "- {context: lab, namespace: ns, " + f + "}\n"
	}
	cfg, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func workload(name string) forward.Workload {
	return forward.Workload{Context: "lab", Namespace: "ns", Kind: forward.Service, Name: name}
}

// summary says what a plan would bind, as text: "raw 5432", "gateway -> 8000".
func summary(p *plan) []string {
	var out []string
	for _, s := range p.specs {
		text := fmt.Sprintf("raw %d", s.Listen.Port())
		if s.TLS {
			text += " tls"
		}
		if s.ALPN != "" {
			text += " " + s.ALPN
		}
		out = append(out, text)
	}
	for _, r := range p.rows {
		text := fmt.Sprintf("gateway -> %d", r.Backends[0].Target.Port)
		if r.Problem.State != "" {
			text += ": " + r.Problem.Cause
		}
		out = append(out, text)
	}
	return out
}

func TestPlanPorts(t *testing.T) {
	http := kube.Port{Name: "http", Number: 8000}
	db := kube.Port{Name: "db", Number: 5432}
	tests := []struct {
		name    string
		forward string      // besides name, target, namespace and context
		seen    []kube.Port // nil: not yet
		known   []statedir.Port
		want    []string
		problem string
	}{
		{"all ports, HTTP by name", "", []kube.Port{http, db}, nil, []string{"raw 8000", "raw 5432", "gateway -> 8000"}, ""},
		{"HTTP by appProtocol before the name", "", []kube.Port{http, {Name: "x", Number: 1234, AppProtocol: "http"}}, nil,
			[]string{"raw 8000", "raw 1234", "gateway -> 1234"}, ""},
		{"HTTP by number", "", []kube.Port{{Number: 8080}}, nil, []string{"raw 8080", "gateway -> 8080"}, ""},
		{"a name that says otherwise counts more than the number", "", []kube.Port{{Name: "grpc", Number: 8080}}, nil, []string{"raw 8080"}, ""},
		{"HTTPS back ends are not for the gateway", "", []kube.Port{{Name: "https", Number: 8443}}, nil, []string{"raw 8443"}, ""},
		{"no HTTP", "", []kube.Port{db}, nil, []string{"raw 5432"}, ""},
		{"HTTP turned off", "http: none", []kube.Port{http}, nil, []string{"raw 8000"}, ""},
		{"HTTP said to be another port", "http: 5432", []kube.Port{http, db}, nil, []string{"raw 8000", "raw 5432", "gateway -> 5432"}, ""},
		{"HTTP by a port's name", "http: db", []kube.Port{http, db}, nil, []string{"raw 8000", "raw 5432", "gateway -> 5432"}, ""},
		{"some ports", "ports: [db]", []kube.Port{http, db}, nil, []string{"raw 5432"}, ""},
		{"one port twice", "ports: [5432, db]", []kube.Port{http, db}, nil, []string{"raw 5432"}, ""},
		{"TLS on a port", "ports: [{port: 5432, tls: true}]", []kube.Port{db}, nil, []string{"raw 5432 tls"}, ""},
		{"TLS for gRPC", "ports: [{port: grpc, tls: true}]", []kube.Port{{Name: "grpc", Number: 50051}}, nil, []string{"raw 50051 tls h2"}, ""},
		{"TLS for gRPC-Web, which is HTTP/1.1", "ports: [{port: grpc-web, tls: true}]", []kube.Port{{Name: "grpc-web", Number: 50051}}, nil, []string{"raw 50051 tls"}, ""},
		{"TLS for h2c by appProtocol", "ports: [{port: 7000, tls: true}]", []kube.Port{{Name: "x", Number: 7000, AppProtocol: "kubernetes.io/h2c"}}, nil,
			[]string{"raw 7000 tls h2"}, ""},
		{"appProtocol counts more than the name", "ports: [{port: 7000, tls: true}]", []kube.Port{{Name: "grpc", Number: 7000, AppProtocol: "redis"}}, nil,
			[]string{"raw 7000 tls"}, ""},
		{"gRPC without TLS", "", []kube.Port{{Name: "grpc", Number: 50051}}, nil, []string{"raw 50051"}, ""},
		{"the gateway's ports are the gateway's", "", []kube.Port{{Name: "http", Number: 80}, {Name: "https", Number: 443}}, nil,
			[]string{"gateway -> 80"}, ""},
		{"but not without a gateway", "http: none", []kube.Port{{Name: "http", Number: 80}, {Name: "https", Number: 443}}, nil,
			[]string{"raw 80", "raw 443"}, ""},
		{"a port that does not exist", "ports: [9999, 8000]", []kube.Port{http}, nil, []string{"raw 8000", "gateway -> 8000"}, "service/app has no TCP port 9999"},
		{"a name that does not exist", "ports: [dbb]", []kube.Port{db}, nil, []string{"gateway -> 0: service/app has no TCP port dbb"}, "service/app has no TCP port dbb"},
		{"an HTTP port that does not exist", "http: web", []kube.Port{http}, nil, []string{"raw 8000"}, "service/app has no TCP port web"},
		{"an HTTP number that does not exist", "http: 9999", []kube.Port{http}, nil, []string{"raw 8000", "gateway -> 9999: service/app has no TCP port 9999"}, "service/app has no TCP port 9999"},
		{"an HTTP number while nothing is known", "http: 9999", nil, nil, []string{"gateway -> 9999"}, ""},
		{"no port is declared", "", []kube.Port{}, nil, []string{"gateway -> 0: service/app declares no TCP port"}, "service/app declares no TCP port"},
		{"a number that is not among none", "ports: [5432], http: none", []kube.Port{}, nil, nil, "service/app has no TCP port 5432"},
		{"HTTP on a port that the pod does not declare", "http: 8080, target: pod/app", []kube.Port{}, nil, []string{"gateway -> 8080"}, ""},
		{"a port that is missing beside one that is not declared", "http: 8080, ports: [8080, metrics], target: pod/app", []kube.Port{}, nil,
			[]string{"raw 8080", "gateway -> 8080"}, "pod/app has no TCP port metrics"},
		{"a Service declares what HTTP is", "http: 8080", []kube.Port{}, nil, []string{"gateway -> 8080: service/app has no TCP port 8080"}, "service/app has no TCP port 8080"},
		{"a pod need not declare its ports", "ports: [5432], http: none, target: pod/app", []kube.Port{}, nil, []string{"raw 5432"}, ""},
		{"nothing known yet: the gateway says why", "", nil, nil, []string{"gateway -> 0"}, ""},
		{"nothing known yet, numbers given", "ports: [5432], http: none", nil, nil, []string{"raw 5432"}, ""},
		{"remembered from last time", "", nil, []statedir.Port{{Name: "http", Number: 8000}}, []string{"raw 8000", "gateway -> 8000"}, ""},
		{"what is seen counts more", "", []kube.Port{db}, []statedir.Port{{Name: "http", Number: 8000}}, []string{"raw 5432"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			entry := "name: app"
			if !strings.Contains(tt.forward, "target:") {
				entry += ", target: app"
			}
			if tt.forward != "" {
				entry += ", " + tt.forward
			}
			known := map[string]statedir.Forward{"app": {Ports: tt.known, Target: workload("app").String()}}
			seen := make(map[forward.Workload]sighting)
			if tt.seen != nil {
				for _, kind := range []forward.Kind{forward.Service, forward.Pod} {
					w := workload("app")
					w.Kind = kind
					seen[w] = sighting{ports: tt.seen}
				}
			}
			p := makePlan(parse(t, entry), known, seen)
			if diff := cmp.Diff(tt.want, summary(p)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := p.forwards[0].problem; got.Cause != tt.problem || (got.Cause != "") != (got.State == status.NotFound) {
				t.Errorf("problem %+v; want %q", got, tt.problem)
			}
		})
	}
}

func TestPlanMovesUpAroundTheForwardsOwnPorts(t *testing.T) {
	seen := map[forward.Workload]sighting{workload("app"): {ports: []kube.Port{{Name: "http", Number: 80}, {Name: "other", Number: 8080}}}}
	p := makePlan(parse(t, "name: app, target: app"), nil, seen)
	var got [][3]uint16
	for _, l := range p.listeners {
		if l.Forward == "app" {
			got = append(got, l.Otherwise)
		}
	}
	want := [][3]uint16{{18080, 28080, 0}, {8443, 18443, 28443}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("other ports (-want +got):\n%s", diff)
	}
}

func TestPlanNames(t *testing.T) {
	cfg := parse(t,
		"name: a, target: app",
		"name: b, target: app",            // the same Service: the first has its cluster name
		"name: c, target: deployment/web", // no cluster name
	)
	p := makePlan(cfg, nil, map[forward.Workload]sighting{workload("app"): {ports: []kube.Port{{Name: "http", Number: 80}}, whole: true}})
	want := [][]string{
		{"a.local", "a.localhost", "app.ns.svc.cluster.local"},
		{"b.local", "b.localhost"},
		{"c.local", "c.localhost"},
	}
	var got [][]string
	for _, f := range p.forwards {
		got = append(got, f.hostnames)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("hostnames (-want +got):\n%s", diff)
	}

	wantNotes := []string{"app.ns.svc.cluster.local belongs to the forward a, which comes first in the configuration"}
	for name, want := range map[string][]string{"a": nil, "b": wantNotes} {
		i := slices.IndexFunc(p.forwards, func(f *planned) bool { return f.name == name })
		got := p.forwards[i].report(bindings{}, kube.Report{}, forward.Counts{}).Notes
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("notes of forward %s (-want +got):\n%s", name, diff)
		}
	}

	names := p.names(func(at *place) bool { return at.hostnames[0] != "b.local" })
	var listed []string
	for _, n := range names {
		text := n.Name
		if n.Wildcard {
			text += " and below"
		}
		listed = append(listed, text)
	}
	wantNames := []string{
		"a.local and below", "a.localhost", "app.ns.svc.cluster.local", "c.local and below", "c.localhost",
	}
	if diff := cmp.Diff(wantNames, listed); diff != "" {
		t.Errorf("names of what is bound (-want +got):\n%s", diff)
	}
	if !slices.Contains(p.rows[0].Hosts, p.forwards[0].address.String()) || !slices.Contains(p.rows[0].Hosts, "*.a.local") {
		t.Errorf("the gateway's hosts %q lack the address, or what is below the name", p.rows[0].Hosts)
	}
	for host, want := range map[string]bool{
		"a.local": true, "x.a.local": true, "app.ns.svc.cluster.local": true, "b.local": false, "xa.local": false, "x.a.localhost": false,
	} {
		if got := p.serves(p.forwards[0].address, host); got != want {
			t.Errorf("forward a serves %s: %v", host, got)
		}
	}
}

func TestPlanRefusals(t *testing.T) {
	t.Run("production", func(t *testing.T) {
		cfg := parse(t, "name: a, target: app", "name: b, target: app, allowProduction: true")
		for i := range cfg.Forwards {
			cfg.Forwards[i].Workload.Context = "prod-eu"
		}
		known := map[string]statedir.Forward{"a": {Address: netip.MustParseAddr("127.77.1.2")}}
		p := makePlan(cfg, known, nil)
		if c := p.forwards[0].problem; c.State != status.Failed || !strings.Contains(c.Cause, "prod-eu") || c.Hint == "" {
			t.Errorf("a: %+v; want failed, with cause and hint", c)
		}
		if c := p.forwards[1].problem; c.State != "" {
			t.Errorf("b, which allows it: %+v", c)
		}
		if len(p.workloads) != 1 || len(p.rows) != 1 || p.rows[0].Forward != "b" {
			t.Errorf("what is refused is used all the same: %v, %v", p.workloads, p.rows)
		}
		if p.remember["a"].Address != known["a"].Address {
			t.Error("what is refused loses its address")
		}
	})
	t.Run("no address left", func(t *testing.T) {
		var all []string
		for i := range 20 {
			all = append(all, fmt.Sprintf("name: f%d, target: app", i))
		}
		cfg := parse(t, all...)
		cfg.Addresses = netip.MustParsePrefix("127.77.0.0/28")
		p := makePlan(cfg, nil, nil)
		failed := 0
		for _, f := range p.forwards {
			if f.problem.State == status.Failed {
				failed++
			}
		}
		if failed != 5 {
			t.Errorf("%d of 20 forwards have no address in 15", failed)
		}
	})
}

func TestPlanWatchesEachWorkloadOnce(t *testing.T) {
	p := makePlan(parse(t, "name: a, target: app", "name: b, target: app", "name: c, target: other"), nil, nil)
	want := []forward.Workload{workload("app"), workload("other")}
	if diff := cmp.Diff(want, p.workloads); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPlanForgetsWhatWasRemoved(t *testing.T) {
	known := map[string]statedir.Forward{
		"gone": {Address: netip.MustParseAddr("127.77.1.2")},
		"a":    {Address: netip.MustParseAddr("127.77.1.3"), Ports: []statedir.Port{{Number: 80}}, Target: workload("app").String()},
	}
	p := makePlan(parse(t, "name: a, target: app"), known, nil)
	if _, ok := p.remember["gone"]; ok {
		t.Error("a forward that was removed keeps its address")
	}
	if got := p.remember["a"]; got.Address != known["a"].Address || len(got.Ports) != 1 {
		t.Errorf("a is remembered as %+v; want it unchanged", got)
	}
}

// The ports of another target are of no use.
func TestPlanForgetsThePortsOfAnotherTarget(t *testing.T) {
	known := map[string]statedir.Forward{
		"a": {Address: netip.MustParseAddr("127.77.1.3"), Ports: []statedir.Port{{Number: 5432}}, Target: workload("old").String()},
	}
	p := makePlan(parse(t, "name: a, target: app"), known, nil)
	if len(p.specs) != 0 {
		t.Errorf("it would listen on %v", p.specs)
	}
	if got := p.remember["a"]; got.Address != known["a"].Address || len(got.Ports) != 0 || got.Target != workload("app").String() {
		t.Errorf("a is remembered as %+v; want the address, and the new target without ports", got)
	}
}
