//go:build e2e

package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/status"
)

// soak has the fault suite run in its long form: see "make soak".
var soak = os.Getenv("TUNNELD_SOAK") != ""

// inSoak is one value in the long form, and another one in the short.
func inSoak[T any](long, short T) T {
	if soak {
		return long
	}
	return short
}

// pass waits while a fault lasts.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// A client that does not read, and a pod that does not, each on every pod,
// hurt nobody on the same port.
func TestFaultStalled(t *testing.T) {
	settle(t)
	u := newUser(t, 0)
	u.start()
	u.run("tunnelctl", "add", "task-api", "--wait")
	f := u.status("task-api")
	for _, tt := range u.ways(f) {
		t.Run(tt.name, func(t *testing.T) {
			const each = 100
			var quiet, beside []time.Duration // medians
			others := func(what string) time.Duration {
				var all []time.Duration
				for range each {
					began := time.Now()
					if err := oneRequest(tt.dial, f); err != nil {
						t.Errorf("%s: after %v: %v", what, time.Since(began), err)
					}
					took := time.Since(began)
					if took > time.Second {
						t.Errorf("%s: %v for one connection; want less than 1 s", what, took)
					}
					all = append(all, took)
				}
				return median(all)
			}
			for range inSoak(10, 3) {
				quiet = append(quiet, others("before"))
				var stalled []net.Conn
				for range 2 { // one to each pod
					stalled = append(stalled, u.stallClient(t, f, tt.dial))
				}
				for range 2 {
					stalled = append(stalled, stallPod(t, f, tt.dial))
				}
				beside = append(beside, others("meanwhile"))
				if s := u.status(f.Name); s.State != status.Ready || s.Connections.Active < 4 {
					t.Errorf("meanwhile: %s, %d connections: %s; want it ready with at least 4", s.State, s.Connections.Active, s.Cause)
				}
				for _, c := range stalled {
					reset(c)
				}
			}
			others("afterwards")
			t.Logf("medians of %d connections: %v alone, %v beside stalled ones", each, median(quiet), median(beside))
			if ratio := float64(median(beside)) / float64(median(quiet)); ratio > 1.5 {
				t.Errorf("connections beside stalled ones take %.2f times as long; want at most 1.5", ratio)
			}
			await.Until(t, "the stalled connections to have ended", func() bool { return u.status(f.Name).Connections.Active == 0 })
		})
	}
}

// reset ends a connection with RST, and throws away what is on its way.
func reset(c net.Conn) {
	if over, ok := c.(*tls.Conn); ok {
		c = over.NetConn()
	}
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

func oneRequest(dial func() (net.Conn, error), f status.Forward) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	_, err = ask(c, f, "/health")
	return err
}

// A way is how a client may come to the sample application's HTTP port.
type way struct {
	name string
	dial func() (net.Conn, error)
}

func (u *user) ways(f status.Forward) []way {
	raw, config := listen(u.t, f, 8000), u.trust(f)
	return []way{
		{"raw port", func() (net.Conn, error) { return net.Dial("tcp", raw) }},
		{"gateway", func() (net.Conn, error) { return tls.Dial("tcp", gatewayAddr(f), config) }},
	}
}

// stallClient asks for much and reads none of it; it returns when nothing
// moves any more.
func (u *user) stallClient(t *testing.T, f status.Forward, dial func() (net.Conn, error)) net.Conn {
	t.Helper()
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	before := u.status(f.Name).Bytes.In
	if _, err := fmt.Fprintf(c, "GET /bytes/%d HTTP/1.1\r\nHost: %s\r\n\r\n", 1<<32, f.Hostnames[0]); err != nil {
		t.Fatal(err)
	}
	last, since := before, time.Now()
	await.Until(t, "the download to stall", func() bool {
		if now := u.status(f.Name).Bytes.In; now != last {
			last, since = now, time.Now()
		}
		return last > before && time.Since(since) > 300*time.Millisecond
	})
	return c
}

// stallPod sends much to a handler that reads none of it for 10 s, until
// nothing moves any more.
func stallPod(t *testing.T, f status.Forward, dial func() (net.Conn, error)) net.Conn {
	t.Helper()
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintf(c, "POST /slow/10000 HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", f.Hostnames[0], 1<<32); err != nil {
		t.Fatal(err)
	}
	if n := fill(t, c); n < 64<<10 {
		t.Fatalf("only %d bytes could be sent", n)
	}
	return c
}

// fill writes until nothing is taken any more. What it writes counts, byte by
// byte, as filling does.
func fill(t *testing.T, c net.Conn) (sent int) {
	t.Helper()
	for {
		c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.Write(counting(sent, 64<<10))
		sent += n
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && n == 0, errors.Is(err, os.ErrDeadlineExceeded) && isTLS(c):
			return sent
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatalf("after %d bytes: %v", sent, err)
		}
	}
}

// isTLS: after a timeout, such a connection takes no more.
func isTLS(c net.Conn) bool {
	_, is := c.(*tls.Conn)
	return is
}

// counting is the part of an endless pattern that begins at an offset.
func counting(from, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((from + i) % 251)
	}
	return b
}

// Transfers that pause for long go on as if nothing had been, and lose nothing:
// a download whose client stops reading, and an echo that has stopped reading
// because nobody took its answers. Their pods are those that no other test touches.
func TestFaultPausedTransfers(t *testing.T) {
	u := newUser(t, 0)
	u.start()
	u.run("tunnelctl", "add", "statefulset/task-db", "-n", namespace, "--port", "9000", "--port", "9001", "--wait")
	f := u.status("task-db")
	dial := func(port uint16) net.Conn {
		c, err := net.Dial("tcp", listen(t, f, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	const size = 64 << 20
	download, both := dial(9001), dial(9000)
	fmt.Fprintln(download, size)
	if _, err := io.CopyN(io.Discard, download, 1<<20); err != nil {
		t.Fatal(err)
	}
	sent := fill(t, both)
	pause := inSoak(10*time.Minute, 20*time.Second)
	for end := time.Now().Add(pause); time.Now().Before(end); pass(t, time.Second) {
		if err := echo(listen(t, f, 9000)); err != nil {
			t.Fatalf("another connection meanwhile: %v", err)
		}
	}
	for _, c := range []net.Conn{download, both} {
		c.SetDeadline(time.Now().Add(2 * time.Minute))
	}
	if n, err := io.CopyN(io.Discard, download, size-1<<20); err != nil {
		t.Errorf("the download, after %v: %d bytes more, %v", pause, n, err)
	}
	got := make([]byte, sent)
	if n, err := io.ReadFull(both, got); err != nil || !slices.Equal(got, counting(0, sent)) {
		t.Errorf("the echo, after %v: %d of %d bytes, %v; the same: %t", pause, n, sent, err, slices.Equal(got, counting(0, sent)))
	}
	t.Logf("after %v: a download of %d MiB, and an echo of %d KiB that nobody had read", pause, size>>20, sent>>10)
}

// withBystanders forwards the raw Service, and has connections to it that are used
// all the time. unharmed fails the test if any of them was harmed, or if anything
// else than they had is left.
func withBystanders(t *testing.T) (u *user, f status.Forward, unharmed func()) {
	t.Helper()
	settle(t)
	u = newUser(t, 0)
	u.start()
	u.run("tunnelctl", "add", "task-tcp", "--wait")
	f = u.status("task-tcp")
	bystanders := u.bystanders(t, f)
	before := u.files()
	return u, f, func() {
		t.Helper()
		for _, b := range bystanders {
			if err := b.stop(); err != nil {
				t.Errorf("a connection that was there: %v", err)
			}
		}
		u.mustBeClean(t, "task-tcp", before-len(bystanders))
	}
}

// A port that refuses, a thousand times, is a reset each time and hurts no
// connection that is there.
func TestFaultRefusedPort(t *testing.T) {
	u, f, unharmed := withBystanders(t)
	closed := listen(t, f, 9009)
	storm(1000, 16, func(int) {
		c, err := net.Dial("tcp", closed)
		if err == nil {
			c.SetDeadline(time.Now().Add(30 * time.Second))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a closed port: %v; want a reset", err)
		}
	})
	if got := u.status("task-tcp"); got.State != status.Degraded || !strings.Contains(got.Cause, "refuses connections to port 9009") {
		t.Errorf("the state is %s: %s", got.State, got.Cause)
	}
	unharmed()
}

// A thousand clients that end with RST, at any point of their work, hurt no
// connection that is there, and leave nothing behind.
func TestFaultClientsReset(t *testing.T) {
	_, f, unharmed := withBystanders(t)
	echoAt, sourceAt, sinkAt := listen(t, f, 9000), listen(t, f, 9001), listen(t, f, 9002)
	ends := []struct {
		addr string
		do   func(c net.Conn) error
	}{
		{echoAt, func(net.Conn) error { return nil }}, // at once
		{echoAt, func(c net.Conn) error { // with an answer on its way
			_, err := io.WriteString(c, "hello")
			return err
		}},
		{echoAt, func(c net.Conn) error { // after the answer
			io.WriteString(c, "hello")
			_, err := io.ReadFull(c, make([]byte, 5))
			return err
		}},
		{sourceAt, func(c net.Conn) error { // in the middle of a download
			fmt.Fprintln(c, 1<<30)
			_, err := io.CopyN(io.Discard, c, 100<<10)
			return err
		}},
		{sinkAt, func(c net.Conn) error { // in the middle of an upload
			_, err := c.Write(make([]byte, 100<<10))
			return err
		}},
	}
	storm(1000, 16, func(i int) {
		end := ends[i%len(ends)]
		c, err := net.Dial("tcp", end.addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		if err := end.do(c); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
		c.(*net.TCPConn).SetLinger(0)
	})
	if err := echo(listen(t, f, 9000)); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	unharmed()
}

// storm calls one so many times, some at a time, and waits.
func storm(times, atATime int, one func(i int)) {
	var running sync.WaitGroup
	slots := make(chan struct{}, atATime)
	for i := range times {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			one(i)
		})
	}
	running.Wait()
}

// bystanders has connections to both pods.
func (u *user) bystanders(t *testing.T, f status.Forward) (all []*bystander) {
	for range 4 {
		all = append(all, stand(t, listen(t, f, 9000)))
	}
	await.Until(t, "them to echo", func() bool { return u.status(f.Name).Bytes.In >= 4*16 })
	return all
}

// files counts the daemon's open files.
func (u *user) files() int {
	u.t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", u.daemon.Process.Pid))
	if err != nil && runtime.GOOS == "linux" {
		u.t.Fatal(err)
	}
	return len(all)
}

// mustBeClean has the daemon show that nothing is left of a forward's
// connections: none that is active, no more files than before, and then, at the
// cost of its life, no goroutine.
func (u *user) mustBeClean(t *testing.T, name string, before int) {
	t.Helper()
	await.Until(t, "all connections to have ended", func() bool { return u.status(name).Connections.Active == 0 })
	if runtime.GOOS != "linux" {
		return
	}
	await.Until(t, "the upgraded connections to be given up", func() bool { return u.files() <= before })
	left := u.files()
	u.stop(syscall.SIGQUIT) // which prints all goroutines
	log, dump, _ := strings.Cut(u.log.String(), "SIGQUIT: quit\n")
	u.log.Truncate(len(log))
	var serving, sessions, all int
	for stack := range strings.SplitSeq(dump, "\n\ngoroutine ") {
		all++
		switch {
		case strings.Contains(stack, "forward.(*port).serve("):
			serving++
		case strings.Contains(stack, "portforward.(*session).run("):
			sessions++
		}
	}
	t.Logf("left: %d files (%d before), %d goroutines, %d upgraded connections", left, before, all, sessions)
	if sessions == 0 {
		t.Errorf("no upgraded connection is among the daemon's goroutines:\n%s", dump)
	}
	if serving > 0 || sessions > 8 || all > 100 {
		t.Errorf("left: goroutines of %d connections, and of %d upgraded ones, %d in all; want none, at most 8, at most 100", serving, sessions, all)
	}
}

// A rollout replaces every pod while requests of all kinds come: none fails,
// none is refused, and the name and the address stay.
func TestFaultRollout(t *testing.T) {
	settle(t)
	u := newUser(t, 0)
	u.start()
	api, tcp := u.both()
	loads := u.threeLoads(50*time.Millisecond, api, tcp)
	for range inSoak(10, 2) {
		old := pods(t)
		kubectl(t, "-n", namespace, "rollout", "restart", "deployment/task-api")
		kubectl(t, "-n", namespace, "rollout", "status", "deployment/task-api", "--timeout=120s")
		kubectl(t, append([]string{"-n", namespace, "wait", "--for=delete", "--timeout=120s"}, old...)...)
	}
	for _, l := range loads {
		l.mustHaveWorked(t, nil)
	}
	u.mustBeUnmoved(api, tcp)
}

// both adds the HTTP Service and the raw one.
func (u *user) both() (api, tcp status.Forward) {
	u.run("tunnelctl", "add", "task-api", "--wait")
	u.run("tunnelctl", "add", "task-tcp", "--wait")
	return u.status("task-api"), u.status("task-tcp")
}

// mustBeUnmoved compares the addresses and listeners with those before.
func (u *user) mustBeUnmoved(before ...status.Forward) {
	u.t.Helper()
	for _, f := range before {
		now := u.status(f.Name)
		if now.Address != f.Address || !slices.Equal(now.Ports, f.Ports) || now.URL != f.URL {
			u.t.Errorf("%s moved from %s %v to %s %v", f.Name, f.Address, f.Ports, now.Address, now.Ports)
		}
	}
}

func pods(t *testing.T) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "-n", namespace, "get", "pods", "-l", "app=task-api", "-o", "name"))
}

// While there is no pod for ten seconds, requests wait, and all get their
// answer. Who may wait for less is told why there is none.
func TestFaultScaledToZero(t *testing.T) {
	settle(t)
	t.Cleanup(func() { settle(t) })
	u, hasty := newUser(t, 0), newUser(t, 0)
	hasty.write("config.yaml", fmt.Sprintf("version: 1\naddresses: %s\nhold: 1s\n", nextRange()))
	u.start()
	hasty.start()
	api, tcp := u.both()
	hastyAPI, hastyTCP := hasty.both()
	loads := u.threeLoads(100*time.Millisecond, api, tcp)

	old := pods(t)
	kubectl(t, "-n", namespace, "scale", "deployment/task-api", "--replicas=0")
	kubectl(t, append([]string{"-n", namespace, "wait", "--for=delete", "--timeout=120s"}, old...)...)
	u.awaitState("task-api", status.NoEndpoints)
	u.awaitState("task-tcp", status.NoEndpoints)
	gone := time.Now()
	// The sample application does not wait for its connections to end: what is
	// in flight to a pod as it dies is cut by that.
	cuts := make(map[*load]int)
	inFlight := func(l *load) func(attempt) bool {
		return func(a attempt) bool {
			cuts[l]++
			return a.began.Before(gone) && cuts[l] <= 2*len(old)
		}
	}

	const cause = "no pod is selected by service/"
	for _, f := range []status.Forward{hastyAPI, hastyTCP} {
		hasty.awaitState(f.Name, status.NoEndpoints)
		if got := hasty.status(f.Name); !strings.Contains(got.Cause, cause+f.Name) || got.Hint == "" {
			t.Errorf("%s: the cause is %q, the hint %q", f.Name, got.Cause, got.Hint)
		}
	}
	began := time.Now()
	resp, err := hasty.client(hastyAPI).Get(hastyAPI.URL + "/health")
	if err != nil {
		t.Errorf("past the hold: %v; want a page", err)
	} else {
		page, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if took := time.Since(began); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(page), cause+"task-api") || took < 900*time.Millisecond {
			t.Errorf("past the hold, after %v: %s\n%s\nwant 503 after 1 s, and the cause", took, resp.Status, page)
		}
	}
	began = time.Now()
	err = echo(listen(t, hastyTCP, 9000))
	if took := time.Since(began); !errors.Is(err, syscall.ECONNRESET) || took < 900*time.Millisecond {
		t.Errorf("past the hold, on the raw port, after %v: %v; want a reset after 1 s", took, err)
	}

	pass(t, time.Until(gone.Add(10*time.Second)))
	kubectl(t, "-n", namespace, "scale", "deployment/task-api", "--replicas=2")
	kubectl(t, "-n", namespace, "rollout", "status", "deployment/task-api", "--timeout=120s")
	back := time.Now()
	for _, l := range loads {
		await.Until(t, l.name+" to work again", func() bool {
			_, ok := l.firstGood(back, back)
			return ok
		})
		l.mustHaveWorked(t, inFlight(l))
	}
	u.awaitState("task-api", status.Ready)
	u.awaitState("task-tcp", status.Ready)
	u.mustBeUnmoved(api, tcp)
}

// The network between the daemon and the API server swallows everything, for a
// while. It is noticed within 10 s, and within 3 s after the end, requests get
// through: those on connections that go on where TCP left them, and also if
// every connection that there was stays silent for ever.
func TestFaultBlackHole(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the relay needs to know what the kernel does with a full queue")
	}
	for _, tt := range []struct {
		name   string
		lasts  time.Duration
		forget bool
		soak   bool
	}{
		{"5 s, connections go on", 5 * time.Second, false, false},
		{"5 s, connections stay silent", 5 * time.Second, true, false},
		{"15 s, connections stay silent", 15 * time.Second, true, false},
		{"30 s, connections go on", 30 * time.Second, false, true},
		{"30 s, connections stay silent", 30 * time.Second, true, true},
		{"120 s, connections stay silent", 120 * time.Second, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.soak && !soak {
				t.Skip("with TUNNELD_SOAK only")
			}
			settle(t)
			u := newUser(t, 0)
			r := newRelay(u)
			u.start()
			api, tcp := u.both()
			kept, raw := u.client(api), listen(t, tcp, 9000)
			loads := []*load{
				startLoad(t, "HTTP", 200*time.Millisecond, func() error { return get(kept, api.URL+"/health") }),
				startLoad(t, "raw TCP", 200*time.Millisecond, func() error { return echoWithin(raw, patience) }),
			}
			began := time.Now()
			awaitGood(t, loads, began, began)

			r.cut(tt.forget)
			cut := time.Now()
			for _, f := range []status.Forward{api, tcp} {
				if tt.lasts < 10*time.Second {
					break
				}
				u.awaitState(f.Name, status.Offline)
				noticed := time.Since(cut)
				t.Logf("%s: offline after %v: %s", f.Name, noticed.Round(time.Millisecond), u.status(f.Name).Cause)
				if noticed > 10*time.Second {
					t.Errorf("%s: offline after %v; want at most 10 s", f.Name, noticed)
				}
			}
			pass(t, time.Until(cut.Add(tt.lasts)))
			r.restore()
			back := time.Now()

			for name, since := range map[string]time.Time{"any": cut, "new": back} {
				for _, l := range loads {
					took := awaitGood(t, []*load{l}, since, back).Sub(back)
					t.Logf("%s: the first good end of %s request, %v after the link was back", l.name, name, took.Round(time.Millisecond))
					if took > 3*time.Second {
						t.Errorf("%s: the first good end of %s request, %v after the link was back; want at most 3 s", l.name, name, took)
					}
				}
			}
			for _, l := range loads {
				l.stop()
				failed := 0
				for _, a := range l.attempts() {
					if errors.Is(a.err, syscall.ECONNREFUSED) {
						t.Errorf("%s: %v", l.name, a.err)
					}
					if a.err != nil {
						failed++
					}
				}
				t.Logf("%s: %d requests, %d failed", l.name, len(l.attempts()), failed)
			}
			u.awaitState("task-api", status.Ready)
			u.awaitState("task-tcp", status.Ready)
			u.mustBeUnmoved(api, tcp)
		})
	}
}

// awaitGood waits until a request that began since then has ended well, from
// then on, in each load, and returns when the last of these was.
func awaitGood(t *testing.T, loads []*load, since, from time.Time) (last time.Time) {
	t.Helper()
	for _, l := range loads {
		await.Until(t, l.name+" to work", func() bool {
			at, ok := l.firstGood(since, from)
			if ok && at.After(last) {
				last = at
			}
			return ok
		})
	}
	return last
}

// The API server is killed, again and again, while requests of all kinds come:
// who comes while it is away waits, no listener closes, and all is ready 3 s
// after it is. It takes the cluster of test/cluster.
func TestFaultAPIServerKilled(t *testing.T) {
	script := os.Getenv("TUNNELD_CLUSTER")
	if script == "" {
		t.Skip("TUNNELD_CLUSTER does not name test/cluster's script, which can restart its API server")
	}
	settle(t)
	u := newUser(t, 0)
	t.Cleanup(func() { recovered(t) })
	u.write("config.yaml", fmt.Sprintf("version: 1\naddresses: %s\nhold: 2m\n", nextRange()))
	u.start()
	api, tcp := u.both()
	loads := u.threeLoads(100*time.Millisecond, api, tcp)
	// It takes some 100 ms to die, and so do its connections.
	type dying struct{ began, noticed time.Time }
	var deaths []dying
	for range inSoak(10, 3) {
		now := time.Now()
		awaitGood(t, loads, now, now)
		pid, err := exec.Command(script, "pid", "kube-apiserver").Output()
		if err != nil {
			t.Fatal(err)
		}
		k := dying{began: time.Now()}
		u.run("kill", "-9", strings.TrimSpace(string(pid)))
		u.awaitState("task-api", status.Offline)
		u.awaitState("task-tcp", status.Offline)
		k.noticed = time.Now()
		deaths = append(deaths, k)
		if out, err := exec.Command(script, "apiserver").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		back := time.Now()
		u.awaitState("task-api", status.Ready)
		u.awaitState("task-tcp", status.Ready)
		took := time.Since(back)
		t.Logf("ready %v after the API server was, which was away for %v; that it was, was noticed after %v",
			took.Round(time.Millisecond), back.Sub(k.began).Round(time.Millisecond), k.noticed.Sub(k.began).Round(time.Millisecond))
		if took > 3*time.Second {
			t.Errorf("ready %v after the API server was; want at most 3 s", took)
		}
	}
	now := time.Now()
	awaitGood(t, loads, now, now)
	for _, l := range loads {
		l.mustHaveWorked(t, func(a attempt) bool { // its connection was cut
			return !errors.Is(a.err, syscall.ECONNREFUSED) && slices.ContainsFunc(deaths, func(d dying) bool {
				return a.began.Before(d.noticed) && a.ended.After(d.began)
			})
		})
	}
	u.mustBeUnmoved(api, tcp)
}

// recovered waits until the cluster's controllers, which try again ever more
// rarely, have noticed that the API server is back.
func recovered(t *testing.T) {
	t.Helper()
	ready := func() int {
		return len(strings.Fields(kubectl(t, "-n", namespace, "get", "endpointslices", "-l", "kubernetes.io/service-name=task-api",
			"-o", "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].targetRef.name}")))
	}
	for _, n := range []int{3, 2} {
		kubectl(t, "-n", namespace, "scale", "deployment/task-api", fmt.Sprintf("--replicas=%d", n))
		for end := time.Now().Add(3 * time.Minute); ready() != n; pass(t, 200*time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the EndpointSlices of task-api have %d ready pods; want %d", ready(), n)
			}
		}
	}
}

// Three pods get a third of the connections each.
func TestFaultBalance(t *testing.T) {
	settle(t)
	t.Cleanup(func() {
		settle(t)
		await.Until(t, "the third pod to be gone", func() bool { return len(pods(t)) == 2 })
	})
	kubectl(t, "-n", namespace, "scale", "deployment/task-api", "--replicas=3")
	kubectl(t, "-n", namespace, "rollout", "status", "deployment/task-api", "--timeout=120s")
	u := newUser(t, 0)
	u.start()
	u.run("tunnelctl", "add", "task-api", "--wait")
	await.Until(t, "three pods", func() bool { return u.status("task-api").Endpoints.Ready == 3 })
	f := u.status("task-api")
	for _, tt := range u.ways(f) {
		t.Run(tt.name, func(t *testing.T) {
			const all = 3000
			var mu sync.Mutex
			got := make(map[string]int)
			storm(all, 4, func(int) {
				pod, err := podBehind(tt.dial, f)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				got[pod]++
			})
			t.Logf("%v", got)
			if len(got) != 3 {
				t.Errorf("%d pods answered; want 3", len(got))
			}
			for pod, n := range got {
				if share := 100 * float64(n) / all; math.Abs(share-100./3) > 3 {
					t.Errorf("%s got %.1f %%; want 33 %% ± 3", pod, share)
				}
			}
		})
	}
}

func podBehind(dial func() (net.Conn, error), f status.Forward) (string, error) {
	c, err := dial()
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(40 * time.Second))
	text, err := ask(c, f, "/")
	if err != nil {
		return "", err
	}
	var answer struct{ Pod string }
	err = json.Unmarshal([]byte(text), &answer)
	return answer.Pod, err
}
