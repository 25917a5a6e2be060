package forward_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/forward"
)

// A client that goes while the pod takes nothing ends the pod's connection, if
// it goes with RST; else the pod gets all that was sent, whenever it likes.
func TestClientGoesDuringAStalledUpload(t *testing.T) {
	tests := []struct {
		name string
		end  func(c *net.TCPConn, sent int, reading chan<- struct{}, got <-chan int64)
	}{
		{"with RST", func(c *net.TCPConn, _ int, reading chan<- struct{}, got <-chan int64) {
			c.SetLinger(0)
			c.Close()
		}},
		{"in order", func(c *net.TCPConn, sent int, reading chan<- struct{}, got <-chan int64) {
			c.Close()
			<-time.After(1500 * time.Millisecond) // somebody has looked
			close(reading)
			if n := <-got; n != int64(sent) {
				t.Errorf("the pod got %d bytes of %d", n, sent)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reading, got, done := make(chan struct{}), make(chan int64, 1), make(chan struct{})
			s := newSet(t, pod(t, func(c *net.TCPConn) {
				select {
				case <-reading:
					n, _ := io.Copy(io.Discard, c)
					got <- n
				case <-done:
				}
			}))
			t.Cleanup(func() { close(done) })
			s.Apply([]forward.Spec{spec("f")})
			c := dial(t, addr(t, s, "f"))
			sent := 0
			for block := make([]byte, 64<<10); ; {
				c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
				n, err := c.Write(block)
				sent += n
				if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
					break
				}
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
			}
			tt.end(c, sent, reading, got)
			await.Until(t, "the connection to end", func() bool { return s.Meters.Of("f").Counts().Active == 0 })
		})
	}
}
