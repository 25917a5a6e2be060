package portforward

import (
	"context"
	"errors"
	"fmt"
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

// Whoever gives up is told so, and not that the connection was to blame.
func TestOpenIsCancelledWhileOthersWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // which reads nothing
		defer far.Close()
		p := &Pool{MaxPerPod: 1, PingInterval: time.Hour, Dial: func(context.Context, Pod) (net.Conn, error) { return near, nil }}
		defer p.Close()
		if _, err := p.Open(t.Context(), Pod{Name: "pod"}, 80); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * openWait) // its first frames are being written
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := p.Open(ctx, Pod{Name: "pod"}, 80); !errors.Is(err, context.Canceled) {
			t.Errorf("open: %v; want %v", err, context.Canceled)
		}
	})
}

// Bare SPDY works where a frame comes, and not where a proxy says 101 and then
// something else, or nothing.
func TestSPDYIsJudgedByWhatComes(t *testing.T) {
	reply := string(appendPing(nil, 1))
	tests := []struct {
		name, comes string
		before      transport
		want        transport
		again       bool // it is tried
	}{
		{"a trial that brings nothing", "", webSocket, webSocket, false},
		{"a trial that brings an answer to a ping", reply, webSocket, bareSPDY, false},
		{"a trial that brings a page", "HTTP/1.1 400 Bad Request\r\n\r\n\x80", webSocket, webSocket, false},
		{"a later one that brings an answer", reply, bareSPDY, bareSPDY, false},
		{"a later one that brings nothing", "", bareSPDY, webSocket, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := new(Dialer)
			d.works.Store(int32(tt.before))
			d.tried.Store(true)
			c := &spdyConn{Conn: scripted{strings.NewReader(tt.comes)}, dialer: d}
			var b [1]byte
			for {
				if _, err := c.Read(b[:]); err != nil {
					break
				}
			}
			c.Close()
			if got := transport(d.works.Load()); got != tt.want || d.tried.Load() == tt.again {
				t.Errorf("works: %v, tried again: %v; want %v, %v", got, !d.tried.Load(), tt.want, tt.again)
			}
		})
	}
}

// Whoever waits for a place is told when another gives up waiting to upgrade.
func TestGivenUpTurnIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("no upgrade today")
		p := &Pool{MaxPerPod: 1, Dial: func(ctx context.Context, pod Pod) (net.Conn, error) {
			if pod.Name != "pod" {
				<-ctx.Done()
			}
			return nil, failure
		}}
		defer p.Close()
		open := func(name string, patience time.Duration) <-chan error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			result := make(chan error, 1)
			go func() {
				defer cancel()
				_, err := p.Open(ctx, Pod{Name: name}, 80)
				result <- err
			}()
			synctest.Wait()
			return result
		}
		for n := range maxDialing {
			open(fmt.Sprint("another ", n), time.Hour)
		}
		first := open("pod", turnTime/2)
		second := open("pod", 2*turnTime)
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first: %v; want %v", err, context.DeadlineExceeded)
		}
		if err := <-second; !errors.Is(err, failure) {
			t.Errorf("the second: %v; want %v", err, failure)
		}
	})
}
