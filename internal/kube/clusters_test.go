package kube_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/status"
)

// quick makes the clusters' watching as fast as tests need it.
var quick = kube.Timing{
	Watch: 20 * time.Millisecond, Quiet: 50 * time.Millisecond, Answer: 500 * time.Millisecond,
	Ping: 50 * time.Millisecond, Pong: 3 * time.Second, // which a busy machine keeps
	Retry: 10 * time.Millisecond, RetryInUse: 50 * time.Millisecond, RetryIdle: 100 * time.Millisecond, RetryDenied: 50 * time.Millisecond,
}

type harness struct {
	*demo.Cluster
	*kube.Clusters
	kubeconfig string
}

func newHarness(t *testing.T, o demo.Options) *harness {
	t.Helper()
	c, err := demo.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Run(demo.TaskAPI()...); err != nil {
		t.Fatal(err)
	}
	h := &harness{Cluster: c, Clusters: &kube.Clusters{Timing: quick}, kubeconfig: filepath.Join(t.TempDir(), "config")}
	t.Cleanup(func() { h.Clusters.Close() })
	h.writeKubeconfig(t)
	return h
}

func (h *harness) writeKubeconfig(t *testing.T) {
	t.Helper()
	if err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Namespace: "task-api"}); err != nil {
		t.Fatal(err)
	}
}

func (h *harness) workload(kind forward.Kind, name string) forward.Workload {
	return forward.Workload{Kubeconfig: h.kubeconfig, Context: "demo", Namespace: "task-api", Kind: kind, Name: name}
}

// use configures a Service, and returns its target.
func (h *harness) use(name string, port uint16) forward.Target {
	w := h.workload(forward.Service, name)
	h.Use([]forward.Workload{w})
	return forward.Target{Workload: w, Port: port}
}

func (h *harness) await(t *testing.T, w forward.Workload, want status.State) kube.Report {
	t.Helper()
	var r kube.Report
	await.Until(t, string(want)+" of "+w.Ref(), func() bool {
		r = h.Report(w)
		return r.State == want
	})
	return r
}

// open opens a connection, and has the test close it.
func (h *harness) open(t *testing.T, target forward.Target) (forward.Endpoint, forward.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	e, err := h.Pick(ctx, target)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Dial(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return e, c
}

func echo(t *testing.T, c io.ReadWriter) {
	t.Helper()
	io.WriteString(c, "hello")
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Fatalf("echo: %q, %v", got, err)
	}
}

func TestReport(t *testing.T) {
	for _, old := range []bool{false, true} {
		name := "a current API server"
		if old {
			name = "an API server without WatchList"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, demo.Options{OldServer: old})
			web, db, tcp := h.workload(forward.Deployment, "task-api"), h.workload(forward.StatefulSet, "task-db"), h.workload(forward.Service, "task-tcp")
			empty, none := h.workload(forward.Service, "task-empty"), h.workload(forward.Service, "none")
			pod := h.workload(forward.Pod, h.Pods("task-api", "task-api")[0])
			byHand, headless := h.workload(forward.Service, "by-hand"), h.workload(forward.Service, "task-db")
			err := h.Apply(&corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: "task-api", Name: "by-hand"},
				Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			h.Use([]forward.Workload{web, db, headless, tcp, empty, byHand, none, pod})

			http := []kube.Port{{Name: "http", Number: 8000}}
			// The pods declare what all Services over them lead to.
			containers := append(slices.Clone(http), kube.Port{Number: 9000}, kube.Port{Number: 9001}, kube.Port{Number: 9002})
			undeclared := []string{"port 9003 is UDP: not carried, since port-forward carries TCP only"}
			echoPorts := []kube.Port{{Name: "tcp-echo", Number: 9000}, {Name: "tcp-source", Number: 9001}, {Name: "tcp-sink", Number: 9002}}
			udp := []string{"port 9003 (udp-echo) is UDP: not carried, since port-forward carries TCP only"}
			idle := func(n int, notes []string, ports ...kube.Port) kube.Report {
				return kube.Report{Condition: status.Condition{State: status.Idle}, Seen: true, Whole: true, Ports: ports, Notes: notes, Ready: n, Total: n}
			}
			named := func(r kube.Report) kube.Report {
				r.Pods, r.Subdomain = []kube.Pod{{Hostname: "task-db-0", Ready: true}, {Hostname: "task-db-1", Ready: true}}, "task-db"
				return r
			}
			for _, tt := range []struct {
				w     forward.Workload
				state status.State
				want  kube.Report
			}{
				{web, status.Idle, idle(2, undeclared, containers...)},
				{db, status.Idle, named(idle(2, nil, kube.Port{Number: 9000}))},
				{headless, status.Idle, named(idle(2, nil, kube.Port{Name: "tcp-db", Number: 9000}))},
				{tcp, status.Idle, idle(2, udp, echoPorts...)},
				{pod, status.Idle, idle(1, undeclared, containers...)},
				{empty, status.NoEndpoints, kube.Report{Condition: status.Condition{
					State: status.NoEndpoints, Cause: "no pod is selected by service/task-empty in namespace task-api",
				}, Seen: true, Whole: true, Ports: []kube.Port{{Name: "http", Number: 80}}}},
				{byHand, status.NoEndpoints, kube.Report{Condition: status.Condition{
					State: status.NoEndpoints,
					Cause: "service/by-hand in namespace task-api has no selector, so Kubernetes does not fill its EndpointSlices, and there are none",
				}, Seen: true, Whole: true, Ports: []kube.Port{{Number: 80}}}},
				{none, status.NotFound, kube.Report{Condition: status.Condition{
					State: status.NotFound, Cause: "there is no service/none in namespace task-api of context demo",
				}}},
			} {
				got := h.await(t, tt.w, tt.state)
				if tt.state != status.Idle && got.Hint == "" {
					t.Errorf("%s: no hint", tt.w.Ref())
				}
				got.Hint = ""
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tt.w.Ref(), diff)
				}
			}
		})
	}
}

// Only what is in use is read, in its namespace only, and nothing is written.
func TestReadsOnlyWhatIsInUse(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	seen := make(map[string]bool)
	for _, r := range h.Requests() {
		resource := strings.TrimSuffix(r.Resource+"/"+r.Subresource, "/")
		if r.Resource == "" {
			resource = r.Path
		}
		seen[r.Verb+" "+resource+" in "+r.Namespace] = true
	}
	var got []string
	for s := range seen {
		if s != "get /version in " {
			got = append(got, s)
		}
	}
	slices.Sort(got)
	want := []string{
		"get pods/portforward in task-api",    // the WebSocket upgrade
		"create pods/portforward in task-api", // a spare's, over SPDY
		"list endpointslices in task-api", "list services in task-api",
		"watch endpointslices in task-api", "watch services in task-api",
	}
	missing := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return slices.Contains(want, s) })
	if len(missing) > 0 || !slices.Contains(got, want[0]) {
		t.Errorf("requests %q; want none but %q", got, want)
	}
}

func TestBalances(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	t.Run("connections in progress", func(t *testing.T) {
		got := make(map[string]int)
		for range 6 {
			e, c := h.open(t, target)
			echo(t, c)
			got[e.Pod]++
		}
		for pod, n := range got {
			if n != 3 {
				t.Errorf("%d connections to %s; want 3 of 6 each", n, pod)
			}
		}
	})
	t.Run("not those that are only kept", func(t *testing.T) {
		pods := h.Pods("task-api", "task-api")
		kept := make(map[string][]forward.Conn)
		open := func(n int) map[string]int {
			got := make(map[string]int)
			for range n {
				e, c := h.open(t, target)
				kept[e.Pod] = append(kept[e.Pod], c)
				got[e.Pod]++
			}
			return got
		}
		open(12)
		for _, c := range kept[pods[0]] {
			c.SetIdle(true)
			c.SetIdle(true)
		}
		all := slices.Concat(kept[pods[0]], kept[pods[1]])
		if diff := cmp.Diff(map[string]int{pods[0]: 4}, open(4)); diff != "" {
			t.Errorf("with 6 idle and 6 busy (-want +got):\n%s", diff)
		}
		for i, c := range all {
			c.Close()
			if i >= 6 {
				c.SetIdle(true) // too late
			}
		}
		if got := open(8); got[pods[0]] < 1 || got[pods[0]] > 3 {
			t.Errorf("8 more, with 4 busy and none, went to %v; want about the same number on both", got)
		}
	})
	t.Run("past one that stays open", func(t *testing.T) {
		_, stays := h.open(t, target)
		echo(t, stays)
		got := make(map[string]int)
		for range 10 {
			e, c := h.open(t, target)
			got[e.Pod]++
			c.Close()
		}
		if len(got) != 2 {
			t.Errorf("ten connections one after the other went to %v; want both pods", got)
		}
	})
	t.Run("one after the other", func(t *testing.T) {
		got := make(map[string]int)
		for range 10 {
			e, err := h.Pick(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			got[e.Pod]++
		}
		if len(got) != 2 {
			t.Errorf("ten picks went to %v; want both pods", got)
		}
	})
}

func TestTerminatingPodGetsNothingNew(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	e, c := h.open(t, target)
	echo(t, c)
	if err := h.DeletePod("task-api", e.Pod, time.Minute); err != nil {
		t.Fatal(err)
	}
	<-c.Retiring()
	for range 10 {
		next, err := h.Pick(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		if next.UID == e.UID {
			t.Fatal("a terminating pod was picked while another is ready")
		}
	}
	echo(t, c) // the connection that it has lives on
}

// With all pods terminating, those that still serve are used.
func TestServingPodIsBetterThanNone(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	h.await(t, target.Workload, status.Idle)
	pods := h.Pods("task-api", "task-api")
	for _, pod := range pods {
		if err := h.SetReady("task-api", pod, false); err != nil {
			t.Fatal(err)
		}
	}
	h.await(t, target.Workload, status.NoEndpoints)
	for _, pod := range pods {
		h.SetReady("task-api", pod, true)
	}
	h.await(t, target.Workload, status.Idle)
	_, c := h.open(t, target)
	echo(t, c)
}

func TestPickWaitsForAPod(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	if err := h.Scale("task-api", "task-api", 0); err != nil {
		t.Fatal(err)
	}
	h.await(t, target.Workload, status.NoEndpoints)

	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := h.Pick(ctx, target)
	e, ok := errors.AsType[*forward.Error](err)
	if !ok || !errors.Is(err, forward.ErrUnavailable) || e.State != status.NoEndpoints || e.Cause == "" || e.Hint == "" {
		t.Errorf("after the hold: %#v; want ErrUnavailable with state, cause and hint", err)
	}

	picked := make(chan error, 1)
	go func() {
		_, err := h.Pick(t.Context(), target)
		picked <- err
	}()
	if err := h.Scale("task-api", "task-api", 1); err != nil {
		t.Fatal(err)
	}
	if err := <-picked; err != nil {
		t.Errorf("a connection that waited: %v", err)
	}
}

// Who waits for a forward whose ports are not known learns that they are.
func TestPickWithoutAPort(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	pod := h.workload(forward.Pod, h.Pods("task-api", "task-api")[0])
	service := h.workload(forward.Service, "task-tcp")
	h.Use([]forward.Workload{pod, service})
	for _, w := range []forward.Workload{pod, service} {
		_, err := h.Pick(t.Context(), forward.Target{Workload: w})
		e, ok := errors.AsType[*forward.Error](err)
		if !ok || !errors.Is(err, forward.ErrUnavailable) || !errors.Is(err, forward.ErrPortUnknown) || e.State != status.Connecting {
			t.Errorf("%s: %v; want ErrUnavailable and ErrPortUnknown, connecting", w.Ref(), err)
		}
	}
}

func TestPodsDeletedByForce(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	for _, pod := range h.Pods("task-api", "task-api") {
		if err := h.DeletePod("task-api", pod, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection to a deleted pod goes on")
	}
	await.Until(t, "a connection to a new pod", func() bool {
		e, err := h.Pick(t.Context(), target)
		if err != nil {
			return false
		}
		c, err := h.Dial(t.Context(), e)
		if err != nil {
			return false
		}
		defer c.Close()
		io.WriteString(c, "x")
		_, err = io.ReadFull(c, make([]byte, 1))
		return err == nil
	})
}

func TestRefusedPortDegrades(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	h.Scale("task-api", "task-api", 1)
	await.Until(t, "one pod", func() bool { return h.Report(target.Workload).Total == 1 })
	undo, err := h.RefusePort("task-api", h.Pods("task-api", "task-api")[0], 9000)
	if err != nil {
		t.Fatal(err)
	}
	e, c := h.open(t, target)
	_, err = c.Read(make([]byte, 1))
	failed, ok := errors.AsType[*forward.Error](err)
	if !ok || !errors.Is(err, forward.ErrRefused) || !strings.Contains(failed.Cause, e.Pod) {
		t.Errorf("read: %#v; want ErrRefused that names the pod", err)
	}
	c.Close()
	if r := h.await(t, target.Workload, status.Degraded); !strings.Contains(r.Cause, "refuses connections to port 9000") {
		t.Errorf("cause %q", r.Cause)
	}
	undo()
	_, c = h.open(t, target)
	echo(t, c)
	h.await(t, target.Workload, status.Ready)
}

// As many connections as a pod can have are carried. One more waits, and says
// why; so does the state.
func TestCrowdedPod(t *testing.T) { // not beside others, which it would starve
	h := newHarness(t, demo.Options{Linger: 10 * time.Millisecond})
	h.Timing = kube.Timing{} // which is patient
	target := h.use("task-tcp", 9000)
	h.Scale("task-api", "task-api", 1)
	await.Until(t, "one pod", func() bool { return h.Report(target.Workload).Total == 1 })
	const most = 32 + 32*4 // of the 64 upgraded connections, half are shared
	var e forward.Endpoint
	var all []forward.Conn
	for range most {
		var c forward.Conn
		e, c = h.open(t, target)
		echo(t, c)
		all = append(all, c)
	}
	h.await(t, target.Workload, status.Ready)
	limited, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := h.Dial(limited, e)
		done <- err
	}()
	cause := fmt.Sprintf("pod %s has %d connections", e.Pod, most)
	if r := h.await(t, target.Workload, status.Degraded); !strings.Contains(r.Cause, cause) {
		t.Errorf("while one waits: cause %q", r.Cause)
	}
	err := <-done
	failed, ok := errors.AsType[*forward.Error](err)
	if !ok || !errors.Is(err, forward.ErrNotDelivered) || !strings.Contains(failed.Cause, cause) || failed.Hint == "" {
		t.Errorf("one too many: %#v; want ErrNotDelivered that says why, and a hint", err)
	}
	for _, c := range all {
		c.Close()
	}
	_, c := h.open(t, target)
	echo(t, c)
	h.await(t, target.Workload, status.Ready)
}

func TestUpgradeFailures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		fault func(h *harness) (undo func())
		state status.State
		cause string
		kind  error
	}{
		{"forbidden", func(h *harness) func() {
			return h.Forbid(demo.Rule{Verb: "create", Resource: "pods", Subresource: "portforward"})
		}, status.Forbidden, `cannot create resource "pods/portforward"`, forward.ErrUnavailable},
		{"kubelet down", func(h *harness) func() { return h.StopKubelet() }, status.Degraded, "error dialing backend", forward.ErrNotDelivered},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, demo.Options{})
			target := h.use("task-tcp", 9000)
			h.await(t, target.Workload, status.Idle)
			undo := tt.fault(h)
			e, err := h.Pick(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Dial(t.Context(), e); !errors.Is(err, tt.kind) {
				t.Errorf("dial: %v; want %v", err, tt.kind)
			}
			if r := h.await(t, target.Workload, tt.state); !strings.Contains(r.Cause, tt.cause) {
				t.Errorf("cause %q; want it to say %q", r.Cause, tt.cause)
			}
			undo()
			// In use, it finds out by itself.
			h.await(t, target.Workload, status.Ready)
		})
	}
}

func TestForbiddenToRead(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	undo := h.Forbid(demo.Rule{Verb: "*", Resource: "endpointslices"})
	target := h.use("task-tcp", 9000)
	r := h.await(t, target.Workload, status.Forbidden)
	if !strings.Contains(r.Cause, `resource "endpointslices"`) || !strings.Contains(r.Cause, "cannot list") && !strings.Contains(r.Cause, "cannot watch") || r.Hint == "" {
		t.Errorf("cause %q, hint %q; want verb and resource", r.Cause, r.Hint)
	}
	if _, err := h.Pick(t.Context(), target); !errors.Is(err, forward.ErrUnavailable) {
		t.Errorf("pick: %v; want ErrUnavailable at once: waiting does not help", err)
	}
	undo()
	h.await(t, target.Workload, status.Ready) // in use, since somebody asked for it
}

func TestExpiredToken(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	h.ExpireTokens()
	r := h.await(t, target.Workload, status.NeedsLogin) // in use, it is noticed
	if !strings.Contains(r.Cause, "context demo") || r.Hint == "" {
		t.Errorf("cause %q, hint %q", r.Cause, r.Hint)
	}
	echo(t, c) // what is open stays open
	h.IssueToken(demo.DefaultUser)
	h.writeKubeconfig(t)
	h.await(t, target.Workload, status.Ready) // the new token is found
	_, c = h.open(t, target)
	echo(t, c)
}

func TestAPIServerRestart(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	h.StopAPI()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives the API server")
	}
	r := h.await(t, target.Workload, status.Offline)
	if !strings.Contains(r.Cause, strings.TrimPrefix(h.URL(), "https://")) || r.Hint == "" {
		t.Errorf("cause %q, hint %q; want the server's address", r.Cause, r.Hint)
	}
	picked := make(chan error, 1)
	go func() {
		_, err := h.Pick(t.Context(), target)
		picked <- err
	}()
	if err := h.StartAPI(); err != nil {
		t.Fatal(err)
	}
	if err := <-picked; err != nil {
		t.Errorf("a connection that waited: %v", err)
	}
	h.await(t, target.Workload, status.Ready)
	// What happened meanwhile is seen.
	if err := h.Scale("task-api", "task-api", 0); err != nil {
		t.Fatal(err)
	}
	h.await(t, target.Workload, status.NoEndpoints)
}

func TestDeadLink(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	undo := h.DropPackets()
	if r := h.await(t, target.Workload, status.Offline); !strings.Contains(r.Cause, "has not answered since") {
		t.Errorf("cause %q", r.Cause)
	}
	undo()
	h.await(t, target.Workload, status.Ready)
	_, c = h.open(t, target)
	echo(t, c)
}

func TestProbe(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	h.await(t, target.Workload, status.Idle)
	if err := h.Probe(t.Context(), target.Workload); err != nil {
		t.Fatal(err)
	}
	h.await(t, target.Workload, status.Ready)
	if n := h.Dials("task-api", "", 9000); n != 0 {
		t.Errorf("the app was dialled %d times", n)
	}
}

// A forward that nobody uses holds no upstream, and is idle.
func TestBecomesIdle(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	h.Timing.InUse = 100 * time.Millisecond
	target := h.use("task-tcp", 9000)
	h.await(t, target.Workload, status.Idle)
	_, c := h.open(t, target)
	echo(t, c)
	h.await(t, target.Workload, status.Ready)
	c.Close()
	h.await(t, target.Workload, status.Idle)
	await.Until(t, "no upstream", func() bool { return len(h.Upgrades()) == 0 })
}

func TestSelectorlessService(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	var ip string
	pod := h.Pods("task-api", "task-api")[0]
	for _, w := range []forward.Workload{h.workload(forward.Service, "task-tcp")} {
		h.Use([]forward.Workload{w})
		h.await(t, w, status.Idle)
	}
	ip = podIP(t, h, pod)
	port, name := int32(9000), ""
	err := h.Apply(
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "task-api", Name: "manual"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}},
		&discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "task-api", Name: "manual-1", Labels: map[string]string{discoveryv1.LabelServiceName: "manual"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{ip}}},
		})
	if err != nil {
		t.Fatal(err)
	}
	target := h.use("manual", 80)
	h.await(t, target.Workload, status.Idle)
	e, c := h.open(t, target)
	echo(t, c)
	if e.Pod != pod || e.Port != 9000 {
		t.Errorf("went to %+v; want port 9000 of the pod with that IP, %s", e, pod)
	}
}

// podIP asks the API server for a pod's IP.
func podIP(t *testing.T, h *harness, name string) string {
	t.Helper()
	pod, err := getPod(h.RESTConfig(), "task-api", name)
	if err != nil {
		t.Fatal(err)
	}
	return pod.Status.PodIP
}

func TestClustersAreToldApartByTheirFile(t *testing.T) {
	t.Parallel()
	one, two := newHarness(t, demo.Options{}), newHarness(t, demo.Options{})
	a, b := one.workload(forward.Service, "task-tcp"), two.workload(forward.Service, "task-tcp")
	one.Use([]forward.Workload{a, b})
	one.await(t, a, status.Idle)
	one.await(t, b, status.Idle)
	two.StopAPI()
	one.await(t, b, status.Offline)
	if got := one.Report(a).State; got != status.Idle {
		t.Errorf("the other cluster of that name is %s; want idle", got)
	}
	states := make(map[string]status.State)
	for _, c := range one.Clusters.Clusters() {
		states[c.Kubeconfig] = c.State
	}
	if diff := cmp.Diff(map[string]status.State{a.Kubeconfig: status.Ready, b.Kubeconfig: status.Offline}, states); diff != "" {
		t.Errorf("clusters (-want +got):\n%s", diff)
	}
	one.Use(nil)
	if n := len(one.Clusters.Clusters()); n != 0 {
		t.Errorf("%d clusters are followed although none is used", n)
	}
}

func TestKubeconfigThatComesLater(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	w := h.workload(forward.Service, "task-tcp")
	w.Kubeconfig = filepath.Join(t.TempDir(), "later")
	h.Use([]forward.Workload{w})
	if r := h.await(t, w, status.Failed); !strings.Contains(r.Cause, "there is no kubeconfig at "+w.Kubeconfig) {
		t.Errorf("cause %q", r.Cause)
	}
	w2 := h.workload(forward.Service, "task-tcp")
	w2.Context = "dmeo"
	h.Use([]forward.Workload{w, w2})
	if r := h.await(t, w2, status.NotFound); !strings.Contains(r.Cause, `no context "dmeo"`) || !strings.Contains(r.Hint, "demo") {
		t.Errorf("cause %q, hint %q", r.Cause, r.Hint)
	}
	if err := h.WriteKubeconfig(w.Kubeconfig, demo.Kubeconfig{Context: "demo"}); err != nil {
		t.Fatal(err)
	}
	h.Reload()
	h.await(t, w, status.Idle)
}

// An exec plugin that fails is a login that is needed, not a network failure.
func TestPluginFailure(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Exec: failingPlugin})
	if err != nil {
		t.Fatal(err)
	}
	w := h.workload(forward.Service, "task-tcp")
	h.Use([]forward.Workload{w})
	r := h.await(t, w, status.NeedsLogin)
	if !strings.Contains(r.Cause, "no-such-plugin") {
		t.Errorf("cause %q; want the plugin's name", r.Cause)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	target := h.use("task-tcp", 9000)
	_, c := h.open(t, target)
	echo(t, c)
	h.Clusters.Close()
	h.Clusters.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives Close")
	}
	if _, err := h.Pick(t.Context(), target); !errors.Is(err, forward.ErrUnavailable) {
		t.Errorf("pick after Close: %v", err)
	}
}
