//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/status"
)

// nobody is a user without any privilege.
const nobody = 65534

// The main job, as root, who may bind low ports, and as somebody who may not.
func TestMainJob(t *testing.T) {
	settle(t)
	uids := map[string]int{"as the user who runs the test": 0}
	if os.Getuid() == 0 {
		uids["as a user without privileges"] = nobody
	}
	for name, uid := range uids {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, uid)
			u.start()
			began := time.Now()
			out := u.run("tunnelctl", "add", "task-api", "--wait")
			f := u.status("task-api")
			body, err := u.curl(f, f.URL+"/health")
			took := time.Since(began)
			if err != nil || body != `{"status": "healthy"}` {
				t.Fatalf("curl %s/health: %q, %v\n%s", f.URL, body, err, out)
			}
			t.Logf("from tunnelctl add to the first byte: %v", took.Round(time.Millisecond))
			if took > 2*time.Second {
				t.Errorf("from tunnelctl add to the first byte: %v; want less than 2 s", took)
			}
			for _, want := range []string{
				"task-api  ready  service/task-api in namespace task-api of context ", ", 2 of 2 pods\n",
				f.URL, "task-api.local:8000  (" + f.Address + ")", "dev only: your machine, your credentials",
			} {
				if !strings.Contains(out, want) {
					t.Errorf("tunnelctl add does not print %q:\n%s", want, out)
				}
			}

			dns := u.dns()
			addr := u.run("dig", "+short", "@"+dns.Addr().String(), "-p", fmt.Sprint(dns.Port()), "task-api.local")
			if addr != f.Address {
				t.Errorf("dig: %q; want %s", addr, f.Address)
			}
			if body, err := u.try("curl", "-sS", "--max-time", "40", "http://"+listen(t, f, 8000)+"/health"); err != nil || body != `{"status": "healthy"}` {
				t.Errorf("the Service's own port: %q, %v", body, err)
			}
			pods := make(map[string]int)
			for range 10 {
				pod, err := u.pod(f)
				if err != nil {
					t.Fatal(err)
				}
				pods[pod]++
			}
			if len(pods) != 2 {
				t.Errorf("ten requests reached %v; want both pods", pods)
			}

			u.run("tunnelctl", "add", "task-tcp", "--wait")
			tcp := u.status("task-tcp")
			if err := echo(listen(t, tcp, 9000)); err != nil {
				t.Errorf("echo on a raw port: %v", err)
			}
			if len(tcp.Notes) == 0 || !strings.Contains(tcp.Notes[0], "udp-echo) is UDP: not carried") {
				t.Errorf("notes %q; want the UDP port named", tcp.Notes)
			}
			if err := u.stop(syscall.SIGTERM); err != nil {
				t.Errorf("SIGTERM: %v", err)
			}
		})
	}
}

// dns is where the daemon answers DNS.
func (u *user) dns() netip.AddrPort {
	u.t.Helper()
	for line := range strings.Lines(u.run("tunnelctl", "status")) {
		if rest, ok := strings.CutPrefix(line, "DNS on "); ok {
			at, _, _ := strings.Cut(rest, ",")
			at, _, _ = strings.Cut(at, " ")
			return netip.MustParseAddrPort(at)
		}
	}
	u.t.Fatal("status does not say where DNS is")
	return netip.AddrPort{}
}

func TestKindsOfTargets(t *testing.T) {
	settle(t)
	u := newUser(t, 0)
	u.start()
	pod := strings.Fields(kubectl(t, "-n", namespace, "get", "pods", "-l", "app=task-api", "-o", "name"))[0]
	for name, args := range map[string][]string{
		"deploy": {"deployment/task-api", "--port", "9000"},
		"sts":    {"statefulset/task-db"},
		"pod":    {pod, "--port", "9000"},
		"head":   {"task-db"}, // a headless Service
	} {
		u.run("tunnelctl", append([]string{"add", "-n", namespace, "--name", name, "--wait"}, args...)...)
		if err := echo(listen(t, u.status(name), 9000)); err != nil {
			t.Errorf("%s: %v", args[0], err)
		}
	}
	if _, err := u.try("tunnelctl", "add", "task-external", "-n", namespace); err == nil || !strings.Contains(err.Error(), "ExternalName (example.com)") {
		t.Errorf("an ExternalName Service: %v; want it refused by name", err)
	}
}

// A Service without a selector, whose EndpointSlice was written by hand and
// names a pod by its IP only.
func TestServiceWithoutSelector(t *testing.T) {
	settle(t)
	ip := kubectl(t, "-n", namespace, "get", "pods", "-l", "app=task-api", "-o", "jsonpath={.items[0].status.podIP}")
	name := kubectl(t, "-n", namespace, "get", "pods", "-l", "app=task-api", "-o", "jsonpath={.items[0].metadata.name}")
	u := newUser(t, 0)
	u.write("slice.yaml", fmt.Sprintf(`apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: task-manual-1, namespace: task-api, labels: {kubernetes.io/service-name: task-manual}}
addressType: IPv4
endpoints: [{addresses: ["%s"]}]
ports: [{name: http, port: 8000}]
`, ip))
	kubectl(t, "apply", "-f", filepath.Join(u.dir, "slice.yaml"))
	t.Cleanup(func() { kubectl(t, "-n", namespace, "delete", "endpointslice", "task-manual-1") })
	u.start()
	u.run("tunnelctl", "add", "task-manual", "--wait")
	if pod, err := u.pod(u.status("task-manual")); err != nil || pod != name {
		t.Errorf("%q answers, %v; want %s", pod, err, name)
	}
}

// A curl once a second, while the pods go and come back.
func TestRecovers(t *testing.T) {
	tests := []struct {
		name    string
		away    func(t *testing.T, u *user)
		back    func(t *testing.T)
		mayFail int // one may be with a pod that is killed
	}{
		{"scaled to 0 and back to 2", func(t *testing.T, u *user) {
			kubectl(t, "-n", namespace, "scale", "deployment/task-api", "--replicas=0")
			kubectl(t, "-n", namespace, "wait", "--for=delete", "pods", "-l", "app=task-api", "--timeout=120s")
			u.awaitState("task-api", status.NoEndpoints)
		}, func(t *testing.T) {
			kubectl(t, "-n", namespace, "scale", "deployment/task-api", "--replicas=2")
		}, 0},
		{"both pods deleted by force", func(t *testing.T, u *user) {
			kubectl(t, "-n", namespace, "delete", "pods", "-l", "app=task-api", "--force", "--grace-period=0")
		}, func(*testing.T) {}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			settle(t)
			u := newUser(t, 0)
			u.start()
			u.run("tunnelctl", "add", "task-api", "--wait")
			f := u.status("task-api")
			before, err := u.pod(f)
			if err != nil {
				t.Fatal(err)
			}
			requests, stop := u.loop(f)
			tt.away(t, u)
			tt.back(t)
			await.Until(t, "a new pod to answer", func() bool {
				all := requests.get()
				if len(all) < 3 {
					return false
				}
				last := all[len(all)-1]
				return last.err == nil && last.pod != before
			})
			u.awaitState("task-api", status.Ready)
			stop()
			failed := 0
			for _, r := range requests.get() {
				if r.err != nil {
					failed++
					t.Logf("a request failed: %v", r.err)
				}
			}
			t.Logf("%d requests, %d failed", len(requests.get()), failed)
			if failed > tt.mayFail {
				t.Errorf("%d requests failed; want at most %d", failed, tt.mayFail)
			}
			if got := u.status("task-api").Address; got != f.Address {
				t.Errorf("the address changed from %s to %s", f.Address, got)
			}
		})
	}
}

type result struct {
	pod string
	err error
}

// results are what became of the requests so far.
type results struct {
	mu  sync.Mutex // guards the following
	all []result
}

func (r *results) add(one result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
}

func (r *results) get() []result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// loop makes a request every second, one after the other, until stop is
// called, which waits.
func (u *user) loop(f status.Forward) (r *results, stop func()) {
	r = new(results)
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			pod, err := u.pod(f)
			r.add(result{pod, err})
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(done)
		running.Wait()
	})
	u.t.Cleanup(stop)
	return r, stop
}

// kill -9 of the daemon and a new start: the same addresses, the same CA, the
// forwards back in less than two seconds.
func TestKilledDaemonComesBack(t *testing.T) {
	settle(t)
	u := newUser(t, 0)
	u.start()
	u.run("tunnelctl", "add", "task-api", "--wait")
	u.run("tunnelctl", "add", "task-tcp", "--wait")
	api, tcp := u.status("task-api"), u.status("task-tcp")
	if _, err := u.curl(api, api.URL+"/health"); err != nil { // remembers the CA
		t.Fatal(err)
	}
	if err := u.stop(syscall.SIGKILL); err == nil {
		t.Fatal("a killed daemon ended well")
	}
	began := time.Now()
	u.start()
	if body, err := u.curl(api, api.URL+"/health"); err != nil || body != `{"status": "healthy"}` {
		t.Errorf("with the old address and the old CA: %q, %v", body, err)
	}
	if err := echo(listen(t, tcp, 9000)); err != nil {
		t.Errorf("echo on the old address: %v", err)
	}
	took := time.Since(began)
	t.Logf("from the new start to both answers: %v", took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Errorf("the forwards came back after %v; want less than 2 s", took)
	}
}

// The API server is killed and started again. It takes the cluster of
// test/cluster.
func TestAPIServerRestart(t *testing.T) {
	script := os.Getenv("TUNNELD_CLUSTER")
	if script == "" {
		t.Skip("TUNNELD_CLUSTER does not name test/cluster's script, which can restart its API server")
	}
	settle(t)
	u := newUser(t, 0)
	u.start()
	u.run("tunnelctl", "add", "task-tcp", "--wait")
	f := u.status("task-tcp")
	if err := echo(listen(t, f, 9000)); err != nil {
		t.Fatal(err)
	}
	pid, err := exec.Command(script, "pid", "kube-apiserver").Output()
	if err != nil {
		t.Fatal(err)
	}
	u.run("kill", "-9", strings.TrimSpace(string(pid)))
	u.awaitState("task-tcp", status.Offline)
	if out, err := exec.Command(script, "apiserver").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	began := time.Now()
	u.awaitState("task-tcp", status.Ready)
	t.Logf("ready %v after the API server was", time.Since(began).Round(time.Millisecond))
	if err := echo(listen(t, f, 9000)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
