package gateway_test

import (
	"net/http"
	"testing"
)

// The plain listener takes HTTP/2 from clients that know beforehand that it
// does.
func TestUnencryptedHTTP2(t *testing.T) {
	p := new(pods)
	p.add(t, "pod", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(r.Proto)) })
	c := newHarness(t, p).client(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	c.Transport.(*http.Transport).Protocols = protocols
	resp, body := get(t, c, "http://app.local/")
	if resp.ProtoMajor != 2 || body != "HTTP/1.1" {
		t.Errorf("%s from the gateway, %s to the pod; want HTTP/2 and HTTP/1.1", resp.Proto, body)
	}
}
