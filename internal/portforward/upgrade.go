package portforward

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
)

// A transport is a way to upgrade. Both are plain HTTP/1.1 until the answer, so
// net/http speaks it, with its proxies and TLS, and the credentials' wrappers
// see an ordinary response: what is left after a 101 is the connection.
type transport int32

const (
	noTransport transport = iota // none has worked yet
	webSocket
	bareSPDY
)

func (t transport) String() string {
	return [...]string{"", "websocket", "spdy"}[t]
}

// A refusedUpgrade is what the server, or a proxy on the way, has answered in
// place of the upgrade that it was asked for.
type refusedUpgrade struct{ error }

func (e refusedUpgrade) Unwrap() error { return e.error }

// upgrade upgrades a connection of its own.
func (d *Dialer) upgrade(ctx context.Context, t transport, target string) (net.Conn, error) {
	var dialled atomic.Pointer[dialledWire]
	rt, err := d.roundTripper(ctx, &dialled)
	if err != nil {
		return nil, err
	}
	method := http.MethodGet
	if t == bareSPDY {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, err
	}
	var key string
	if t == webSocket {
		key = askForWebSocket(req)
	} else {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "SPDY/3.1")
		req.Header.Set("X-Stream-Protocol-Version", "portforward.k8s.io")
	}
	resp, err := d.wrap(rt).RoundTrip(req)
	under := dialled.Load()
	if under != nil && !under.release() { // closed under our hands
		if err == nil {
			resp.Body.Close()
		}
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	conn, err := switched(resp, under)
	if err == nil && t == webSocket {
		err = checkWebSocket(resp, key)
	}
	if err != nil {
		resp.Body.Close()
		return nil, refusedUpgrade{err}
	}
	if t == webSocket {
		return newTunnelConn(conn), nil
	}
	return conn, nil
}

// A dialledWire is the wire of an upgrade that is under way. Unless it is
// released in time it is closed when nobody waits for the upgrade any more,
// which net/http would not do: it dials for others, too.
type dialledWire struct {
	*wire
	release func() (inTime bool)
}

// roundTripper makes a RoundTripper for one upgrade, with the credentials'
// wrappers. It stores what it has dialled.
func (d *Dialer) roundTripper(ctx context.Context, dialled *atomic.Pointer[dialledWire]) (http.RoundTripper, error) {
	tlsConfig, err := rest.TLSConfigFor(d.config)
	if err != nil {
		return nil, err
	}
	if tlsConfig == nil {
		tlsConfig = new(tls.Config)
	}
	tlsConfig.NextProtos = []string{"http/1.1"} // HTTP/2 cannot be upgraded
	tlsConfig.DynamicRecordSizingDisabled = true
	connect := d.config.Dial
	if connect == nil {
		connect = new(net.Dialer).DialContext
	}
	proxy := d.config.Proxy
	if proxy == nil {
		proxy = utilnet.NewProxierWithNoProxyCIDR(http.ProxyFromEnvironment)
	}
	return rest.HTTPWrappersForConfig(d.config, &http.Transport{
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			conn, err := connect(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			w := &wire{Conn: conn}
			dialled.Store(&dialledWire{w, context.AfterFunc(ctx, func() { conn.Close() })})
			return w, nil
		},
		Proxy:              proxy,
		TLSClientConfig:    tlsConfig,
		DisableKeepAlives:  true,
		DisableCompression: true,
	})
}

// switched is the connection that a response has switched to another protocol.
func switched(resp *http.Response, under *dialledWire) (net.Conn, error) {
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, errorOf(resp)
	}
	body, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || under == nil {
		return nil, errors.New("the response has been wrapped")
	}
	under.gatherWrites()
	return &upgradedConn{body, under.wire}, nil
}

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
