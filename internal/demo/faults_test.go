package demo_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Faults that make a new port-forward fail, what the client is told, and that
// it works before and after.
func TestPortForwardFaults(t *testing.T) {
	t.Parallel()
	const namespace, pod = "task-api", "task-db-0"
	tests := []struct {
		name     string
		fault    func(c *demo.Cluster) (undo func())
		fails    map[string]string // by protocol
		breaks   bool              // connections that were open
		oneOlder bool              // an old server
	}{
		{
			name: "forbidden",
			fault: func(c *demo.Cluster) func() {
				return c.Forbid(demo.Rule{Verb: "create", Resource: "pods", Subresource: "portforward", Namespace: namespace})
			},
			fails: map[string]string{
				"SPDY":      `pods "task-db-0" is forbidden: User "demo" cannot create resource "pods/portforward" in API group "" in the namespace "task-api"`,
				"WebSocket": `cannot create resource "pods/portforward"`,
			},
		},
		{
			name: "get forbidden",
			fault: func(c *demo.Cluster) func() {
				return c.Forbid(demo.Rule{Verb: "get", Resource: "*", Subresource: "portforward"})
			},
			fails: map[string]string{"WebSocket": `pods "task-db-0" is forbidden: User "demo" cannot get resource "pods/portforward" in API group "" in the namespace "task-api"`},
		},
		{
			name: "create forbidden on an old server",
			fault: func(c *demo.Cluster) func() {
				return c.Forbid(demo.Rule{Verb: "create", Resource: "pods", Subresource: "*"})
			},
			fails:    map[string]string{"SPDY": `cannot create resource "pods/portforward"`},
			oneOlder: true,
		},
		{
			name: "no SPDY",
			fault: func(c *demo.Cluster) func() {
				c.SetUpgrades(demo.WebSocketOnly)
				return func() { c.SetUpgrades(demo.BothUpgrades) }
			},
			fails: map[string]string{"SPDY": "Upgrade request required"},
		},
		{
			name: "no WebSocket",
			fault: func(c *demo.Cluster) func() {
				c.SetUpgrades(demo.SPDYOnly)
				return func() { c.SetUpgrades(demo.BothUpgrades) }
			},
			fails: map[string]string{"WebSocket": `query parameter "port" is required`},
		},
		{
			name:   "kubelet down",
			fault:  func(c *demo.Cluster) func() { return c.StopKubelet() },
			breaks: true,
			fails: map[string]string{
				"SPDY":      "error dialing backend: dial tcp 10.0.0.11:10250: connect: connection refused",
				"WebSocket": "error dialing backend: dial tcp 10.0.0.11:10250: connect: connection refused",
			},
		},
		{
			name: "API server stopped",
			fault: func(c *demo.Cluster) func() {
				c.StopAPI()
				return func() { c.StartAPI() }
			},
			breaks: true,
			fails:  map[string]string{"SPDY": "refused", "WebSocket": "refused"},
		},
		{
			name: "connections killed",
			fault: func(c *demo.Cluster) func() {
				if n := c.KillUpgrades(namespace, pod); n != 1 {
					t.Errorf("%d connections were killed; want 1", n)
				}
				return func() {}
			},
			breaks: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, protocol string) {
				c := start(t, demo.Options{OldServer: tt.oneOlder}, sample()...)
				before := mustForward(t, c, protocol, namespace, pod)
				live, _ := before.mustOpen(t, demo.EchoPort)
				if err := echo(live, "before"); err != nil {
					t.Fatal(err)
				}
				undo := tt.fault(c)
				_, err := dialForward(c.RESTConfig(), protocol, namespace, pod)
				if want := tt.fails[protocol]; want == "" {
					if err != nil {
						t.Errorf("port-forward failed: %v", err)
					}
				} else if err == nil {
					t.Errorf("port-forward succeeded; want %q", want)
				} else {
					wantIn(t, err.Error(), want)
				}
				if tt.breaks {
					<-before.CloseChan()
				} else if err := echo(live, "meanwhile"); err != nil {
					t.Errorf("the connection that was open: %v", err)
				}
				undo()
				data, _ := mustForward(t, c, protocol, namespace, pod).mustOpen(t, demo.EchoPort)
				if err := echo(data, "after"); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestPortForwardToMissingPod(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	each(t, func(t *testing.T, protocol string) {
		_, err := dialForward(c.RESTConfig(), protocol, "task-api", "nope")
		if err == nil {
			t.Fatal("no error")
		}
		wantIn(t, err.Error(), `pods "nope" not found`)
	})
}

func TestRestartKeepsPortAndObjects(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	address := strings.TrimPrefix(c.URL(), "https://")
	rc := client(t, c)
	version := func() string {
		list := new(corev1.PodList)
		if err := rc.Get().Resource("pods").Do(t.Context()).Into(list); err != nil {
			t.Fatal(err)
		}
		return list.ResourceVersion
	}
	before := version()
	c.StopAPI()
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("the port is open while the server is stopped")
	}
	if err := c.StartAPI(); err != nil {
		t.Fatal(err)
	}
	if c.URL() != "https://"+address {
		t.Errorf("moved from %s to %s", address, c.URL())
	}
	if now := version(); now != before {
		t.Errorf("version %s after a restart; want %s", now, before)
	}
}

// While packets are dropped connections go silent and stay; then they go on.
func TestDropPackets(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, protocol string) {
		c := start(t, demo.Options{}, sample()...)
		live, _ := mustForward(t, c, protocol, "task-api", "task-db-0").mustOpen(t, demo.EchoPort)
		rc := client(t, c)
		if err := echo(live, "before"); err != nil {
			t.Fatal(err)
		}
		undo := c.DropPackets()
		again := c.DropPackets()
		answers := make(chan error, 3)
		go func() { answers <- echo(live, "meanwhile") }()
		go func() { answers <- rc.Get().Resource("pods").Do(t.Context()).Error() }()
		go func() {
			f, err := dialForward(c.RESTConfig(), protocol, "task-api", "task-db-0")
			if err == nil {
				f.Close()
			}
			answers <- err
		}()
		conn, err := net.Dial("tcp", strings.TrimPrefix(c.URL(), "https://"))
		if err != nil {
			t.Errorf("the kernel does not accept: %v", err)
		} else {
			conn.Close()
		}
		undo()
		undo()
		select {
		case err := <-answers:
			t.Fatalf("an answer came through: %v", err)
		case <-time.After(200 * time.Millisecond):
		}
		again()
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
	})
}

// What ends while packets are dropped is seen to end later.
func TestStopWhileDropping(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	f := mustForward(t, c, "SPDY", "task-api", "task-db-0")
	undo := c.DropPackets()
	c.StopAPI()
	select {
	case <-f.CloseChan():
		t.Error("the client saw the end of its connection")
	case <-time.After(100 * time.Millisecond):
	}
	undo()
	<-f.CloseChan()
}

func TestDelay(t *testing.T) {
	t.Parallel()
	const oneWay = 50 * time.Millisecond
	c := start(t, demo.Options{}, sample()...)
	data, _ := mustForward(t, c, "WebSocket", "task-api", "task-db-0").mustOpen(t, demo.EchoPort)
	trip := func() time.Duration {
		begin := time.Now()
		if err := echo(data, "ping"); err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	trip()
	c.Delay(oneWay)
	if d := trip(); d < 2*oneWay {
		t.Errorf("a round trip took %v; want at least %v", d, 2*oneWay)
	}
	c.Delay(0)
	best := trip()
	for range 20 {
		best = min(best, trip())
	}
	if best > oneWay {
		t.Errorf("without delay a round trip takes %v", best)
	}
}

func TestRefusePort(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	f := mustForward(t, c, "SPDY", "task-api", "task-db-0")
	live, _ := f.mustOpen(t, demo.EchoPort)
	if err := echo(live, "the port was dialled"); err != nil {
		t.Fatal(err)
	}
	undo, err := c.RefusePort("task-api", "task-db-0", demo.EchoPort)
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, f.refusal(t, demo.EchoPort), "connection refused")
	if err := echo(live, "old"); err != nil {
		t.Error(err)
	}
	undo()
	again, _ := f.mustOpen(t, demo.EchoPort)
	if err := echo(again, "new"); err != nil {
		t.Error(err)
	}
	if n := c.Dials("task-api", "", demo.EchoPort); n != 3 {
		t.Errorf("%d dials; want 3", n)
	}
	if _, err := c.RefusePort("task-api", "nope", 1); err == nil {
		t.Error("a pod that is not there refuses")
	}
}

// A stalled pod's senders are stopped once buffers are full, and go on later.
func TestStallPod(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{Linger: 10 * time.Millisecond}, sample()...)
	f := mustForward(t, c, "SPDY", "task-api", "task-db-0")
	data, _ := f.mustOpen(t, demo.EchoPort)
	undo, err := c.StallPod("task-api", "task-db-0")
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- echo(data, "are you there") }()
	select {
	case err := <-answered:
		t.Fatalf("a stalled pod answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	undo()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	// A pod can be stalled and killed.
	if _, err := c.StallPod("task-api", "task-db-0"); err != nil {
		t.Fatal(err)
	}
	if err := c.DeletePod("task-api", "task-db-0", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, data); err != nil {
		t.Logf("the stream ended with %v", err)
	}
}

// The connections of an abandoned pod do not end with it, but with the cluster.
func TestAbandonPod(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{Linger: 10 * time.Millisecond}, sample()...)
	f := mustForward(t, c, "SPDY", "task-api", "task-db-0")
	data, _ := f.mustOpen(t, demo.EchoPort)
	if err := echo(data, "are you there"); err != nil {
		t.Fatal(err)
	}
	if err := c.AbandonPod("task-api", "task-db-0"); err != nil {
		t.Fatal(err)
	}
	if err := c.DeletePod("task-api", "task-db-0", 0); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, data); ended <- err }()
	select {
	case err := <-ended:
		t.Errorf("the stream of an abandoned pod ended: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	c.Close()
	<-ended
}

// An upload to a stalled pod comes to a halt: there is no bottomless buffer on
// the way.
func TestStallPodBackPressure(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	f := mustForward(t, c, "WebSocket", "task-api", "task-db-0")
	data, _ := f.mustOpen(t, demo.SinkPort)
	undo, err := c.StallPod("task-api", "task-db-0")
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	written := make(chan error, 1)
	go func() {
		_, err := io.CopyN(data, zeros{}, size)
		written <- err
	}()
	select {
	case err := <-written:
		t.Fatalf("%d bytes were written to a pod that reads nothing: %v", size, err)
	case <-time.After(500 * time.Millisecond):
	}
	undo()
	if err := <-written; err != nil {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestKubeconfig(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	path := filepath.Join(t.TempDir(), "config")
	if err := c.WriteKubeconfig(path, demo.Kubeconfig{Context: "lab", Namespace: "task-api"}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || (runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0) {
		t.Errorf("mode %v, %v; want it private", info.Mode(), err)
	}
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: path}, nil)
	if ns, _, err := loaded.Namespace(); ns != "task-api" || err != nil {
		t.Errorf("namespace %q, %v", ns, err)
	}
	config, err := loaded.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	if err := clientFor(t, config, "", "v1").Get().Resource("pods").Do(t.Context()).Error(); err != nil {
		t.Error(err)
	}
	exec := c.Kubeconfig(demo.Kubeconfig{User: "u", Exec: &clientcmdapi.ExecConfig{Command: "plugin"}})
	if u := exec.AuthInfos["u"]; u.Token != "" || u.Exec.Command != "plugin" {
		t.Errorf("user with a plugin: %+v", u)
	}
	// Nobody else's certificate does.
	u, _ := url.Parse(c.URL())
	if _, err := http.Get(u.String()); err == nil {
		t.Error("the certificate is trusted without the CA")
	}
}

// Close ends whatever is going on; the leak check in TestMain sees the rest.
func TestClose(t *testing.T) {
	t.Parallel()
	c, err := demo.Start(demo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(sample()...); err != nil {
		t.Fatal(err)
	}
	reflect(t, client(t, c), "task-api")
	f := mustForward(t, c, "WebSocket", "task-api", "task-db-0")
	data, _ := f.mustOpen(t, demo.EchoPort)
	if err := echo(data, "hello"); err != nil {
		t.Fatal(err)
	}
	c.StallPod("task-api", "task-db-0")
	c.DropPackets()
	go client(t, c).Get().Resource("pods").Do(t.Context())
	restarted := make(chan error, 1)
	go func() {
		c.StallPod("task-api", "task-db-1")
		restarted <- c.Restart("task-api", "task-db")
	}()
	c.Close()
	c.Close()
	<-f.CloseChan()
	<-restarted
	if err := c.Run(demo.App{Name: "late"}); !errors.Is(err, demo.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	if err := c.StartAPI(); !errors.Is(err, demo.ErrClosed) {
		t.Errorf("StartAPI after Close: %v", err)
	}
	await.Until(t, "the port to be closed", func() bool {
		_, err := net.Dial("tcp", strings.TrimPrefix(c.URL(), "https://"))
		return err != nil
	})
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		c, err := demo.Start(demo.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Run(demo.TaskAPI()...); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
