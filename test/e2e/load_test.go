//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/status"
)

// patience is what a request of a load may take: more than any hold.
const patience = 3 * time.Minute

// A load begins one request after the other at fixed times, whatever becomes
// of those before: whoever waits keeps nobody from coming.
type load struct {
	name string
	stop func() // waits for all that has begun

	mu  sync.Mutex // guards the following
	all []attempt
}

// An attempt is one request of a load that has ended.
type attempt struct {
	began, ended time.Time
	err          error
}

// startLoad runs a load until its stop, or the end of the test.
func startLoad(t *testing.T, name string, every time.Duration, request func() error) *load {
	l := &load{name: name}
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			running.Go(func() {
				began := time.Now()
				err := request()
				l.mu.Lock()
				defer l.mu.Unlock()
				l.all = append(l.all, attempt{began, time.Now(), err})
			})
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	l.stop = sync.OnceFunc(func() {
		close(done)
		running.Wait()
	})
	t.Cleanup(l.stop)
	return l
}

// attempts are those that have ended, in the order in which they did.
func (l *load) attempts() []attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// firstGood is the first good end of a request at or after from that began no
// earlier than since.
func (l *load) firstGood(since, from time.Time) (time.Time, bool) {
	for _, a := range l.attempts() {
		if a.err == nil && !a.began.Before(since) && !a.ended.Before(from) {
			return a.ended, true
		}
	}
	return time.Time{}, false
}

// mustHaveWorked stops the load, and fails the test for each request that did
// not get its answer, but for those that excuse names.
func (l *load) mustHaveWorked(t *testing.T, excuse func(attempt) bool) {
	t.Helper()
	l.stop()
	var failed, refused, excused int
	var longest time.Duration
	for _, a := range l.attempts() {
		longest = max(longest, a.ended.Sub(a.began))
		switch {
		case a.err == nil:
			continue
		case excuse != nil && excuse(a):
			excused++
			continue
		case errors.Is(a.err, syscall.ECONNREFUSED):
			refused++
		}
		if failed++; failed <= 5 {
			t.Errorf("%s: begun at %s, failed after %v: %v", l.name, a.began.Format("15:04:05.000"), a.ended.Sub(a.began).Round(time.Millisecond), a.err)
		}
	}
	t.Logf("%s: %d requests, %d failed, %d of them refused, %d cut by the fault itself, the longest took %v",
		l.name, len(l.attempts()), failed, refused, excused, longest.Round(time.Millisecond))
	if failed > 5 {
		t.Errorf("%s: %d failed in all", l.name, failed)
	}
}

// threeLoads are what people do with a forward: HTTP on a connection that is
// kept, HTTP with a new connection each time, and raw TCP likewise; and that
// the name resolves to the forward's address.
func (u *user) threeLoads(every time.Duration, api, tcp status.Forward) []*load {
	kept, each := u.client(api), u.client(api)
	each.Transport.(*http.Transport).DisableKeepAlives = true
	raw := listen(u.t, tcp, 9000)
	resolver := u.resolver()
	return []*load{
		startLoad(u.t, "HTTP, keep-alive", every, func() error { return get(kept, api.URL+"/health") }),
		startLoad(u.t, "HTTP, a new connection each", every, func() error { return get(each, api.URL+"/health") }),
		startLoad(u.t, "raw TCP, a new connection each", every, func() error { return echoWithin(raw, patience) }),
		startLoad(u.t, "the name", 5*every, func() error { return resolves(resolver, api) }),
	}
}

func (u *user) resolver() *net.Resolver {
	at := u.dns().String()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at)
	}}
}

func resolves(r *net.Resolver, f status.Forward) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got, err := r.LookupNetIP(ctx, "ip4", f.Hostnames[0]+".")
	if err != nil {
		return err
	}
	if want := netip.MustParseAddr(f.Address); len(got) != 1 || got[0] != want {
		return fmt.Errorf("%s is %v; want %v", f.Hostnames[0], got, want)
	}
	return nil
}

// trust is a TLS configuration for a forward, which trusts the daemon's CA.
func (u *user) trust(f status.Forward) *tls.Config {
	u.t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(u.run("tunnelctl", "trust", "--pem"))) {
		u.t.Fatal("no root certificate")
	}
	return &tls.Config{RootCAs: roots, ServerName: f.Hostnames[0]}
}

// client speaks HTTP/1.1 to a forward's gateway, under any of its names.
func (u *user) client(f status.Forward) *http.Client {
	u.t.Helper()
	transport := &http.Transport{
		TLSClientConfig:     u.trust(f),
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(f.Address, port))
		},
	}
	u.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// gatewayAddr is where a forward's gateway takes HTTPS.
func gatewayAddr(f status.Forward) string {
	if i := strings.LastIndex(f.URL, ":"); i > len("https:") {
		return f.Address + f.URL[i:]
	}
	return f.Address + ":443"
}

func get(c *http.Client, url string) error {
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, said(body))
	}
	return nil
}

// said is what the daemon's page says, which is in its paragraphs.
func said(page []byte) string {
	var all []string
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "<p>") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return strings.Join(all, " ")
}

// ask makes a GET request on a connection, and returns the answer's body. It
// does not wait for the end of the connection.
func ask(c net.Conn, f status.Forward, path string) (string, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, f.Hostnames[0]); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// A bystander is a connection to an echo that is used all the time.
type bystander struct {
	conn  net.Conn
	done  chan struct{}
	ended chan error
}

// stand opens a bystander's connection.
func stand(t *testing.T, addr string) *bystander {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	b := &bystander{conn: c, done: make(chan struct{}), ended: make(chan error, 1)}
	go func() { b.ended <- b.run() }()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bystander) run() error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	got := make([]byte, 16)
	for n := 0; ; n++ {
		b.conn.SetDeadline(time.Now().Add(30 * time.Second))
		want := fmt.Sprintf("%016d", n)
		if _, err := io.WriteString(b.conn, want); err != nil {
			return fmt.Errorf("after %d echoes: %w", n, err)
		}
		if _, err := io.ReadFull(b.conn, got); err != nil {
			return fmt.Errorf("after %d echoes: %w", n, err)
		}
		if string(got) != want {
			return fmt.Errorf("got %q back; want %q", got, want)
		}
		select {
		case <-b.done:
			return nil
		case <-tick.C:
		}
	}
}

// stop ends the connection, and returns what became of it.
func (b *bystander) stop() error {
	select {
	case <-b.done:
		return nil
	default:
	}
	close(b.done)
	err := <-b.ended
	b.conn.Close()
	return err
}
