package gateway_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
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
