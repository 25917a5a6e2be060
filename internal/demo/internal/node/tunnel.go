package node

import (
	"bufio"
	"net"
	"net/http"
	"strings"

	"github.com/gorilla/websocket"
	constants "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// A tunnelWriter makes a request for a WebSocket that carries SPDY (KEP-4006)
// look to SPDY server code like a request for SPDY: where that would take over
// the connection, the WebSocket is opened and taken for the connection.
type tunnelWriter struct {
	*session
	request *http.Request // as it came
	header  http.Header   // what the SPDY server answers
}

// tunnel returns what to give to the SPDY server in place of s and r.
func tunnel(s *session, r *http.Request) (*tunnelWriter, *http.Request) {
	t := &tunnelWriter{session: s, request: r, header: http.Header{}}
	inner := r.Clone(r.Context())
	inner.Method = http.MethodPost
	inner.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	for _, protocol := range websocket.Subprotocols(r) {
		if spoken, ok := strings.CutPrefix(protocol, constants.WebsocketsSPDYTunnelingPrefix); ok {
			inner.Header.Add(httpstream.HeaderProtocolVersion, spoken)
		}
	}
	return t, inner
}

func (t *tunnelWriter) Header() http.Header { return t.header }

// WriteHeader passes refusals on; that protocols are switched, the client
// learns from the WebSocket's own handshake.
func (t *tunnelWriter) WriteHeader(code int) {
	if code == http.StatusSwitchingProtocols {
		return
	}
	for name, values := range t.header {
		t.ResponseWriter.Header()[name] = values
	}
	t.ResponseWriter.WriteHeader(code)
}

func (t *tunnelWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	upgrader := websocket.Upgrader{
		CheckOrigin:  func(*http.Request) bool { return true },
		Subprotocols: []string{constants.WebsocketsSPDYTunnelingPrefix + t.header.Get(httpstream.HeaderProtocolVersion)},
	}
	ws, err := upgrader.Upgrade(t.session, t.request, nil)
	if err != nil {
		return nil, nil, err
	}
	conn := newSettlingConn(portforward.NewTunnelingConnectionWithLogger(klog.Logger{}, ws), t.die)
	return conn, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn)), nil
}
