package daemon_test

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/status"
)

// However many connections there were, to however many pods, nothing of them
// stays. With TUNNELD_SOAK it is 10,000 connections, and 1,000 pods that are
// replaced by others.
func TestNothingStaysOfConnectionsAndPods(t *testing.T) {
	rounds := 30 // each has 10 connections, and replaces a pod
	if os.Getenv("TUNNELD_SOAK") != "" {
		rounds = 1000
	}
	timing := patient
	timing.InUse = 2 * time.Second // or pods would be forgotten between two connections
	h := newHarness(t, timing,
		"name: tcp, target: service/task-tcp, ports: [9000], http: none",
		"name: web, target: service/task-api, ports: [8000]")
	tcp := h.awaitState(t, "tcp", status.Idle)
	web := h.awaitState(t, "web", status.Idle)
	client := h.client(t, web)

	// Some rounds first, so that all is there that will stay, and memory has been
	// as full as it will be: the race detector keeps its part of that.
	warm := max(rounds/5, 15)
	failed := h.churn(t, warm, tcp, web, client)
	before := h.measure(t, client, math.MaxInt, math.MaxInt)
	failed += h.churn(t, rounds-warm, tcp, web, client)
	after := h.measure(t, client, before.goroutines+10, before.heap+8<<20)

	t.Logf("%d connections, %d of them cut, %d pods: %s, then %s", 10*rounds, failed, rounds, before, after)
	// A round cuts what goes to its pod at the time.
	if failed > 4*rounds {
		t.Errorf("%d of %d connections failed", failed, 10*rounds)
	}
	if n := after.files - before.files; n > 10 {
		t.Errorf("%d open files more", n)
	}
	if n := after.resident - before.resident; n > 64<<20 {
		t.Errorf("%d KiB more resident", n>>10)
	}
	if diff := cmp.Diff(before.addresses, after.addresses); diff != "" {
		t.Errorf("the addresses changed (-before +after):\n%s", diff)
	}
}

// churn replaces a pod in each round, while some connections come and others
// are there, and returns how many failed.
func (h *harness) churn(t *testing.T, rounds int, tcp, web status.Forward, client *http.Client) (failed int) {
	t.Helper()
	raw := tcp.Ports[0].Listen
	var mu sync.Mutex
	note := func(err error) {
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed++
		}
	}
	for i := range rounds {
		var open []net.Conn // while the pod goes
		for range 3 {
			c, err := net.Dial("tcp", raw)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(30 * time.Second))
			io.WriteString(c, "hello")
			_, err = io.ReadFull(c, make([]byte, 5))
			note(err)
			open = append(open, c)
		}
		var running sync.WaitGroup
		for j := range 7 {
			running.Go(func() {
				if j%2 == 0 {
					note(echo(raw))
					return
				}
				code, _, err := get(client, web.URL+"/health")
				note(err)
				if err == nil && code != http.StatusOK && code != http.StatusBadGateway {
					t.Errorf("%s: %d", web.URL, code)
				}
			})
		}
		pods := h.Pods("task-api", "task-api")
		grace := time.Duration(-1) // its own
		if i%2 == 0 {
			grace = 0
		}
		h.DeletePod("task-api", pods[i%len(pods)], grace) // which may be going already
		running.Wait()
		for _, c := range open {
			c.Close()
		}
		await.Until(t, "two pods", func() bool {
			f := h.forward(t, "tcp")
			return f.Endpoints.Ready == 2
		})
	}
	return failed
}

// What a daemon has, and the embedded cluster with it.
type holdings struct {
	goroutines, files, heap, resident int
	addresses                         map[string]string
}

func (h holdings) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d KiB on the heap, %d KiB resident", h.goroutines, h.files, h.heap>>10, h.resident>>10)
}

// measure waits until nobody uses the daemon, and it uses nobody, with no more
// goroutines, and bytes on the heap, than given: the embedded cluster's side of a
// connection, which is a megabyte, ends a little later than ours.
func (h *harness) measure(t *testing.T, client *http.Client, most, heap int) holdings {
	t.Helper()
	client.CloseIdleConnections()
	await.Until(t, "all connections to have ended", func() bool {
		h.KillUpgrades("", "") // the gateway keeps some for the next request
		for _, f := range h.status(t).Forwards {
			if f.Connections.Active > 0 {
				return false
			}
		}
		return len(h.Upgrades()) == 0
	})
	has := holdings{addresses: make(map[string]string)}
	await.Until(t, fmt.Sprintf("at most %d goroutines", most), func() bool {
		has.goroutines = goroutines()
		return has.goroutines <= most
	})
	h.ForgetRequests()
	for _, f := range h.status(t).Forwards {
		has.addresses[f.Name] = f.Address
		for _, p := range f.Ports {
			has.addresses[f.Name+" "+p.Name] = p.Listen
		}
	}
	remembered, err := os.ReadDir(h.path("state"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range remembered {
		data, err := os.ReadFile(filepath.Join(h.path("state"), file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		has.addresses[file.Name()] = string(data)
	}
	await.Until(t, fmt.Sprintf("at most %d KiB on the heap", heap>>10), func() bool {
		var mem runtime.MemStats
		debug.FreeOSMemory() // which collects, too
		runtime.ReadMemStats(&mem)
		has.heap = int(mem.HeapAlloc)
		return has.heap <= heap
	})
	if files, err := os.ReadDir("/proc/self/fd"); err == nil { // on Linux
		has.files = len(files)
	}
	if data, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := strings.Fields(string(data)); len(fields) > 1 {
			has.resident = pages(fields[1])
		}
	}
	return has
}

// goroutines counts them, but for those that the servers' own libraries leave
// behind: see leakcheck.
func goroutines() (n int) {
	stacks := make([]byte, 16<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if !strings.Contains(stack, "github.com/moby/spdystream") && !strings.Contains(stack, "k8s.io/cri-streaming/") {
			n++
		}
	}
	return n
}

// pages is how many bytes so many pages have, written in decimal.
func pages(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n * os.Getpagesize()
}
