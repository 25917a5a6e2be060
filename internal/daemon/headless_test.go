package daemon_test

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/status"
)

// awaitPods waits until a forward has pods with names, of which so many are
// ready.
func (h *harness) awaitPods(t *testing.T, name string, ready int) status.Forward {
	t.Helper()
	var f status.Forward
	await.Until(t, "the pods' names", func() bool {
		f = h.forward(t, name)
		n := 0
		for _, pod := range f.Pods {
			if pod.Ready {
				n++
			}
		}
		return len(f.Pods) == 2 && n == ready
	})
	return f
}

// Each pod of a headless Service, and of a StatefulSet, by its own name: DNS,
// raw TCP, and HTTP with a certificate.
func TestPodNames(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	peers := demo.App{
		Namespace: "task-api", Name: "peers", StatefulSet: true, Headless: true, Replicas: 2,
		Ports: []demo.AppPort{{Name: "http", Port: 8000}, {Name: "tcp-echo", Port: 9000}},
	}
	if err := h.Run(peers); err != nil {
		t.Fatal(err)
	}
	h.configure(t, "addresses: "+nextRange(), "name: peers, target: peers", "name: set, target: statefulset/peers")
	if err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	cluster := []string{"peers-0.peers.task-api.svc.cluster.local", "peers-1.peers.task-api.svc.cluster.local"}
	for _, forward := range []string{"peers", "set"} {
		f := h.awaitPods(t, forward, 2)
		if f.Pods[0].Address == f.Pods[1].Address || f.Pods[0].Address == f.Address {
			t.Errorf("%s: addresses %s, %s and %s are not three", forward, f.Address, f.Pods[0].Address, f.Pods[1].Address)
		}
		for i, pod := range f.Pods {
			want := []string{pod.Name + "." + forward + ".local", pod.Name + "." + forward + ".localhost"}
			if forward == "peers" { // which comes first
				want = append(want, cluster[i])
			}
			if diff := cmp.Diff(want, pod.Hostnames); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			for _, name := range pod.Hostnames {
				if rcode, addrs := h.lookup(t, name); rcode != dns.RcodeSuccess || !slices.Equal(addrs, []string{pod.Address}) {
					t.Errorf("%s resolves to %v (%s); want %s", name, addrs, dns.RcodeToString[rcode], pod.Address)
				}
				if !slices.Contains(f.Hostnames, name) {
					t.Errorf("%s is not among the forward's names", name)
				}
			}
			before := h.Dials("task-api", pod.Name, 9000)
			for range 3 {
				if err := echo(listenOf(t, pod, 9000)); err != nil {
					t.Errorf("echo of %s: %v", pod.Name, err)
				}
			}
			if n := h.Dials("task-api", pod.Name, 9000) - before; n != 3 {
				t.Errorf("%d of 3 connections to %s reached it", n, pod.Name)
			}
			at := f
			at.Address = pod.Address
			c := h.client(t, at)
			_, port, _ := net.SplitHostPort(listenOf(t, pod, 8000))
			if !strings.HasPrefix(pod.URL, "https://"+pod.Hostnames[0]+":") {
				t.Errorf("the URL of %s is %s", pod.Hostnames[0], pod.URL)
			}
			for _, base := range []string{pod.URL, "http://" + pod.Hostnames[0] + ":" + port} {
				if got := answering(t, c, base); got != pod.Name {
					t.Errorf("%s is answered by %s", base, got)
				}
			}
		}
	}

	f := h.awaitPods(t, "peers", 2)
	for _, name := range []string{"peers-2.peers.local", "x.peers-0.peers.local", "peers-2.peers.localhost", "peers-2.peers.task-api.svc.cluster.local"} {
		if rcode, addrs := h.lookup(t, name); rcode != dns.RcodeNameError {
			t.Errorf("%s, which is no pod: %s %v; want NXDOMAIN", name, dns.RcodeToString[rcode], addrs)
		}
	}
	// The shared listeners, to which browsers take the .localhost names, find
	// the pod; the other pod's address does not serve it.
	shared := f
	shared.Address = "127.0.0.1"
	aliases := 0
	for _, base := range f.URLs {
		if strings.Contains(base, "//peers.localhost") {
			aliases++
			base = strings.Replace(base, "//peers.", "//peers-0.peers.", 1)
			if got := answering(t, h.client(t, shared), base); got != "peers-0" {
				t.Errorf("%s is answered by %s", base, got)
			}
		}
	}
	if aliases != 2 {
		t.Errorf("%d URLs of %q are below .localhost; want HTTPS and HTTP", aliases, f.URLs)
	}
	other := f
	other.Address = f.Pods[1].Address
	foreign := strings.Replace(f.Pods[1].URL, "//peers-1.", "//peers-0.", 1)
	if code, _, err := get(h.client(t, other), foreign); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("%s on the other pod's address: %d, %v; want unrecognized_name", foreign, code, err)
	}
}

// answering tells which pod answers.
func answering(t *testing.T, c *http.Client, base string) string {
	t.Helper()
	code, body, err := get(c, base)
	var answer struct{ Pod string }
	if err == nil {
		err = json.Unmarshal([]byte(body), &answer)
	}
	if err != nil {
		t.Errorf("%s: %d %s, %v", base, code, body, err)
	}
	return answer.Pod
}

// A pod's name, address and listener stay while it is away, and over a new start
// while the cluster says nothing; they go with the forward.
func TestPodNamesStay(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: task-db, target: task-db")
	first := h.awaitPods(t, "task-db", 2)
	pod := first.Pods[1]
	where := func(f status.Forward) (all []string) {
		for _, pod := range f.Pods {
			all = append(all, pod.Address, listenOf(t, pod, 9000))
		}
		return all
	}
	if err := h.Scale("task-api", "task-db", 1); err != nil {
		t.Fatal(err)
	}
	f := h.awaitPods(t, "task-db", 1)
	if diff := cmp.Diff(where(first), where(f)); diff != "" {
		t.Errorf("while one is away (-before +now):\n%s", diff)
	}
	if _, addrs := h.lookup(t, pod.Hostnames[0]); !slices.Equal(addrs, []string{pod.Address}) {
		t.Errorf("it resolves to %v; want %s", addrs, pod.Address)
	}
	arrived := make(chan error, 1)
	go func() { arrived <- echo(listenOf(t, pod, 9000)) }()
	await.Until(t, "the connection to wait", func() bool { return h.forward(t, "task-db").Connections.Active == 1 })
	if err := echo(listenOf(t, first.Pods[0], 9000)); err != nil {
		t.Errorf("the other one: %v", err)
	}
	if err := h.Scale("task-api", "task-db", 2); err != nil {
		t.Fatal(err)
	}
	if err := <-arrived; err != nil {
		t.Errorf("what waited for it: %v", err)
	}
	if n := h.Dials("task-api", pod.Name, 9000); n != 1 {
		t.Errorf("%d connections reached the pod; want the one that waited", n)
	}

	h.stop()
	h.StopAPI()
	h.start(t)
	f = h.awaitPods(t, "task-db", 0)
	if diff := cmp.Diff(where(first), where(f)); diff != "" {
		t.Errorf("after a new start, while the API server is away (-before +now):\n%s", diff)
	}
	if err := h.StartAPI(); err != nil {
		t.Fatal(err)
	}
	f = h.awaitPods(t, "task-db", 2)
	if err := echo(listenOf(t, f.Pods[1], 9000)); err != nil {
		t.Errorf("when it is back: %v", err)
	}
	if err := h.Client.Remove(t.Context(), "task-db"); err != nil {
		t.Fatal(err)
	}
	if rcode, _ := h.lookup(t, pod.Hostnames[0]); rcode != dns.RcodeRefused {
		t.Errorf("a removed forward's pod: %s; want REFUSED", dns.RcodeToString[rcode])
	}
	if err := echo(listenOf(t, f.Pods[1], 9000)); err == nil {
		t.Error("it still listens")
	}
}

func listenOf(t *testing.T, pod status.Pod, port uint16) string {
	t.Helper()
	i := slices.IndexFunc(pod.Ports, func(p status.Port) bool { return p.Port == port })
	if i < 0 || !strings.HasPrefix(pod.Ports[i].Listen, pod.Address+":") {
		t.Fatalf("pod %s does not listen for port %d at its address %s: %+v", pod.Name, port, pod.Address, pod.Ports)
	}
	return pod.Ports[i].Listen
}
