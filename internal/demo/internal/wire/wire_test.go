package wire_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/demo/internal/wire"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs an echo behind a network, and returns its address.
func serve(t *testing.T, n *wire.Network) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	behind := n.Listener(l)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := behind.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				io.Copy(c, c)
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		n.Close()
		behind.Close()
		all.Wait()
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Whatever the weather, bytes arrive whole and in order.
func TestIntegrity(t *testing.T) {
	n := wire.New()
	c := dial(t, serve(t, n))
	sent := make([]byte, 4<<20)
	rand.Read(sent)
	stop := make(chan struct{})
	var weather sync.WaitGroup
	weather.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-stop:
				n.SetDelay(0)
				return
			}
			n.SetDelay(time.Duration(i%3) * time.Millisecond)
			undo := n.Drop()
			undo()
			undo()
		}
	})
	var writer sync.WaitGroup
	writer.Go(func() { c.Write(sent) })
	got := make([]byte, len(sent))
	_, err := io.ReadFull(c, got)
	close(stop)
	weather.Wait()
	writer.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("the echo differs: %v", err)
	}
}

func TestEnds(t *testing.T) {
	tests := []struct {
		name string
		end  func(n *wire.Network)
	}{
		{"hung up", (*wire.Network).HangUp},
		{"closed", (*wire.Network).Close},
		{"closed while dropping", func(n *wire.Network) { n.Drop(); n.Close() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := wire.New()
			c := dial(t, serve(t, n))
			c.Write([]byte("x"))
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			tt.end(n)
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("the connection goes on")
			}
		})
	}
}
