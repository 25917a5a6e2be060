package portforward_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/portforward"
)

// newClock returns a function that waits until a pool of its own has had pings
// answered for that long.
func newClock(t *testing.T, c *demo.Cluster) (passes func(d time.Duration)) {
	t.Helper()
	clock, _ := newPool(t, c)
	pod := podOf(c, c.Pods("task-api", "task-api")[1])
	open(t, clock, pod, echoPort)
	return func(d time.Duration) {
		t.Helper()
		began := time.Now()
		await.Until(t, "time to pass", func() bool { return clock.Usage(pod).Proven.After(began.Add(d)) })
	}
}

// Each connection has an upgraded connection to itself, so one that nobody
// reads from holds up nobody else; and no ping mistakes that for death.
func TestStalledReaderHoldsUpNobody(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	p.PingTimeout = 2 * time.Second
	passes := newClock(t, c)
	stalled := open(t, p, pod, floodPort)                            // which needs no byte of ours
	if _, err := io.ReadFull(stalled, make([]byte, 1)); err != nil { // it flows
		t.Fatal(err)
	}
	passes(p.PingTimeout + time.Second) // with pings that are not answered
	for range 20 {
		exchange(t, open(t, p, pod, echoPort), "not held up")
	}
	if n, err := io.CopyN(io.Discard, stalled, stalledSize-1); err != nil {
		t.Errorf("the stalled one went on for %d bytes: %v", n, err)
	}
}

// The pod takes nothing: writing waits, and no ping mistakes that for death.
func TestStalledPod(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	p.PingTimeout = 2 * time.Second
	passes := newClock(t, c)
	resume, err := c.StallPod(pod.Namespace, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, p, pod, countPort)
	var sent sync.WaitGroup
	sent.Go(func() {
		if _, err := l.Write(make([]byte, stalledSize)); err != nil {
			t.Error(err)
		}
	})
	passes(p.PingTimeout + time.Second) // with pings that are not answered
	other := podOf(c, c.Pods("task-api", "task-api")[1])
	for range 10 {
		exchange(t, open(t, p, other, echoPort), "not held up")
	}
	resume()
	answer, err := bufio.NewReader(l).ReadString('\n')
	sent.Wait()
	if err != nil || answer != fmt.Sprintln(stalledSize) {
		t.Errorf("the pod says %q, %v; want %d", answer, err, stalledSize)
	}
}

// A mutable connection can be made to swallow everything, as if its path were
// gone and nobody had said so.
type mutable struct {
	net.Conn
	mute   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (m *mutable) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	select {
	case <-m.mute:
		<-m.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (m *mutable) Write(p []byte) (int, error) {
	select {
	case <-m.mute:
		return len(p), nil
	default:
		return m.Conn.Write(p)
	}
}

func (m *mutable) Close() error {
	m.once.Do(func() { close(m.closed) })
	return m.Conn.Close()
}

// One connection's path is gone, while new connections work, or say why not.
func TestPathThatIsGone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		sent    int
		fault   func(c *demo.Cluster) (undo func())
		noticed bool
	}{
		{"after little was sent", 10, func(*demo.Cluster) func() { return func() {} }, true},
		{"after much was sent, and the node is gone", 1 << 20, (*demo.Cluster).StopKubelet, true},
		{"after much was sent, and nobody may look", 1 << 20, func(c *demo.Cluster) func() {
			return c.Forbid(demo.Rule{Verb: "*", Resource: "pods", Subresource: "portforward"})
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, pod := newCluster(t, demo.Options{})
			p, d := newPool(t, c)
			p.PingInterval, p.PingTimeout = time.Hour, time.Second
			if !tt.noticed {
				p.PingTimeout = 5 * time.Second // for a busy machine to say that nobody may look
			}
			passes := newClock(t, c)
			var first *mutable
			p.Dial = func(ctx context.Context, pod portforward.Pod) (net.Conn, error) {
				conn, err := d.Dial(ctx, pod)
				if err != nil || first != nil {
					return conn, err
				}
				first = &mutable{Conn: conn, mute: make(chan struct{}), closed: make(chan struct{})}
				return first, nil
			}
			l := open(t, p, pod, echoPort)
			exchange(t, l, "hello")
			if !tt.noticed {
				defer tt.fault(c)() // before anybody could look
			}
			close(first.mute)
			if _, err := l.Write(make([]byte, tt.sent)); err != nil {
				t.Fatal(err)
			}
			if !tt.noticed { // it might be the pod that takes nothing
				p.PingAll() // now that all is on its way
				passes(p.PingTimeout + time.Second)
				if u := p.Usage(pod); u.Upgraded != 1 {
					t.Errorf("usage %+v; want the connection kept", u)
				}
				return
			}
			undo := tt.fault(c)
			defer undo()
			p.PingAll()
			if _, err := l.Read(make([]byte, 1)); !errors.Is(err, portforward.ErrLinkDead) {
				t.Errorf("read: %v; want ErrLinkDead", err)
			}
		})
	}
}

// A network that goes silent is noticed although the pod could be stalled.
func TestSilenceIsNoticedDuringAWrite(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	p.PingTimeout = 100 * time.Millisecond
	resume, err := c.StallPod(pod.Namespace, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer resume()
	l := open(t, p, pod, countPort)
	wrote := make(chan error, 1)
	go func() {
		_, err := l.Write(make([]byte, stalledSize))
		wrote <- err
	}()
	newClock(t, c)(500 * time.Millisecond)
	defer c.DropPackets()()
	select {
	case err := <-wrote:
		if !errors.Is(err, portforward.ErrLinkDead) {
			t.Errorf("write: %v; want ErrLinkDead", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the write goes on")
	}
}

// What a pod that is gone leaves open is ended.
func TestPodThatIsGoneWithoutAWord(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	l := open(t, p, pod, echoPort)
	exchange(t, l, "hello")
	if err := c.AbandonPod(pod.Namespace, pod.Name); err != nil {
		t.Fatal(err)
	}
	if err := c.DeletePod(pod.Namespace, pod.Name, 0); err != nil {
		t.Fatal(err)
	}
	p.SetGone(pod)
	if _, err := l.Read(make([]byte, 1)); !errors.Is(err, portforward.ErrPodGone) {
		t.Errorf("read: %v; want ErrPodGone", err)
	}
}

func TestSilenceIsNoticed(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	d, err := portforward.NewDialer(c.RESTConfig(), nil)
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan error, 10)
	p := &portforward.Pool{
		Dial: d.Dial, PingInterval: 20 * time.Millisecond, PingTimeout: 3 * time.Second,
		Lost: func(_ portforward.Pod, err error) { lost <- err },
	}
	defer p.Close()
	l := open(t, p, pod, echoPort)
	exchange(t, l, "hello")
	defer c.DropPackets()()
	if _, err := l.Read(make([]byte, 1)); !errors.Is(err, portforward.ErrLinkDead) {
		t.Errorf("read on a dead link: %v; want ErrLinkDead", err)
	}
	if err := <-lost; !errors.Is(err, portforward.ErrLinkDead) {
		t.Errorf("Lost was told %v", err)
	}
}

// After a sleep of the machine nobody waits for the next ping's turn.
func TestPingAll(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	p.PingInterval, p.PingTimeout = time.Hour, time.Second
	l := open(t, p, pod, echoPort)
	exchange(t, l, "hello")
	other := podOf(c, c.Pods("task-api", "task-api")[1])
	if err := p.Probe(t.Context(), other); err != nil { // which leaves an idle one behind
		t.Fatal(err)
	}
	proven := p.Usage(pod).Proven
	p.PingAll()
	await.Until(t, "an answer", func() bool { return p.Usage(pod).Proven.After(proven) })
	defer c.DropPackets()()
	ended := make(chan error, 1)
	go func() {
		_, err := l.Read(make([]byte, 1))
		ended <- err
	}()
	await.Until(t, "both to be dropped", func() bool {
		p.PingAll() // something may still have been on its way when it was called first
		return len(ended) > 0 && p.Usage(other).Upgraded == 0
	})
	if err := <-ended; !errors.Is(err, portforward.ErrLinkDead) {
		t.Errorf("read on a dead link: %v; want ErrLinkDead", err)
	}
}
