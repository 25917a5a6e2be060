package tls_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	localtls "github.com/tunneld/tunneld/internal/tls"
)

var listenAddr = netip.MustParseAddr("127.77.31.4")

// only allows these names.
func only(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

// A recorder keeps what the client read.
type recorder struct {
	net.Conn
	read bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.read.Write(b[:n])
	return n, err
}

// A handshake is what came of one, with a byte sent from server to client so
// that the client sees the session tickets.
type handshake struct {
	state                tls.ConnectionState
	clientErr, serverErr error
	read                 []byte // by the client, as it was on the wire
}

func shake(t testing.TB, server, client *tls.Config) handshake {
	t.Helper()
	near, far := net.Pipe()
	var h handshake
	var serving sync.WaitGroup
	serving.Go(func() {
		defer far.Close()
		c := tls.Server(far, server)
		if h.serverErr = c.HandshakeContext(t.Context()); h.serverErr != nil {
			return
		}
		if _, err := c.Write([]byte{'x'}); err != nil {
			h.serverErr = err
		}
	})
	rec := &recorder{Conn: near}
	c := tls.Client(rec, client)
	h.clientErr = c.HandshakeContext(t.Context())
	if h.clientErr == nil {
		_, h.clientErr = io.ReadFull(c, make([]byte, 1))
	}
	h.state = c.ConnectionState()
	near.Close()
	serving.Wait()
	h.read = rec.read.Bytes()
	return h
}

func client(ca *localtls.CA, name string) *tls.Config {
	return &tls.Config{RootCAs: pool(ca.Root()), ServerName: name}
}

func TestHandshake(t *testing.T) {
	tests := []struct {
		name   string
		client func(*tls.Config)
		check  func(*testing.T, tls.ConnectionState)
		err    string // the client's
	}{
		{name: "plain"},
		{name: "case does not matter", client: func(c *tls.Config) { c.ServerName = "TASK-api.Local" }},
		{name: "final dot", client: func(c *tls.Config) { c.ServerName = "task-api.local." }},
		{name: "h2", client: func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, check: func(t *testing.T, s tls.ConnectionState) {
			if s.NegotiatedProtocol != "h2" {
				t.Errorf("negotiated %q", s.NegotiatedProtocol)
			}
		}},
		{name: "http/1.1", client: func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, check: func(t *testing.T, s tls.ConnectionState) {
			if s.NegotiatedProtocol != "http/1.1" {
				t.Errorf("negotiated %q", s.NegotiatedProtocol)
			}
		}},
		{name: "TLS 1.2", client: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, check: func(t *testing.T, s tls.ConnectionState) {
			if s.Version != tls.VersionTLS12 {
				t.Errorf("version %x", s.Version)
			}
		}},
		{name: "TLS 1.1", client: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, err: "protocol version"},
		{name: "no SNI", client: func(c *tls.Config) { c.ServerName = listenAddr.String() }},
		{name: "not the listener's address", client: func(c *tls.Config) { c.ServerName = "127.77.31.5" }, err: "not 127.77.31.5"},
	}
	ca := load(t, t.TempDir(), "local")
	server := ca.ServerConfig(only("task-api.local"), listenAddr, "h2", "http/1.1")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conf := client(ca, "task-api.local")
			if tt.client != nil {
				tt.client(conf)
			}
			h := shake(t, server, conf)
			if tt.err != "" {
				if h.clientErr == nil || !strings.Contains(h.clientErr.Error(), tt.err) {
					t.Errorf("client: %v; want %q", h.clientErr, tt.err)
				}
				return
			}
			if h.clientErr != nil || h.serverErr != nil {
				t.Fatalf("client: %v, server: %v", h.clientErr, h.serverErr)
			}
			if len(h.state.PeerCertificates) != 2 {
				t.Errorf("%d certificates were sent; want leaf and intermediate", len(h.state.PeerCertificates))
			}
			if tt.check != nil {
				tt.check(t, h.state)
			}
		})
	}
}

// A raw port agrees on the one protocol that is behind it, or on none.
func TestALPN(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	tests := []struct {
		name            string
		offered, spoken []string
		want            string
	}{
		{"nothing is known of the app", []string{"h2", "http/1.1"}, nil, ""},
		{"the app speaks h2", []string{"h2", "http/1.1"}, []string{"h2"}, "h2"},
		{"the client does not ask", nil, []string{"h2"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conf := client(ca, "task-api.local")
			conf.NextProtos = tt.offered
			h := shake(t, ca.ServerConfig(only("task-api.local"), listenAddr, tt.spoken...), conf)
			if h.clientErr != nil {
				t.Fatal(h.clientErr)
			}
			if h.state.NegotiatedProtocol != tt.want {
				t.Errorf("negotiated %q; want %q", h.state.NegotiatedProtocol, tt.want)
			}
		})
	}
}

// unrecognizedName is how an alert of level fatal and description 112 (RFC
// 6066 section 3) ends on the wire, whatever the version; nothing is encrypted
// yet.
var unrecognizedName = []byte{2, 112}

func TestForeignSNI(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	tests := []struct {
		name, sni string
		addr      netip.Addr
	}{
		{"another local name", "printer.local", listenAddr},
		{"below a name", "a.task-api.local", listenAddr},
		{"elsewhere", "www.google.com", listenAddr},
		{"nothing, and no address", "127.77.31.4", netip.Addr{}},
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tt := range tests {
			t.Run(tls.VersionName(version)+"/"+tt.name, func(t *testing.T) {
				server := ca.ServerConfig(only("task-api.local"), tt.addr)
				conf := client(ca, tt.sni)
				conf.MaxVersion = version
				conf.NextProtos = []string{"h2"}
				h := shake(t, server, conf)
				checkRefused(t, h)
			})
		}
	}
}

func checkRefused(t *testing.T, h handshake) {
	t.Helper()
	if h.clientErr == nil || h.serverErr == nil {
		t.Fatalf("client: %v, server: %v", h.clientErr, h.serverErr)
	}
	if len(h.read) != 7 || h.read[0] != 21 || !bytes.HasSuffix(h.read, unrecognizedName) {
		t.Errorf("the server sent % x; want an alert, 112", h.read)
	}
}

func TestAddressAsSNI(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	server := ca.ServerConfig(only("task-api.local"), netip.MustParseAddr("::ffff:127.77.31.4"))
	// Go's client never sends one, so the callbacks are asked directly.
	for sni, want := range map[string]string{"": "127.77.31.4", "127.77.31.4": "127.77.31.4", "127.77.31.5": "", "8.8.8.8": ""} {
		hello := &tls.ClientHelloInfo{ServerName: sni}
		cert, err := server.GetCertificate(hello)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if cert != nil {
			got = cert.Leaf.IPAddresses[0].String()
		}
		if got != want {
			t.Errorf("SNI %q is shown a certificate for %q; want %q", sni, got, want)
		}
		if conf, err := server.GetConfigForClient(hello); err != nil || (conf == nil) != (want != "") {
			t.Errorf("SNI %q: config %v, %v", sni, conf, err)
		}
	}
}

func TestAllowedButNotPermitted(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	server := ca.ServerConfig(func(string) bool { return true }, listenAddr)
	h := shake(t, server, client(ca, "task-api.example"))
	if !errors.Is(h.serverErr, localtls.ErrNotPermitted) || !strings.Contains(h.serverErr.Error(), "task-api.example") {
		t.Errorf("server: %v; want %v, with the name", h.serverErr, localtls.ErrNotPermitted)
	}
	if h.clientErr == nil {
		t.Error("the client got through")
	}
}

func TestResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			ca := load(t, t.TempDir(), "local")
			gone := false
			server := ca.ServerConfig(func(name string) bool { return !gone && name == "task-api.local" }, listenAddr)
			conf := client(ca, "task-api.local")
			conf.MaxVersion = version
			conf.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			for i := range 3 {
				h := shake(t, server, conf)
				if h.clientErr != nil || h.state.DidResume != (i > 0) {
					t.Fatalf("handshake %d: %v, resumed %v", i, h.clientErr, h.state.DidResume)
				}
			}
			gone = true
			checkRefused(t, shake(t, server, conf))
		})
	}
}

func TestHandshakesMintOnce(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	server := ca.ServerConfig(only("task-api.local"), listenAddr)
	start := make(chan struct{})
	serials := make(chan string, 30)
	var clients sync.WaitGroup
	for range cap(serials) {
		clients.Go(func() {
			<-start
			h := shake(t, server, client(ca, "task-api.local"))
			if h.clientErr != nil {
				t.Error(h.clientErr)
				return
			}
			serials <- h.state.PeerCertificates[0].SerialNumber.String()
		})
	}
	close(start)
	clients.Wait()
	close(serials)
	seen := make(map[string]bool)
	for s := range serials {
		seen[s] = true
	}
	if len(seen) != 1 {
		t.Errorf("%d certificates were served", len(seen))
	}
}

func TestHandshakesForTwoMonths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := load(t, t.TempDir(), "local")
		server := ca.ServerConfig(only("task-api.local"), listenAddr)
		for range 60 {
			if h := shake(t, server, client(ca, "task-api.local")); h.clientErr != nil {
				t.Fatalf("at %v: %v", time.Now(), h.clientErr)
			}
			time.Sleep(24 * time.Hour)
		}
	})
}

func TestHTTPServer(t *testing.T) {
	ca := load(t, t.TempDir(), "local")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	srv := &http.Server{
		ErrorLog:  log.New(io.Discard, "", 0),
		TLSConfig: ca.ServerConfig(only("task-api.local"), addr.Addr(), "h2", "http/1.1"),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.Proto+" "+r.TLS.ServerName)
		}),
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(ln, "", "") }()
	defer func() {
		srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr.String())
		},
		TLSClientConfig:   client(ca, ""),
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	for url, want := range map[string]string{
		"https://task-api.local/":        "HTTP/2.0 task-api.local",
		"https://" + addr.String() + "/": "HTTP/2.0 ",
	} {
		resp, err := (&http.Client{Transport: transport}).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != want {
			t.Errorf("%s: %q, %v; want %q", url, body, err, want)
		}
	}
	_, err = (&http.Client{Transport: transport}).Get("https://printer.local/")
	if err == nil {
		t.Error("https://printer.local/ works")
	}
}
