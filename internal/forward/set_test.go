package forward_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

// backends is a forward.Backends of functions. A nil pick returns an Endpoint
// of the target at once.
type backends struct {
	pick func(context.Context, forward.Target) (forward.Endpoint, error)
	dial func(context.Context, forward.Endpoint) (forward.Conn, error)
}

func (b backends) Pick(ctx context.Context, t forward.Target) (forward.Endpoint, error) {
	if b.pick == nil {
		return forward.Endpoint{Target: t, Pod: "pod"}, nil
	}
	return b.pick(ctx, t)
}

func (b backends) Dial(ctx context.Context, e forward.Endpoint) (forward.Conn, error) {
	return b.dial(ctx, e)
}

// pod serves each connection with serve, and is what backends lead to.
func pod(t *testing.T, serve func(*net.TCPConn)) backends {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return backends{dial: func(ctx context.Context, _ forward.Endpoint) (forward.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return podConn{c.(*net.TCPConn)}, nil
	}}
}

type podConn struct{ *net.TCPConn }

func (podConn) Retiring() <-chan struct{} { return nil }
func (podConn) SetIdle(bool)              {}

func echo(c *net.TCPConn) {
	io.Copy(c, c)
	c.CloseWrite()
}

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// spec is a Spec whose target tells it from others.
func spec(name string) forward.Spec {
	return forward.Spec{Name: name, Listen: anyPort, Hold: time.Minute, Target: forward.Target{
		Workload: forward.Workload{Context: "c", Namespace: "n", Kind: forward.Service, Name: name}, Port: 80,
	}}
}

func newSet(t *testing.T, b forward.Backends) *forward.Set {
	t.Helper()
	s := &forward.Set{Backends: b, Meters: new(forward.Meters), HoldEnd: 10 * time.Millisecond}
	t.Cleanup(func() { s.Close() })
	return s
}

// addr is where the forward of that name listens.
func addr(t *testing.T, s *forward.Set, name string) string {
	t.Helper()
	for _, b := range s.Bindings() {
		if b.Spec.Name == name {
			if b.Err != nil {
				t.Fatalf("%s: %v", name, b.Err)
			}
			return b.Addr.String()
		}
	}
	t.Fatalf("%s does not listen", name)
	return ""
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c.(*net.TCPConn)
}

// exchange sends text and reads as much back.
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
		t.Errorf("got %q back; want %q", got, text)
	}
}

func TestApplyByDifference(t *testing.T) {
	s := newSet(t, pod(t, echo))
	s.Apply([]forward.Spec{spec("stays"), spec("goes")})
	stays, goes := dial(t, addr(t, s, "stays")), dial(t, addr(t, s, "goes"))
	exchange(t, stays, "one")
	exchange(t, goes, "one")
	before := addr(t, s, "stays")

	s.Apply([]forward.Spec{spec("new"), spec("stays")})
	exchange(t, stays, "the connection of an equal Spec lives on")
	if after := addr(t, s, "stays"); after != before {
		t.Errorf("the listener of an equal Spec moved from %s to %s", before, after)
	}
	exchange(t, dial(t, addr(t, s, "new")), "two")
	if _, err := goes.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection of a removed Spec ends with %v; want a reset: it was cut", err)
	}
	var names []string
	for _, b := range s.Bindings() {
		names = append(names, b.Spec.Name)
	}
	if diff := cmp.Diff([]string{"new", "stays"}, names); diff != "" {
		t.Errorf("bindings (-want +got):\n%s", diff)
	}
}

func TestRetainEndsAndStartsNothing(t *testing.T) {
	s := newSet(t, pod(t, echo))
	s.Apply([]forward.Spec{spec("stays"), spec("goes")})
	stays := dial(t, addr(t, s, "stays"))
	s.Retain([]forward.Spec{spec("stays"), spec("new")})
	exchange(t, stays, "still here")
	var names []string
	for _, b := range s.Bindings() {
		names = append(names, b.Spec.Name)
	}
	if diff := cmp.Diff([]string{"stays"}, names); diff != "" {
		t.Errorf("bindings (-want +got):\n%s", diff)
	}
}

// The client shuts its side, and the pod answers only then.
func TestClientHalfClose(t *testing.T) {
	s := newSet(t, pod(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		fmt.Fprintf(c, "%d bytes", len(all))
	}))
	s.Apply([]forward.Spec{spec("f")})
	c := dial(t, addr(t, s, "f"))
	io.WriteString(c, strings.Repeat("x", 100_000))
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil || string(answer) != "100000 bytes" {
		t.Errorf("answer %q, %v", answer, err)
	}
}

// The end of a client's side is kept from the pod until that has answered.
func TestEndIsHeldUntilTheAnswer(t *testing.T) {
	events := make(chan string, 2)
	s := newSet(t, pod(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 7))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			io.Copy(io.Discard, c)
			events <- "end"
		}()
		select { // the app takes its time
		case <-ended:
		case <-time.After(50 * time.Millisecond):
		}
		events <- "answer"
		io.WriteString(c, "answer")
		<-ended
	}))
	s.HoldEnd = time.Minute
	s.Apply([]forward.Spec{spec("f")})
	c := dial(t, addr(t, s, "f"))
	io.WriteString(c, "request")
	c.CloseWrite()
	if answer, err := io.ReadAll(c); err != nil || string(answer) != "answer" {
		t.Errorf("answer %q, %v", answer, err)
	}
	if first, second := <-events, <-events; first != "answer" || second != "end" {
		t.Errorf("%s, then %s; want the answer first", first, second)
	}
}

// The pod shuts its side, and the client still sends.
func TestPodHalfClose(t *testing.T) {
	received := make(chan string, 1)
	s := newSet(t, pod(t, func(c *net.TCPConn) {
		io.WriteString(c, "bye")
		c.CloseWrite()
		all, _ := io.ReadAll(c)
		received <- string(all)
	}))
	s.Apply([]forward.Spec{spec("f")})
	c := dial(t, addr(t, s, "f"))
	if all, err := io.ReadAll(c); err != nil || string(all) != "bye" {
		t.Fatalf("read %q, %v", all, err)
	}
	io.WriteString(c, "late")
	c.CloseWrite()
	if got := <-received; got != "late" {
		t.Errorf("the pod got %q after its end of stream; want %q", got, "late")
	}
}

func TestFailureIsResetNotEnd(t *testing.T) {
	refused := &forward.Error{Kind: forward.ErrRefused, Condition: status.Condition{State: status.Degraded, Cause: "pod p refuses port 80"}}
	tests := []struct {
		name     string
		backends backends
		want     string // in the meter
	}{
		{"nothing to pick", backends{pick: func(context.Context, forward.Target) (forward.Endpoint, error) {
			return forward.Endpoint{}, &forward.Error{Kind: forward.ErrUnavailable, Condition: status.Condition{Cause: "no pod"}}
		}}, "no pod"},
		{"refused after the open", backends{dial: func(context.Context, forward.Endpoint) (forward.Conn, error) {
			return failingConn(t, refused), nil
		}}, "pod p refuses port 80"},
		{"cut in the middle", backends{dial: func(context.Context, forward.Endpoint) (forward.Conn, error) {
			return failingConn(t, io.ErrUnexpectedEOF), nil
		}}, "unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSet(t, tt.backends)
			s.Apply([]forward.Spec{spec("f")})
			wantReset(t, addr(t, s, "f"))
			await.Until(t, "the connection to be counted", func() bool { return ended(s, 1) })
			got := s.Meters.Of("f").Counts()
			if got.Total != 1 || got.Failed != 1 || !strings.HasSuffix(got.LastError, tt.want) {
				t.Errorf("counts %+v; want 1 failed of 1 with %q", got, tt.want)
			}
		})
	}
}

// ended reports whether n connections have come and gone.
func ended(s *forward.Set, n int64) bool {
	c := s.Meters.Of("f").Counts()
	return c.Total == n && c.Active == 0
}

// wantReset connects and wants a reset, which may come so early that already
// the dial sees it.
func wantReset(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v; want a reset", err)
	}
}

// failingConn is a pod's connection whose reads fail with err.
func failingConn(t *testing.T, err error) forward.Conn {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return failing{ours, err}
}

type failing struct {
	net.Conn
	err error
}

func (f failing) Read([]byte) (int, error) { return 0, f.err }
func (failing) CloseWrite() error          { return nil }
func (failing) Retiring() <-chan struct{}  { return nil }
func (failing) SetIdle(bool)               {}

func TestPicksAgainWhenNothingWasDelivered(t *testing.T) {
	good := pod(t, echo)
	var tries int
	s := newSet(t, backends{dial: func(ctx context.Context, e forward.Endpoint) (forward.Conn, error) {
		if tries++; tries < 3 {
			return nil, &forward.Error{Kind: forward.ErrNotDelivered}
		}
		return good.dial(ctx, e)
	}})
	s.Apply([]forward.Spec{spec("f")})
	exchange(t, dial(t, addr(t, s, "f")), "hello")
	if got := s.Meters.Of("f").Counts(); got.Failed != 0 || tries != 3 {
		t.Errorf("%d tries, %+v; want 3 tries, none failed", tries, got)
	}
}

func TestHoldsUntilThereIsAPod(t *testing.T) {
	good := pod(t, echo)
	there := make(chan struct{})
	s := newSet(t, backends{dial: good.dial, pick: func(ctx context.Context, target forward.Target) (forward.Endpoint, error) {
		select {
		case <-there:
			return forward.Endpoint{Target: target}, nil
		case <-ctx.Done():
			return forward.Endpoint{}, &forward.Error{Kind: forward.ErrUnavailable, Err: ctx.Err()}
		}
	}})
	waits, gives := spec("waits"), spec("gives-up")
	gives.Hold = time.Millisecond
	s.Apply([]forward.Spec{waits, gives})

	c := dial(t, addr(t, s, "waits"))
	wantReset(t, addr(t, s, "gives-up"))
	close(there)
	exchange(t, c, "better late")
}

func TestRemovalEndsWaitingConnections(t *testing.T) {
	picking := make(chan struct{})
	s := newSet(t, backends{pick: func(ctx context.Context, _ forward.Target) (forward.Endpoint, error) {
		close(picking)
		<-ctx.Done()
		return forward.Endpoint{}, &forward.Error{Kind: forward.ErrUnavailable, Err: ctx.Err()}
	}})
	s.Apply([]forward.Spec{spec("f")})
	dial(t, addr(t, s, "f"))
	<-picking
	s.Apply(nil) // waits for the connection
	if got := s.Meters.Of("f").Counts(); got.Active != 0 || got.Failed != 0 {
		t.Errorf("%+v; want nothing active, and nobody to blame", got)
	}
}

func TestLowPortMovesUp(t *testing.T) {
	var tried []string
	s := newSet(t, pod(t, echo))
	s.Listen = func(_ forward.Spec, at netip.AddrPort) (net.Listener, error) {
		tried = append(tried, at.String())
		if at.Port() == 80 {
			return nil, syscall.EACCES
		}
		return net.Listen("tcp", anyPort.String())
	}
	low := spec("low")
	low.Listen = netip.MustParseAddrPort("127.0.0.1:80")
	s.Apply([]forward.Spec{low})
	if diff := cmp.Diff([]string{"127.0.0.1:80", "127.0.0.1:8080"}, tried); diff != "" {
		t.Errorf("tried (-want +got):\n%s", diff)
	}
	exchange(t, dial(t, addr(t, s, "low")), "hello")
}

// A low port that moves up does not take another port's own number.
func TestLowPortMovesUpBesideTheOthers(t *testing.T) {
	s := newSet(t, pod(t, echo))
	taken := make(map[uint16]bool)
	s.Listen = func(_ forward.Spec, at netip.AddrPort) (net.Listener, error) {
		if at.Port() < 1024 {
			return nil, syscall.EACCES
		}
		if taken[at.Port()] {
			return nil, syscall.EADDRINUSE
		}
		taken[at.Port()] = true
		return net.Listen("tcp", anyPort.String())
	}
	var specs []forward.Spec
	for _, port := range []uint16{80, 8080, 443, 8443, 25, 8025} {
		spec := spec("f")
		spec.Listen = netip.AddrPortFrom(anyPort.Addr(), port)
		specs = append(specs, spec)
	}
	s.Apply(specs)
	for _, b := range s.Bindings() {
		if low := b.Spec.Listen.Port() < 1024; low != (b.Err != nil) {
			t.Errorf("port %d: %v; want only the low ones to fail", b.Spec.Listen.Port(), b.Err)
		}
	}
}

// A new hold is for the next connection, and ends none.
func TestHoldMayChange(t *testing.T) {
	good := pod(t, echo)
	held := make(chan time.Duration, 1)
	s := newSet(t, backends{dial: good.dial, pick: func(ctx context.Context, target forward.Target) (forward.Endpoint, error) {
		deadline, _ := ctx.Deadline()
		held <- time.Until(deadline)
		return forward.Endpoint{Target: target}, nil
	}})
	f := spec("f")
	f.Hold = time.Hour
	s.Apply([]forward.Spec{f})
	before := dial(t, addr(t, s, "f"))
	exchange(t, before, "one")
	if got := <-held; got < 50*time.Minute {
		t.Errorf("a connection is held for %v; want an hour", got)
	}
	f.Hold = time.Minute
	s.Apply([]forward.Spec{f})
	exchange(t, before, "two")
	exchange(t, dial(t, addr(t, s, "f")), "three")
	if got := <-held; got > time.Minute {
		t.Errorf("a connection is held for %v; want a minute", got)
	}
	if b := s.Bindings(); len(b) != 1 || b[0].Spec != f {
		t.Errorf("bindings %+v; want the Spec that was applied last", b)
	}
}

// Without a hold there is time to dial all the same.
func TestNoHold(t *testing.T) {
	good := pod(t, echo)
	s := newSet(t, backends{dial: func(ctx context.Context, e forward.Endpoint) (forward.Conn, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return good.dial(ctx, e)
	}})
	f := spec("f")
	f.Hold = 0
	s.Apply([]forward.Spec{f})
	exchange(t, dial(t, addr(t, s, "f")), "hello")
}

func TestUnboundPortIsTriedAgain(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := newSet(t, pod(t, echo))
	f := spec("f")
	f.Listen = netip.MustParseAddrPort(taken.Addr().String())
	s.Apply([]forward.Spec{f})
	if b := s.Bindings()[0]; !errors.Is(b.Err, syscall.EADDRINUSE) || b.Addr.IsValid() {
		t.Fatalf("binding of a taken port: %+v", b)
	}
	taken.Close()
	s.Apply([]forward.Spec{f})
	exchange(t, dial(t, addr(t, s, "f")), "hello")
}

// A client that goes away abruptly ends the pod's stream, and is no failure.
func TestClientReset(t *testing.T) {
	cut := make(chan error, 1)
	s := newSet(t, pod(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 5))
		_, err := io.Copy(io.Discard, c)
		cut <- err
	}))
	s.Apply([]forward.Spec{spec("f")})
	c := dial(t, addr(t, s, "f"))
	io.WriteString(c, "hello")
	await.Until(t, "the bytes to be through", func() bool { return s.Meters.Of("f").Counts().Out == 5 })
	c.SetLinger(0)
	c.Close()
	<-cut
	await.Until(t, "the connection to end", func() bool { return ended(s, 1) })
	if got := s.Meters.Of("f").Counts(); got.Failed != 0 {
		t.Errorf("%+v; want no failure", got)
	}
}

func TestMeterCountsBothWays(t *testing.T) {
	s := newSet(t, pod(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 10))
		c.Write(bytes.Repeat([]byte("y"), 30))
	}))
	s.Apply([]forward.Spec{spec("f")})
	c := dial(t, addr(t, s, "f"))
	c.Write(make([]byte, 10))
	io.ReadAll(c)
	c.Close()
	await.Until(t, "the connection to end", func() bool { return ended(s, 1) })
	want := forward.Counts{Total: 1, In: 30, Out: 10}
	if diff := cmp.Diff(want, s.Meters.Of("f").Counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCloseIsIdempotentAndFinal(t *testing.T) {
	s := newSet(t, pod(t, echo))
	s.Apply([]forward.Spec{spec("f")})
	at := addr(t, s, "f")
	exchange(t, dial(t, at), "hello")
	s.Close()
	s.Close()
	s.Apply([]forward.Spec{spec("f")})
	if len(s.Bindings()) != 0 {
		t.Error("it listens after Close")
	}
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("somebody listens after Close")
	}
}

func BenchmarkCarry(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echo(c.(*net.TCPConn))
		}
	}()
	s := &forward.Set{Meters: new(forward.Meters), Backends: backends{dial: func(ctx context.Context, _ forward.Endpoint) (forward.Conn, error) {
		c, err := net.Dial("tcp", l.Addr().String())
		return podConn{c.(*net.TCPConn)}, err
	}}}
	defer s.Close()
	s.Apply([]forward.Spec{spec("f")})
	c, err := net.Dial("tcp", s.Bindings()[0].Addr.String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	block := make([]byte, 32<<10)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := c.Write(block); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, block); err != nil {
			b.Fatal(err)
		}
	}
}
