package kube

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

// good are the facts of a workload with which nothing is wrong.
func good() facts {
	return facts{
		workload: forward.Workload{Context: "lab", Namespace: "ns", Kind: forward.Service, Name: "app"},
		now:      time.Now(),
		cluster:  status.Condition{State: status.Ready},
		complete: true,
		view:     view{exists: true, backends: []backend{{pod: "a", ready: true, serving: true}}},
		proven:   time.Now(),
		leases:   1,
	}
}

// wrongs are all that can be wrong, in the order of precedence: each makes its
// state hold, whatever comes after it.
var wrongs = []struct {
	name  string
	state status.State
	cause string
	apply func(*facts)
}{
	{"bad certificate", status.Failed, "bad CA", func(f *facts) { f.cluster = status.Condition{State: status.Failed, Cause: "bad CA"} }},
	{"401", status.NeedsLogin, "expired", func(f *facts) { f.cluster = status.Condition{State: status.NeedsLogin, Cause: "expired"} }},
	{"403", status.Forbidden, "cannot list services", func(f *facts) { f.refusal = errors.New("cannot list services") }},
	{"API server down", status.Offline, "refused", func(f *facts) { f.cluster = status.Condition{State: status.Offline, Cause: "refused"} }},
	{"no such context", status.NotFound, "no context", func(f *facts) { f.cluster = status.Condition{State: status.NotFound, Cause: "no context"} }},
	{"not seen yet", status.Connecting, "reading service/app in namespace ns of context lab", func(f *facts) { f.complete = false }},
	{"no such Service", status.NotFound, "there is no service/app in namespace ns of context lab", func(f *facts) { f.view.exists = false }},
	{"ExternalName", status.NoEndpoints, "goes to pods only", func(f *facts) { f.view.obstacle = "it goes to pods only" }},
	{"no pods", status.NoEndpoints, "no pod is selected by service/app in namespace ns", func(f *facts) { f.view.backends = nil }},
	{"no EndpointSlices", status.NoEndpoints, "service/app in namespace ns has no selector, so Kubernetes does not fill its EndpointSlices, and there are none",
		func(f *facts) { f.view.backends, f.byHand = nil, true }},
	{"empty EndpointSlices", status.NoEndpoints, "does not fill its EndpointSlices, and no endpoint is in them", func(f *facts) { f.view.backends, f.byHand, f.slices = nil, true, 1 }},
	{"no pod ready", status.NoEndpoints, "none of the 1 pods of service/app is ready", func(f *facts) { f.view.backends = []backend{{pod: "a"}} }},
	{"refused", status.Degraded, "pod a refuses", func(f *facts) { f.fault = "pod a refuses" }},
	{"proven by a lease", status.Ready, "", func(f *facts) { f.leases, f.proven = 1, time.Time{} }},
	{"proven by a ping", status.Ready, "", func(f *facts) { f.leases, f.proven = 0, f.now.Add(-29*time.Second) }},
	{"opening", status.Connecting, "opening a connection to service/app", func(f *facts) { f.leases, f.proven, f.opening = 0, time.Time{}, true }},
	{"unproven lately", status.Idle, "", func(f *facts) { f.leases, f.proven, f.opening = 0, f.now.Add(-31*time.Second), false }},
}

func TestJudgeEach(t *testing.T) {
	for _, tt := range wrongs {
		t.Run(tt.name, func(t *testing.T) {
			f := good()
			tt.apply(&f)
			got := judge(f)
			if got.State != tt.state || !strings.Contains(got.Cause, tt.cause) || (got.Cause == "") != (tt.cause == "") {
				t.Errorf("%s: %q; want %s: %q", got.State, got.Cause, tt.state, tt.cause)
			}
			if got.State == status.NoEndpoints && got.Hint == "" {
				t.Errorf("%q has no hint", got.Cause)
			}
		})
	}
}

// Of any two things that are wrong, the one that comes first is told.
func TestJudgeOrder(t *testing.T) {
	for i, first := range wrongs {
		for _, second := range wrongs[i+1:] {
			f := good()
			second.apply(&f)
			first.apply(&f) // last: both may set the same fact
			if got := judge(f).State; got != first.state {
				t.Errorf("%s and %s: %s; want %s", first.name, second.name, got, first.state)
			}
		}
	}
}

func TestServingPodIsEnough(t *testing.T) {
	f := good()
	f.view.backends = []backend{{pod: "a", serving: true, terminating: true}}
	if got := judge(f).State; got != status.Ready {
		t.Errorf("a terminating pod that serves: %s; want ready", got)
	}
}

// The Role to ask for has what is read for the kind, and no more.
func TestForbiddenHint(t *testing.T) {
	for kind, resources := range map[forward.Kind]string{
		forward.Service:     "services, endpointslices and pods",
		forward.Deployment:  "deployments and pods",
		forward.StatefulSet: "statefulsets and pods",
		forward.Pod:         "pods",
	} {
		f := good()
		f.workload.Kind, f.refusal = kind, errors.New("no")
		want := "ask for a Role in namespace ns that allows it (get, list and watch on " + resources + "; create and get on pods/portforward)"
		if got := judge(f).Hint; got != want {
			t.Errorf("%s: hint %q; want %q", kind, got, want)
		}
	}
}

func TestHintAtEndpointSlices(t *testing.T) {
	f := good()
	f.view.backends, f.byHand = nil, true
	want := "kubectl --context lab -n ns get endpointslices -l kubernetes.io/service-name=app"
	if got := judge(f).Hint; got != want {
		t.Errorf("hint %q; want %q", got, want)
	}
}

// The other pods do not count for one that is named.
func TestAway(t *testing.T) {
	v := view{backends: []backend{
		{pod: "a", hostname: "a", ready: true}, {pod: "b", hostname: "b"},
		{pod: "c", hostname: "c", ready: true, ports: map[uint16]uint16{81: 81}},
		{pod: "d", hostname: "d", serving: true, terminating: true},
	}}
	w := forward.Workload{Namespace: "ns", Kind: forward.Service, Name: "app"}
	for pod, want := range map[string]string{
		"a": "",
		"d": "pod d of service/app is going away, and there is no other of that name yet",
		"b": "pod b of service/app is not ready",
		"c": "pod c of service/app has nothing for port 80",
		"e": "service/app in namespace ns has no pod e now",
	} {
		if c := v.away(forward.Target{Workload: w, Pod: pod, Port: 80}); c.Cause != want || (c.State == status.NoEndpoints) != (want != "") {
			t.Errorf("%s: %+v; want %q", pod, c, want)
		}
	}
}
