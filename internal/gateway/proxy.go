package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

const (
	// upstreamIdle is how long a keep-alive connection to a pod, and with it a
	// lease, is kept for the next request; maxIdleUpstreams is how many.
	upstreamIdle     = 30 * time.Second
	maxIdleUpstreams = 32
	// openTimeout bounds the opening of a connection to a pod that was picked.
	openTimeout = 15 * time.Second
)

// A proxy sends requests to pods, with one http.Transport for each pod's port,
// so that each request can be balanced and a pod that retires can be drained.
type proxy struct {
	backends forward.Backends
	reverse  httputil.ReverseProxy

	watching sync.WaitGroup // one for each connection to a pod

	mu        sync.Mutex // guards the following
	upstreams map[upstreamKey]*upstream
	closed    bool
}

type upstreamKey struct {
	forward  string // meters are the forward's
	endpoint forward.Endpoint
}

// An upstream is a pod's port. It is dropped when it has no connection.
type upstream struct {
	transport *http.Transport
	conns     int // guarded by proxy.mu
}

func newProxy(backends forward.Backends, log *slog.Logger) *proxy {
	p := &proxy{backends: backends, upstreams: make(map[upstreamKey]*upstream)}
	p.reverse = httputil.ReverseProxy{
		Rewrite:      rewrite,
		Transport:    roundTripper(p.roundTrip),
		BufferPool:   new(bufferPool),
		ErrorHandler: unavailable,
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return p
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// rewrite keeps the Host that the client sent, and says where the request came
// from; what the client claims about that is dropped.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme = "http"
	r.Out.URL.Host = "pod" // a transport has one pod only
	r.SetXForwarded()
}

// roundTrip picks a pod for the request, and another as long as nothing of it
// was delivered.
func (p *proxy) roundTrip(r *http.Request) (*http.Response, error) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	target, ok := x.row.target()
	if !ok {
		return nil, &forward.Error{Kind: forward.ErrUnavailable, Condition: status.Condition{
			State: status.NotFound, Cause: "the route has no back end",
		}}
	}
	held, cancel := context.WithTimeout(r.Context(), x.row.Hold)
	defer cancel()
	var body *heldBody
	if r.Body != nil && r.Body != http.NoBody {
		body = &heldBody{Reader: r.Body}
		r.Body = body
	}
	for {
		e, err := p.backends.Pick(held, target)
		if err != nil {
			return nil, err
		}
		x.pod = e.Pod
		resp, err := p.upstream(x, e).transport.RoundTrip(r)
		if err == nil || !errors.Is(err, forward.ErrNotDelivered) || body.started() {
			return resp, err
		}
		x.pod = ""
	}
}

// A heldBody is a request body that a failed attempt does not close, and that
// knows whether any of it is gone. The server closes it in the end.
type heldBody struct {
	io.Reader
	mu   sync.Mutex
	read bool
}

func (b *heldBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	b.read = true
	b.mu.Unlock()
	return b.Reader.Read(p)
}

func (b *heldBody) Close() error { return nil }

func (b *heldBody) started() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read
}

// upstream returns the transport to a pod's port.
func (p *proxy) upstream(x *exchange, e forward.Endpoint) *upstream {
	key := upstreamKey{x.row.Forward, e}
	p.mu.Lock()
	defer p.mu.Unlock()
	if u := p.upstreams[key]; u != nil {
		return u
	}
	u := new(upstream)
	meter := x.meter
	u.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, openTimeout)
			defer cancel()
			conn, err := p.backends.Dial(ctx, e)
			if err != nil {
				return nil, err
			}
			return p.use(key, u, meter.CountPod(conn))
		},
		DisableCompression:  true, // what the client asks for is passed on
		MaxIdleConnsPerHost: maxIdleUpstreams,
		IdleConnTimeout:     upstreamIdle,
	}
	p.upstreams[key] = u
	return u
}

// use counts a connection of the upstream, and closes the upstream's idle ones
// when the pod retires.
func (p *proxy) use(key upstreamKey, u *upstream, conn forward.Conn) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	u.conns++
	closed := make(chan struct{})
	p.watching.Go(func() {
		select {
		case <-conn.Retiring():
			p.retire(key, u)
		case <-closed:
		}
	})
	return &upstreamConn{Conn: conn, release: sync.OnceFunc(func() {
		close(closed)
		p.mu.Lock()
		defer p.mu.Unlock()
		if u.conns--; u.conns == 0 && p.upstreams[key] == u {
			delete(p.upstreams, key)
		}
	})}, nil
}

// retire lets no new request go to the upstream, and closes its connections as
// soon as they have no request in flight: that is what a Transport does after
// CloseIdleConnections, until the next request.
func (p *proxy) retire(key upstreamKey, u *upstream) {
	p.mu.Lock()
	if p.upstreams[key] == u {
		delete(p.upstreams, key)
	}
	p.mu.Unlock()
	u.transport.CloseIdleConnections()
}

// close closes idle connections, and waits for those of the requests in
// flight, which somebody else ends.
func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	all := p.upstreams
	p.upstreams = nil
	p.mu.Unlock()
	for _, u := range all {
		u.transport.CloseIdleConnections()
	}
	p.watching.Wait()
}

// An upstreamConn is a connection to a pod that says when it is closed.
type upstreamConn struct {
	forward.Conn
	release func()
}

func (c *upstreamConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// A bufferPool implements httputil.BufferPool. The zero value is ready.
type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *bufferPool) Put(p []byte) { b.pool.Put(&p) }
