package daemon

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/tunneld/tunneld/internal/config"
	"github.com/tunneld/tunneld/internal/sockdiag"
)

// A gate lets in whose connections are taken. It may be used concurrently.
type gate struct {
	// closed reports whether that is only this user and root. It is asked for each
	// connection.
	closed func() bool
	// peer is sockdiag.Of where it is nil.
	peer func(*net.TCPConn) (sockdiag.Peer, error)
	log  *slog.Logger

	mu   sync.Mutex // guards the following
	told map[int]bool
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
		if err != nil || !l.gate.closed() || l.gate.admits(c) {
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
	if err != nil || !peer.Owned {
		g.log.Debug("refused a connection of nobody knows whom", "listener", c.LocalAddr(), "remote", c.RemoteAddr(), "err", err)
		return false
	}
	uid := int(peer.UID)
	if uid == 0 || uid == os.Getuid() {
		return true
	}
	level := slog.LevelDebug
	if g.first(uid) {
		level = slog.LevelWarn
	}
	g.log.Log(context.Background(), level, "refused another user's connection, as access: "+string(config.Me)+" says", "uid", uid, "listener", c.LocalAddr())
	return false
}

// maxTold bounds the users that are remembered.
const maxTold = 1000

// first reports whether that user was not told of yet.
func (g *gate) first(uid int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.told[uid] || len(g.told) >= maxTold {
		return false
	}
	if g.told == nil {
		g.told = make(map[int]bool)
	}
	g.told[uid] = true
	return true
}

// onlyMe is whether the file says so.
func (d *Daemon) onlyMe() bool {
	cfg, _ := d.current()
	return cfg.Access == config.Me
}
