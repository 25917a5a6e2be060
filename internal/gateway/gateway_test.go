package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/gateway"
	"github.com/tunneld/tunneld/internal/status"
	localtls "github.com/tunneld/tunneld/internal/tls"
)

// pods is a forward.Backends over HTTP servers, which it picks in turn.
type pods struct {
	mu       sync.Mutex
	pods     []*pod
	turn     int
	pick     func(context.Context, forward.Target) error // nil: there is a pod
	dialErrs []error                                     // what the next dials return
}

type pod struct {
	name    string
	server  *httptest.Server
	retired chan struct{}
	open    int // connections
	idle    int // of them
}

func (p *pods) add(t *testing.T, name string, h http.HandlerFunc) *pod {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	one := &pod{name: name, server: s, retired: make(chan struct{})}
	p.pods = append(p.pods, one)
	return one
}

func (p *pods) Pick(ctx context.Context, t forward.Target) (forward.Endpoint, error) {
	if p.pick != nil {
		if err := p.pick(ctx, t); err != nil {
			return forward.Endpoint{}, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	return forward.Endpoint{Target: t, Pod: p.pods[p.turn%len(p.pods)].name}, nil
}

func (p *pods) Dial(ctx context.Context, e forward.Endpoint) (forward.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.dialErrs) > 0 {
		err := p.dialErrs[0]
		p.dialErrs = p.dialErrs[1:]
		return nil, err
	}
	for _, one := range p.pods {
		if one.name == e.Pod {
			c, err := net.Dial("tcp", one.server.Listener.Addr().String())
			if err != nil {
				return nil, err
			}
			one.open++
			return &podConn{TCPConn: c.(*net.TCPConn), pods: p, pod: one}, nil
		}
	}
	return nil, errors.New("no such pod")
}

type podConn struct {
	*net.TCPConn
	pods   *pods
	pod    *pod
	closed sync.Once
	idle   bool // guarded by pods.mu
}

func (c *podConn) SetIdle(idle bool) {
	c.pods.mu.Lock()
	defer c.pods.mu.Unlock()
	if idle != c.idle {
		c.idle = idle
		if c.pod.idle++; !idle {
			c.pod.idle -= 2
		}
	}
}

func (c *podConn) Retiring() <-chan struct{} { return c.pod.retired }

func (c *podConn) Close() error {
	c.closed.Do(func() {
		c.SetIdle(false)
		c.pods.mu.Lock()
		c.pod.open--
		c.pods.mu.Unlock()
	})
	return c.TCPConn.Close()
}

func (p *pods) openTo(one *pod) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return one.open
}

// A harness is a gateway with one forward, "app", on 127.0.0.1, which shares
// its address with whoever asks for it by name.
type harness struct {
	*gateway.Gateway
	http, https netip.AddrPort
	ca          *localtls.CA
}

func newHarness(t *testing.T, b forward.Backends) *harness {
	t.Helper()
	ca, err := localtls.Load(t.TempDir(), "local")
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway.Gateway{Backends: b, CA: ca, Meters: new(forward.Meters)}
	t.Cleanup(func() { g.Close() })
	g.SetTable(gateway.NewTable([]*gateway.Row{{
		Forward:  "app",
		Hosts:    []string{"app.local", "*.app.local", "127.0.0.1"},
		Scope:    local4,
		Backends: []gateway.Backend{{Target: forward.Target{Port: 80}}},
		Hold:     time.Minute,
	}}))
	any := netip.AddrPortFrom(local4, 0)
	g.Apply([]gateway.Listener{{Addr: any, Forward: "app"}, {Addr: any, TLS: true, Forward: "app"}})
	h := &harness{Gateway: g, ca: ca}
	for _, b := range g.Bindings() {
		if b.Err != nil {
			t.Fatal(b.Err)
		}
		if b.Listener.TLS {
			h.https = b.Addr
		} else {
			h.http = b.Addr
		}
	}
	return h
}

// client trusts the CA, and reaches the gateway under any name.
func (h *harness) client(t *testing.T) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(h.ca.Root())
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			to := h.http
			if strings.HasSuffix(addr, ":443") {
				to = h.https
			}
			return new(net.Dialer).DialContext(ctx, network, to.String())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestPicksForEachRequest(t *testing.T) {
	p := new(pods)
	for _, name := range []string{"one", "two"} {
		p.add(t, name, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) })
	}
	h := newHarness(t, p)
	c := h.client(t)
	got := make(map[string]int)
	for range 10 { // on one connection of the client
		_, body := get(t, c, "http://app.local/")
		got[body]++
	}
	if diff := cmp.Diff(map[string]int{"one": 5, "two": 5}, got); diff != "" {
		t.Errorf("requests by pod (-want +got):\n%s", diff)
	}
	for _, one := range p.pods {
		if n := p.openTo(one); n != 1 {
			t.Errorf("%d connections to pod %s; want 1, kept alive", n, one.name)
		}
	}
	if counts := h.Meters.Of("app").Counts(); counts.Total != 1 || counts.Active != 1 || counts.In == 0 || counts.Out == 0 {
		t.Errorf("counts %+v; want the client's one connection, and bytes", counts)
	}
}

func TestForwardsTheRequestAsAProxyDoes(t *testing.T) {
	p := new(pods)
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{
			"host": r.Host, "uri": r.RequestURI, "for": r.Header.Get("X-Forwarded-For"),
			"proto": r.Header.Get("X-Forwarded-Proto"), "xhost": r.Header.Get("X-Forwarded-Host"),
			"encoding": r.Header.Get("Accept-Encoding"),
		})
	})
	h := newHarness(t, p)
	c := h.client(t)
	req, _ := http.NewRequest("GET", "https://x.app.local/a%2Fb?q=1", nil)
	req.Header.Set("X-Forwarded-For", "8.8.8.8")
	req.Header.Set("X-Forwarded-Host", "evil.example")
	req.Header.Set("Accept-Encoding", "br")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]string
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"host": "x.app.local", "uri": "/a%2Fb?q=1", "for": "127.0.0.1", "proto": "https", "xhost": "x.app.local", "encoding": "br",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the pod saw (-want +got):\n%s", diff)
	}
	if resp.ProtoMajor != 2 {
		t.Errorf("the client got %s; want HTTP/2", resp.Proto)
	}
}

func TestForeignHosts(t *testing.T) {
	p := new(pods)
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	h := newHarness(t, p)
	c := h.client(t)

	if resp, _ := get(t, c, "http://other.local/"); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("foreign Host: %s; want 421", resp.Status)
	}
	if resp, body := get(t, c, "http://127.0.0.1/"); body != "hello" {
		t.Errorf("the literal address: %s %q", resp.Status, body)
	}
	_, err := c.Get("https://other.local/")
	if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "remote error" || op.Err.Error() != "tls: unrecognized name" {
		t.Errorf("foreign SNI: %v; want the alert unrecognized_name", err)
	}
	// Without SNI, the certificate is for the address.
	roots := x509.NewCertPool()
	roots.AddCert(h.ca.Root())
	conn, err := tls.Dial("tcp", h.https.String(), &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatalf("no SNI: %v", err)
	}
	conn.Close()
}

func TestPageSaysWhy(t *testing.T) {
	cause := status.Condition{State: status.NoEndpoints, Cause: "none of the 2 pods of service/app is ready <b>", Hint: "kubectl get pods"}
	p := &pods{pick: func(context.Context, forward.Target) error {
		return &forward.Error{Kind: forward.ErrUnavailable, Condition: cause}
	}}
	h := newHarness(t, p)
	c := h.client(t)

	resp, body := get(t, c, "http://app.local/")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s, headers %v; want 503 with Retry-After", resp.Status, resp.Header)
	}
	for _, want := range []string{"no-endpoints", "none of the 2 pods of service/app is ready &lt;b&gt;", "kubectl get pods", status.DevOnly} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %q:\n%s", want, body)
		}
	}

	req, _ := http.NewRequest("GET", "http://app.local/", nil)
	req.Header.Set("Accept", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"status": 503.0, "forward": "app", "state": "no-endpoints", "cause": cause.Cause, "hint": cause.Hint, "devOnly": status.DevOnly,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	// Two requests on one connection.
	if counts := h.Meters.Of("app").Counts(); counts.Total != 1 || counts.Failed != 1 || !strings.Contains(counts.LastError, "none of the 2 pods") {
		t.Errorf("counts %+v; want 1 connection, failed, and why", counts)
	}
}

func TestRefusedByThePod(t *testing.T) {
	p := &pods{dialErrs: []error{&forward.Error{Kind: forward.ErrRefused, Condition: status.Condition{State: status.Degraded, Cause: "pod p refuses port 80"}}}}
	p.add(t, "pod", nil)
	resp, body := get(t, newHarness(t, p).client(t), "http://app.local/")
	if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, "pod p refuses port 80") {
		t.Errorf("%s: %s", resp.Status, body)
	}
}

// A request that did not reach a pod goes to another, with its body.
func TestPicksAgainWithTheBody(t *testing.T) {
	notDelivered := &forward.Error{Kind: forward.ErrNotDelivered}
	p := &pods{dialErrs: []error{notDelivered, notDelivered}}
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	resp, err := newHarness(t, p).client(t).Post("http://app.local/", "text/plain", strings.NewReader("payload"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "payload" {
		t.Errorf("%s: %q", resp.Status, body)
	}
}

// A connection that is kept for the next request is said to be idle, so that
// it does not count when pods are balanced.
func TestKeptConnectionsAreIdle(t *testing.T) {
	p := new(pods)
	entered, leave := make(chan struct{}), make(chan struct{})
	one := p.add(t, "a", func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-leave
	})
	idle := func() (open, idle int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return one.open, one.idle
	}
	c := newHarness(t, p).client(t)
	for range 2 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			resp, err := c.Get("http://app.local/")
			if err != nil {
				t.Error(err)
				close(entered)
				return
			}
			resp.Body.Close()
		}()
		<-entered
		if open, idle := idle(); open != 1 || idle != 0 {
			t.Errorf("with a request in flight: %d connections, %d idle", open, idle)
		}
		leave <- struct{}{}
		<-done
		await.Until(t, "the connection to be idle", func() bool { open, idle := idle(); return open == 1 && idle == 1 })
	}
}

// The connections to a pod that retires are closed, the one with a request in
// flight after its answer.
func TestRetiringPodIsDrained(t *testing.T) {
	p := new(pods)
	release := make(chan struct{})
	one := p.add(t, "one", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-release
		}
		io.WriteString(w, "done")
	})
	h := newHarness(t, p)
	c := h.client(t)
	slow, err := c.Get("http://app.local/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Body.Close()
	get(t, c, "http://app.local/fast")
	if n := p.openTo(one); n != 2 {
		t.Fatalf("%d connections; want 2", n)
	}
	close(one.retired)
	await.Until(t, "the idle connection to be closed", func() bool { return p.openTo(one) == 1 })
	close(release)
	if body, err := io.ReadAll(slow.Body); err != nil || string(body) != "done" {
		t.Errorf("the request in flight: %q, %v", body, err)
	}
	await.Until(t, "the other one to be closed", func() bool { return p.openTo(one) == 0 })
}

func TestEventsAreNotBuffered(t *testing.T) {
	p := new(pods)
	next := make(chan struct{})
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	resp, err := newHarness(t, p).client(t).Get("https://app.local/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewReader(resp.Body)
	for i := range 3 { // each is read before the next is sent
		line, err := events.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: %q, %v", i, line, err)
		}
		events.ReadString('\n')
		next <- struct{}{}
	}
}

func TestUpgradedConnectionIsCarried(t *testing.T) {
	p := new(pods)
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "echo" {
			http.Error(w, "no upgrade", http.StatusBadRequest)
			return
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, rw)
	})
	h := newHarness(t, p)
	c, err := net.Dial("tcp", h.http.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: app.local\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	for _, word := range []string{"hello\n", "again\n"} {
		io.WriteString(c, word)
		if got, err := in.ReadString('\n'); got != word {
			t.Errorf("echo %q, %v; want %q", got, err, word)
		}
	}
	h.Close() // ends upgraded connections too
	if _, err := in.ReadByte(); err == nil {
		t.Error("the upgraded connection outlives the gateway")
	}
}

func TestApplyByDifference(t *testing.T) {
	p := new(pods)
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	h := newHarness(t, p)
	c := h.client(t)
	get(t, c, "http://app.local/")
	var keep, drop gateway.Listener
	for _, b := range h.Bindings() {
		if b.Listener.TLS {
			drop = b.Listener
		} else {
			keep = b.Listener
		}
	}
	h.Apply([]gateway.Listener{keep})
	get(t, c, "http://app.local/")
	if counts := h.Meters.Of("app").Counts(); counts.Total != 1 {
		t.Errorf("%d connections; want the first one kept", counts.Total)
	}
	for _, b := range h.Bindings() {
		if b.Listener == drop {
			t.Error("the dropped listener is still there")
		}
	}
	if conn, err := net.Dial("tcp", h.https.String()); err == nil {
		conn.Close()
		t.Error("somebody listens where it was")
	}
}

func TestMovesToAnotherPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	spare, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		t.Fatal(err)
	}
	free := netip.MustParseAddrPort(spare.Addr().String())
	spare.Close()
	g := &gateway.Gateway{Backends: new(pods)}
	defer g.Close()
	want := netip.MustParseAddrPort(taken.Addr().String())
	binding := func(otherwise ...uint16) gateway.Binding {
		l := gateway.Listener{Addr: want}
		copy(l.Otherwise[:], otherwise)
		g.Apply([]gateway.Listener{l})
		all := g.Bindings()
		if len(all) != 1 {
			t.Fatalf("bindings %+v; want one", all)
		}
		return all[0]
	}
	if b := binding(); b.Err == nil {
		t.Errorf("listens on %v, with nowhere to move", b.Addr)
	}
	if b := binding(want.Port(), free.Port()); b.Err != nil || b.Addr != free {
		t.Errorf("listens on %v, %v; want %v", b.Addr, b.Err, free)
	}
	if b := binding(free.Port(), want.Port()); b.Err != nil || b.Addr != free {
		t.Errorf("listens on %v, %v; want it to stay on %v", b.Addr, b.Err, free)
	}
	if b := binding(want.Port()); b.Err == nil {
		t.Errorf("listens on %v, which it may not have any more", b.Addr)
	}
}

// What may change of a listener while it runs costs no connection.
func TestOtherPortsToTryAreNoOtherListener(t *testing.T) {
	p := new(pods)
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	h := newHarness(t, p)
	c := h.client(t)
	get(t, c, "http://app.local/")
	var want []gateway.Listener
	for _, b := range h.Bindings() {
		b.Listener.Otherwise = [3]uint16{18080}
		want = append(want, b.Listener)
	}
	h.Apply(want)
	get(t, c, "http://app.local/")
	if counts := h.Meters.Of("app").Counts(); counts.Total != 1 {
		t.Errorf("%d connections; want the first one kept", counts.Total)
	}
	if got := h.Bindings()[0].Listener.Otherwise; got != want[0].Otherwise {
		t.Errorf("the ports to try are %v; want the new ones", got)
	}
}

// A request that is cut off by the gateway's end is not answered: an empty 200
// would be a lie.
func TestCloseAnswersNothing(t *testing.T) {
	for name, delivered := range map[string]bool{"while it is held": false, "while the app has it": true} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // what is told first is a matter of luck
				if got := statusAtClose(t, delivered); got != "" {
					t.Fatalf("the client was told %s", got)
				}
			}
		})
	}
}

// statusAtClose returns what a request gets that is under way when the gateway
// is closed.
func statusAtClose(t *testing.T, delivered bool) string {
	began := make(chan struct{})
	p := &pods{pick: func(ctx context.Context, _ forward.Target) error {
		if delivered {
			return nil
		}
		close(began)
		<-ctx.Done()
		return &forward.Error{Kind: forward.ErrUnavailable, Err: ctx.Err()}
	}}
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
	})
	h := newHarness(t, p)
	c := h.client(t)
	answered := make(chan string, 1)
	go func() {
		req, _ := http.NewRequest("DELETE", "http://app.local/", nil)
		resp, err := c.Do(req)
		if err != nil {
			answered <- ""
			return
		}
		resp.Body.Close()
		answered <- resp.Status
	}()
	<-began
	h.Close()
	return <-answered
}

// gated is a Backends whose dials can be held up.
type gated struct {
	*pods
	dialling chan chan struct{} // a dial waits until what it sends here is closed
}

func (g *gated) Dial(ctx context.Context, e forward.Endpoint) (forward.Conn, error) {
	gate := make(chan struct{})
	g.dialling <- gate
	<-gate
	return g.pods.Dial(ctx, e)
}

// A connection to a pod is of use, and found by Close, even if the last one
// before it went while it was being opened.
func TestConnectionOutlivesTheOneBefore(t *testing.T) {
	p := &gated{pods: new(pods), dialling: make(chan chan struct{})}
	finish := make(chan struct{})
	one := p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/first" {
			w.Header().Set("Connection", "close")
			<-finish
		}
	})
	h := newHarness(t, p)
	c := h.client(t)
	ended := make(chan error, 2)
	request := func(path string) (gate chan struct{}) {
		go func() {
			resp, err := c.Get("http://app.local" + path)
			if err == nil {
				resp.Body.Close()
			}
			ended <- err
		}()
		return <-p.dialling
	}
	close(request("/first"))
	gate := request("/second")
	close(finish)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	await.Until(t, "the first connection to be closed", func() bool { return p.openTo(one) == 0 })
	close(gate)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	get(t, c, "http://app.local/third") // or it would hang in a dial
	if n := p.openTo(one); n != 1 {
		t.Errorf("%d connections to the pod; want the second one, kept", n)
	}
	closed := make(chan struct{})
	go func() { h.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("Close waits for a connection that nobody uses")
	}
	if n := p.openTo(one); n != 0 {
		t.Errorf("%d connections to the pod after Close", n)
	}
}

// The app sees the request as the client sent it.
func TestRequestArrivesAsItWasSent(t *testing.T) {
	p := new(pods)
	type seen struct {
		Method, Host, URI, Body, Trailer string
	}
	got := make(chan seen, 1)
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.Method, r.Host, r.RequestURI, string(body), r.Trailer.Get("X-Sum")}
		w.Header().Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	})
	h := newHarness(t, p)
	conn, err := net.Dial("tcp", h.http.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "PUT /a%2Fb?q=1;x=2&bad=100%&c HTTP/1.1\r\nHost: APP.local:8080\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := seen{"PUT", "APP.local:8080", "/a%2Fb?q=1;x=2&bad=100%&c", "hello", "42"}
	if diff := cmp.Diff(want, <-got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if hsts := resp.Header.Get("Strict-Transport-Security"); hsts != "" {
		t.Errorf("HSTS is passed on (%s): it would outlive the forward", hsts)
	}
}

// An answer that the pod cuts short is a failure, and told.
func TestCutAnswerIsCounted(t *testing.T) {
	p := new(pods)
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
	})
	h := newHarness(t, p)
	resp, err := h.client(t).Get("http://app.local/")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("the client takes half of the answer for all of it")
	}
	if counts := h.Meters.Of("app").Counts(); counts.Failed != 1 || counts.LastError == "" {
		t.Errorf("counts %+v; want one failure, and why", counts)
	}
}

func TestWithoutCA(t *testing.T) {
	broken := errors.New("the key is gone")
	g := &gateway.Gateway{Backends: new(pods), NoCA: broken}
	defer g.Close()
	any := netip.AddrPortFrom(local4, 0)
	g.Apply([]gateway.Listener{{Addr: any}, {Addr: any, TLS: true}})
	for _, b := range g.Bindings() {
		if b.Listener.TLS != errors.Is(b.Err, broken) || b.Listener.TLS == b.Addr.IsValid() {
			t.Errorf("binding %+v; want only the one with TLS to fail", b)
		}
	}
}
