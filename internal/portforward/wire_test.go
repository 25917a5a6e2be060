package portforward

import (
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/tunneld/tunneld/internal/await"
)

// A countedConn counts its writes.
type countedConn struct {
	net.Conn
	writes atomic.Int32
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// newUpgraded returns an upgraded connection over TLS, what is below it, and the
// far end of that.
func newUpgraded(t *testing.T) (*upgradedConn, *countedConn, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	certificate.Close()
	server := tls.Server(far, certificate.TLS)
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	under := &countedConn{Conn: near}
	w := &wire{Conn: under}
	client := tls.Client(w, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	w.gatherWrites()
	under.writes.Store(0)
	return &upgradedConn{client, w}, under, server
}

func TestOneWriteForManyRecords(t *testing.T) {
	t.Parallel()
	c, under, far := newUpgraded(t)
	const size = 100_000
	for range 3 {
		before := under.writes.Load()
		written := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, size))
			written <- err
		}()
		if _, err := io.ReadFull(far, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		if n := under.writes.Load() - before; n != 1 {
			t.Errorf("%d writes; want 1", n)
		}
	}
	go c.Close()
	if n, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("at the end the far end reads %d bytes, %v; want a clean end", n, err)
	}
}

func TestCloseInterruptsAWrite(t *testing.T) {
	t.Parallel()
	c, under, _ := newUpgraded(t)
	written := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte("which nobody reads"))
		written <- err
	}()
	await.Until(t, "the write to be under way", func() bool { return under.writes.Load() > 0 })
	c.Close()
	if err := <-written; err == nil {
		t.Error("the write has succeeded")
	}
}
