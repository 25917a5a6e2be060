package portforward

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A connection on which nothing has ever come is kept for no lease.
func TestUnprovenIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fars []net.Conn
		p := &Pool{Dial: func(context.Context, Pod) (net.Conn, error) {
			near, far := net.Pipe()
			fars = append(fars, far)
			go io.Copy(io.Discard, far)
			return near, nil
		}}
		defer func() {
			p.Close()
			for _, far := range fars {
				far.Close()
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // sooner than a ping's
		defer cancel()
		if err := p.ProbeUpgrade(ctx, Pod{Name: "pod"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("probe: %v; want %v", err, context.DeadlineExceeded)
		}
		synctest.Wait()
		if u := p.Usage(Pod{Name: "pod"}); u != (Usage{}) {
			t.Errorf("usage %+v; want none", u)
		}
	})
}

// Bare SPDY works where a frame comes, and not where a proxy says 101 and then
// something else.
func TestTrialWantsAFrame(t *testing.T) {
	tests := []struct {
		name, comes string
		want        bool
	}{
		{"nothing", "", false},
		{"an answer to a ping", string(appendPing(nil, 1)), true},
		{"a page", "HTTP/1.1 400 Bad Request\r\n\r\n\x80", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			worked := false
			c := &triedConn{Conn: scripted{strings.NewReader(tt.comes)}, works: func() { worked = true }}
			var b [1]byte
			for {
				if _, err := c.Read(b[:]); err != nil {
					break
				}
			}
			if worked != tt.want {
				t.Errorf("works: %v; want %v", worked, tt.want)
			}
		})
	}
}
