package daemon_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/status"
)

// A lasting connection is one that a test looks at more than once.
type lasting struct {
	net.Conn
	in             *bufio.Reader
	question, want string
}

// alive has it echo.
func (l *lasting) alive() error {
	if _, err := io.WriteString(l, l.question); err != nil {
		return err
	}
	got := make([]byte, len(l.want))
	if _, err := io.ReadFull(l.in, got); err != nil || string(got) != l.want {
		return errors.Join(err, errors.New("echo: "+string(got)))
	}
	return nil
}

// cut reports whether it was ended with RST.
func (l *lasting) cut() bool {
	_, err := l.in.ReadByte()
	return errors.Is(err, syscall.ECONNRESET)
}

func dialRaw(t *testing.T, addr string) *lasting {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(60 * time.Second))
	l := &lasting{c, bufio.NewReader(c), "hello", "hello"}
	if err := l.alive(); err != nil {
		t.Fatal(err)
	}
	return l
}

// dialWebSocket opens a WebSocket through the gateway at an address.
func dialWebSocket(t *testing.T, addr, host string) *lasting {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(60 * time.Second))
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: "+host+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	// A text frame with a mask of zeros, and its echo.
	l := &lasting{c, bufio.NewReader(c), "\x81\x82\x00\x00\x00\x00hi", "\x81\x02hi"}
	resp, err := http.ReadResponse(l.in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	if err := l.alive(); err != nil {
		t.Fatal(err)
	}
	return l
}

// awaitUsable waits until a forward is in order, used or not.
func (h *harness) awaitUsable(t *testing.T, name string) (f status.Forward) {
	t.Helper()
	await.Until(t, name+" to be usable", func() bool {
		f = h.forward(t, name)
		return f.State == status.Idle || f.State == status.Ready
	})
	return f
}

// plain is the forward's URL without TLS under its name of that kind.
func plain(t *testing.T, f status.Forward, suffix string) *url.URL {
	t.Helper()
	for _, text := range append([]string{f.URL}, f.URLs...) {
		u, err := url.Parse(text)
		if err == nil && u.Scheme == "http" && strings.HasSuffix(u.Hostname(), suffix) {
			return u
		}
	}
	t.Fatalf("no URL of http://*%s among %v", suffix, f.URLs)
	return nil
}

// To remove a forward ends its connections, and no others.
func TestRemoveEndsItsConnectionsOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient,
		"name: goes, target: service/task-api", "name: stays, target: service/task-api",
		"name: goes-raw, target: service/task-tcp, ports: [9000]", "name: stays-raw, target: service/task-tcp, ports: [9000]")
	conns := make(map[string]*lasting)
	for _, name := range []string{"goes", "stays"} {
		f := h.awaitUsable(t, name)
		own, shared := plain(t, f, ".local"), plain(t, f, ".localhost")
		conns[name+", upgraded"] = dialWebSocket(t, net.JoinHostPort(f.Address, own.Port()), own.Host)
		conns[name+", upgraded on the shared address"] = dialWebSocket(t, net.JoinHostPort("127.0.0.1", shared.Port()), shared.Host)
		raw := h.awaitUsable(t, name+"-raw")
		conns[name+"-raw"] = dialRaw(t, raw.Ports[0].Listen)
	}
	slow := make(chan error, 1)
	stays, goes := h.forward(t, "stays"), h.forward(t, "goes")
	client := h.client(t, stays)
	before := h.Dials("task-api", "", 8000)
	go func() {
		_, body, err := get(client, plain(t, stays, ".local").String()+"/slow/1000")
		if err == nil && body == "" {
			err = errors.New("an empty answer")
		}
		slow <- err
	}()
	await.Until(t, "the request to be there", func() bool { return h.Dials("task-api", "", 8000) > before })
	keeps := h.client(t, goes)
	if _, _, err := get(keeps, plain(t, goes, ".local").String()+"/health"); err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"goes", "goes-raw"} {
		if err := h.Client.Remove(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range conns {
		if strings.HasPrefix(name, "goes") {
			if !c.cut() {
				t.Errorf("%s: it was not reset", name)
			}
		} else if err := c.alive(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := <-slow; err != nil {
		t.Errorf("the request of another forward: %v", err)
	}
	if _, _, err := get(keeps, plain(t, goes, ".local").String()+"/health"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a kept connection of the removed forward: %v; want it closed, and nobody to listen", err)
	}
}

// The end of the daemon lets what is in the middle of something finish, and
// nothing else.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: web, target: service/task-api", "name: tcp, target: service/task-tcp, ports: [9000]")
	web, tcp := h.awaitState(t, "web", status.Idle), h.awaitState(t, "tcp", status.Idle)
	idle := dialRaw(t, tcp.Ports[0].Listen)
	before := h.Dials("task-api", "", 8000)
	client := h.client(t, web)
	slow := make(chan error, 1)
	go func() {
		code, _, err := get(client, web.URL+"/slow/1500")
		if err == nil && code != 200 {
			err = errors.New(http.StatusText(code))
		}
		slow <- err
	}()
	await.Until(t, "the request to be there", func() bool { return h.Dials("task-api", "", 8000) > before })
	h.stop() // which would take an hour, if anything kept it
	if err := <-slow; err != nil {
		t.Errorf("the request in flight: %v", err)
	}
	if !idle.cut() {
		t.Error("the idle connection was not reset")
	}
}

// Whoever is in a hurry waits for nobody.
func TestStopInAHurry(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: web, target: service/task-api")
	web := h.awaitState(t, "web", status.Idle)
	before := h.Dials("task-api", "", 8000)
	client := h.client(t, web)
	slow := make(chan error, 1)
	go func() {
		_, _, err := get(client, web.URL+"/slow/600000")
		slow <- err
	}()
	await.Until(t, "the request to be there", func() bool { return h.Dials("task-api", "", 8000) > before })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		h.stop()
	}()
	at := plain(t, web, ".local")
	await.Until(t, "the listener to be closed", func() bool {
		c, err := net.Dial("tcp", net.JoinHostPort(web.Address, at.Port()))
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	select {
	case <-stopped:
		t.Error("it did not wait for the request")
	default:
	}
	h.hurry()
	if err := <-slow; err == nil || os.IsTimeout(err) {
		t.Errorf("the request: %v; want it cut, before its client gives up", err)
	}
	<-stopped
}

// A pod that goes away finishes the request that it has, and gets no other.
func TestRequestOnAPodThatGoesAway(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: web, target: service/task-api")
	web := h.awaitState(t, "web", status.Idle)
	if err := h.Scale("task-api", "task-api", 1); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "one pod", func() bool { return h.forward(t, "web").Endpoints.Total == 1 })
	client := h.client(t, web)
	who := func() string {
		t.Helper()
		code, body, err := get(client, web.URL+"/")
		var said struct{ Pod string }
		if err == nil {
			err = json.Unmarshal([]byte(body), &said)
		}
		if err != nil || code != 200 {
			t.Fatalf("%d %s, %v", code, body, err)
		}
		return said.Pod
	}
	pod := who()
	resp, err := client.Get(web.URL + "/sse") // ten events in two seconds
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := h.DeletePod("task-api", pod, time.Minute); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "another pod to answer", func() bool { return who() != pod })
	for range 5 {
		if got := who(); got == pod {
			t.Error("a later request went to the pod that goes away")
		}
	}
	if body, err := io.ReadAll(resp.Body); err != nil || strings.Count(string(body), "data:") != 10 {
		t.Errorf("the request in flight: %q, %v; want ten events", body, err)
	}
	await.Until(t, "nothing to lead there", func() bool {
		return !slices.ContainsFunc(h.Upgrades(), func(u demo.Upgrade) bool { return u.Pod == pod })
	})
}

// The way to the pod is lost between two requests: the second one is none the
// worse for it, whatever it is.
func TestLinkCutBetweenRequests(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: web, target: service/task-api")
	web := h.awaitState(t, "web", status.Idle)
	client := h.client(t, web)
	ask := func(method string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, web.URL+"/upload", strings.NewReader("payload"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 || strings.TrimSpace(string(body)) != "7" {
			t.Errorf("%s: %s %.200s", method, resp.Status, body)
		}
	}
	ask("POST")
	for _, method := range []string{"POST", "GET", "POST"} {
		h.StopAPI()
		h.awaitState(t, "web", status.Offline)
		if err := h.StartAPI(); err != nil {
			t.Fatal(err)
		}
		ask(method) // held until it is seen to be back
	}
	if f := h.forward(t, "web"); f.Connections.Failed != 0 {
		t.Errorf("connections %+v, %s; want no failure", f.Connections, f.LastError)
	}
}
