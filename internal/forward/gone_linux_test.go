package forward_test

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/forward"
)

// A client that has closed its socket, and not only its side, does not keep a
// pod's connection until the app has something to say.
func TestClosedClient(t *testing.T) {
	tests := []struct {
		name string
		end  func(*net.TCPConn) error
		half int32 // how often the pod's side is only half closed
	}{
		{"closed", (*net.TCPConn).Close, 0},
		{"half closed", (*net.TCPConn).CloseWrite, 1},
	}
	for _, network := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, tt := range tests {
			t.Run(tt.name+" on "+network, func(t *testing.T) {
				var halves atomic.Int32
				ended := make(chan struct{})
				behind := pod(t, echo)
				s := newSet(t, backends{dial: func(ctx context.Context, e forward.Endpoint) (forward.Conn, error) {
					c, err := behind.dial(ctx, e)
					return endsNoted{c, &halves, ended}, err
				}})
				s.HoldEnd = time.Minute
				f := spec("f")
				f.Listen = netip.MustParseAddrPort(network)
				s.Apply([]forward.Spec{f})
				c := dial(t, addr(t, s, "f"))
				exchange(t, c, "hello")
				if err := tt.end(c); err != nil {
					t.Fatal(err)
				}
				<-ended
				if n := halves.Load(); n != tt.half {
					t.Errorf("half closed %d times; want %d", n, tt.half)
				}
				await.Until(t, "the connection to end", func() bool { return s.Meters.Of("f").Counts().Active == 0 })
			})
		}
	}
}

// endsNoted is a pod's connection that notes how it is ended.
type endsNoted struct {
	forward.Conn
	halves *atomic.Int32
	ended  chan struct{} // closed when it is
}

func (c endsNoted) CloseWrite() error {
	c.halves.Add(1)
	return c.Conn.CloseWrite()
}

func (c endsNoted) Close() error {
	select {
	case <-c.ended:
	default:
		close(c.ended)
	}
	return c.Conn.Close()
}
