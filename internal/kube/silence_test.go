package kube_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/status"
)

// slowly is a Timing of which nothing comes by itself while a test runs.
var slowly = kube.Timing{
	Watch: time.Hour, Quiet: time.Hour, Answer: time.Second, Ping: time.Hour, Pong: time.Second,
	Retry: time.Hour, RetryInUse: time.Hour, RetryIdle: time.Hour, RetryDenied: time.Hour,
}

// After a sleep, or with another network, nothing waits for its turn.
func TestProbeNow(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) (*harness, forward.Target, forward.Conn) {
		t.Helper()
		t.Parallel()
		h := newHarness(t, demo.Options{})
		h.Timing = slowly
		target := h.use("task-tcp", 9000)
		_, c := h.open(t, target)
		echo(t, c)
		h.await(t, target.Workload, status.Ready)
		return h, target, c
	}
	t.Run("nothing is wrong", func(t *testing.T) {
		h, target, c := start(t)
		asked := len(h.Requests())
		h.ProbeNow()
		await.Until(t, "a check", func() bool { return len(h.Requests()) > asked })
		echo(t, c)
		h.await(t, target.Workload, status.Ready)
	})
	t.Run("packets are lost", func(t *testing.T) {
		h, target, c := start(t)
		defer h.DropPackets()()
		ended := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
		await.Until(t, "the connection to end", func() bool {
			h.ProbeNow() // something may still have been on its way when it was called first
			return len(ended) > 0
		})
		if err := <-ended; !errors.Is(err, forward.ErrInterrupted) {
			t.Errorf("read: %v; want ErrInterrupted", err)
		}
		h.await(t, target.Workload, status.Offline)
	})
	t.Run("packets are lost of a connection that outlived its credentials", func(t *testing.T) {
		h, _, c := start(t)
		h.rotate(t)
		echo(t, c)
		defer h.DropPackets()()
		ended := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
		await.Until(t, "the connection to end", func() bool {
			h.ProbeNow()
			return len(ended) > 0
		})
	})
	t.Run("the API server is back", func(t *testing.T) {
		h, target, _ := start(t)
		becomes := func(offline bool) {
			t.Helper()
			await.Until(t, "a change of the state", func() bool {
				h.ProbeNow() // what was asked before may be under way
				return (h.Report(target.Workload).State == status.Offline) == offline
			})
		}
		h.StopAPI()
		becomes(true)
		if err := h.StartAPI(); err != nil {
			t.Fatal(err)
		}
		becomes(false)
		_, c := h.open(t, target)
		echo(t, c)
	})
	t.Run("the node is back", func(t *testing.T) {
		h, target, c := start(t)
		c.Close()
		back := h.StopKubelet()
		await.Until(t, "the upgraded connections to break", func() bool { return len(h.Upgrades()) == 0 })
		for range 4 { // whichever pod it is, it will have had its turn
			if e, err := h.Pick(cancelled(t), target); err == nil {
				if c, err := h.Dial(t.Context(), e); err == nil {
					c.Close()
				}
			}
		}
		if _, err := h.Pick(cancelled(t), target); err == nil {
			t.Error("a pod that cannot be reached is picked")
		}
		back()
		h.ProbeNow()
		_, again := h.open(t, target)
		echo(t, again)
	})
	t.Run("a context that cannot be used", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, demo.Options{})
		w := h.workload(forward.Service, "task-tcp")
		w.Context = "none"
		h.Use([]forward.Workload{w})
		h.ProbeNow()
		h.await(t, w, status.NotFound)
	})
}

// cancelled is a context for who does not want to wait.
func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// A relay passes connections on to an address. It can lose the path of those
// that there are, which stay open, and pass on new ones as before.
type relay struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu    sync.Mutex // guards the following
	lost  *atomic.Bool
	conns []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, to: to, lost: new(atomic.Bool)}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.running.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", r.to)
		if err != nil {
			near.Close()
			continue
		}
		r.mu.Lock()
		lost := r.lost
		r.conns = append(r.conns, near, far)
		r.mu.Unlock()
		r.running.Go(func() { pass(far, near, lost) })
		r.running.Go(func() { pass(near, far, lost) })
	}
}

// pass copies until the path is lost, and then swallows all, the end too.
func pass(to, from net.Conn, lost *atomic.Bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !lost.Load() {
			to.Write(buf[:n])
			if err != nil {
				to.Close()
			}
		}
		if err != nil {
			return
		}
	}
}

// lose loses the path of all connections that there are.
func (r *relay) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost.Store(true)
	r.lost = new(atomic.Bool)
}

// A watch whose connection is dead is made anew, although no question shows
// that it is: nobody uses the cluster, and requests would get through.
func TestDeadWatch(t *testing.T) {
	t.Parallel()
	h := newHarness(t, demo.Options{})
	config := h.Kubeconfig(demo.Kubeconfig{Context: "demo", Namespace: "task-api"})
	cluster := config.Clusters[config.Contexts["demo"].Cluster]
	r := newRelay(t, strings.TrimPrefix(cluster.Server, "https://"))
	cluster.Server = "https://" + r.listener.Addr().String()
	if err := clientcmd.WriteToFile(*config, h.kubeconfig); err != nil {
		t.Fatal(err)
	}
	h.Timing = slowly
	h.Timing.Retry, h.Timing.Ping, h.Timing.Pong = 10*time.Millisecond, 100*time.Millisecond, 2*time.Second
	target := h.use("task-tcp", 9000)
	if before := h.await(t, target.Workload, status.Idle); before.Total != 2 {
		t.Fatalf("%d pods; want 2", before.Total)
	}
	r.lose()
	if err := h.Scale("task-api", "task-api", 1); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "the change to be seen", func() bool { return h.Report(target.Workload).Total == 1 })
	if got := h.Report(target.Workload).State; got != status.Idle {
		t.Errorf("state %s; want idle", got)
	}
}
