// Package proxytest has a proxy for tests.
package proxytest

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

// A Proxy passes CONNECT on to one place, whatever it is asked for.
type Proxy struct {
	*httptest.Server
	// Asked is how often it was asked.
	Asked atomic.Int32
}

// New starts a proxy to an address, which ends with the test.
func New(t *testing.T, to string) *Proxy {
	t.Helper()
	p := new(Proxy)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.Asked.Add(1)
		there, err := net.Dial("tcp", to)
		if err != nil || r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		var upward sync.WaitGroup
		upward.Go(func() {
			io.Copy(there, buffered)
			there.Close()
		})
		io.Copy(here, there)
		here.Close()
		upward.Wait()
	}))
	t.Cleanup(p.Close)
	return p
}

// None has no proxy in this process's environment until the test ends.
func None(t *testing.T) {
	t.Helper()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"} {
		t.Setenv(name, "") // which has it restored
		os.Unsetenv(name)
	}
}
