package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/sockdiag"
)

// A gate lets in whose connections are taken. It may be used concurrently.
type gate struct {
	// onlyMe reports whether that is only this user and root. It is asked for each new
	// connection.
	onlyMe func() bool
	me     int // this user's id
	// peer is sockdiag.Of where it is nil.
	peer func(*net.TCPConn) (sockdiag.Peer, error)
	log  *slog.Logger

	mu   sync.Mutex // guards the following
	told map[string]bool
}

// before puts the gate before a listener.
func (g *gate) before(l net.Listener) net.Listener { return &gated{l, g} }

type gated struct {
	net.Listener
	gate *gate
}

// Accept returns the next connection that is let in; the others are reset.
func (l *gated) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || !l.gate.onlyMe() || l.gate.admits(c) {
			return c, err
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
}

// admits reports whether a connection is this user's or root's. Whose it is has to be
// known: of a socket that was closed already, Linux may say that it is root's.
func (g *gate) admits(c net.Conn) bool {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	ask := g.peer
	if ask == nil {
		ask = sockdiag.Of
	}
	peer, err := ask(tcp)
	switch {
	case err != nil && !errors.Is(err, sockdiag.ErrUnknown):
		g.tell("nobody is let in, as access: me says, since the system cannot be asked whose a connection is", "err", err)
	case err != nil || !peer.Owned:
		g.tell("refused a connection of nobody knows whom, as access: me says", "listener", c.LocalAddr())
	case peer.UID == 0 || int(peer.UID) == g.me:
		return true
	default:
		g.tell(fmt.Sprintf("refused a connection of user %d, as access: me says", peer.UID), "listener", c.LocalAddr())
	}
	return false
}

// maxTold bounds what is remembered.
const maxTold = 1000

// tell logs something once: who is refused may try without end, and would leave no room
// for anything else.
func (g *gate) tell(what string, args ...any) {
	g.mu.Lock()
	known := g.told[what] || len(g.told) >= maxTold
	if !known {
		if g.told == nil {
			g.told = make(map[string]bool)
		}
		g.told[what] = true
	}
	g.mu.Unlock()
	if !known {
		g.log.Warn(what, args...)
	}
}

// onlyMe is whether the file says so.
func (d *Daemon) onlyMe() bool {
	cfg, _ := d.current()
	return cfg.Access == config.Me
}
