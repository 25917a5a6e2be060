package daemon_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/daemon"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/systemd"
)

// A harness is a daemon on an embedded cluster.
type harness struct {
	*demo.Cluster
	*localapi.Client
	timing     kube.Timing
	dir        string
	kubeconfig string
	config     string       // the daemon's configuration
	system     *system      // what the daemon claims names of; nil: none
	log        *slog.Logger // of the daemon; nil: testLog
	manager    *systemd.Manager
	stop       func() // ends the daemon, and waits
	hurry      func() // has stop wait no longer for connections
	service    bool   // it runs as the installed service
}

// ranges gives each daemon addresses of its own: tests run side by side.
var ranges atomic.Uint32

func nextRange() string {
	n := uint32(os.Getpid())*7 + ranges.Add(1)
	return fmt.Sprintf("127.%d.%d.0/24", 100+n/256%100, n%256)
}

// newHarness starts an embedded cluster with the sample application, and a
// daemon with the forwards given, each as a YAML flow mapping without context
// and kubeconfig.
func newHarness(t *testing.T, timing kube.Timing, forwards ...string) *harness {
	t.Helper()
	c, err := demo.Start(demo.Options{Linger: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	apps := demo.TaskAPI()
	for i := range apps {
		apps[i].Grace = 50 * time.Millisecond
	}
	if err := c.Run(apps...); err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir, whose long names do not fit a socket's address.
	dir, err := os.MkdirTemp("", "tunneld")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &harness{Cluster: c, timing: timing, dir: dir, kubeconfig: filepath.Join(dir, "kubeconfig"), config: filepath.Join(dir, "config.yaml")}
	h.Client = &localapi.Client{Socket: filepath.Join(dir, "sock")}
	h.writeKubeconfig(t)
	h.configure(t, "addresses: "+nextRange(), forwards...)
	h.start(t)
	return h
}

func (h *harness) path(name string) string { return filepath.Join(h.dir, name) }

func (h *harness) writeKubeconfig(t *testing.T) {
	t.Helper()
	if err := h.WriteKubeconfig(h.kubeconfig, demo.Kubeconfig{Context: "demo", Namespace: "task-api"}); err != nil {
		t.Fatal(err)
	}
}

// configure writes the configuration: settings, and the forwards.
func (h *harness) configure(t *testing.T, settings string, forwards ...string) {
	t.Helper()
	text := "version: 1\ndns: {listen: \"127.0.0.1:0\"}\ngateway: {http: 0, https: 0}\n" + settings + "\nforwards:\n"
	for _, f := range forwards {
		text += fmt.Sprintf("- {context: demo, kubeconfig: %s, namespace: task-api, %s}\n", h.kubeconfig, f)
	}
	h.writeConfig(t, text)
}

func (h *harness) writeConfig(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(h.path("config.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs the daemon until the test ends, or stop is called.
func (h *harness) start(t *testing.T) {
	t.Helper()
	started, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	hurry := make(chan struct{})
	h.hurry = sync.OnceFunc(func() { close(hurry) })
	d := &daemon.Daemon{
		DrainTimeout: time.Hour, Hurry: hurry,
		ConfigPath: h.config, StateDir: h.path("state"), Socket: h.Socket, Timing: h.timing,
		Version: status.Version{Version: "test"}, Log: cmp.Or(h.log, testLog()),
		Started: func() { close(started) }, Manager: h.manager, Service: h.service,
	}
	if h.system != nil {
		d.Helper, d.Lookup, d.NamesLock = h.system, h.system.lookup, h.path("names.lock")
	}
	go func() { ended <- d.Run(ctx) }()
	select {
	case <-started:
	case err := <-ended:
		cancel()
		t.Fatalf("the daemon did not start: %v", err)
	}
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the daemon ended with %v", err)
		}
	}
	t.Cleanup(func() {
		h.hurry()
		h.stop()
	})
}

func (h *harness) status(t *testing.T) status.Status {
	t.Helper()
	s, err := h.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// forward reports on one forward; its zero value if there is none.
func (h *harness) forward(t *testing.T, name string) status.Forward {
	t.Helper()
	for _, f := range h.status(t).Forwards {
		if f.Name == name {
			return f
		}
	}
	return status.Forward{}
}

// awaitState waits until a forward is in a state, and returns it.
func (h *harness) awaitState(t *testing.T, name string, want status.State) status.Forward {
	t.Helper()
	var f status.Forward
	last := func() string { return fmt.Sprintf("%s to be %s", name, want) }
	await.Until(t, last(), func() bool {
		f = h.forward(t, name)
		return f.State == want
	})
	return f
}

// client trusts the CA, and reaches a forward's gateway under its names.
func (h *harness) client(t *testing.T, f status.Forward) *http.Client {
	t.Helper()
	pem, err := h.RootPEM(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no root certificate")
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(f.Address, port))
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func get(c *http.Client, url string) (int, string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(body)), err
}

// echo opens a connection to a forward's raw port and has it echo.
func echo(addr string) error {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 5))
	return err
}

func testLog() *slog.Logger {
	if os.Getenv("TUNNELD_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
