// Package node is the demo cluster's one node: its kubelet and container
// runtime, and the pods they run, which are real listeners on loopback.
package node

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/tunneld/tunneld/internal/demo/internal/inflight"
)

// The one node of the cluster. Its address appears in errors and is never
// dialled.
const (
	Name    = "demo-node"
	IP      = "10.0.0.11"
	Address = IP + ":10250" // of the kubelet
)

// What container runtimes use by default.
const (
	streamIdleTimeout     = 4 * time.Hour
	streamCreationTimeout = 30 * time.Second
)

// Options configure a node; the zero value is a current one.
type Options struct {
	// NoTunnel reports whether WebSockets that carry SPDY are not understood,
	// as by kubelets and API servers before 1.30. Nil means never.
	NoTunnel func() bool
	// Linger is how long the runtime waits for the other direction of a stream
	// after one has ended; 0 means containerd's second.
	Linger time.Duration
}

// A Node serves port-forwards to the pods it runs.
type Node struct {
	options  Options
	listener net.Listener
	server   *http.Server
	done     chan struct{}
	requests inflight.Group
	work     inflight.Group // of pods: what accepts, serves and forwards

	mu       sync.Mutex
	down     int // Down in force
	pods     map[types.UID]*pod
	sessions map[*session]struct{}
	dials    map[dialed]int
}

type dialed struct {
	pod  types.NamespacedName
	port uint16
}

// Start runs a node.
func Start(o Options) (*Node, error) {
	if o.NoTunnel == nil {
		o.NoTunnel = func() bool { return false }
	}
	o.Linger = cmp.Or(o.Linger, time.Second)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &Node{
		options:  o,
		listener: l,
		done:     make(chan struct{}),
		pods:     map[types.UID]*pod{},
		sessions: map[*session]struct{}{},
		dials:    map[dialed]int{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/portForward/{namespace}/{pod}/{uid}", n.servePortForward)
	n.server = &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	go func() {
		defer close(n.done)
		n.server.Serve(l)
	}()
	return n, nil
}

// Close ends the kubelet and its pods, and waits. It is idempotent. No pod may
// be started at the same time.
func (n *Node) Close() {
	n.server.Close()
	<-n.done
	idle, still := n.requests.Shut(), n.work.Shut()
	n.mu.Lock()
	n.down++ // no more sessions
	n.mu.Unlock()
	n.Kill(func(Upgrade) bool { return true })
	n.mu.Lock()
	pods := n.pods
	n.pods = map[types.UID]*pod{}
	n.mu.Unlock()
	for _, p := range pods {
		p.stop(Ended(p.sandbox))
	}
	<-idle
	<-still
}

// Transport is how the API server reaches the kubelet, by Address.
func (n *Node) Transport() http.RoundTripper {
	return &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		n.mu.Lock()
		down := n.down > 0
		n.mu.Unlock()
		if down {
			return nil, &net.OpError{
				Op: "dial", Net: network, Addr: &net.TCPAddr{IP: net.ParseIP(IP), Port: 10250},
				Err: os.NewSyscallError("connect", syscall.ECONNREFUSED),
			}
		}
		var d net.Dialer
		return d.DialContext(ctx, network, n.listener.Addr().String())
	}}
}

// servePortForward hands an upgraded connection to the runtime's code.
func (n *Node) servePortForward(w http.ResponseWriter, r *http.Request) {
	if !n.requests.Enter() {
		panic(http.ErrAbortHandler)
	}
	defer n.requests.Leave()
	n.mu.Lock()
	p := n.pods[types.UID(r.PathValue("uid"))]
	n.mu.Unlock()
	if p == nil {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return
	}
	s := &session{ResponseWriter: w, node: n, dying: make(chan struct{}), Upgrade: Upgrade{
		Namespace: p.key.Namespace, Pod: p.key.Name, UID: string(p.uid), Protocol: "SPDY",
	}}
	defer s.end()
	var out http.ResponseWriter = s
	options := &portforward.V4Options{}
	switch {
	case wsstream.IsWebSocketRequestWithTunnelingProtocol(r) && !n.options.NoTunnel():
		s.Protocol = "WebSocket"
		out, r = tunnel(s, r)
	case wsstream.IsWebSocketRequest(r):
		// The protocol before KEP-4006. It has its ports in the query, and so
		// refuses clients of the newer one.
		s.Protocol = "WebSocket"
		var err error
		if options, err = portforward.NewV4Options(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	portforward.ServePortForward(out, r, forwarder{p, s.dying}, p.sandbox, "", options,
		streamIdleTimeout, streamCreationTimeout, portforward.SupportedProtocols)
}

// An Upgrade is one open upgraded connection to a pod.
type Upgrade struct {
	Namespace, Pod, UID string
	Protocol            string // "SPDY" or "WebSocket"
}

// A session is a port-forward request at the kubelet. It becomes visible as an
// Upgrade once its connection is upgraded.
type session struct {
	http.ResponseWriter
	Upgrade
	node  *Node
	conn  net.Conn
	dying chan struct{} // closed when the connection ends
	once  sync.Once
}

// Hijack is the moment of the upgrade.
func (s *session) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(s.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	s.conn = conn
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	if s.node.down > 0 {
		conn.Close()
		return nil, nil, net.ErrClosed
	}
	s.node.sessions[s] = struct{}{}
	if s.Protocol == "SPDY" {
		// The server reads from rw, too, where the client may have been early.
		conn = newSettlingConn(bufferedConn{conn, rw.Reader}, s.die)
		rw = bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	}
	return conn, rw, nil
}

// A bufferedConn is a connection of which some bytes have been read already.
type bufferedConn struct {
	net.Conn
	unread *bufio.Reader
}

func (c bufferedConn) Read(b []byte) (int, error) { return c.unread.Read(b) }

func (s *session) die() { s.once.Do(func() { close(s.dying) }) }

func (s *session) end() {
	s.die()
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	delete(s.node.sessions, s)
}

// Kill closes the upgraded connections that doomed accepts, and says how many.
func (n *Node) Kill(doomed func(Upgrade) bool) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	killed := 0
	for s := range n.sessions {
		if doomed(s.Upgrade) {
			s.conn.Close()
			s.die() // nobody may be reading, if a stream is blocked
			killed++
		}
	}
	return killed
}

// Down takes the kubelet away until undo is called: upgraded connections
// break, and new ones are refused. The pods run on.
func (n *Node) Down() (undo func()) {
	n.mu.Lock()
	n.down++
	n.mu.Unlock()
	n.Kill(func(Upgrade) bool { return true })
	return sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.down--
	})
}

// Upgrades returns the upgraded connections that are open.
func (n *Node) Upgrades() []Upgrade {
	n.mu.Lock()
	defer n.mu.Unlock()
	open := make([]Upgrade, 0, len(n.sessions))
	for s := range n.sessions {
		open = append(open, s.Upgrade)
	}
	slices.SortFunc(open, func(a, b Upgrade) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.UID, b.UID))
	})
	return open
}
