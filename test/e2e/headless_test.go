//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/status"
)

// awaitPods waits until so many of the two pods of task-db, which a forward
// leads to by name, are ready.
func (u *user) awaitPods(name string, ready int) status.Forward {
	u.t.Helper()
	var f status.Forward
	await.Until(u.t, fmt.Sprintf("%d pods of %s", ready, name), func() bool {
		f = u.status(name)
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

// resolve asks the daemon for a name's address.
func (u *user) resolve(name string) string {
	u.t.Helper()
	dns := u.dns()
	return u.run("dig", "+short", "@"+dns.Addr().String(), "-p", fmt.Sprint(dns.Port()), name)
}

// open opens a connection to an echo, which has answered once when it returns.
func open(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(90 * time.Second))
	if err := again(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// again has an echo answer once more.
func again(c net.Conn) error {
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 6))
	return err
}

// Each pod of a headless Service by its name: the name leads to that very pod,
// and goes on to do so when the pod is replaced.
func TestPodNames(t *testing.T) {
	settle(t)
	t.Cleanup(func() { kubectl(t, "-n", namespace, "rollout", "status", "statefulset/task-db", "--timeout=120s") })
	u := newUser(t, 0)
	u.start()
	u.run("tunnelctl", "add", "task-db", "--wait")
	f := u.awaitPods("task-db", 2)
	for _, pod := range f.Pods {
		want := []string{pod.Name + ".task-db.local", pod.Name + ".task-db.localhost", pod.Name + ".task-db.task-api.svc.cluster.local"}
		if !slices.Equal(pod.Hostnames, want) {
			t.Errorf("%s has the names %q; want %q", pod.Name, pod.Hostnames, want)
		}
		for _, name := range want {
			if addr := u.resolve(name); addr != pod.Address {
				t.Errorf("%s resolves to %q; want %s", name, addr, pod.Address)
			}
		}
	}
	if addr := u.resolve("task-db-2.task-db.task-api.svc.cluster.local"); addr != "" {
		t.Errorf("a pod that there is not has the address %s", addr)
	}

	first, second := open(t, u.resolve(f.Pods[0].Hostnames[0])+":9000"), open(t, u.resolve(f.Pods[1].Hostnames[0])+":9000")
	uid := func() string {
		return kubectl(t, "-n", namespace, "get", "pods", "-l", "statefulset.kubernetes.io/pod-name=task-db-0", "-o", "jsonpath={.items[*].metadata.uid}")
	}
	before := uid()
	kubectl(t, "-n", namespace, "delete", "pod", "task-db-0", "--wait=false")
	await.Until(t, "the pod to go", func() bool { return !u.status("task-db").Pods[0].Ready || uid() != before })
	addr := u.resolve(f.Pods[0].Hostnames[0]) + ":9000"
	await.Until(t, "what arrived while the pod was away", func() bool {
		err := echo(addr)
		// Without a readiness probe, a pod is ready before its app listens.
		early := strings.Contains(u.status("task-db").LastError, "pod task-db-0 refuses connections to port 9000")
		if err != nil && !early {
			t.Fatalf("a connection while the pod was away: %v", err)
		}
		return err == nil
	})
	if now := uid(); now == before || now == "" {
		t.Errorf("what answered was pod %q; want another one than %q", now, before)
	}
	if err := again(first); err == nil {
		t.Error("the connection to the pod that was deleted goes on")
	}
	if err := again(second); err != nil {
		t.Errorf("the connection to the other pod: %v", err)
	}
	if now := u.awaitPods("task-db", 2); now.Pods[0].Address != f.Pods[0].Address || now.Pods[1].Address != f.Pods[1].Address {
		t.Errorf("the addresses were %s and %s, and are %s and %s", f.Pods[0].Address, f.Pods[1].Address, now.Pods[0].Address, now.Pods[1].Address)
	}
}

// A StatefulSet's pods by name, over raw TCP and over the gateway: the app says
// which one it is.
func TestPodNamesOfAStatefulSet(t *testing.T) {
	settle(t)
	u := newUser(t, 0)
	u.start()
	u.run("tunnelctl", "add", "statefulset/task-db", "-n", namespace, "--port", "9000,8000", "--http", "8000", "--wait")
	for _, pod := range u.awaitPods("task-db", 2).Pods {
		at := status.Forward{Name: pod.Name, Hostnames: pod.Hostnames, Address: pod.Address, URL: pod.URL, Ports: pod.Ports}
		if !strings.HasPrefix(pod.URL, "https://"+pod.Name+".task-db.local") {
			t.Errorf("the URL of %s is %q", pod.Name, pod.URL)
		}
		for range 4 {
			if got, err := u.pod(at); err != nil || got != pod.Name {
				t.Errorf("%s is answered by %q, %v", pod.URL, got, err)
			}
		}
		text := u.run("curl", "-sS", "--fail", "--max-time", "40", "http://"+listen(t, at, 8000)+"/")
		var answer struct{ Pod string }
		if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Pod != pod.Name {
			t.Errorf("port 8000 of %s is answered by %q, %v", pod.Name, answer.Pod, err)
		}
		if err := echo(listen(t, at, 9000)); err != nil {
			t.Errorf("port 9000 of %s: %v", pod.Name, err)
		}
	}
}
