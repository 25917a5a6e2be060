package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/forward"
	localtls "github.com/tunneld/tunneld/internal/tls"
)

const (
	// readHeaderTimeout bounds how long a client may take for the head of a
	// request, and idleTimeout how long it may keep a connection for the next.
	readHeaderTimeout = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	// unusedEnd is how long Shutdown waits for the first request of a connection.
	unusedEnd = 500 * time.Millisecond
	// usedEnd is how long it waits for a further request on those that had some: a
	// client that is told in an answer that the connection ends sends nothing into its
	// end. usedLook is how often that is looked at.
	usedEnd  = 250 * time.Millisecond
	usedLook = 10 * time.Millisecond
)

// A Listener is an address on which the gateway serves. Listeners are separate
// from rows: which rows one serves follows from its address. It is comparable.
// Those that differ in Otherwise only are the same listener.
type Listener struct {
	// Addr is the wanted address; port 0 picks a free one.
	Addr netip.AddrPort
	// Otherwise are the ports to try, in order, if Addr's cannot be bound; 0
	// ends them.
	Otherwise [3]uint16
	TLS       bool
	// Forward is the forward whose connections are counted; empty on addresses
	// that all forwards share.
	Forward string
}

// key is the listener without what may change while it runs.
func (l Listener) key() Listener {
	l.Otherwise = [3]uint16{}
	return l
}

// allows reports whether the listener may be bound to a port.
func (l Listener) allows(port uint16) bool {
	return l.Addr.Port() == 0 || l.Addr.Port() == port || slices.Contains(l.Otherwise[:], port)
}

// A Gateway keeps listeners equal to those last applied and proxies what they
// accept by its table. Nothing may be changed after the first call. Its methods
// may be called concurrently.
type Gateway struct {
	Backends forward.Backends
	// CA may be nil; then listeners with TLS fail with NoCA.
	CA   *localtls.CA
	NoCA error
	// Listen binds a port; nil means net.Listen.
	Listen func(at netip.AddrPort) (net.Listener, error)
	Meters *forward.Meters // nil: nothing is counted
	Log    *slog.Logger    // nil: none

	ending   atomic.Bool // answers say that their connections end
	table    atomic.Pointer[inForce]
	building sync.Once
	proxy    *proxy // see build

	applying sync.Mutex // makes Apply and Close one at a time

	mu      sync.Mutex           // guards the following
	servers map[Listener]*server // by Listener.key
	lives   map[string]life      // by forward; see endOthers
	closed  bool
}

// A Binding tells what became of a Listener.
type Binding struct {
	Listener Listener
	// Addr is where it listens; the zero value if no port could be bound, and
	// Err says why.
	Addr netip.AddrPort
	Err  error
}

// A server is one running Listener, or why it does not run.
type server struct {
	listener Listener // guarded by Gateway.mu
	http     *http.Server
	clients  *countingListener
	cancel   context.CancelFunc // ends requests in flight, upgraded ones too
	addr     netip.AddrPort
	err      error
	running  sync.WaitGroup
}

func (g *Gateway) build() {
	g.building.Do(func() { g.proxy = newProxy(g.Backends, g.log()) })
}

// An inForce is a table, and when it is that no more.
type inForce struct {
	*Table
	replaced chan struct{} // closed then
}

// SetTable puts a table in force for all requests that follow.
func (g *Gateway) SetTable(t *Table) {
	if old := g.table.Swap(&inForce{t, make(chan struct{})}); old != nil {
		close(old.replaced)
	}
	g.endOthers()
}

// A life is as long as a forward has rows.
type life struct {
	ctx context.Context
	end context.CancelFunc
}

// life returns what is done when the forward has no row any more.
func (g *Gateway) life(forward string) context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, ok := g.lives[forward]
	if !ok {
		l.ctx, l.end = context.WithCancel(context.Background())
		if g.lives == nil {
			g.lives = make(map[string]life)
		}
		g.lives[forward] = l
		if !g.current().has(forward) { // it went just now
			l.end()
			delete(g.lives, forward)
		}
	}
	return l.ctx
}

// endOthers ends what is under way to forwards that have no row any more, on
// listeners that others still use.
func (g *Gateway) endOthers() {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.current()
	for name, l := range g.lives {
		if !t.has(name) {
			l.end()
			delete(g.lives, name)
		}
	}
}

func (g *Gateway) current() *inForce {
	if t := g.table.Load(); t != nil {
		return t
	}
	return new(inForce)
}

// Apply ends the listeners that are not in want, with their connections,
// leaves equal ones alone, starts the others, and tries again those that could
// not be bound.
func (g *Gateway) Apply(want []Listener) {
	g.build()
	g.applying.Lock()
	defer g.applying.Unlock()
	wanted := make(map[Listener]Listener, len(want))
	for _, l := range want {
		wanted[l.key()] = l
	}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	if g.servers == nil {
		g.servers = make(map[Listener]*server)
	}
	var gone []*server
	failed := make(map[Listener]error) // what could not be bound before
	for key, s := range g.servers {
		l, still := wanted[key]
		switch {
		case still && s.err == nil && l.allows(s.addr.Port()):
			s.listener = l
			delete(wanted, key)
		case still && s.err != nil:
			failed[key] = s.err
		default:
			gone = append(gone, s)
			delete(g.servers, key)
		}
	}
	g.mu.Unlock()

	for _, s := range gone { // first: their addresses may be wanted again
		s.close()
	}
	for key, l := range wanted {
		s := g.start(l)
		if before := failed[key]; s.err != nil && (before == nil || before.Error() != s.err.Error()) {
			g.log().Debug("gateway cannot listen", "addr", l.Addr, "err", s.err)
		}
		g.mu.Lock()
		g.servers[key] = s
		g.mu.Unlock()
	}
}

func (g *Gateway) start(l Listener) *server {
	s := &server{listener: l}
	if l.TLS && g.CA == nil {
		s.err = g.NoCA
		return s
	}
	ln, err := g.bind(l)
	if err != nil {
		s.err = err
		return s
	}
	s.addr, _ = netip.ParseAddrPort(ln.Addr().String())
	s.clients = &countingListener{Listener: ln, meter: g.Meters.Of(l.Forward), shared: l.Forward == ""}
	ln = s.clients
	if l.TLS {
		at := s.addr.Addr()
		serves := func(name string) bool { return g.current().Serves(at, name) }
		ln = tls.NewListener(ln, g.CA.ServerConfig(serves, at, "h2", "http/1.1"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.http = &http.Server{
		BaseContext:       func(net.Listener) context.Context { return ctx },
		Handler:           g,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(g.log().Handler(), slog.LevelDebug),
		ConnContext:       withClient,
		Protocols:         new(http.Protocols),
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	g.log().Info("gateway listening", "addr", s.addr, "tls", l.TLS, "forward", l.Forward)
	s.running.Go(func() {
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			g.log().Error("gateway stopped serving", "addr", s.addr, "err", err)
		}
	})
	return s
}

// bind listens on the first of the listener's ports that can be had. The error
// is that of the wanted port.
func (g *Gateway) bind(l Listener) (net.Listener, error) {
	listen := g.Listen
	if listen == nil {
		listen = func(at netip.AddrPort) (net.Listener, error) { return net.Listen("tcp", at.String()) }
	}
	ln, err := listen(l.Addr)
	for _, port := range l.Otherwise {
		if err == nil || port == 0 {
			break
		}
		other, otherErr := listen(netip.AddrPortFrom(l.Addr.Addr(), port))
		if otherErr == nil {
			return other, nil
		}
	}
	return ln, err
}

func (s *server) close() {
	if s.err != nil {
		return
	}
	s.cancel()
	s.http.Close()
	s.running.Wait()
}

// Bindings tells about all Listeners, sorted by address.
func (g *Gateway) Bindings() []Binding {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]Binding, 0, len(g.servers))
	for _, s := range g.servers {
		all = append(all, Binding{Listener: s.listener, Addr: s.addr, Err: s.err})
	}
	slices.SortFunc(all, func(a, b Binding) int { return a.Listener.Addr.Compare(b.Listener.Addr) })
	return all
}

// Close ends every listener and every connection. It is idempotent and waits.
func (g *Gateway) Close() error {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	return g.Shutdown(now)
}

// Shutdown is Close, but lets the requests in flight be answered until ctx is
// done. No more connections are accepted. Those that have been answered get a quarter
// of a second for another request, whose answer says that they end, and those that
// browsers open for later, and have not had a request yet, half a second. Upgraded
// connections end with the last answer.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.build()
	g.applying.Lock()
	defer g.applying.Unlock()
	g.mu.Lock()
	all := g.servers
	g.servers, g.closed = nil, true
	g.mu.Unlock()
	g.ending.Store(true)
	for _, s := range all {
		if s.err == nil {
			s.clients.Close()
			s.running.Wait() // what was accepted meanwhile counts
		}
	}
	var draining sync.WaitGroup
	for _, s := range all {
		if s.err == nil {
			draining.Go(func() {
				s.clients.awaitUnused(ctx, usedEnd)
				s.http.Shutdown(ctx)
			})
		}
	}
	unused, drained := context.WithTimeout(ctx, unusedEnd)
	var aborting sync.WaitGroup
	aborting.Go(func() {
		<-unused.Done()
		for _, s := range all {
			if s.err == nil {
				s.clients.abortUnused()
			}
		}
	})
	draining.Wait()
	drained()
	aborting.Wait()
	for _, s := range all {
		s.close()
	}
	g.proxy.close()
	return nil
}

func (g *Gateway) log() *slog.Logger {
	if g.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return g.Log
}

// An exchange is a request on its way through the proxy.
type exchange struct {
	row *Row
	// anew waits for another table, and finds the request's row in that. It
	// reports whether there is one.
	anew   func(context.Context) bool
	cancel context.CancelFunc // ends it
	meter  *forward.Meter
	client *clientConn
	pod    string // who answered
	// untilEnd says that the client takes the end of the connection for that of
	// the answer.
	untilEnd bool
}

// fail notes that the request could not be carried.
func (x *exchange) fail(err error) { x.client.fail(x.meter, err) }

// watch notes it if the pod's answer is cut short.
func (x *exchange) watch(resp *http.Response) {
	if upgraded, ok := resp.Body.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = &watchedUpgrade{upgraded, x}
		return
	}
	resp.Body = &watchedBody{resp.Body, resp.Request.Context(), x}
}

type watchedBody struct {
	io.ReadCloser
	request  context.Context
	exchange *exchange
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	if b.request.Err() == nil {
		b.exchange.fail(err)
	}
	if b.exchange.untilEnd {
		b.exchange.client.abort()
	}
	return n, err
}

// A watchedUpgrade is an upgraded connection to a pod. Its end, and only that,
// becomes a clean end for the client.
type watchedUpgrade struct {
	io.ReadWriteCloser
	exchange *exchange
}

func (u *watchedUpgrade) Read(p []byte) (int, error) {
	n, err := u.ReadWriteCloser.Read(p)
	if err != nil && err != io.EOF {
		u.exchange.client.abort()
	}
	return n, err
}

// CloseWrite implements what ReverseProxy asks for.
func (u *watchedUpgrade) CloseWrite() error {
	if half, ok := u.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

type exchangeKey struct{}

// ServeHTTP finds the row for a request and proxies it.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	answer := &recorder{ResponseWriter: w, ending: &g.ending}
	x := new(exchange)
	clientOf(r).use()
	g.serve(answer, r, x)
	log := g.log()
	if !log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	name := ""
	if x.row != nil {
		name = x.row.Forward
	}
	// The query is left out: it may hold secrets.
	log.Debug("request", "forward", name, "method", r.Method, "host", r.Host, "path", r.URL.Path,
		"status", answer.status, "bytes", answer.bytes, "duration", time.Since(began).Round(time.Microsecond), "pod", x.pod)
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, x *exchange) {
	at := localAddr(r)
	host := hostname(r.Host)
	table := g.current()
	row, known := table.Find(at, host, r)
	switch {
	case !known:
		misdirected(w, r, host)
		return
	case row == nil:
		http.NotFound(w, r)
		return
	case r.Method == http.MethodConnect:
		http.Error(w, "CONNECT is not served: the gateway is no proxy for other hosts", http.StatusMethodNotAllowed)
		return
	}
	x.row, x.meter, x.client = row, g.Meters.Of(row.Forward), clientOf(r)
	x.untilEnd = !r.ProtoAtLeast(1, 1)
	x.client.attribute(x.meter)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	x.cancel = cancel
	if x.client != nil && x.client.shared { // else it ends with its listener
		stop := context.AfterFunc(g.life(row.Forward), cancel)
		defer stop()
	}
	x.anew = func(ctx context.Context) bool {
		select {
		case <-table.replaced:
		case <-ctx.Done():
			return false
		}
		table = g.current()
		row, _ := table.Find(at, host, r)
		if row != nil {
			x.row = row
		}
		return row != nil
	}
	g.proxy.reverse.ServeHTTP(w, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
}

// localAddr is the address of the listener that accepted the request.
func localAddr(r *http.Request) netip.Addr {
	addr, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if addr == nil {
		return netip.Addr{}
	}
	ap, _ := netip.ParseAddrPort(addr.String())
	return ap.Addr().Unmap()
}

// A recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	ending *atomic.Bool // the connection ends after the answer
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 || status == http.StatusSwitchingProtocols {
		w.status = status
	}
	if status >= 200 && w.ending.Load() {
		w.Header().Set("Connection", "close") // to HTTP/2 this is GOAWAY
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
