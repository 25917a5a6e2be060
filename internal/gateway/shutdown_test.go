package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/gateway"
)

// echoing answers "/slow" when release is closed, and echoes what is upgraded.
func echoing(entered chan<- struct{}, release <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Upgrade") == "echo":
			c, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			io.Copy(c, rw)
		case r.URL.Path == "/slow":
			entered <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
			}
			io.WriteString(w, "done")
		}
	}
}

// upgrade opens an upgraded connection to host through the gateway.
func upgrade(t *testing.T, at, host string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: "+host+"\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	echoes(t, c, in)
	return c, in
}

func echoes(t *testing.T, c net.Conn, in *bufio.Reader) {
	t.Helper()
	io.WriteString(c, "hello\n")
	if got, err := in.ReadString('\n'); got != "hello\n" {
		t.Errorf("echo %q, %v", got, err)
	}
}

// Shutdown answers the requests in flight, and closes everything else.
func TestShutdown(t *testing.T) {
	for _, scheme := range []string{"http", "https"} { // the latter over HTTP/2
		t.Run(scheme, func(t *testing.T) {
			p := new(pods)
			entered, release := make(chan struct{}), make(chan struct{})
			one := p.add(t, "pod", echoing(entered, release))
			h := newHarness(t, p)
			busy, idle := h.client(t), h.client(t)
			get(t, idle, scheme+"://app.local/")
			answered := make(chan string, 1)
			go func() {
				resp, err := busy.Get(scheme + "://app.local/slow")
				if err != nil {
					answered <- err.Error()
					return
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					body = []byte(err.Error())
				}
				if resp.ProtoMajor == 1 && !resp.Close {
					body = append(body, ", and the connection stays"...)
				}
				answered <- string(body)
			}()
			<-entered
			shut := make(chan struct{})
			go func() {
				defer close(shut)
				h.Shutdown(t.Context())
			}()
			at := h.http
			if scheme == "https" {
				at = h.https
			}
			await.Until(t, "the listener to be closed", func() bool {
				c, err := net.Dial("tcp", at.String())
				if err == nil {
					c.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED)
			})
			select {
			case <-shut:
				t.Error("nobody waited for the request in flight")
			default:
			}
			close(release)
			if got := <-answered; got != "done" {
				t.Errorf("the request in flight: %s", got)
			}
			<-shut
			if n := p.openTo(one); n != 0 {
				t.Errorf("%d connections to the pod are left", n)
			}
			if counts := h.Meters.Of("app").Counts(); counts.Active != 0 || counts.Failed != 0 {
				t.Errorf("counts %+v; want none left, and no failure", counts)
			}
		})
	}
}

// A connection that a browser has opened for later does not delay it.
func TestShutdownOfUnusedConnections(t *testing.T) {
	p := new(pods)
	h := newHarness(t, p)
	for _, at := range []netip.AddrPort{h.http, h.https} {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		defer func() {
			// By itself, net/http ends it in order, after 5 s.
			if _, err := c.Read(make([]byte, 1)); !isReset(err) {
				t.Errorf("the connection to %v ends with %v; want a reset", at, err)
			}
		}()
	}
	await.Until(t, "the connections to be accepted", func() bool { return h.Meters.Of("app").Counts().Active == 2 })
	h.Shutdown(t.Context())
}

// Upgraded connections do not delay it, and what takes too long is cut.
func TestShutdownIsBounded(t *testing.T) {
	p := new(pods)
	entered := make(chan struct{})
	p.add(t, "pod", echoing(entered, nil))
	h := newHarness(t, p)
	_, in := upgrade(t, h.http.String(), "app.local")
	answered := make(chan error, 1)
	c := h.client(t)
	go func() {
		resp, err := c.Get("http://app.local/slow")
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	shut := make(chan struct{})
	go func() {
		defer close(shut)
		h.Shutdown(ctx)
	}()
	select {
	case <-shut:
		t.Error("nobody waited for the request in flight")
	default:
	}
	cancel()
	if err := <-answered; err == nil {
		t.Error("a request that was cut has an answer")
	}
	if _, err := in.ReadByte(); !isReset(err) {
		t.Errorf("the upgraded connection ends with %v; want a reset", err)
	}
	<-shut
}

// What is under way to a forward ends with it, and nothing else does, on a
// listener that forwards share.
func TestRemovedForwardEndsOnSharedListeners(t *testing.T) {
	p := new(pods)
	entered := make(chan struct{})
	p.add(t, "pod", echoing(entered, nil))
	g := &gateway.Gateway{Backends: p, Meters: new(forward.Meters)}
	defer g.Close()
	row := func(name string) *gateway.Row {
		return &gateway.Row{
			Forward: name, Hosts: []string{name + ".local"}, Hold: time.Minute,
			Backends: []gateway.Backend{{Target: forward.Target{Port: 80}}},
		}
	}
	g.SetTable(gateway.NewTable([]*gateway.Row{row("stays"), row("goes")}))
	g.Apply([]gateway.Listener{{Addr: netip.AddrPortFrom(local4, 0)}})
	at := g.Bindings()[0].Addr.String()
	stays, staysIn := upgrade(t, at, "stays.local")
	_, goesIn := upgrade(t, at, "goes.local")
	slow, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	slow.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(slow, "GET /slow HTTP/1.1\r\nHost: goes.local\r\n\r\n")
	<-entered

	g.SetTable(gateway.NewTable([]*gateway.Row{row("stays")}))
	if _, err := goesIn.ReadByte(); !isReset(err) {
		t.Errorf("the removed forward's upgraded connection ends with %v; want a reset", err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(slow), nil); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the removed forward's request: %v, %v; want it cut", resp, err)
	}
	echoes(t, stays, staysIn)
	g.SetTable(gateway.NewTable([]*gateway.Row{row("stays"), row("goes")}))
	upgrade(t, at, "goes.local") // it is back
	echoes(t, stays, staysIn)
}
