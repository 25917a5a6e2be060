package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// echoServer sends back what it gets, until the end of that.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(c, c)
			c.Close()
		}
	}()
	return l.Addr().String()
}

func delayed(t *testing.T, each time.Duration) net.Conn {
	t.Helper()
	d, err := newDelay(echoServer(t), each)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := net.Dial("tcp", d.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDelayIsThatLong(t *testing.T) {
	const each = 30 * time.Millisecond
	c := delayed(t, each)
	for range 3 {
		began := time.Now()
		if err := echo(c, []byte("ping")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 2*each {
			t.Errorf("there and back took %v; want %v at least", took, 2*each)
		}
	}
}

// More than fits into the proxy at once comes back in order, and so does the
// end.
func TestDelayKeepsOrder(t *testing.T) {
	c := delayed(t, time.Millisecond)
	sent := make([]byte, 2*inFlight*chunk)
	rand.NewChaCha8([32]byte{}).Read(sent)
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		c.(*net.TCPConn).CloseWrite()
		written <- err
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back that are not the %d that were sent", len(got), len(sent))
	}
}

func TestDelayCloseEndsConnections(t *testing.T) {
	d, err := newDelay(echoServer(t), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", d.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := echo(c, []byte("ping")); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
		t.Error("the connection goes on")
	}
}
