package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

var (
	notDelivered = &forward.Error{Kind: forward.ErrNotDelivered, Condition: status.Condition{State: status.Degraded, Cause: "the pod is gone, or going"}}
	interrupted  = &forward.Error{Kind: forward.ErrInterrupted, Condition: status.Condition{State: status.Degraded, Cause: "the connection to the pod was lost"}}
)

// breakable is a Backends whose connections can be made to fail.
type breakable struct {
	*pods
	mu    sync.Mutex // guards the following
	conns []*breakableConn
}

func (b *breakable) Dial(ctx context.Context, e forward.Endpoint) (forward.Conn, error) {
	c, err := b.pods.Dial(ctx, e)
	if err != nil {
		return nil, err
	}
	conn := &breakableConn{Conn: c}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns = append(b.conns, conn)
	return conn, nil
}

func (b *breakable) dialled() []*breakableConn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*breakableConn(nil), b.conns...)
}

type breakableConn struct {
	forward.Conn
	writeErr atomic.Pointer[error] // what the next writes return
	readErr  atomic.Pointer[error] // what the next reads return instead of an error
}

func (c *breakableConn) Write(p []byte) (int, error) {
	if err := c.writeErr.Load(); err != nil {
		c.Conn.Close() // which reading sees
		return 0, *err
	}
	return c.Conn.Write(p)
}

func (c *breakableConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if instead := c.readErr.Load(); err != nil && instead != nil {
		err = *instead
	}
	return n, err
}

func (c *breakableConn) breaks(write, read error) {
	if write != nil {
		c.writeErr.Store(&write)
	}
	if read != nil {
		c.readErr.Store(&read)
	}
}

// What nobody can have seen of a request is sent again, and nothing else is.
func TestRequestOnAConnectionThatBreaks(t *testing.T) {
	tests := []struct {
		name        string
		method      string
		body        string
		fresh       bool  // the connection has had no request before
		write, read error // how it breaks; without write, the app ends it
		again       bool
	}{
		{"a kept one has died, GET", "GET", "", false, interrupted, interrupted, true},
		{"a kept one has died, POST", "POST", "payload", false, interrupted, interrupted, true},
		{"a kept one has died, POST without a body", "POST", "", false, interrupted, interrupted, true},
		{"a kept one has died as if the pod had ended it, POST", "POST", "payload", false, interrupted, io.EOF, true},
		{"a kept one breaks when the request is there, GET", "GET", "", false, nil, interrupted, true}, // a safe method
		{"a kept one breaks when the request is there, POST", "POST", "payload", false, nil, interrupted, false},
		{"the app ends a kept one, GET", "GET", "", false, nil, nil, true},
		{"the app ends a kept one, POST", "POST", "payload", false, nil, nil, false},
		{"a fresh one breaks when the request is there, GET", "GET", "", true, nil, interrupted, false},
		{"the app ends a fresh one, GET", "GET", "", true, nil, nil, false},
		{"the pod was not reached, GET", "GET", "", true, nil, notDelivered, true},
		{"the pod was not reached, POST", "POST", "payload", true, nil, notDelivered, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &breakable{pods: new(pods)}
			var seen atomic.Int32
			b.add(t, "pod", func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.URL.Path == "/" && seen.Add(1) == 1 && tt.write == nil {
					if tt.fresh {
						b.dialled()[0].breaks(nil, tt.read)
					}
					c, _, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					c.Close()
					return
				}
				fmt.Fprintf(w, "%s %s", r.Method, body)
			})
			c := newHarness(t, b).client(t)
			if !tt.fresh {
				get(t, c, "http://app.local/before")
				b.dialled()[0].breaks(tt.write, tt.read)
			}
			req, _ := http.NewRequest(tt.method, "http://app.local/", strings.NewReader(tt.body))
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, _ := io.ReadAll(resp.Body)
			want := tt.method + " " + tt.body
			switch {
			case tt.again && (resp.StatusCode != http.StatusOK || string(got) != want):
				t.Errorf("%s: %.100q; want %q from another try", resp.Status, got, want)
			case !tt.again && (resp.StatusCode != http.StatusBadGateway || seen.Load() != 1):
				t.Errorf("%s, and the app saw it %d times; want 502, and once", resp.Status, seen.Load())
			}
			if n := len(b.dialled()); n != 1 && !tt.again || n != 2 && tt.again {
				t.Errorf("%d dials", n)
			}
		})
	}
}

// What is cut is not taken for all there was: whoever takes the end of the
// connection for that of the answer sees a reset.
func TestCutIsReset(t *testing.T) {
	for _, upgraded := range []bool{false, true} {
		t.Run(fmt.Sprintf("upgraded %v", upgraded), func(t *testing.T) {
			b := &breakable{pods: new(pods)}
			cut := make(chan struct{})
			b.add(t, "pod", func(w http.ResponseWriter, r *http.Request) {
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if upgraded {
					io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhalf")
				} else {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
				}
				<-cut
			})
			c, err := net.Dial("tcp", newHarness(t, b).http.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if upgraded {
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: app.local\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			} else {
				io.WriteString(c, "GET / HTTP/1.0\r\nHost: app.local\r\n\r\n")
			}
			in := bufio.NewReader(c)
			if upgraded {
				if _, err := http.ReadResponse(in, nil); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(in, make([]byte, 4)); err != nil {
					t.Fatal(err)
				}
			} else if _, err := http.ReadResponse(in, nil); err != nil {
				t.Fatal(err)
			}
			b.dialled()[0].breaks(nil, interrupted)
			close(cut)
			if _, err := io.Copy(io.Discard, in); !isReset(err) {
				t.Errorf("the client sees %v; want a reset", err)
			}
		})
	}
}

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }
