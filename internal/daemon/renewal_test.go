package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	localtls "github.com/tunneld/tunneld/internal/tls"
)

// ending puts a CA into the daemon's state directory that ends then: made in a bubble
// of time, five years before.
func (h *harness) ending(t *testing.T, end time.Time) {
	t.Helper()
	dir := h.path("state")
	for _, name := range []string{"ca.pem", "ca-intermediate.pem", "ca-key.pem"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(end.AddDate(-5, 0, 0)))
		if _, err := localtls.Load(dir, "local"); err != nil {
			t.Fatal(err)
		}
	})
}

// secure is where a forward's HTTPS is, and its name there.
func secure(t *testing.T, f status.Forward) (addr, name string) {
	t.Helper()
	rest, ok := strings.CutPrefix(f.URL, "https://")
	name, port, err := net.SplitHostPort(rest)
	if !ok || err != nil {
		t.Fatalf("no HTTPS URL: %q (%v)", f.URL, err)
	}
	return net.JoinHostPort(f.Address, port), name
}

// root is the root certificate that the daemon hands out.
func (h *harness) root(t *testing.T) *x509.Certificate {
	t.Helper()
	text, err := h.RootPEM(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// shake makes a TLS connection for which only that root is trusted.
func shake(addr, name string, root *x509.Certificate) (*tls.Conn, error) {
	roots := x509.NewCertPool()
	roots.AddCert(root)
	d := net.Dialer{Timeout: 30 * time.Second}
	return tls.DialWithDialer(&d, "tcp", addr, &tls.Config{RootCAs: roots, ServerName: name})
}

// ask sends a request on a connection.
func ask(c *tls.Conn, name string) error {
	if _, err := fmt.Fprintf(c, "GET /health HTTP/1.1\r\nHost: %s\r\n\r\n", name); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// To its end, so that the next answer stands alone.
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s, %v", resp.Status, err)
	}
	return nil
}

// The CA ends while the daemon runs: it is told before, and then there is another
// one, at the same address, with the same connections.
func TestCAEndsWhileRunning(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: web, target: service/task-api")
	h.stop()
	h.ending(t, time.Now().Add(59*24*time.Hour))
	h.start(t)
	if s := h.status(t).TLS; !strings.HasPrefix(s.Expiring, "the local CA expires on ") || s.Renewed != "" {
		t.Errorf("59 days before its end: %+v", s)
	}
	await.Until(t, "the log to tell", func() bool {
		for r, err := range h.Logs(t.Context(), "", 1000, false) {
			if err != nil {
				t.Fatal(err)
			}
			if r.Level == "WARN" && r.Msg == "the local CA expires soon" {
				return true
			}
		}
		return false
	})
	h.stop()

	web, old, held := status.Forward{}, (*x509.Certificate)(nil), (*tls.Conn)(nil)
	var addr, name string
	// How long a start takes is not known: one that took longer than the CA had left
	// is tried again with more.
	for left := 3 * time.Second; held == nil; left *= 2 {
		h.ending(t, time.Now().Add(localtls.Lead+left))
		h.start(t)
		web = h.awaitState(t, "web", status.Idle)
		addr, name = secure(t, web)
		old = h.root(t)
		c, err := shake(addr, name, old)
		if err == nil && h.status(t).TLS.Renewed == "" {
			held = c
			break
		}
		if err == nil {
			c.Close()
		}
		if h.stop(); left > time.Minute {
			t.Fatalf("the CA of a daemon that has just been started: %v", err)
		}
	}
	defer held.Close()
	if err := ask(held, name); err != nil {
		t.Fatal(err)
	}

	// Nobody is refused for want of a certificate, whichever CA it is of.
	await.Until(t, "the CA to be replaced", func() bool {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return !h.root(t).Equal(old)
	})
	if s := h.status(t).TLS; !strings.HasPrefix(s.Renewed, "it was about to expire, on ") || s.Expiring != "" || s.Error != "" {
		t.Errorf("afterwards: %+v", s)
	}
	h.checkOneCA(t, web, addr, name, old, held)
}

func TestRenewedOnRequest(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient, "name: web, target: service/task-api")
	web := h.awaitState(t, "web", status.Idle)
	addr, name := secure(t, web)
	old := h.root(t)
	held, err := shake(addr, name, old)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := ask(held, name); err != nil {
		t.Fatal(err)
	}
	if err := h.RenewCA(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := h.status(t).TLS; s.Renewed != "it was given up on request" || s.Dir != h.path("state") {
		t.Errorf("%+v", s)
	}
	h.checkOneCA(t, web, addr, name, old, held)
}

// checkOneCA checks that the CA is another than the old one, for all clients, at the
// same address; that a connection of before goes on; and that one key is on disk.
func (h *harness) checkOneCA(t *testing.T, web status.Forward, addr, name string, old *x509.Certificate, held *tls.Conn) {
	t.Helper()
	if err := ask(held, name); err != nil {
		t.Errorf("a connection of before: %v", err)
	}
	if now := h.forward(t, "web"); now.URL != web.URL || now.Address != web.Address {
		t.Errorf("it was at %s of %s, and is at %s of %s", web.URL, web.Address, now.URL, now.Address)
	}
	if c, err := shake(addr, name, h.root(t)); err != nil {
		t.Errorf("a client that trusts the new root: %v", err)
	} else {
		c.Close()
	}
	c, err := shake(addr, name, old)
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		t.Errorf("a client that trusts the old root: %v", err)
	}
	if err == nil {
		c.Close()
	}
	if keys := keyFiles(t, h.path("state")); len(keys) != 1 || keys[0] != "ca-key.pem" {
		t.Errorf("private keys are in %v", keys)
	}
}

// keyFiles are the files below dir that hold a private key.
func keyFiles(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("PRIVATE KEY")) {
			found = append(found, e.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCheckLeafOverTheSocket(t *testing.T) {
	t.Parallel()
	h := newHarness(t, patient)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text, err := h.CheckLeaf(t.Context(), localapi.Key{PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	// It is what tls.X509KeyPair takes: whoever checks serves it.
	cert, err := tls.X509KeyPair(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	if err != nil || len(cert.Certificate) != 2 {
		t.Fatalf("%v:\n%s", err, text)
	}
	near, far := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		defer far.Close()
		if err := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{cert}}).HandshakeContext(t.Context()); err != nil {
			t.Error(err)
		}
	})
	roots := x509.NewCertPool()
	roots.AddCert(h.root(t))
	if err := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}).HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
	near.Close()
	serving.Wait()

	_, err = h.CheckLeaf(t.Context(), localapi.Key{PublicKey: "nonsense"})
	e, ok := errors.AsType[*localapi.Error](err)
	if !ok || e.Code != 400 || e.Hint == "" {
		t.Errorf("nonsense: %#v", err)
	}
}

// scalars are the keys that were seen, in each form in which one might be written.
type scalars []string

func (s *scalars) add(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%s is not PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	d, err := parsed.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var decimal []string
	for _, b := range d {
		decimal = append(decimal, fmt.Sprint(b))
	}
	*s = append(*s, string(d), hex.EncodeToString(d), strings.ToUpper(hex.EncodeToString(d)), strings.Join(decimal, " "))
	// Base64 has three forms, by where the scalar begins in what is encoded.
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), d...))
		*s = append(*s, text[4:40], strings.NewReplacer("+", "-", "/", "_").Replace(text[4:40]))
	}
	// In the file a line ends in the middle of it.
	text := base64.StdEncoding.EncodeToString(d)
	for _, part := range []string{text[:16], text[16:40]} {
		if !bytes.Contains(data, []byte(part)) {
			t.Fatalf("the scalar is not where it is looked for in %s", path)
		}
		*s = append(*s, part)
	}
}

// allThatIsTold is what the control API answers, as JSON.
func (h *harness) allThatIsTold(t *testing.T) map[string]string {
	t.Helper()
	said := make(map[string]string)
	for what, ask := range map[string]func(context.Context) (any, error){
		"status": func(ctx context.Context) (any, error) { return h.Status(ctx) },
		"doctor": func(ctx context.Context) (any, error) { return h.Doctor(ctx) },
		"root":   func(ctx context.Context) (any, error) { pem, err := h.RootPEM(ctx); return string(pem), err },
		"logs": func(ctx context.Context) (any, error) {
			var all []status.LogRecord
			for r, err := range h.Logs(ctx, "", 1000, false) {
				if err != nil {
					return nil, err
				}
				all = append(all, r)
			}
			return all, nil
		},
	} {
		got, err := ask(t.Context())
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		said[what] = string(text)
	}
	return said
}

// No key is in what the daemon says of itself, at any level of detail.
func TestNoKeyIsTold(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var mu sync.Mutex
	both := func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(p)
	}
	h := newHarness(t, patient, "name: web, target: service/task-api", "name: tls, target: service/task-tcp, ports: [{port: 9000, tls: true}], http: none")
	h.stop()
	state := h.path("state")
	for _, name := range []string{"ca.pem", "ca-intermediate.pem", "ca-key.pem"} {
		if err := os.Remove(filepath.Join(state, name)); err != nil {
			t.Fatal(err)
		}
	}
	h.log = slog.New(slog.NewJSONHandler(writer(both), &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
	h.start(t)

	var keys scalars
	said := make(map[string]string)
	for round := range 3 {
		keys.add(t, filepath.Join(state, "ca-key.pem"))
		web := h.awaitState(t, "web", status.Idle)
		addr, name := secure(t, web)
		for _, sni := range []string{name, "foreign.local", "www.google.com"} {
			if c, err := shake(addr, sni, h.root(t)); err == nil {
				if err := ask(c, sni); err != nil {
					t.Error(err)
				}
				c.Close()
			} else if sni == name {
				t.Error(err)
			}
		}
		h.CheckLeaf(t.Context(), localapi.Key{PublicKey: "-----BEGIN PRIVATE KEY-----\nnonsense"})
		for what, text := range h.allThatIsTold(t) {
			said[fmt.Sprint(what, " ", round)] = text
		}
		if err := h.RenewCA(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	keys.add(t, filepath.Join(state, "ca-key.pem"))
	h.hurry()
	h.stop()
	mu.Lock()
	said["log"] = log.String()
	mu.Unlock()
	for what, want := range map[string]string{"log": "the local CA is a new one", "logs 2": "given up on request", "status 2": `"fingerprint"`, "doctor 2": "loopback addresses"} {
		if !strings.Contains(said[what], want) {
			t.Errorf("%s does not say %q: it is not what was to be looked at", what, want)
		}
	}
	for what, text := range said {
		for _, secret := range append(keys, "PRIVATE KEY") {
			if strings.Contains(text, secret) {
				t.Errorf("%s has a key in it: %q", what, secret)
			}
		}
	}
	h.checkFiles(t, keys)
}

// checkFiles checks that one file of the state directory holds a key, and that what
// is in there is nobody else's to read.
func (h *harness) checkFiles(t *testing.T, keys scalars) {
	t.Helper()
	state := h.path("state")
	if files := keyFiles(t, state); len(files) != 1 || files[0] != "ca-key.pem" {
		t.Errorf("private keys are in %v", files)
	}
	filepath.WalkDir(h.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || filepath.Base(path) == "ca-key.pem" {
			return err
		}
		data, err := os.ReadFile(path)
		for _, secret := range keys {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s has a key in it", path)
			}
		}
		return err
	})
	if runtime.GOOS == "windows" {
		return
	}
	for path, want := range map[string]fs.FileMode{state: fs.ModeDir | 0o700, filepath.Join(state, "ca-key.pem"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v (%v); want %v", path, info.Mode(), err, want)
		}
	}
}

// A writer is a function that writes.
type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
