package verifiers

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// A server waits for one client to ask for one path that nobody else knows.
type server struct {
	url string

	path     string
	listener net.Listener
	// settled is closed when the request has come, or when the client has said by an
	// alert that it does not like the certificate.
	settled chan struct{}
	settle  sync.Once
	running sync.WaitGroup

	mu    sync.Mutex // guards all that follows
	seen  sight
	conns map[net.Conn]struct{} // nil once it is closed
}

// A sight is what a server saw of its client.
type sight struct {
	// shown is true if a TLS client was shown the certificate, and request if it asked
	// for the path.
	shown, request bool
	// refusal is what it said when it broke off the handshake after that.
	refusal string
}

// lastWords are for how long a connection may stay whose client is gone; a process
// that it has left may hold it open.
const lastWords = time.Second

func listen(cert tls.Certificate) (*server, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	path := "/" + rand.Text()
	s := &server{
		url:  "https://" + l.Addr().String() + path,
		path: path, listener: l,
		settled: make(chan struct{}),
		conns:   make(map[net.Conn]struct{}),
	}
	s.running.Go(func() { s.accept(cert) })
	return s, nil
}

func (s *server) accept(cert tls.Certificate) {
	config := &tls.Config{
		NextProtos: []string{"http/1.1"},
		// A client that knows the server of an earlier session has nothing to verify.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.seen.shown = true
			return &cert, nil
		},
	}
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed; short of that, the client is not heard, and says so
		}
		s.mu.Lock()
		closed := s.conns == nil
		if !closed {
			s.conns[conn] = struct{}{}
		}
		s.mu.Unlock()
		if closed {
			conn.Close()
			return
		}
		s.running.Go(func() {
			defer s.forget(conn)
			s.serve(tls.Server(conn, config))
		})
	}
}

func (s *server) forget(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

// page is what is served. It names an icon that needs no request.
const page = `<!DOCTYPE html><link rel="icon" href="data:,"><title>tunnelctl</title>`

func (s *server) serve(conn *tls.Conn) {
	if err := conn.HandshakeContext(context.Background()); err != nil {
		s.broken(err)
		return
	}
	request, err := http.ReadRequest(bufio.NewReader(io.LimitReader(conn, 64<<10)))
	if err != nil {
		// In TLS 1.3 the server may be through with a handshake that its client breaks off.
		s.broken(err)
		return
	}
	status := "404 Not Found"
	if request.URL.Path == s.path {
		status = "200 OK"
		s.see(func(seen *sight) { seen.request = true })
	}
	fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(page), page)
	conn.Close()
}

// broken notes that a client that was shown the certificate broke off with an alert.
// OpenSSL sends it before it has come to the keys of TLS 1.3, and crypto/tls takes it
// for a damaged record, which is an error of its own. An end without an alert is not
// told from that of a client that had another reason.
func (s *server) broken(err error) {
	var op *net.OpError
	if !s.saw().shown || !errors.As(err, &op) {
		return
	}
	var refusal string
	switch op.Op {
	case "remote error":
		refusal = op.Err.Error()
	case "local error":
		refusal = "with an alert"
	default:
		return
	}
	s.see(func(seen *sight) { seen.refusal = refusal })
}

// see notes what settles the matter.
func (s *server) see(what func(*sight)) {
	s.mu.Lock()
	what(&s.seen)
	s.mu.Unlock()
	s.settle.Do(func() { close(s.settled) })
}

func (s *server) saw() sight {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// close ends the server. What its client had sent before is read; it waits for that.
func (s *server) close() {
	s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		conn.SetDeadline(time.Now().Add(lastWords))
	}
	s.conns = nil
	s.mu.Unlock()
	s.running.Wait()
}

// newStranger makes a certificate for 127.0.0.1 that nobody has a reason to accept.
func newStranger() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "for comparison, to be trusted by nobody"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
