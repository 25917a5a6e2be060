package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

const (
	// upstreamIdle is how long a keep-alive connection to a pod, and with it a
	// lease, is kept for the next request; maxIdleUpstreams is how many. It is
	// less than the shortest that apps keep theirs, which is 2 s: container
	// runtimes tell a second late that an app has closed one, and a request that
	// is sent meanwhile is lost.
	upstreamIdle     = 1500 * time.Millisecond
	maxIdleUpstreams = 32
	// replayable is how many bytes of a request's body are read before it is
	// sent, so that they can be sent again if no pod got them.
	replayable = 64 << 10
)

// A proxy sends requests to pods, with one http.Transport for each pod's port,
// so that each request can be balanced and a pod that retires can be drained.
type proxy struct {
	backends forward.Backends
	reverse  httputil.ReverseProxy

	watching sync.WaitGroup // one for each connection to a pod

	mu        sync.Mutex // guards the following
	upstreams map[upstreamKey]*upstream
	connected map[*upstream]struct{} // those with connections, retired ones too
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
	p := &proxy{
		backends:  backends,
		upstreams: make(map[upstreamKey]*upstream),
		connected: make(map[*upstream]struct{}),
	}
	p.reverse = httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      roundTripper(p.roundTrip),
		ModifyResponse: modify,
		BufferPool:     new(bufferPool),
		ErrorHandler:   unavailable,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return p
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// rewrite keeps the Host and the query that the client sent, and says where the
// request came from; what the client claims about that is dropped.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme = "http"
	r.Out.URL.Host = "pod" // a transport has one pod only
	// ReverseProxy drops parameters that Go cannot parse, such as "a;b".
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	r.Out.Trailer = r.In.Trailer // which is filled at the end of the body
	r.SetXForwarded()
}

// modify changes a pod's response where the local name is not what the app
// takes it for: HSTS would outlive the forward, and bind the domain's others.
func modify(r *http.Response) error {
	r.Header.Del("Strict-Transport-Security")
	return nil
}

// roundTrip picks a pod for the request, and another as long as nothing of it
// was delivered: the pod says so, or nothing was written to a connection that
// was kept, and has died. On one that was kept, the Transport also repeats a
// request that is safe by its method, as HTTP has it (RFC 9110, section 9.2.2);
// what else an app may have seen is not sent again.
func (p *proxy) roundTrip(r *http.Request) (*http.Response, error) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	target, err := x.target()
	if err != nil {
		return nil, err
	}
	body, err := newBody(r)
	if err != nil {
		return nil, badRequest{err}
	}
	var watch *forward.StuckWatch
	if !body.whole || r.Header.Get("Upgrade") != "" { // else the server reads from the client
		watch = x.client.watch(x.cancel)
	}
	held, cancel := context.WithTimeout(r.Context(), x.row.Hold)
	defer cancel()
	for {
		e, err := p.backends.Pick(held, target)
		if errors.Is(err, forward.ErrPortUnknown) && x.anew(held) {
			if target, err = x.target(); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		u, err := p.upstream(x, e)
		if err != nil {
			return nil, err
		}
		x.pod = e.Pod
		r.Body = body.next()
		attempt, use := tellUse(r, watch)
		resp, err := u.transport.RoundTrip(attempt)
		if err == nil {
			x.watch(resp)
			return resp, nil
		}
		p.dropUnused(upstreamKey{x.row.Forward, e}, u) // it may not have got as far as to dial
		if bad := body.bad(); bad != nil {
			return nil, badRequest{bad}
		}
		undelivered := errors.Is(err, forward.ErrNotDelivered) || use.wroteNothing()
		if !undelivered || !body.again() || r.Context().Err() != nil {
			return nil, blame(e, err)
		}
		x.pod = ""
	}
}

// A badRequest is the client's fault.
type badRequest struct{ error }

func (e badRequest) Error() string { return "the request cannot be read: " + e.error.Error() }
func (e badRequest) Unwrap() error { return e.error }

// target is where the request shall go.
func (x *exchange) target() (forward.Target, error) {
	if x.row.Problem.State != "" {
		return forward.Target{}, &forward.Error{Kind: forward.ErrUnavailable, Condition: x.row.Problem}
	}
	target, ok := x.row.target()
	if !ok {
		return forward.Target{}, &forward.Error{Kind: forward.ErrUnavailable, Condition: status.Condition{
			State: status.NotFound, Cause: "the route has no back end",
		}}
	}
	return target, nil
}

// blame says whose failure it is that there was no response: what crosses the
// line from below says so itself.
func blame(e forward.Endpoint, err error) error {
	if _, ok := errors.AsType[*forward.Error](err); ok {
		return err
	}
	cause := fmt.Sprintf("what came from pod %s is no HTTP response: %v", e.Pod, err)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, net.ErrClosed): // it is ours
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		cause = fmt.Sprintf("pod %s ended the connection before it had answered", e.Pod)
	}
	return &forward.Error{Kind: forward.ErrInterrupted, Err: err, Condition: status.Condition{
		State: status.Degraded, Cause: cause, Hint: e.Target.Kubectl("logs " + e.Pod),
	}}
}

// A body is what a request sends, for one attempt after the other.
type body struct {
	buffered []byte // all of it, if whole
	whole    bool
	stream   *heldBody // nil if whole
}

// newBody reads a small body, of a length that is known, and leaves others to
// be read by who sends them.
func newBody(r *http.Request) (*body, error) {
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		return &body{whole: true}, nil
	case r.ContentLength <= 0 || r.ContentLength > replayable:
		return &body{stream: &heldBody{Reader: r.Body}}, nil
	}
	all := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, all); err != nil {
		return nil, err
	}
	return &body{buffered: all, whole: true}, nil
}

// next is the body for the next attempt.
func (b *body) next() io.ReadCloser {
	switch {
	case !b.whole:
		return b.stream
	case len(b.buffered) == 0:
		return http.NoBody
	}
	return io.NopCloser(bytes.NewReader(b.buffered))
}

// again reports whether there can be another attempt.
func (b *body) again() bool { return b.whole || !b.stream.started() }

// bad is why the client's body cannot be read; nil if it can.
func (b *body) bad() error {
	if b.whole {
		return nil
	}
	if err := b.stream.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// A heldBody is a request body that a failed attempt does not close, and that
// knows whether any of it is gone. The server closes it in the end.
type heldBody struct {
	io.Reader
	read   atomic.Bool
	failed atomic.Pointer[error]
}

func (b *heldBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		b.failed.Store(&err)
	}
	return n, err
}

func (b *heldBody) Close() error { return nil }

func (b *heldBody) started() bool { return b.read.Load() }

// upstream returns what leads to a pod's port.
func (p *proxy) upstream(x *exchange, e forward.Endpoint) (*upstream, error) {
	key := upstreamKey{x.row.Forward, e}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	if u := p.upstreams[key]; u != nil {
		return u, nil
	}
	u := new(upstream)
	meter := x.meter
	u.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return p.dial(ctx, key, u, meter)
		},
		DisableCompression:  true, // what the client asks for is passed on
		MaxIdleConnsPerHost: maxIdleUpstreams,
		IdleConnTimeout:     upstreamIdle,
	}
	p.upstreams[key] = u
	return u, nil
}

// dial opens a connection for the upstream's transport.
func (p *proxy) dial(ctx context.Context, key upstreamKey, u *upstream, meter *forward.Meter) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, forward.OpenTimeout)
	defer cancel()
	conn, err := p.backends.Dial(ctx, key.endpoint)
	if err != nil {
		p.dropUnused(key, u)
		return nil, err
	}
	if !p.add(key, u) {
		conn.Close()
		return nil, net.ErrClosed
	}
	return p.use(key, u, meter.CountPod(conn)), nil
}

// add counts a connection of the upstream, and reports whether there may be
// one: not after close.
func (p *proxy) add(key upstreamKey, u *upstream) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	u.conns++
	p.connected[u] = struct{}{}
	p.watching.Add(1) // before close waits
	if p.upstreams[key] == nil {
		p.upstreams[key] = u // it was dropped while this one was opened
	}
	return true
}

// remove counts a connection less.
func (p *proxy) remove(key upstreamKey, u *upstream) {
	p.mu.Lock()
	u.conns--
	p.mu.Unlock()
	p.dropUnused(key, u)
}

// dropUnused drops an upstream that has no connection.
func (p *proxy) dropUnused(key upstreamKey, u *upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.conns > 0 {
		return
	}
	delete(p.connected, u)
	if p.upstreams[key] == u {
		delete(p.upstreams, key)
	}
}

// use returns a counted connection of the upstream, and closes the upstream's
// idle ones when the pod retires.
func (p *proxy) use(key upstreamKey, u *upstream, conn forward.Conn) net.Conn {
	closed := make(chan struct{})
	go func() {
		defer p.watching.Done()
		select {
		case <-conn.Retiring():
			p.retire(key, u)
		case <-closed:
		}
	}()
	conn.SetIdle(true) // a request that asked for it may get another one first
	return &upstreamConn{Conn: conn, release: sync.OnceFunc(func() {
		close(closed)
		p.remove(key, u)
	})}
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
	clear(p.upstreams)
	all := slices.Collect(maps.Keys(p.connected))
	p.mu.Unlock()
	for _, u := range all {
		u.transport.CloseIdleConnections()
	}
	p.watching.Wait()
}

// An upstreamConn is a connection to a pod that says when it is closed, and
// when it is idle.
type upstreamConn struct {
	forward.Conn
	release func()

	mu   sync.Mutex // guards the following
	user *userOf    // whose request is in flight; nil while it is idle
}

// A userOf is one attempt's way to the connection that it got.
type userOf struct {
	conn  atomic.Pointer[upstreamConn]
	wrote atomic.Bool // on any
	watch *forward.StuckWatch
}

// tellUse returns the request with a trace that tells its connection when it
// is used, and when it is kept for the next. While it is written to, watch
// watches.
func tellUse(r *http.Request, watch *forward.StuckWatch) (*http.Request, *userOf) {
	u := &userOf{watch: watch}
	return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) {
			if c, ok := got.Conn.(*upstreamConn); ok {
				u.conn.Store(c)
				c.begin(u)
			}
		},
		PutIdleConn: func(err error) {
			if c := u.conn.Load(); c != nil && err == nil {
				c.end(u)
			}
		},
	})), u
}

// wroteNothing reports whether there was a connection, and nothing was written
// to it. Once the attempt is over, that is final.
func (u *userOf) wroteNothing() bool { return u.conn.Load() != nil && !u.wrote.Load() }

func (c *upstreamConn) begin(u *userOf) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.user = u
	c.SetIdle(false)
}

// end notes that the request is done with the connection. It may be told late,
// when the next request has begun.
func (c *upstreamConn) end(u *userOf) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.user == u {
		c.user = nil
		c.SetIdle(true)
	}
}

// Write notes that something of the request was written. A part of a frame,
// which does not count, never gets as far as the app.
func (c *upstreamConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	u := c.user
	c.mu.Unlock()
	if u == nil {
		return c.Conn.Write(p)
	}
	u.watch.Begin()
	defer u.watch.End()
	n, err := c.Conn.Write(p)
	if n > 0 {
		u.wrote.Store(true)
	}
	return n, err
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
