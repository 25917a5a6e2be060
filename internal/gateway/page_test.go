package gateway_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/status"
)

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
			c, err := net.Dial("tcp", h.http.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, tt.request+"Accept: application/json\r\nConnection: close\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var got map[string]any
			if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
				t.Fatal(err)
			}
			want := map[string]any{"status": 421.0, "cause": tt.cause, "hint": tt.hint, "devOnly": status.DevOnly}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the page (-want +got):\n%s", diff)
			}
		})
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
