//go:build linux

package handover_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
)

const (
	web = "- {name: web, context: demo, namespace: task-api, target: task-api}\n"
	tcp = "- {name: tcp, context: demo, namespace: task-api, target: task-tcp, ports: [tcp-echo]}\n"
)

// A world is a service on an embedded cluster.
type world struct {
	*manager
	*localapi.Client
	addresses string
}

// ranges gives each world addresses of its own.
var ranges atomic.Uint32

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "tunneld") // not t.TempDir, whose names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c, err := demo.Start(demo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	err = errors.Join(
		c.Run(demo.TaskAPI()...),
		os.MkdirAll(filepath.Join(dir, ".kube"), 0o700),
		c.WriteKubeconfig(filepath.Join(dir, ".kube", "config"), demo.Kubeconfig{Context: "demo", Namespace: "task-api"}))
	if err != nil {
		t.Fatal(err)
	}
	n := uint32(os.Getpid())*3 + ranges.Add(1)
	w := &world{
		manager:   newManager(t, dir),
		Client:    &localapi.Client{Socket: filepath.Join(dir, "sock")},
		addresses: fmt.Sprintf("127.%d.%d.0/24", 80+n/256%20, n%256),
	}
	w.configure(t, web+tcp)
	return w
}

func (w *world) configure(t *testing.T, forwards string) {
	t.Helper()
	text := fmt.Sprintf("version: 1\naddresses: %s\ndns: {listen: \"127.0.0.1:0\"}\ngateway: {http: 28080, https: 28443}\nforwards:\n%s", w.addresses, forwards)
	if err := os.WriteFile(filepath.Join(w.dir, "config.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A place is where everything listens: it must stay the same.
type place struct {
	web, tcp, dns string
	roots         *x509.CertPool
}

// find waits until all works, and says where it is.
func (w *world) find(t *testing.T) place {
	t.Helper()
	addr := make(map[string]string)
	for _, name := range []string{"web", "tcp"} {
		f, err := w.Wait(t.Context(), name, 30*time.Second)
		if err != nil || f.State != status.Ready {
			t.Fatalf("%+v, %v", f, err)
		}
		addr[name] = f.Address
	}
	s, err := w.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pem, err := w.RootPEM(t.Context())
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no root certificate", err)
	}
	return place{web: addr["web"], tcp: addr["tcp"], dns: s.DNS.Listen, roots: roots}
}

// client speaks to the gateway.
func (p place) client(keepAlive bool) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: !keepAlive,
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: p.roots},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(p.web, port))
		},
	}}
}

func request(c *http.Client, method, url string) error {
	r, err := http.NewRequest(method, url, strings.NewReader("body"))
	if err != nil {
		return err
	}
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// ask asks for the address of web.local, once: whoever is not heard asks again only
// after seconds.
func (p place) ask(network string) error {
	c := &dns.Client{Net: network, Timeout: 30 * time.Second}
	r, _, err := c.Exchange(new(dns.Msg).SetQuestion("web.local.", dns.TypeA), p.dns)
	if err != nil {
		return err
	}
	if len(r.Answer) != 1 {
		return fmt.Errorf("no answer:\n%v", r)
	}
	return nil
}

// echo opens a connection to the raw port, and has it echo.
func (p place) echo() error {
	c, err := net.DialTimeout("tcp", p.tcp+":9000", 30*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 5))
	return err
}

// A load does something again and again, and counts.
type load struct {
	name string
	do   func() error
	done atomic.Int64

	mu       sync.Mutex // guards the following
	failures []error
}

// clients are how many do the same at once.
const clients = 3

// under does something under loads.
func under(loads []*load, do func()) {
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, l := range loads {
		for range clients {
			running.Go(func() {
				for ctx.Err() == nil {
					if err := l.do(); err != nil {
						l.mu.Lock()
						l.failures = append(l.failures, err)
						l.mu.Unlock()
					}
					l.done.Add(1)
				}
			})
		}
	}
	do()
	stop()
	running.Wait()
}

func (p place) loads(t *testing.T) []*load {
	kept, h2, anew := p.client(true), p.client(true), p.client(false)
	t.Cleanup(func() {
		kept.CloseIdleConnections()
		h2.CloseIdleConnections()
	})
	plain, secure := "http://web.local:28080/", "https://web.local:28443/"
	return []*load{
		{name: "kept connections", do: func() error { return request(kept, "GET", plain) }},
		{name: "kept connections, POST", do: func() error { return request(kept, "POST", plain) }},
		{name: "HTTP/2", do: func() error { return request(h2, "GET", secure) }},
		{name: "HTTP/2, POST", do: func() error { return request(h2, "POST", secure) }},
		{name: "new connections", do: func() error { return request(anew, "GET", plain) }},
		{name: "new connections, TLS", do: func() error { return request(anew, "POST", secure) }},
		{name: "raw port", do: p.echo},
		{name: "DNS", do: func() error { return p.ask("udp") }},
		{name: "DNS over TCP", do: func() error { return p.ask("tcp") }},
	}
}

// Nobody notices restarts.
func TestRestartsUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.start(t)
	before := w.find(t)
	loads := before.loads(t)
	under(loads, func() {
		for range 5 {
			for _, l := range loads {
				some := l.done.Load() + 3*clients
				await.Until(t, l.name, func() bool { return l.done.Load() > some })
			}
			if err := w.stop(syscall.SIGTERM); err != nil {
				t.Errorf("the daemon ended with %v\n%s", err, w.log.String())
			}
			w.start(t)
			after := w.find(t)
			if after.web != before.web || after.tcp != before.tcp || after.dns != before.dns || !after.roots.Equal(before.roots) {
				t.Errorf("another place: %+v; was %+v", after, before)
			}
		}
	})
	for _, l := range loads {
		t.Logf("%s: %d", l.name, l.done.Load())
		if len(l.failures) > 0 {
			t.Errorf("%s: %d of %d failed: %v", l.name, len(l.failures), l.done.Load(), l.failures)
		}
	}
}

// Whoever comes while no daemon runs waits for the next one, however the last one went.
func TestWhoComesBetween(t *testing.T) {
	for name, sig := range map[string]os.Signal{"SIGTERM": syscall.SIGTERM, "SIGKILL": os.Kill} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start(t)
			p := w.find(t)
			w.stop(sig)

			raw, err := net.Dial("tcp", p.tcp+":9000")
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			raw.SetDeadline(time.Now().Add(time.Minute))
			io.WriteString(raw, "hello")
			page, err := net.Dial("tcp", p.web+":28080")
			if err != nil {
				t.Fatal(err)
			}
			defer page.Close()
			page.SetDeadline(time.Now().Add(time.Minute))
			io.WriteString(page, "GET / HTTP/1.1\r\nHost: web.local\r\n\r\n")
			query, err := dns.Dial("udp", p.dns)
			if err != nil {
				t.Fatal(err)
			}
			defer query.Close()
			query.SetDeadline(time.Now().Add(time.Minute))
			query.WriteMsg(new(dns.Msg).SetQuestion("web.local.", dns.TypeA))

			w.start(t)
			if r, err := query.ReadMsg(); err != nil || len(r.Answer) != 1 {
				t.Errorf("DNS: %v, %v", r, err)
			}
			if _, err := io.ReadFull(raw, make([]byte, 5)); err != nil {
				t.Error("raw port:", err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(page), nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("gateway: %v, %v", resp, err)
			}
		})
	}
}

// Nobody is left waiting where nothing is forwarded any more: neither in what was
// removed while the daemon runs, nor in what was while it does not.
func TestWhatIsNotWantedIsNotKept(t *testing.T) {
	w := newWorld(t)
	w.start(t)
	p := w.find(t)
	at := p.tcp + ":9000"
	name := "tcp-" + strings.ReplaceAll(at, ":", "_")
	if !w.has(name) {
		t.Fatalf("kept are %v; want %s, too", w.names(), name)
	}
	refused := func() bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	gone := func() bool { return !w.has(name) && refused() }

	if err := w.Remove(t.Context(), "tcp"); err != nil {
		t.Fatal(err)
	}
	if !refused() {
		t.Error("removed, and it listens")
	}
	await.Until(t, "the listener to go from the store", gone)
	w.configure(t, web+tcp+"# again\n")
	await.Until(t, "it to be back", func() bool { return w.has(name) && p.echo() == nil })

	w.stop(syscall.SIGTERM)
	w.configure(t, web)
	w.start(t)
	await.Until(t, "the listener to go from the store", gone)
	if err := request(p.client(false), "GET", "http://web.local:28080/"); err != nil {
		t.Error("the other forward:", err)
	}
}

// … whether the manager has heard of it or not.
func TestWhatIsKeptInSpiteOfUs(t *testing.T) {
	w := newWorld(t)
	w.start(t)
	p := w.find(t)
	w.mu.Lock()
	w.deaf = true
	w.mu.Unlock()
	if err := w.Remove(t.Context(), "tcp"); err != nil {
		t.Fatal(err)
	}
	if err := p.echo(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting: %v; want it refused", err)
	}
	w.stop(syscall.SIGTERM)
	w.configure(t, web+tcp+"# again\n") // what is handed over does not listen
	w.start(t)
	w.find(t)
	if err := p.echo(); err != nil {
		t.Error(err)
	}
}

// A daemon that cannot start leaves nobody waiting.
func TestFailedStart(t *testing.T) {
	w := newWorld(t)
	w.start(t)
	p := w.find(t)
	w.stop(syscall.SIGTERM)
	w.launch(t, "--state-dir", filepath.Join(w.dir, "config.yaml")) // which is no directory
	if err := <-w.ended; err == nil {
		t.Error("it has started")
	}
	w.cmd = nil
	await.Until(t, "the store to be empty", func() bool { return len(w.names()) == 0 })
	if err := p.echo(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting: %v; want it refused", err)
	}
	w.start(t)
	if again := w.find(t); again.web != p.web || again.tcp != p.tcp {
		t.Errorf("another place: %+v; was %+v", again, p)
	}
}

// Where not all is kept, the rest works as it does without.
func TestStoreThatIsFull(t *testing.T) {
	w := newWorld(t)
	w.room = 2
	w.start(t)
	w.find(t)
	if n := len(w.names()); n != 2 {
		t.Errorf("%d are kept; want 2", n)
	}
	if err := w.stop(syscall.SIGTERM); err != nil || strings.Count(w.log.String(), "than the service manager keeps") != 1 {
		t.Errorf("%v; want it said once:\n%s", err, w.log.String())
	}
	w.start(t)
	p := w.find(t)
	if err := cmp.Or(p.echo(), request(p.client(false), "GET", "https://web.local:28443/"), p.ask("udp")); err != nil {
		t.Error(err)
	}
}

// The daemon says how it is, and is alive for as long as it looks after its forwards.
func TestIsTold(t *testing.T) {
	w := newWorld(t)
	w.start(t)
	w.find(t)
	await.Until(t, "the status and three signs of life", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.status == "forwards: 2 ready" && w.alive >= 3
	})
	if _, err := netip.ParseAddrPort(w.find(t).dns); err != nil {
		t.Error(err)
	}
}

// A service goes on when nobody reads its log any more, as when the journal has ended.
func TestLogThatNobodyReads(t *testing.T) {
	w := newWorld(t)
	w.unread = true
	w.start(t)
	p := w.find(t)
	if err := cmp.Or(w.Reload(t.Context()), p.echo()); err != nil {
		t.Error(err)
	}
	if err := w.stop(syscall.SIGTERM); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
