//go:build verifiers

package verifiers_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A server shows one chain to whoever comes, whatever name they ask for, and
// notes how far they get.
type server struct {
	port int
	// greeted and completed count clients that have begun a handshake, and those
	// that have ended it, which no client does before it has seen the chain.
	greeted, completed atomic.Int64
}

// serve starts a server on 127.0.0.1, until the test ends.
func serve(t *testing.T, cert tls.Certificate) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{port: ln.Addr().(*net.TCPAddr).Port}
	conf := &tls.Config{
		SessionTicketsDisabled: true, // each client judges the chain each time
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.greeted.Add(1)
			return &cert, nil
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.answer(ctx, tls.Server(conn, conf)) })
		}
	})
	t.Cleanup(func() {
		cancel()
		ln.Close()
		serving.Wait()
	})
	return s
}

// answer says a word of HTTP to whoever has accepted the chain and asks
// something.
func (s *server) answer(ctx context.Context, conn *tls.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if conn.HandshakeContext(ctx) != nil {
		return // the client tells
	}
	s.completed.Add(1)
	if n, _ := conn.Read(make([]byte, 4096)); n > 0 {
		conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"))
	}
}
