package portforward

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	pfconst "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// A Dialer upgrades connections to the pods of one cluster: inside a WebSocket
// first, which passes proxies and gateways that know nothing of SPDY, then as
// bare SPDY, which older servers and roles without "get" on pods/portforward
// need. It remembers what worked. It may be used concurrently.
type Dialer struct {
	config *rest.Config
	base   *url.URL
	wrap   func(http.RoundTripper) http.RoundTripper

	// works is the transport that worked last.
	works atomic.Int32
}

// A transport is a way to upgrade.
type transport int32

const (
	noTransport transport = iota // none has worked yet
	webSocket
	bareSPDY
)

func (t transport) String() string {
	return [...]string{"", "websocket", "spdy"}[t]
}

// NewDialer returns a Dialer for the cluster of config, which it keeps and
// does not change. wrap, if not nil, becomes the outermost RoundTripper of
// each upgrade request, outside of the credentials'.
func NewDialer(config *rest.Config, wrap func(http.RoundTripper) http.RoundTripper) (*Dialer, error) {
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion = "/api", &schema.GroupVersion{Version: "v1"}
	base, path, err := rest.DefaultServerUrlFor(c)
	if err != nil {
		return nil, fmt.Errorf("address of the API server: %w", err)
	}
	if wrap == nil {
		wrap = func(rt http.RoundTripper) http.RoundTripper { return rt }
	}
	return &Dialer{config: config, base: base.JoinPath(path), wrap: wrap}, nil
}

// Transport names the way to upgrade that worked last: "websocket", "spdy", or
// nothing if none has yet.
func (d *Dialer) Transport() string { return transport(d.works.Load()).String() }

// Dial upgrades a new connection. ctx bounds the upgrade, not the connection.
// A refusal by the API server is an apierrors.StatusError if it said why; a
// pod that does not exist Is ErrPodGone.
func (d *Dialer) Dial(ctx context.Context, pod Pod) (net.Conn, error) {
	target := d.base.JoinPath("namespaces", pod.Namespace, "pods", pod.Name, "portforward").String()
	order := []transport{webSocket, bareSPDY}
	if transport(d.works.Load()) == bareSPDY {
		order = []transport{bareSPDY, webSocket}
	}
	var failed error
	for _, t := range order {
		dial := d.dialWebSocket
		if t == bareSPDY {
			dial = d.dialSPDY
		}
		conn, err := dial(ctx, target)
		if err == nil {
			d.works.Store(int32(t))
			return conn, nil
		}
		// The first error is the better one, unless only the second came from
		// the API server itself.
		if failed == nil || !isStatus(failed) && isStatus(err) {
			failed = fmt.Errorf("upgrade to port-forward over %v: %w", t, err)
		}
		if !otherTransportMayHelp(err) {
			break
		}
	}
	if isPodNotFound(failed) {
		return nil, fmt.Errorf("%w: %w", ErrPodGone, failed)
	}
	return nil, failed
}

// otherTransportMayHelp reports whether the server, or a proxy on the way,
// answered the upgrade in a way that may be about its form. The statuses that
// have been seen for that are many (400, 403, 404, 405, 502), so only what is
// certainly about the pod or the user is excepted.
func otherTransportMayHelp(err error) bool {
	return (httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)) &&
		!isPodNotFound(err) && !apierrors.IsUnauthorized(err)
}

func isStatus(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

func isPodNotFound(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && apierrors.IsNotFound(err) &&
		status.Status().Details != nil && status.Status().Details.Kind == "pods"
}

func (d *Dialer) dialWebSocket(ctx context.Context, target string) (net.Conn, error) {
	rt, holder, err := websocket.RoundTripperFor(d.config)
	if err != nil {
		return nil, err
	}
	// The websocket library heeds a context's deadline, but not that it is
	// cancelled, once it is connected. It may connect when wrap has given up.
	var watch atomic.Pointer[func() bool]
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		stop := context.AfterFunc(ctx, func() { info.Conn.Close() })
		watch.Store(&stop)
	}})
	req, err := http.NewRequestWithContext(traced, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	conn, err := websocket.Negotiate(d.wrap(rt), holder, req, pfconst.WebsocketsSPDYTunnelingPortForwardV1)
	stop := watch.Load()
	switch {
	case stop != nil && !(*stop)(): // closed under our hands
		if err == nil {
			conn.Close()
		}
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, unwrapUpgradeFailure(err)
	}
	return portforward.NewTunnelingConnectionWithLogger(klog.Background(), conn), nil
}

func (d *Dialer) dialSPDY(ctx context.Context, target string) (net.Conn, error) {
	tlsConfig, err := rest.TLSConfigFor(d.config)
	if err != nil {
		return nil, err
	}
	proxier := d.config.Proxy
	if proxier == nil {
		proxier = utilnet.NewProxierWithNoProxyCIDR(http.ProxyFromEnvironment)
	}
	raw, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{TLS: tlsConfig, Proxier: proxier})
	if err != nil {
		return nil, err
	}
	upgrade := &spdyUpgrade{dial: raw.Dial}
	rt, err := rest.HTTPWrappersForConfig(d.config, upgrade)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Stream-Protocol-Version", "portforward.k8s.io")
	resp, err := d.wrap(rt).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, upgradeFailure{&httpstream.UpgradeFailureError{Cause: errorOf(resp)}}
	}
	return upgrade.conn, nil
}

// A spdyUpgrade is the innermost RoundTripper of one upgrade request. It keeps
// the connection that the response left behind, and what was read ahead of it.
type spdyUpgrade struct {
	dial func(*http.Request) (net.Conn, error)
	conn net.Conn
}

func (u *spdyUpgrade) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", spdy.HeaderSpdy31)
	conn, err := u.dial(req)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(req.Context(), func() { conn.Close() })
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, req)
	if !stop() { // closed under our hands
		conn.Close()
		return nil, context.Cause(req.Context())
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		u.conn = &readAheadConn{Conn: conn, in: in}
		return resp, nil
	}
	resp.Body = &closingBody{ReadCloser: resp.Body, conn: conn}
	return resp, nil
}

// A readAheadConn reads what is left in in first.
type readAheadConn struct {
	net.Conn
	in *bufio.Reader
}

func (c *readAheadConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// A closingBody closes the connection with the body.
type closingBody struct {
	io.ReadCloser
	conn net.Conn
}

func (b *closingBody) Close() error {
	return errors.Join(b.ReadCloser.Close(), b.conn.Close())
}

// unwrapUpgradeFailure makes what the server said visible to errors.As, which
// httpstream's error does not.
func unwrapUpgradeFailure(err error) error {
	var failure *httpstream.UpgradeFailureError
	if errors.As(err, &failure) {
		return upgradeFailure{failure}
	}
	return err
}

// An upgradeFailure is an httpstream.UpgradeFailureError that can be
// unwrapped.
type upgradeFailure struct {
	*httpstream.UpgradeFailureError
}

func (e upgradeFailure) Error() string   { return e.Cause.Error() }
func (e upgradeFailure) Unwrap() []error { return []error{e.UpgradeFailureError, e.Cause} }

// errorOf makes an error of a response that should have been an upgrade.
func errorOf(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("%s, and its body: %w", resp.Status, err)
	}
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" {
		return &apierrors.StatusError{ErrStatus: status}
	}
	if text := strings.TrimSpace(string(body)); text != "" {
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return errors.New(resp.Status)
}
