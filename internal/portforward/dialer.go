package portforward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// A Dialer upgrades connections to the pods of one cluster: inside a WebSocket
// first, which passes proxies and gateways that know nothing of SPDY, then as
// bare SPDY, which older servers and roles without "get" on pods/portforward
// need, and which costs every server on the way less. It remembers what worked,
// and what is better, until that brings nothing. It may be used concurrently.
type Dialer struct {
	config *rest.Config
	base   *url.URL
	wrap   func(http.RoundTripper) http.RoundTripper

	works atomic.Int32 // the transport to try first
	tried atomic.Bool  // bare SPDY, although WebSocket works
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

// Transport names the way to upgrade that is tried first: "websocket", "spdy", or
// nothing if none has worked yet.
func (d *Dialer) Transport() string { return transport(d.works.Load()).String() }

// DialSpare is Dial for a connection that nobody waits for: while WebSocket works,
// it tries once whether bare SPDY does, too. That is so when a frame has come that
// way, and later connections then take it.
func (d *Dialer) DialSpare(ctx context.Context, pod Pod) (net.Conn, error) {
	if transport(d.works.Load()) != webSocket || d.tried.Swap(true) {
		return d.Dial(ctx, pod)
	}
	conn, err := d.upgrade(ctx, bareSPDY, d.target(pod))
	if err != nil {
		return d.Dial(ctx, pod)
	}
	return &spdyConn{Conn: conn, dialer: d}, nil
}

// A webSocketConn is outdated as soon as something better works.
type webSocketConn struct {
	net.Conn
	dialer *Dialer
}

// Outdated implements [Outdater].
func (c webSocketConn) Outdated() bool { return transport(c.dialer.works.Load()) == bareSPDY }

// A spdyConn teaches its dialer whether bare SPDY works. What comes first is a
// control frame, or not from the node: a proxy may have answered for it, and may
// pass nothing.
type spdyConn struct {
	net.Conn
	dialer *Dialer
	heard  bool // for the reader
	works  atomic.Bool
}

func (c *spdyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.heard {
		c.heard = true
		if p[0] == 1<<7 {
			c.works.Store(true)
			c.dialer.works.Store(int32(bareSPDY))
		}
	}
	return n, err
}

// Close has it found out again if it has not been seen to work: on another
// network it may not.
func (c *spdyConn) Close() error {
	if !c.works.Load() && c.dialer.works.CompareAndSwap(int32(bareSPDY), int32(webSocket)) {
		c.dialer.tried.Store(false)
	}
	return c.Conn.Close()
}

func (d *Dialer) target(pod Pod) string {
	return d.base.JoinPath("namespaces", pod.Namespace, "pods", pod.Name, "portforward").String()
}

// Dial upgrades a new connection. ctx bounds the upgrade, not the connection.
// A refusal by the API server is an apierrors.StatusError if it said why; a
// pod that does not exist Is ErrPodGone.
func (d *Dialer) Dial(ctx context.Context, pod Pod) (net.Conn, error) {
	order := []transport{webSocket, bareSPDY}
	works := d.works.Load()
	if transport(works) == bareSPDY {
		order = []transport{bareSPDY, webSocket}
	}
	var failed error
	for _, t := range order {
		conn, err := d.upgrade(ctx, t, d.target(pod))
		if err == nil {
			d.works.CompareAndSwap(works, int32(t)) // unless another one has learnt more meanwhile
			if t == webSocket {
				return webSocketConn{conn, d}, nil
			}
			return &spdyConn{Conn: conn, dialer: d}, nil
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
	_, refused := errors.AsType[refusedUpgrade](err)
	return refused && !isPodNotFound(err) && !apierrors.IsUnauthorized(err)
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
