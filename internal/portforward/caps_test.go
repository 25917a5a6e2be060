package portforward_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/portforward"
)

// A census counts a pool's upgraded connections from outside.
type census struct {
	dial func(context.Context, portforward.Pod) (net.Conn, error)

	mu        sync.Mutex // guards the following
	now, most int
}

func (c *census) Dial(ctx context.Context, pod portforward.Pod) (net.Conn, error) {
	c.add(1)
	conn, err := c.dial(ctx, pod)
	if err != nil {
		c.add(-1)
		return nil, err
	}
	return &counted{Conn: conn, gone: sync.OnceFunc(func() { c.add(-1) })}, nil
}

func (c *census) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += n
	c.most = max(c.most, c.now)
}

func (c *census) count() (now, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now, c.most
}

type counted struct {
	net.Conn
	gone func()
}

func (c *counted) Close() error {
	c.gone()
	return c.Conn.Close()
}

// newCappedPool returns a pool whose connections are counted.
func newCappedPool(t *testing.T, c *demo.Cluster, perPod, total int) (*portforward.Pool, *census) {
	t.Helper()
	p, d := newPool(t, c)
	n := &census{dial: d.Dial}
	p.Dial, p.MaxPerPod, p.MaxTotal = n.Dial, perPod, total
	return p, n
}

// openAll opens leases that all work.
func openAll(t *testing.T, p *portforward.Pool, pod portforward.Pod, n int) (all []*portforward.Lease) {
	t.Helper()
	for range n {
		l := open(t, p, pod, echoPort)
		exchange(t, l, "hello")
		all = append(all, l)
	}
	return all
}

// tryOpen opens a lease for which there may be no place.
func tryOpen(t *testing.T, p *portforward.Pool, pod portforward.Pod) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	l, err := p.Open(ctx, pod, echoPort)
	if err == nil {
		l.Close()
	}
	return err
}

// Connections are shared only where there are as many as there may be, and then
// there is a limit, too.
func TestSharing(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{Linger: 50 * time.Millisecond})
	p, n := newCappedPool(t, c, 4, 0)
	var all []*portforward.Lease
	for want := 1; want <= 4; want++ {
		all = append(all, openAll(t, p, pod, 1)...)
		if u := p.Usage(pod); u.Upgraded != want || u.Leases != want {
			t.Errorf("usage %+v; want %d connections for as many leases", u, want)
		}
	}
	all = append(all, openAll(t, p, pod, 2*3)...) // on the two that may be shared
	if u := p.Usage(pod); u.Upgraded != 4 || u.Leases != 10 {
		t.Errorf("usage %+v; want 4 connections for 10 leases", u)
	}
	if err := tryOpen(t, p, pod); !errors.Is(err, portforward.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one too many: %v; want ErrBusy, and why it waited no longer", err)
	}
	for i, l := range all {
		exchange(t, l, fmt.Sprint("each gets its own: ", i))
	}

	waited := make(chan *portforward.Lease)
	for range 3 {
		go func() {
			l, err := p.Open(t.Context(), pod, echoPort)
			if err != nil {
				t.Error(err)
			}
			waited <- l
		}()
	}
	for _, l := range all[:3] { // one with a connection to itself is among them
		l.Close()
		next := <-waited
		exchange(t, next, "its place is taken")
		all = append(all, next)
	}
	for _, l := range all {
		l.Close()
	}
	await.Until(t, "all to be idle", func() bool { u := p.Usage(pod); return u.Idle == 4 && u.Leases == 0 })
	for want := 1; want <= 4; want++ {
		openAll(t, p, pod, 1)
		if u := p.Usage(pod); u.Idle != 4-want {
			t.Errorf("usage %+v; want a connection for each of %d leases again", u, want)
		}
	}
	if _, most := n.count(); most > 4 {
		t.Errorf("there were %d connections", most)
	}
}

// Whoever comes while the first connection is still being made shares it, too.
func TestSharingWithWhoUpgrades(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newCappedPool(t, c, 1, 0)
	dial := p.Dial
	p.Dial = func(ctx context.Context, pod portforward.Pod) (net.Conn, error) {
		await.Until(t, "the others to wait", func() bool { return p.Usage(pod).Waiting == 3 })
		return dial(ctx, pod)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			l, err := p.Open(t.Context(), pod, echoPort)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { l.Close() })
		})
	}
	all.Wait()
	if u := p.Usage(pod); u.Leases != 4 || u.Upgraded != 1 || u.Waiting != 0 {
		t.Errorf("usage %+v; want 4 leases on one connection", u)
	}
}

// Who waits is told if no connection can be made.
func TestWaitingForAnUpgradeThatFails(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, n := newCappedPool(t, c, 1, 0)
	failure := errors.New("no upgrade today")
	var together sync.Once
	n.dial = func(context.Context, portforward.Pod) (net.Conn, error) {
		together.Do(func() {
			await.Until(t, "the others to wait", func() bool { return p.Usage(pod).Waiting == 19 })
		})
		return nil, failure
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := p.Open(t.Context(), pod, echoPort); !errors.Is(err, failure) {
				t.Errorf("open: %v; want %v", err, failure)
			}
		})
	}
	all.Wait()
	if _, most := n.count(); most != 1 || len(p.Pods()) != 0 {
		t.Errorf("%d upgrades at a time, and %d pods left; want 1 and 0", most, len(p.Pods()))
	}
}

// Many come at once, and end in every way.
func TestStormAtTheCap(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{Linger: 10 * time.Millisecond})
	p, n := newCappedPool(t, c, 8, 0)
	p.DialSpare = n.Dial
	var over atomic.Int64
	p.Changed = func() {
		if n := p.Usage(pod).Upgraded; n > 8 {
			over.Store(int64(n))
		}
	}
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			port := uint16(echoPort)
			switch i % 10 {
			case 1:
				port = closedPort
			case 2:
				port = floodPort
			}
			l, err := p.Open(t.Context(), pod, port)
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			switch i % 10 {
			case 1:
				if _, err := l.Read(make([]byte, 1)); !errors.Is(err, portforward.ErrRefused) {
					t.Errorf("read: %v; want ErrRefused", err)
				}
				return
			case 2:
				if _, err := io.ReadFull(l, make([]byte, 1000)); err != nil {
					t.Error(err)
				}
				return
			case 3:
				io.WriteString(l, "an end without an answer")
				return
			}
			text := strings.Repeat(fmt.Sprint(i, " "), 1+i*100)
			var sent sync.WaitGroup
			sent.Go(func() { io.WriteString(l, text) })
			got := make([]byte, len(text))
			if _, err := io.ReadFull(l, got); err != nil || string(got) != text {
				t.Errorf("lease %d: %.20q…, %v", i, got, err)
			}
			sent.Wait()
			if i%10 == 4 {
				l.CloseWrite()
				if m, err := io.Copy(io.Discard, l); m != 0 || err != nil {
					t.Errorf("after the end: %d bytes, %v", m, err)
				}
			}
		})
	}
	all.Wait()
	if u := p.Usage(pod); u.Leases != 0 {
		t.Errorf("usage %+v; want no lease", u)
	}
	if _, most := n.count(); most > 8 || over.Load() > 0 {
		t.Errorf("there were %d connections, or it said %d; want no more than 8", most, over.Load())
	}
	openAll(t, p, pod, 20)
}

// While a lease is alone on its connection, nothing happens to it if its owner
// does not read. When another needs a place there, it is cut, and no other.
func TestStalledReaderOnASharedConnection(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		before, after int
	}{
		{"who was first", 0, 3},
		{"who came last", 3, 0},
		{"who came between", 1, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, pod := newCluster(t, demo.Options{})
			p, _ := newCappedPool(t, c, 1, 0)
			p.PingTimeout = 2 * time.Second
			passes := newClock(t, c)
			others := openAll(t, p, pod, tt.before)
			stalled := open(t, p, pod, floodPort)
			if _, err := io.ReadFull(stalled, make([]byte, 1)); err != nil { // it flows
				t.Fatal(err)
			}
			if tt.before == 0 {
				passes(p.PingTimeout + time.Second) // with pings that are not answered
				if _, err := io.ReadFull(stalled, make([]byte, 8<<20)); err != nil {
					t.Fatalf("while it is alone: %v", err)
				}
			}
			others = append(others, openAll(t, p, pod, tt.after)...)
			for range 100 {
				for _, l := range others {
					exchange(t, l, "not held up")
				}
			}
			got, err := io.Copy(io.Discard, stalled)
			if !errors.Is(err, portforward.ErrTooSlow) || got < 200<<10 || got > 1<<20 {
				t.Errorf("the stalled one reads %d bytes, then %v; want what was kept, then ErrTooSlow", got, err)
			}
			if _, err := stalled.Write([]byte("x")); !errors.Is(err, portforward.ErrTooSlow) {
				t.Errorf("and writes: %v; want ErrTooSlow", err)
			}
			stalled.Close()
			for _, l := range others {
				exchange(t, l, "not held up")
			}
			openAll(t, p, pod, 1) // in its place
		})
	}
}

// A lease whose pod takes nothing waits, and goes on when the pod does. It does
// not matter to the others how much they send meanwhile.
func TestStalledPodOnASharedConnection(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newCappedPool(t, c, 1, 0)
	p.PingTimeout = 2 * time.Second
	others := openAll(t, p, pod, 2)
	stalled := open(t, p, pod, latePort)
	var sent sync.WaitGroup
	sent.Go(func() {
		if _, err := stalled.Write(make([]byte, stalledSize)); err != nil {
			t.Error(err)
		}
	})
	for _, l := range others { // more than pings can be dealt for
		for range 600 {
			exchange(t, l, "not held up")
		}
	}
	large := strings.Repeat("and a large one ", 1<<18)
	sent.Go(func() { io.WriteString(others[0], large) })
	got := make([]byte, len(large))
	if _, err := io.ReadFull(others[0], got); err != nil || string(got) != large {
		t.Errorf("a large transfer beside it: %.20q…, %v", got, err)
	}
	others[0].Close() // its place is not known to be free while there are no pings
	gate := open(t, p, pod, gatePort)
	if text, err := io.ReadAll(gate); string(text) != "open\n" || err != nil {
		t.Fatalf("the gate says %q, %v", text, err)
	}
	answer, err := bufio.NewReader(stalled).ReadString('\n')
	sent.Wait()
	if err != nil || answer != fmt.Sprintln(stalledSize) {
		t.Errorf("the pod says %q, %v; want %d", answer, err, stalledSize)
	}
	exchange(t, others[1], "all is well")
	gate.Close()
	await.Until(t, "their places to be free", func() bool { return tryOpen(t, p, pod) == nil })
}

// Idle connections make room for other pods, and every pod can be reached.
func TestTotalCap(t *testing.T) {
	t.Parallel()
	c, _ := newCluster(t, demo.Options{})
	var pods []portforward.Pod
	for _, name := range c.Pods("task-api", "task-api") {
		pods = append(pods, podOf(c, name))
	}
	if len(pods) < 2 {
		t.Fatalf("%d pods; want 2", len(pods))
	}
	p, n := newCappedPool(t, c, 4, 4)
	for _, l := range openAll(t, p, pods[0], 4) {
		l.Close()
	}
	await.Until(t, "all to be idle", func() bool { return p.Usage(pods[0]).Idle == 4 })
	leases := openAll(t, p, pods[1], 4)
	if a, b := p.Usage(pods[0]), p.Usage(pods[1]); a.Upgraded != 0 || b.Upgraded != 4 {
		t.Errorf("usage %+v and %+v; want all for the second pod", a, b)
	}
	if _, most := n.count(); most > 4 {
		t.Errorf("there were %d connections; want no more than 4", most)
	}
	openAll(t, p, pods[0], 4) // on a connection beyond the cap
	if a := p.Usage(pods[0]); a.Upgraded != 1 || a.Leases != 4 {
		t.Errorf("usage %+v; want one connection all the same, for 4 leases", a)
	}
	if err := tryOpen(t, p, pods[0]); !errors.Is(err, portforward.ErrBusy) {
		t.Errorf("one more: %v; want ErrBusy", err)
	}
	if err := p.Probe(t.Context(), pods[0]); err != nil {
		t.Errorf("a probe: %v; want none to need a place", err)
	}
	await.Until(t, "the probe's to be closed", func() bool { now, _ := n.count(); return now == 5 })
	waiting := make(chan error, 1)
	go func() {
		l, err := p.Open(t.Context(), pods[0], echoPort)
		if err == nil {
			defer l.Close()
		}
		waiting <- err
	}()
	for _, l := range leases { // of the other pod
		l.Close()
	}
	if err := <-waiting; err != nil {
		t.Errorf("when the other pod needs less: %v", err)
	}
}

// Who waits for a place is not kept by a pool that ends.
func TestCloseWhileALeaseWaits(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newCappedPool(t, c, 1, 0)
	openAll(t, p, pod, 4)
	waiting := make(chan error, 1)
	go func() {
		_, err := p.Open(t.Context(), pod, echoPort)
		waiting <- err
	}()
	await.Until(t, "it to wait", func() bool { return p.Usage(pod).Waiting == 1 })
	p.Close()
	if err := <-waiting; !errors.Is(err, portforward.ErrClosed) {
		t.Errorf("open: %v; want ErrClosed", err)
	}
	if n := len(p.Pods()); n != 0 {
		t.Errorf("%d pods left", n)
	}
}

// The end of a connection ends all that share it, and says why.
func TestSharedConnectionIsLost(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newCappedPool(t, c, 1, 0)
	all := openAll(t, p, pod, 4)
	c.KillUpgrades(pod.Namespace, pod.Name)
	for _, l := range all {
		if _, err := l.Read(make([]byte, 1)); !errors.Is(err, portforward.ErrLinkDead) {
			t.Errorf("read: %v; want ErrLinkDead", err)
		}
		l.Close()
	}
	openAll(t, p, pod, 4)
}
