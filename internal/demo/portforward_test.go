package demo_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/moby/spdystream/spdy"
	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/klog/v2"
)

var protocols = []string{"WebSocket", "SPDY"}

func each(t *testing.T, f func(t *testing.T, protocol string)) {
	t.Helper()
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			f(t, protocol)
		})
	}
}

func TestPortForward(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, protocol string) {
		c := start(t, demo.Options{Linger: 10 * time.Millisecond}, sample()...)
		f := mustForward(t, c, protocol, "task-api", "task-db-0")
		data, _ := f.mustOpen(t, demo.EchoPort)
		if err := echo(data, "hello"); err != nil {
			t.Fatal(err)
		}
		source, _ := f.mustOpen(t, demo.SourcePort)
		io.WriteString(source, "1000000\n")
		n, err := io.Copy(io.Discard, source)
		if n != 1000000 || err != nil {
			t.Errorf("source sent %d, %v; want 1000000", n, err)
		}
		if got := c.Upgrades(); len(got) != 1 || got[0].Protocol != protocol || got[0].Pod != "task-db-0" {
			t.Errorf("upgrades: %v", got)
		}
		if n := c.Dials("task-api", "task-db-0", demo.EchoPort); n != 1 {
			t.Errorf("port dialled %d times; want 1", n)
		}
		f.Close()
		await.Until(t, "the upgraded connection to end", func() bool { return len(c.Upgrades()) == 0 })
	})
}

func TestPortForwardRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, protocol string) {
		c := start(t, demo.Options{}, sample()...)
		f := mustForward(t, c, protocol, "task-api", "task-db-0")
		live, _ := f.mustOpen(t, demo.EchoPort)
		wantIn(t, f.refusal(t, 9999), "error forwarding port 9999 to pod ", ", uid : failed to execute portforward in network namespace",
			"failed to connect to localhost:9999 inside namespace", "IPv4: dial tcp4 127.0.0.1:9999: connect: connection refused IPv6 dial tcp6: ")
		if err := echo(live, "unharmed"); err != nil {
			t.Error(err)
		}
	})
}

// A pod that is gone leaves its upgraded connections open; the next stream
// learns of it.
func TestPortForwardPodGone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		grace time.Duration
		want  string
	}{
		{"by force", 0, "failed to find sandbox"},
		{"gracefully", time.Millisecond, "network namespace for sandbox"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, protocol string) {
				c := start(t, demo.Options{Linger: 10 * time.Millisecond}, sample()...)
				f := mustForward(t, c, protocol, "task-api", "task-db-0")
				live, _ := f.mustOpen(t, demo.EchoPort)
				if err := echo(live, "alive"); err != nil {
					t.Fatal(err)
				}
				uid := c.PodUID("task-api", "task-db-0")
				if err := c.DeletePod("task-api", "task-db-0", tt.grace); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, live); err != nil {
					t.Logf("the live stream ended with %v", err)
				}
				await.Until(t, "a pod of the same name", func() bool {
					now := c.PodUID("task-api", "task-db-0")
					return now != "" && now != uid
				})
				wantIn(t, f.refusal(t, demo.EchoPort), tt.want)
				if len(c.Upgrades()) != 1 {
					t.Error("the upgraded connection did not survive its pod")
				}
				again := mustForward(t, c, protocol, "task-api", "task-db-0")
				data, _ := again.mustOpen(t, demo.EchoPort)
				if err := echo(data, "again"); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What containerd does when one side ends: the app never learns of the client's
// end, and what it answers later than a second after is lost.
func TestPortForwardHalfClose(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	f := mustForward(t, c, "SPDY", "task-api", "task-db-0")
	data, _ := f.mustOpen(t, demo.SinkPort)
	io.WriteString(data, "12345")
	begin := time.Now()
	data.Close()
	got, _ := io.ReadAll(data)
	if len(got) != 0 {
		t.Errorf("an answer at the end of input came through: %q", got)
	}
	if d := time.Since(begin); d < 900*time.Millisecond {
		t.Errorf("cut after %v; want a second", d)
	}
}

func TestPortForwardManyStreams(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, protocol string) {
		c := start(t, demo.Options{}, sample()...)
		f := mustForward(t, c, protocol, "task-api", "task-db-1")
		payload := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
		for i := range 5 {
			data, _ := f.mustOpen(t, demo.EchoPort)
			done := make(chan error, 1)
			go func() {
				_, err := data.Write(payload)
				done <- err
			}()
			got := make([]byte, len(payload))
			if _, err := io.ReadFull(data, got); err != nil || !bytes.Equal(got, payload) {
				t.Fatal("stream "+strconv.Itoa(i)+" is broken", err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			data.Reset()
		}
	})
}

// Clients that do not wait for replies can be cut off while they open streams.
// The server's libraries would stay behind, and Close with them.
func TestPortForwardCutWhileOpening(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{Linger: time.Millisecond}, sample()...)
	var clients sync.WaitGroup
	for i := range 40 {
		clients.Go(func() {
			conn, err := dialTunnel(c, "task-api", "task-db-0")
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			framer, err := spdy.NewFramer(conn, conn)
			if err != nil {
				t.Error(err)
				return
			}
			for id := spdy.StreamId(1); id < 13; id += 2 {
				h := http.Header{}
				h.Set(corev1.PortHeader, "9000")
				h.Set(corev1.PortForwardRequestIDHeader, strconv.Itoa(int(id-1)/4))
				h.Set(corev1.StreamType, []string{corev1.StreamTypeError, corev1.StreamTypeData}[id/2%2])
				framer.WriteFrame(&spdy.SynStreamFrame{StreamId: id, Headers: h})
			}
			if i%2 == 0 {
				framer.WriteFrame(&spdy.GoAwayFrame{})
			}
		})
	}
	clients.Wait()
	await.Until(t, "the upgraded connections to end", func() bool { return len(c.Upgrades()) == 0 })
}

// What a client sends to a pod that has closed the connection is read by nobody
// and blocks the upgraded connection, but not its end: the leak check sees.
func TestPortForwardCutWhileBlocked(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, protocol string) {
		c := start(t, demo.Options{Linger: time.Millisecond}, demo.App{Name: "rude", StatefulSet: true, Handlers: map[uint16]func(net.Conn){
			7000: func(net.Conn) {},
		}})
		f := mustForward(t, c, protocol, "default", "rude-0")
		data, _ := f.mustOpen(t, 7000)
		if _, err := io.Copy(io.Discard, data); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if _, err := data.Write([]byte("too late")); err != nil {
				t.Fatal(err)
			}
		}
		c.KillUpgrades("", "")
		<-f.CloseChan()
	})
}

// dialTunnel opens a WebSocket that carries SPDY.
func dialTunnel(c *demo.Cluster, namespace, pod string) (net.Conn, error) {
	config := c.RESTConfig()
	transport, holder, err := websocket.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodGet, config.Host+"/api/v1/namespaces/"+namespace+"/pods/"+pod+"/portforward", nil)
	if err != nil {
		return nil, err
	}
	ws, err := websocket.Negotiate(transport, holder, req, "SPDY/3.1+portforward.k8s.io")
	if err != nil {
		return nil, err
	}
	return portforward.NewTunnelingConnectionWithLogger(klog.Logger{}, ws), nil
}
