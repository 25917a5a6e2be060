//go:build trust

package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"time"
)

// thiefAddress is where the thief listens.
const thiefAddress = "127.0.0.9"

// startThief serves every name that it is asked for, with certificates that it signs
// with the daemon's key.
func (m *machine) startThief() {
	m.t.Helper()
	stolen, err := tls.LoadX509KeyPair(filepath.Join(stateDir, "ca-intermediate.pem"), filepath.Join(stateDir, "ca-key.pem"))
	if err != nil {
		m.t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(thiefAddress, "443"))
	if err != nil {
		m.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "mine") }))
	s.Listener.Close()
	s.Listener = l
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // clients shall complain
	s.TLS = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return forge(stolen, hello.ServerName)
	}}
	s.StartTLS()
	m.t.Cleanup(s.Close)
}

// forge makes a certificate as the daemon makes them, but for any name.
func forge(ca tls.Certificate, name string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		DNSNames:     []string{name},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.Certificate[0]}, PrivateKey: key}, nil
}
