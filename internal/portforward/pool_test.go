package portforward_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/portforward"
)

const (
	echoPort    = 9000 // sends back
	sourcePort  = 9001 // reads a number on a line, sends that many bytes
	countPort   = 7000 // reads stalledSize bytes, then says so
	floodPort   = 7001 // sends stalledSize bytes, unasked
	chatterPort = 7002 // sends a byte at a time, for as long as it can
	latePort    = 7003 // is countPort, but reads nothing until somebody connects to gatePort
	gatePort    = 7004
	closedPort  = 9999
)

// stalledSize is more than all the buffers on the way can hold.
const stalledSize = 64 << 20

// newCluster runs the sample application, and returns it with its first pod.
func newCluster(t *testing.T, o demo.Options) (*demo.Cluster, portforward.Pod) {
	t.Helper()
	c, err := demo.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	gate := make(chan struct{})
	openGate := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(openGate) // or its pods do not end
	count := func(c net.Conn) {
		n, _ := io.CopyN(io.Discard, c, stalledSize)
		fmt.Fprintln(c, n)
	}
	apps := demo.TaskAPI()
	apps[0].Handlers = map[uint16]func(net.Conn){
		countPort: count,
		latePort:  func(c net.Conn) { <-gate; count(c) },
		gatePort:  func(c net.Conn) { openGate(); fmt.Fprintln(c, "open") },
		floodPort: func(c net.Conn) { c.Write(make([]byte, stalledSize)) },
		chatterPort: func(c net.Conn) {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
			}
		},
	}
	if err := c.Run(apps...); err != nil {
		t.Fatal(err)
	}
	return c, podOf(c, c.Pods("task-api", "task-api")[0])
}

func podOf(c *demo.Cluster, name string) portforward.Pod {
	return portforward.Pod{Namespace: "task-api", Name: name, UID: c.PodUID("task-api", name)}
}

// newPool returns a pool whose pings are frequent, so that tests are short.
func newPool(t *testing.T, c *demo.Cluster) (*portforward.Pool, *portforward.Dialer) {
	t.Helper()
	d, err := portforward.NewDialer(c.RESTConfig(), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &portforward.Pool{Dial: d.Dial, PingInterval: 20 * time.Millisecond, PingTimeout: 5 * time.Second}
	t.Cleanup(func() { p.Close() })
	return p, d
}

// upgrades counts the upgrades that were asked for.
func upgrades(c *demo.Cluster) int {
	n := 0
	for _, r := range c.Requests() {
		if r.Subresource == "portforward" {
			n++
		}
	}
	return n
}

func open(t *testing.T, p *portforward.Pool, pod portforward.Pod, port uint16) *portforward.Lease {
	t.Helper()
	l, err := p.Open(t.Context(), pod, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// exchange sends text to an echo and reads it back.
func exchange(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != text {
		t.Fatalf("got %.40q back; want %.40q", got, text)
	}
}

// finish ends an echo's connection cleanly on both sides.
func finish(t *testing.T, l *portforward.Lease) {
	t.Helper()
	if err := l.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, l); n != 0 || err != nil {
		t.Fatalf("after the end: %d bytes, %v", n, err)
	}
	l.Close()
}

func TestCarriesBytesOverEitherTransport(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		upgrades demo.Upgrades
		want     string
	}{
		{"a current cluster", demo.BothUpgrades, "websocket"},
		{"behind a gateway that knows no SPDY", demo.WebSocketOnly, "websocket"},
		{"a cluster older than 1.30", demo.SPDYOnly, "spdy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, pod := newCluster(t, demo.Options{Upgrades: tt.upgrades})
			p, d := newPool(t, c)
			l := open(t, p, pod, echoPort)
			exchange(t, l, "hello")
			exchange(t, l, strings.Repeat("a long text ", 20_000))
			finish(t, l)
			if got := d.Transport(); got != tt.want {
				t.Errorf("transport %q; want %q", got, tt.want)
			}
			l = open(t, p, pod, sourcePort)
			fmt.Fprintln(l, 5_000_000)
			var all bytes.Buffer
			if n, err := io.Copy(&all, l); n != 5_000_000 || err != nil {
				t.Errorf("source: %d bytes, %v", n, err)
			}
		})
	}
}

// A role with "create" but without "get" on pods/portforward may not use
// WebSocket, since Kubernetes 1.35.
func TestFallsBackWithoutRightToGet(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{OldServer: true})
	defer c.Forbid(demo.Rule{Verb: "get", Resource: "pods", Subresource: "portforward"})()
	p, d := newPool(t, c)
	exchange(t, open(t, p, pod, echoPort), "hello")
	if got := d.Transport(); got != "spdy" {
		t.Errorf("transport %q; want spdy", got)
	}
}

func TestTransportIsRememberedAndRelearned(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{Upgrades: demo.SPDYOnly})
	p, d := newPool(t, c)
	open(t, p, pod, echoPort)
	before := upgrades(c)
	open(t, p, pod, echoPort) // a second one at once, so it is dialled anew
	if n := upgrades(c) - before; n != 1 {
		t.Errorf("%d upgrade requests for the second connection; want 1, by the transport that works", n)
	}
	c.SetUpgrades(demo.WebSocketOnly)
	exchange(t, open(t, p, pod, echoPort), "hello")
	if got := d.Transport(); got != "websocket" {
		t.Errorf("transport %q after the cluster changed; want websocket", got)
	}
}

// What is left of a lease does not reach the next one on the same upgraded
// connection, which is not kept if that would be much.
func TestReuse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		use  func(t *testing.T, l *portforward.Lease)
		port uint16
		kept bool
	}{
		{"a clean end", func(t *testing.T, l *portforward.Lease) {
			exchange(t, l, "hello")
			finish(t, l)
		}, echoPort, true},
		{"an end after one answer", func(t *testing.T, l *portforward.Lease) { exchange(t, l, "hello") }, echoPort, true},
		{"an end after many answers", func(t *testing.T, l *portforward.Lease) {
			for range 10 {
				exchange(t, l, "hello")
			}
		}, echoPort, true},
		{"an end before the answer", func(t *testing.T, l *portforward.Lease) { io.WriteString(l, "hello") }, echoPort, true},
		{"no use at all", func(*testing.T, *portforward.Lease) {}, echoPort, true},
		{"a port that refuses", func(t *testing.T, l *portforward.Lease) {
			if _, err := l.Read(make([]byte, 1)); !errors.Is(err, portforward.ErrRefused) {
				t.Errorf("read: %v; want ErrRefused", err)
			}
		}, closedPort, true},
		{"an app that goes on to talk", func(t *testing.T, l *portforward.Lease) {
			if _, err := io.ReadFull(l, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}, chatterPort, true},
		{"a flood", func(t *testing.T, l *portforward.Lease) {
			if _, err := io.ReadFull(l, make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}, floodPort, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, pod := newCluster(t, demo.Options{Linger: 50 * time.Millisecond})
			p, _ := newPool(t, c)
			l := open(t, p, pod, tt.port)
			tt.use(t, l)
			l.Close()
			if !tt.kept {
				await.Until(t, "it to be given up", func() bool { return p.Usage(pod).Upgraded == 0 })
				return
			}
			for range 20 {
				await.Until(t, "it to be ready for reuse", func() bool { return p.Usage(pod).Idle == 1 })
				l := open(t, p, pod, echoPort)
				exchange(t, l, "world")
				l.Close()
			}
			await.Until(t, "the last one", func() bool { return p.Usage(pod).Idle == 1 })
			if n := upgrades(c); n != 1 {
				t.Errorf("%d upgraded connections; want 1", n)
			}
			if u := p.Usage(pod); u.Leases != 0 || u.Upgraded != 1 {
				t.Errorf("usage %+v; want no lease, 1 upgraded", u)
			}
		})
	}
}

// What a client sends after the pod has ended its side is read by nobody, and
// holds up a part of the server's end for good, whichever part that is.
func TestDoesNotReuseAfterBytesThatNobodyReads(t *testing.T) {
	t.Parallel()
	for before := range 6 {
		t.Run(fmt.Sprintf("after %d others", before), func(t *testing.T) {
			t.Parallel()
			c, pod := newCluster(t, demo.Options{Linger: time.Millisecond})
			p, _ := newPool(t, c)
			p.PingInterval, p.PingTimeout = time.Hour, 300*time.Millisecond
			for range before {
				l := open(t, p, pod, echoPort)
				exchange(t, l, "he")
				exchange(t, l, "llo")
				l.Close()
				await.Until(t, "it to be ready for reuse, or given up", func() bool { // on a busy machine
					u := p.Usage(pod)
					return u.Idle == 1 || u.Upgraded == 0
				})
			}
			l := open(t, p, pod, sourcePort)
			fmt.Fprintln(l, 5)
			if n, err := io.Copy(io.Discard, l); n != 5 || err != nil { // the pod has ended
				t.Fatalf("read %d bytes, %v", n, err)
			}
			for range 3 { // the runtime's copy, which is still there, takes the first
				if _, err := l.Write([]byte("too late")); err != nil {
					t.Fatal(err)
				}
			}
			l.Close()
			await.Until(t, "it to be given up", func() bool { return p.Usage(pod).Upgraded == 0 })
			exchange(t, open(t, p, pod, echoPort), "on a connection of its own")
		})
	}
}

// While a pod is used, there is a connection for the next lease.
func TestSpare(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, d := newPool(t, c)
	p.DialSpare = d.DialSpare
	for n := range 3 {
		exchange(t, open(t, p, pod, echoPort), "hello")
		await.Until(t, "a spare", func() bool { u := p.Usage(pod); return u.Leases == n+1 && u.Idle == 1 })
	}
}

// Of many who come at once, a few dial, and the others have what those leave; what
// hangs holds up nobody for long.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	const many, few = 40, 8
	t.Run("the first is not held up by all", func(t *testing.T) {
		t.Parallel()
		c, pod := newCluster(t, demo.Options{})
		p, d := newPool(t, c)
		var dialling, most atomic.Int32
		gate := make(chan struct{})
		p.Dial = func(ctx context.Context, pod portforward.Pod) (net.Conn, error) {
			n := dialling.Add(1)
			defer dialling.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-gate
			return d.Dial(ctx, pod)
		}
		var all sync.WaitGroup
		for range many {
			all.Go(func() {
				l, err := p.Open(t.Context(), pod, echoPort)
				if err != nil {
					t.Error(err)
					return
				}
				defer l.Close()
				io.WriteString(l, "x")
				io.ReadFull(l, make([]byte, 1))
			})
		}
		await.Until(t, "some to dial", func() bool { return dialling.Load() == few })
		close(gate)
		all.Wait()
		if most.Load() > few {
			t.Errorf("%d dialled at once; want %d at most", most.Load(), few)
		}
		if n := upgrades(c); n == many {
			t.Error("nobody has had what another one left")
		}
	})
	t.Run("some hang", func(t *testing.T) {
		t.Parallel()
		c, pod := newCluster(t, demo.Options{})
		p, d := newPool(t, c)
		var dials atomic.Int32
		p.Dial = func(ctx context.Context, pod portforward.Pod) (net.Conn, error) {
			if dials.Add(1) <= few {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			return d.Dial(ctx, pod)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var hanging sync.WaitGroup
		defer hanging.Wait()
		defer cancel()
		for range few {
			hanging.Go(func() { p.Open(ctx, pod, echoPort) })
		}
		await.Until(t, "some to hang", func() bool { return dials.Load() == few })
		exchange(t, open(t, p, pod, echoPort), "hello")
	})
	t.Run("nobody waits any more", func(t *testing.T) {
		t.Parallel()
		c, pod := newCluster(t, demo.Options{})
		p, _ := newPool(t, c)
		p.Dial = func(ctx context.Context, pod portforward.Pod) (net.Conn, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 2 * few {
			all.Go(func() {
				if _, err := p.Open(ctx, pod, echoPort); !errors.Is(err, context.Canceled) {
					t.Errorf("open: %v; want context.Canceled", err)
				}
			})
		}
		await.Until(t, "some to dial", func() bool { return len(p.Pods()) == 1 })
		cancel()
		all.Wait()
		if n := len(p.Pods()); n != 0 {
			t.Errorf("%d pods in the pool", n)
		}
	})
}

// There is also one when many come at once, each of which dials.
func TestSpareInABurst(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, d := newPool(t, c)
	var dials atomic.Int32
	dialling, goOn := make(chan struct{}), make(chan struct{})
	p.Dial = func(ctx context.Context, pod portforward.Pod) (net.Conn, error) {
		if dials.Add(1) == 1 {
			close(dialling)
			<-goOn
		}
		return d.Dial(ctx, pod)
	}
	p.DialSpare = d.DialSpare
	opened := make(chan error, 1)
	go func() {
		l, err := p.Open(t.Context(), pod, echoPort)
		if err == nil {
			l.Close()
		}
		opened <- err
	}()
	<-dialling
	exchange(t, open(t, p, pod, echoPort), "hello")
	await.Until(t, "a spare", func() bool { return p.Usage(pod).Idle == 1 })
	if got := d.Transport(); got != "spdy" {
		t.Fatalf("transport %q; want spdy", got)
	}
	close(goOn)
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

// A spare finds out whether bare SPDY works, too, which is better; that it does
// not hurts nobody, and is found out once.
func TestSpareTriesTheBetterTransport(t *testing.T) {
	t.Parallel()
	tests := []struct {
		upgrades demo.Upgrades
		want     string
		asked    int // for three leases and their spares
		idle     int // when the first has ended
	}{
		{demo.BothUpgrades, "spdy", 4, 1},
		{demo.WebSocketOnly, "websocket", 5, 2},
	}
	for _, tt := range tests {
		c, pod := newCluster(t, demo.Options{Upgrades: tt.upgrades})
		p, d := newPool(t, c)
		p.DialSpare = d.DialSpare
		first := open(t, p, pod, echoPort)
		for n := range 3 {
			if n > 0 {
				exchange(t, open(t, p, pod, echoPort), "hello")
			}
			await.Until(t, "a spare", func() bool { u := p.Usage(pod); return u.Leases == n+1 && u.Idle == 1 })
		}
		if got := d.Transport(); got != tt.want {
			t.Errorf("transport %q; want %s", got, tt.want)
		}
		if n := upgrades(c); n != tt.asked {
			t.Errorf("%d upgrades were asked for; want %d", n, tt.asked)
		}
		finish(t, first)
		await.Until(t, "the first to be kept only where there is nothing better", func() bool {
			u := p.Usage(pod)
			return u.Leases == 2 && u.Idle == tt.idle && u.Upgraded == 2+tt.idle
		})
	}
}

func TestRefusedPort(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	bystander := open(t, p, pod, echoPort)
	exchange(t, bystander, "before")
	l := open(t, p, pod, closedPort)
	_, err := l.Read(make([]byte, 1))
	if !errors.Is(err, portforward.ErrRefused) {
		t.Errorf("read: %v; want ErrRefused", err)
	}
	if _, err := l.Write([]byte("x")); !errors.Is(err, portforward.ErrRefused) {
		t.Errorf("write: %v; want ErrRefused", err)
	}
	exchange(t, bystander, "after")
}

func TestPodThatIsGone(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	if err := p.Probe(t.Context(), pod); err != nil { // leaves an upgraded connection behind
		t.Fatal(err)
	}
	if err := c.DeletePod(pod.Namespace, pod.Name, 0); err != nil {
		t.Fatal(err)
	}
	t.Run("on an upgraded connection", func(t *testing.T) {
		l := open(t, p, pod, echoPort)
		if _, err := l.Read(make([]byte, 1)); !errors.Is(err, portforward.ErrPodGone) {
			t.Errorf("read: %v; want ErrPodGone", err)
		}
	})
	t.Run("on a new one", func(t *testing.T) {
		fresh, _ := newPool(t, c)
		if _, err := fresh.Open(t.Context(), pod, echoPort); !errors.Is(err, portforward.ErrPodGone) {
			t.Errorf("open: %v; want ErrPodGone", err)
		}
	})
}

func TestUpgradeRefusals(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	tests := []struct {
		name  string
		fault func() (undo func())
		want  func(error) bool
	}{
		{"forbidden", func() func() {
			return c.Forbid(demo.Rule{Verb: "create", Resource: "pods", Subresource: "portforward"})
		}, apierrors.IsForbidden},
		{"kubelet down", c.StopKubelet, func(err error) bool { return err != nil && strings.Contains(err.Error(), "error dialing backend") }},
		{"API server down", func() func() { c.StopAPI(); return func() { c.StartAPI() } }, func(err error) bool {
			_, ok := errors.AsType[*net.OpError](err)
			return ok
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			undo := tt.fault()
			p, _ := newPool(t, c)
			if _, err := p.Open(t.Context(), pod, echoPort); !tt.want(err) {
				t.Errorf("open: %v", err)
			}
			if n := len(p.Pods()); n != 0 {
				t.Errorf("%d pods in the pool after a failure", n)
			}
			undo()
			exchange(t, open(t, p, pod, echoPort), "it works again")
		})
	}
}

func TestOpenIsBoundedByContext(t *testing.T) {
	t.Parallel()
	for _, upgrades := range []demo.Upgrades{demo.WebSocketOnly, demo.SPDYOnly} {
		c, pod := newCluster(t, demo.Options{Upgrades: upgrades})
		p, _ := newPool(t, c)
		open(t, p, pod, echoPort) // so that it is known which transport works
		undo := c.DropPackets()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := p.Open(ctx, pod, echoPort)
		cancel()
		undo()
		if !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
			t.Errorf("open on a dead network: %v; want a timeout", err)
		}
	}
}

// An upgrade that is answered by nobody ends when nobody waits for it any more,
// not only at a deadline.
func TestUpgradeCanBeCancelled(t *testing.T) {
	t.Parallel()
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	defer certificate.Close()
	silent, err := tls.Listen("tcp", "127.0.0.1:0", certificate.TLS)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	asked := make(chan struct{})
	go func() {
		c, err := silent.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Read(make([]byte, 1))
		close(asked)
		io.Copy(io.Discard, c)
	}()
	d, err := portforward.NewDialer(&rest.Config{
		Host: "https://" + silent.Addr().String(), TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	dialled := make(chan error, 1)
	go func() {
		_, err := d.Dial(ctx, portforward.Pod{Namespace: "a", Name: "b"})
		dialled <- err
	}()
	<-asked
	cancel()
	select {
	case err := <-dialled:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("dial: %v; want context.Canceled", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the upgrade goes on")
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func TestProbeNeverDialsTheApp(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	for range 3 {
		if err := p.Probe(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	if u := p.Usage(pod); u.Upgraded != 1 || u.Proven.IsZero() {
		t.Errorf("usage after probing: %+v; want one upgraded connection, proven", u)
	}
	if n := c.Dials(pod.Namespace, pod.Name, echoPort); n != 0 {
		t.Errorf("the app was dialled %d times by a probe", n)
	}
	exchange(t, open(t, p, pod, echoPort), "the probe's connection is used")
	if n := upgrades(c); n != 1 {
		t.Errorf("%d upgraded connections; want 1", n)
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	p.IdleTimeout, p.MaxIdle = 50*time.Millisecond, 3
	var leases []*portforward.Lease
	for range 5 {
		l := open(t, p, pod, echoPort)
		exchange(t, l, "hello")
		leases = append(leases, l)
	}
	for _, l := range leases { // all at once: the runtime takes a second for each
		l.CloseWrite()
	}
	for _, l := range leases {
		finish(t, l)
	}
	await.Until(t, "all but 3 to be closed", func() bool { return p.Usage(pod).Upgraded <= 3 })
	await.Until(t, "idle connections to be closed", func() bool { return len(p.Pods()) == 0 })
	await.Until(t, "the server to see it", func() bool { return len(c.Upgrades()) == 0 })
}

func TestRetire(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	l := open(t, p, pod, echoPort)
	if err := p.Probe(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Retiring():
		t.Fatal("retiring before anybody said so")
	default:
	}
	p.SetRetiring(pod, true)
	p.SetRetiring(pod, true)
	<-l.Retiring()
	await.Until(t, "the idle connection to be closed", func() bool { return p.Usage(pod).Upgraded == 1 })
	exchange(t, l, "the lease lives on")
	finish(t, l)
	await.Until(t, "nothing to be kept", func() bool { return len(p.Pods()) == 0 })
}

// A pod that is not going away after all is as good as before.
func TestRetiringEnds(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	before := open(t, p, pod, echoPort)
	p.SetRetiring(pod, true)
	<-before.Retiring()
	p.SetRetiring(pod, false)
	after := open(t, p, pod, echoPort)
	select {
	case <-after.Retiring():
		t.Error("a new lease is retiring")
	default:
	}
	exchange(t, after, "hello")
	finish(t, after)
	await.Until(t, "it to be kept", func() bool { return p.Usage(pod).Idle == 1 })
}

// A probe that has to upgrade does so although there is an idle connection.
func TestProbeUpgrade(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	if err := p.Probe(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	before := upgrades(c)
	if err := p.ProbeUpgrade(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if n := upgrades(c) - before; n != 1 {
		t.Errorf("%d upgrades; want 1", n)
	}
	undo := c.Forbid(demo.Rule{Verb: "*", Resource: "pods", Subresource: "portforward"})
	defer undo()
	if err := p.ProbeUpgrade(t.Context(), pod); !apierrors.IsForbidden(err) {
		t.Errorf("%v; want forbidden", err)
	}
}

// A lease that is closed while somebody writes ends both, and so does the pool.
func TestCloseDuringAWrite(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	resume, err := c.StallPod(pod.Namespace, pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer resume()
	var writing sync.WaitGroup
	var leases []*portforward.Lease
	for range 4 {
		l := open(t, p, pod, countPort)
		leases = append(leases, l)
		writing.Go(func() {
			if _, err := l.Write(make([]byte, stalledSize)); err == nil {
				t.Error("all was written, though the pod reads nothing")
			}
		})
	}
	newClock(t, c)(500 * time.Millisecond)
	leases[0].Close()
	p.Close()
	writing.Wait()
}

// The same, where the pod has ended its side already.
func TestCloseDuringAWriteAfterTheEnd(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{Linger: time.Millisecond})
	p, _ := newPool(t, c)
	p.PingInterval, p.PingTimeout = time.Hour, time.Hour
	l := open(t, p, pod, sourcePort)
	fmt.Fprintln(l, 5)
	if n, err := io.Copy(io.Discard, l); n != 5 || err != nil {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := l.Write(make([]byte, stalledSize))
		wrote <- err
	}()
	newClock(t, c)(500 * time.Millisecond)
	l.Close()
	select {
	case err := <-wrote:
		if err == nil {
			t.Error("all was written, though nobody reads")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the write goes on")
	}
}

func TestCloseEndsLeases(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	l := open(t, p, pod, echoPort)
	p.Close()
	p.Close()
	if _, err := l.Read(make([]byte, 1)); !errors.Is(err, portforward.ErrClosed) {
		t.Errorf("read: %v; want ErrClosed", err)
	}
	if _, err := p.Open(t.Context(), pod, echoPort); !errors.Is(err, portforward.ErrClosed) {
		t.Errorf("open: %v; want ErrClosed", err)
	}
}

func TestLeaseAsNetConn(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	l := open(t, p, pod, echoPort)

	l.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := l.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("read after the deadline: %v; want a timeout", err)
	}
	l.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := l.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("read until the deadline: %v; want a timeout", err)
	}
	l.SetReadDeadline(time.Time{})
	exchange(t, l, "a deadline that passed does no harm")

	reading := make(chan error, 1)
	go func() {
		_, err := l.Read(make([]byte, 1))
		reading <- err
	}()
	l.Close()
	l.Close()
	if err := <-reading; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read during Close: %v; want net.ErrClosed", err)
	}
	if _, err := l.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after Close: %v; want net.ErrClosed", err)
	}
}

// Many connections at once, each with its own bytes.
func TestConcurrentLeases(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	p, _ := newPool(t, c)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for j := range 2 {
				l, err := p.Open(t.Context(), pod, echoPort)
				if err != nil {
					t.Error(err)
					return
				}
				text := strings.Repeat(fmt.Sprintf("%d/%d ", i, j), 3000)
				go func() {
					io.WriteString(l, text)
					l.CloseWrite()
				}()
				got, err := io.ReadAll(l)
				if err != nil || string(got) != text {
					t.Errorf("connection %d/%d: %d of %d bytes, %v", i, j, len(got), len(text), err)
				}
				l.Close()
			}
		})
	}
	all.Wait()
	if u := p.Usage(pod); u.Leases != 0 {
		t.Errorf("%d leases left", u.Leases)
	}
}

// Who has begun with what was known before does not make it forgotten what
// another one has learnt meanwhile.
func TestTransportIsNotForgotten(t *testing.T) {
	t.Parallel()
	c, pod := newCluster(t, demo.Options{})
	asked, goOn := make(chan struct{}), make(chan struct{})
	var requests atomic.Int32
	d, err := portforward.NewDialer(c.RESTConfig(), func(rt http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if requests.Add(1) == 2 {
				close(asked)
				<-goOn
			}
			return rt.RoundTrip(r)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &portforward.Pool{Dial: d.Dial, DialSpare: d.DialSpare}
	defer p.Close()
	first, err := d.Dial(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	late := make(chan net.Conn, 1)
	go func() {
		conn, _ := d.Dial(t.Context(), pod)
		late <- conn
	}()
	<-asked
	open(t, p, pod, echoPort)
	await.Until(t, "the spare's transport to be known", func() bool { return d.Transport() == "spdy" })
	close(goOn)
	if conn := <-late; conn == nil {
		t.Error("the late one has failed")
	} else {
		conn.Close()
	}
	if got := d.Transport(); got != "spdy" {
		t.Errorf("transport %q; want spdy", got)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
