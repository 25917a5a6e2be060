// Package handover hands listening sockets over from one process of a service to the
// next, through the service manager that keeps them meanwhile. Who connects in between
// waits in a socket, and nobody is left waiting in one that is not wanted any more.
package handover

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/tunneld/tunneld/internal/dns"
	"github.com/tunneld/tunneld/internal/systemd"
)

// A Keeper has the service manager keep listening sockets for the next process, in
// which whoever connects meanwhile waits, and takes those that the last one has left.
// It may be used concurrently.
type Keeper struct {
	manager *systemd.Manager
	log     *slog.Logger

	mu      sync.Mutex // guards the following
	ports   []handedOver[*net.TCPListener]
	packets []handedOver[*net.UDPConn]
	kept    int  // sockets that the manager has
	full    bool // has been said
	leaving bool // what is closed stays with the manager
}

// A handedOver socket is one that nobody has taken yet.
type handedOver[S interface {
	syscall.Conn
	Close() error
}] struct {
	name   string // under which it is kept
	socket S
}

// New looks through what was handed over. What is of no use goes at once.
func New(m *systemd.Manager, log *slog.Logger) *Keeper {
	k := &Keeper{manager: m, log: log}
	for _, s := range m.Sockets() {
		k.kept++
		if err := k.sort(s); err != nil {
			log.Debug("a socket was handed over that is of no use", "name", s.Name, "err", err)
			k.drop(s.Name)
		}
		s.File.Close()
	}
	return k
}

func (k *Keeper) sort(s systemd.Socket) error {
	if l, err := net.FileListener(s.File); err == nil {
		tcp, ok := l.(*net.TCPListener)
		if err := accepts(l); !ok || err != nil {
			l.Close()
			return errors.Join(errors.New("not a listener of TCP"), err)
		}
		k.ports = append(k.ports, handedOver[*net.TCPListener]{s.Name, tcp})
		return nil
	}
	c, err := net.FilePacketConn(s.File)
	if err != nil {
		return err
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return fmt.Errorf("a %T", c)
	}
	k.packets = append(k.packets, handedOver[*net.UDPConn]{s.Name, udp})
	return nil
}

// Take is the listener that was handed over for an address, nil if there is none. On a nil
// Keeper nothing was handed over, and nothing is kept.
func (k *Keeper) Take(at netip.AddrPort) net.Listener {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, h := range k.ports {
		if h.socket.Addr().String() == at.String() {
			k.ports = slices.Delete(k.ports, i, i+1)
			return &keptListener{TCPListener: h.socket, keeper: k, name: h.name}
		}
	}
	return nil
}

// Keep has a listener kept until it is closed by whoever wants it no more.
func (k *Keeper) Keep(l net.Listener) net.Listener {
	tcp, ok := l.(*net.TCPListener)
	if k == nil || !ok {
		return l
	}
	name := systemd.NameOf(l.Addr())
	if !k.store(name, tcp) {
		return l
	}
	return &keptListener{TCPListener: tcp, keeper: k, name: name}
}

// store has the manager keep a socket, and reports whether it will.
func (k *Keeper) store(name string, socket syscall.Conn) bool {
	room := k.manager.Room()
	if room == 0 {
		return false
	}
	k.mu.Lock()
	fits, tell := k.kept < room, !k.full
	if fits {
		k.kept++
	} else {
		k.full = true
	}
	k.mu.Unlock()
	if !fits {
		if tell {
			k.log.Warn("more listeners than the service manager keeps: a restart closes the others for a moment", "kept", room)
		}
		return false
	}
	if err := k.manager.Keep(name, socket); err != nil {
		k.log.Warn("a restart will close a listener for a moment", "name", name, "err", err)
		k.forget()
		return false
	}
	return true
}

// drop has the manager keep no socket of that name any more.
func (k *Keeper) drop(name string) {
	k.forget()
	if err := k.manager.Drop(name); err != nil {
		k.log.Warn("the service manager keeps a socket that is not wanted", "name", name, "err", err)
	}
}

func (k *Keeper) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept--
}

// Leave leaves with the manager, from now on, what is closed. It reports whether
// anything is kept for a next process.
func (k *Keeper) Leave() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leaving = k.manager.Room() > 0
	return k.leaving
}

// release is called as a listener is closed. Nobody else may be left waiting in it,
// whatever the manager still has: so it stops listening first.
func (k *Keeper) release(name string, l *net.TCPListener) {
	k.mu.Lock()
	leaving := k.leaving
	k.mu.Unlock()
	if leaving {
		return
	}
	if err := stopListening(l); err != nil {
		k.log.Debug("a listener that is kept", "name", name, "err", err)
	}
	k.drop(name)
}

// resolvers are the pairs of sockets that were handed over on which DNS was answered;
// they are the caller's.
func (k *Keeper) resolvers() []*dns.Listeners {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []*dns.Listeners
	k.packets = slices.DeleteFunc(k.packets, func(udp handedOver[*net.UDPConn]) bool {
		for i, tcp := range k.ports {
			l, err := dns.Given(udp.socket, tcp.socket)
			if err == nil {
				all = append(all, l)
				k.ports = slices.Delete(k.ports, i, i+1)
				return true
			}
		}
		return false
	})
	return all
}

// ListenDNS opens the sockets of DNS, on those that were handed over if it can, and has
// them kept.
func (k *Keeper) ListenDNS(at netip.AddrPort) (*dns.Listeners, error) {
	given := k.resolvers()
	l, err := dns.Listen(at, given...)
	for _, g := range given {
		if g != l {
			for _, s := range g.Sockets() {
				k.drop(systemd.NameOf(s.Addr))
			}
			g.Close()
		}
	}
	if err == nil && !slices.Contains(given, l) {
		for _, s := range l.Sockets() {
			k.store(systemd.NameOf(s.Addr), s)
		}
	}
	return l, err
}

// DropRest closes what was handed over and nobody has taken.
func (k *Keeper) DropRest() {
	k.mu.Lock()
	ports, packets := k.ports, k.packets
	k.ports, k.packets = nil, nil
	k.mu.Unlock()
	for _, h := range ports {
		k.log.Info("stopped listening, as nothing is forwarded from there any more", "addr", h.socket.Addr())
		k.release(h.name, h.socket)
		h.socket.Close()
	}
	for _, h := range packets {
		k.drop(h.name)
		h.socket.Close()
	}
}

// A keptListener is one that the manager has, too.
type keptListener struct {
	*net.TCPListener
	keeper *Keeper
	name   string
	once   sync.Once
	closed atomic.Bool
}

// Accept is that of net.Listener, also when it is not closed yet, but does not listen
// any more.
func (l *keptListener) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err != nil && l.closed.Load() {
		err = net.ErrClosed
	}
	return c, err
}

// Close closes it here, and for good unless it is left to the next process.
func (l *keptListener) Close() error {
	l.once.Do(func() {
		l.closed.Store(true)
		l.keeper.release(l.name, l.TCPListener)
	})
	return l.TCPListener.Close()
}
