package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/gateway"
	"github.com/tunneld/tunneld/internal/status"
)

// send sends a request as it stands, and returns the answer.
func (h *harness) send(t *testing.T, request string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", h.http.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
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

// What is misdirected is told to where, also if it says nothing about that.
func TestMisdirected(t *testing.T) {
	h := newHarness(t, new(pods))
	tests := []struct{ name, request, cause, hint string }{
		{"another host", "GET / HTTP/1.1\r\nHost: other.local\r\n", "no forward on this address has the name other.local", "tunnelctl ls"},
		{"an empty host", "GET / HTTP/1.1\r\nHost:\r\n", "the request names no host, so it is for no forward", "send the forward's name in the Host header"},
		{"no host", "GET / HTTP/1.0\r\n", "the request names no host, so it is for no forward", "send the forward's name in the Host header"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, body := h.send(t, tt.request+"Accept: application/json\r\nConnection: close\r\n\r\n")
			var got map[string]any
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			want := map[string]any{"status": 421.0, "cause": tt.cause, "hint": tt.hint, "devOnly": status.DevOnly}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the page (-want +got):\n%s", diff)
			}
		})
	}
}

// A request whose body is broken is not the pod's fault.
func TestBrokenRequest(t *testing.T) {
	p := new(pods)
	p.add(t, "pod-1", func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	h := newHarness(t, p)
	resp, body := h.send(t, "POST / HTTP/1.1\r\nHost: app.local\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n")
	if resp.StatusCode != http.StatusBadRequest || strings.Contains(body, "pod-1") || !strings.Contains(body, "the request cannot be read: ") {
		t.Errorf("%s; want 400, and that the request is at fault:\n%s", resp.Status, body)
	}
	if n := h.Meters.Of("app").Counts().Failed; n != 0 {
		t.Errorf("%d failures are the forward's", n)
	}
}

// A request that came before the forward's ports were known goes to the one
// that is known then.
func TestWaitsForThePort(t *testing.T) {
	picked := make(chan struct{}, 1)
	p := &pods{pick: func(_ context.Context, to forward.Target) error {
		if to.Port != 0 {
			return nil
		}
		picked <- struct{}{}
		return &forward.Error{Kind: forward.ErrUnavailable, Err: forward.ErrPortUnknown}
	}}
	p.add(t, "pod-1", func(http.ResponseWriter, *http.Request) {})
	h := newHarness(t, p)
	table := func(port uint16) {
		h.SetTable(gateway.NewTable([]*gateway.Row{{
			Forward: "app", Hosts: []string{"app.local"}, Scope: h.http.Addr(), Hold: time.Minute,
			Backends: []gateway.Backend{{Target: forward.Target{Port: port}}},
		}}))
	}
	table(0)
	go func() {
		<-picked
		table(0) // nothing new
		<-picked
		table(80)
	}()
	if resp, body := get(t, h.client(t), "http://app.local/"); resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", resp.Status, body)
	}
}

// A pod that gives no response is named, with what to look at.
func TestNoResponse(t *testing.T) {
	p := new(pods)
	p.add(t, "pod-1", func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(c, r.URL.Query().Get("say"))
		c.Close()
	})
	c := newHarness(t, p).client(t)
	tests := []struct{ name, says, cause string }{
		{"nothing", "", "pod pod-1 ended the connection before it had answered"},
		{"half of it", "HTTP/1.1 200 OK\r\nServer: x\r\n", "pod pod-1 ended the connection before it had answered"},
		{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n", "what came from pod pod-1 is no HTTP response: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := get(t, c, "http://app.local/?say="+url.QueryEscape(tt.says))
			if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, tt.cause) || !strings.Contains(body, "logs pod-1") {
				t.Errorf("%s, without %q and a hint:\n%s", resp.Status, tt.cause, body)
			}
		})
	}
}
