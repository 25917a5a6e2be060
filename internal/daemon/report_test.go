package daemon

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/gateway"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/status"
)

// A scene is one forward with an HTTP port 8000 and a raw port 25, and what
// became of its listeners.
type scene struct {
	plain, secure gateway.Binding
	http, smtp    forward.Binding
	shared        []gateway.Binding
	cluster       kube.Report
	some          bool // the configuration names the ports
}

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func goodScene() scene {
	return scene{
		plain:  gateway.Binding{Listener: gateway.Listener{Addr: at("127.77.0.1:80"), Forward: "f"}, Addr: at("127.77.0.1:80")},
		secure: gateway.Binding{Listener: gateway.Listener{Addr: at("127.77.0.1:443"), Forward: "f", TLS: true}, Addr: at("127.77.0.1:443")},
		http:   forward.Binding{Addr: at("127.77.0.1:8000")},
		smtp:   forward.Binding{Addr: at("127.77.0.1:25")},
		shared: []gateway.Binding{
			{Listener: gateway.Listener{Addr: at("127.0.0.1:443"), TLS: true}, Addr: at("127.0.0.1:443")},
			{Listener: gateway.Listener{Addr: at("[::1]:443"), TLS: true}, Addr: at("[::1]:443")},
		},
		cluster: kube.Report{Condition: status.Condition{State: status.Ready}, Ports: []kube.Port{{Number: 8000}}, Ready: 1, Total: 1},
	}
}

func (s scene) report() status.Forward {
	http, smtp := &forward.Spec{Name: "f", Listen: at("127.77.0.1:8000")}, &forward.Spec{Name: "f", Listen: at("127.77.0.1:25")}
	f := &planned{
		name: "f", workload: workload("app"), gateway: true, sure: true, some: s.some,
		place: place{
			address: netip.MustParseAddr("127.77.0.1"), hostnames: []string{"f.local", "f.localhost"},
			ports: []plannedPort{{name: "http", number: 8000, spec: http}, {name: "smtp", number: 25, spec: smtp}, {name: "https", number: 443, tls: true}},
		},
	}
	s.http.Spec, s.smtp.Spec = *http, *smtp
	gateways := append([]gateway.Binding{s.plain, s.secure}, s.shared...)
	return f.report(newBindings([]forward.Binding{s.http, s.smtp}, gateways), s.cluster, forward.Counts{})
}

func TestReport(t *testing.T) {
	inUse := errors.New("address already in use")
	tests := []struct {
		name  string
		set   func(*scene)
		state status.State
		cause string
		urls  []string
		notes []string
	}{
		{"all is well", func(*scene) {}, status.Ready, "",
			[]string{"https://f.local", "http://f.local", "https://f.localhost"}, nil},
		{"the gateway moved up", func(s *scene) { s.plain.Addr, s.secure.Addr = at("127.77.0.1:8080"), at("127.77.0.1:8443") },
			status.Ready, "", []string{"https://f.local:8443", "http://f.local:8080", "https://f.localhost"},
			[]string{"HTTP is on port 8080, because port 80 could not be bound here", "HTTPS is on port 8443, because port 443 could not be bound here"}},
		{"a raw port moved up", func(s *scene) { s.smtp.Addr = at("127.77.0.1:8025") }, status.Ready, "",
			[]string{"https://f.local", "http://f.local", "https://f.localhost"},
			[]string{"port 25 is at 127.77.0.1:8025, because port 25 could not be bound here"}},
		{"no HTTPS", func(s *scene) { s.secure.Addr, s.secure.Err = netip.AddrPort{}, inUse }, status.Degraded, "a port could not be bound: address already in use",
			[]string{"http://f.local", "https://f.localhost"}, nil},
		{"no CA", func(s *scene) { s.secure.Addr, s.secure.Err = netip.AddrPort{}, noCA{errors.New("damaged")} }, status.Degraded,
			"a port could not be bound: there is no local CA: damaged", []string{"http://f.local", "https://f.localhost"}, nil},
		{"a raw port could not be bound", func(s *scene) { s.smtp.Addr, s.smtp.Err = netip.AddrPort{}, inUse }, status.Degraded, "a port could not be bound",
			[]string{"https://f.local", "http://f.local", "https://f.localhost"}, nil},
		{"nothing could be bound", func(s *scene) {
			s.plain.Addr, s.plain.Err = netip.AddrPort{}, inUse
			s.secure.Addr, s.secure.Err = netip.AddrPort{}, inUse
			s.http.Addr, s.http.Err = netip.AddrPort{}, inUse
			s.smtp.Addr, s.smtp.Err = netip.AddrPort{}, inUse
		}, status.Failed, "no listener could be bound: address already in use", []string{"https://f.localhost"}, nil},
		{"the cluster's trouble comes first", func(s *scene) {
			s.smtp.Addr, s.smtp.Err = netip.AddrPort{}, inUse
			s.cluster.Condition = status.Condition{State: status.Offline, Cause: "away"}
		}, status.Offline, "away", []string{"https://f.local", "http://f.local", "https://f.localhost"}, nil},
		{"one port leads nowhere", func(s *scene) {
			s.cluster.Nowhere = map[uint16]status.Condition{25: {State: status.NoEndpoints, Cause: "port 25 leads nowhere"}}
		}, status.Degraded, "port 25 leads nowhere", []string{"https://f.local", "http://f.local", "https://f.localhost"}, nil},
		{"a port leads nowhere that is not forwarded", func(s *scene) {
			s.cluster.Nowhere = map[uint16]status.Condition{26: {State: status.NoEndpoints, Cause: "port 26 leads nowhere"}}
		}, status.Ready, "", []string{"https://f.local", "http://f.local", "https://f.localhost"}, nil},
		{"all ports lead nowhere", func(s *scene) {
			s.cluster.Nowhere = make(map[uint16]status.Condition)
			for _, port := range []uint16{25, 443, 8000} {
				s.cluster.Nowhere[port] = status.Condition{State: status.NoEndpoints, Cause: "it leads nowhere"}
			}
		}, status.NoEndpoints, "it leads nowhere", []string{"https://f.local", "http://f.local", "https://f.localhost"}, nil},
		{"what is left out on purpose is not noted", func(s *scene) { s.cluster.Notes, s.some = []string{"port 53 is UDP"}, true }, status.Ready, "",
			[]string{"https://f.local", "http://f.local", "https://f.localhost"}, nil},
		{"what is left out is noted", func(s *scene) { s.cluster.Notes = []string{"port 53 is UDP"} }, status.Ready, "",
			[]string{"https://f.local", "http://f.local", "https://f.localhost"}, []string{"port 53 is UDP"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := goodScene()
			tt.set(&s)
			got := s.report()
			if got.State != tt.state || !strings.Contains(got.Cause, tt.cause) || (tt.cause == "") != (got.Cause == "") {
				t.Errorf("%s: %q; want %s: %q", got.State, got.Cause, tt.state, tt.cause)
			}
			if diff := cmp.Diff(tt.urls, got.URLs); diff != "" {
				t.Errorf("URLs (-want +got):\n%s", diff)
			}
			if len(got.URLs) > 0 && got.URL != got.URLs[0] {
				t.Errorf("URL %q is not the first of %q", got.URL, got.URLs)
			}
			if diff := cmp.Diff(tt.notes, got.Notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReportSaysWhoServesAPort(t *testing.T) {
	want := []status.Port{
		{Name: "http", Port: 8000, Listen: "127.77.0.1:8000", ServedBy: "forward"},
		{Name: "smtp", Port: 25, Listen: "127.77.0.1:25", ServedBy: "forward"},
		{Name: "https", Port: 443, Listen: "127.77.0.1:443", ServedBy: "gateway"},
	}
	if diff := cmp.Diff(want, goodScene().report().Ports); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestHistory(t *testing.T) {
	h := make(history)
	begin := time.Now()
	steps := []struct {
		state   status.State
		after   time.Duration
		changed bool
		since   time.Duration
	}{
		{status.Connecting, 0, true, 0},
		{status.Connecting, time.Second, false, 0},
		{status.Ready, 2 * time.Second, true, 2 * time.Second},
		{status.Ready, time.Hour, false, 2 * time.Second},
		{status.Connecting, 2 * time.Hour, true, 2 * time.Hour},
	}
	for i, s := range steps {
		f := status.Forward{Name: "f", Condition: status.Condition{State: s.state}}
		_, changed := h.note(&f, begin.Add(s.after))
		if changed != s.changed || !f.Since.Equal(begin.Add(s.since)) {
			t.Errorf("step %d: changed %v since %v; want %v since %v", i, changed, f.Since.Sub(begin), s.changed, s.since)
		}
	}
}

// What listens for a pod is a part of the forward.
func TestReportOfPods(t *testing.T) {
	spec := forward.Spec{Name: "f", Listen: at("127.77.0.2:8000")}
	other := forward.Spec{Name: "f", Listen: at("127.77.0.1:8000")}
	f := &planned{
		name: "f", workload: workload("app"), sure: true,
		place: place{
			address: netip.MustParseAddr("127.77.0.1"), hostnames: []string{"f.local"}, ports: []plannedPort{{number: 8000, spec: &other}},
		},
		pods: []*place{{
			pod: "f-0", address: netip.MustParseAddr("127.77.0.2"), hostnames: []string{"f-0.f.local"},
			ports: []plannedPort{{name: "http", number: 8000, spec: &spec}},
		}},
	}
	cluster := kube.Report{Condition: status.Condition{State: status.Idle}, Pods: []kube.Pod{{Hostname: "f-0", Ready: true}}}
	bound := forward.Binding{Spec: other, Addr: other.Listen}
	got := f.report(newBindings([]forward.Binding{bound, {Spec: spec, Addr: spec.Listen}}, nil), cluster, forward.Counts{})
	want := []status.Pod{{
		Name: "f-0", Hostnames: []string{"f-0.f.local"}, Address: "127.77.0.2", Ready: true,
		Ports: []status.Port{{Name: "http", Port: 8000, Listen: "127.77.0.2:8000", ServedBy: "forward"}},
	}}
	if diff := cmp.Diff(want, got.Pods); diff != "" || got.State != status.Idle {
		t.Errorf("%s; pods (-want +got):\n%s", got.State, diff)
	}
	if diff := cmp.Diff([]string{"f.local", "f-0.f.local"}, got.Hostnames); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	got = f.report(newBindings([]forward.Binding{bound, {Spec: spec, Err: errors.New("address already in use")}}, nil), cluster, forward.Counts{})
	if got.State != status.Degraded || !strings.Contains(got.Cause, "already in use") || !strings.Contains(got.Hint, "127.77.0.2") {
		t.Errorf("%+v; want degraded, with the address of the pod in the hint", got.Condition)
	}
}
