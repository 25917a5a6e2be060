// Package systemd is what a service says to its service manager, and what it gets
// from it: readiness, signs of life, and sockets that outlive the process. The
// protocol is sd_notify(3) and sd_listen_fds(3), without systemd's library.
//
// It makes and installs no unit, and asks the manager for nothing. Where there is
// no manager, as on systems other than Linux, everything does nothing.
package systemd

import (
	"net"
	"os"
	"syscall"
	"time"
)

// A Manager is who runs this process as a service. All methods may be called on
// nil, which is nobody, and concurrently.
type Manager struct {
	path     string
	room     int // of the store
	watchdog time.Duration
	sockets  []Socket
}

// A Socket is one that an earlier process has had kept.
type Socket struct {
	Name string // under which it is kept
	// File is the socket, for whoever takes it to close. Others are not inherited.
	File *os.File
}

// Notification is what may be told to the manager.
type Notification string

const (
	Ready    Notification = "READY=1" // started, or reloaded
	Stopping Notification = "STOPPING=1"
	// Alive puts the watchdog off.
	Alive Notification = "WATCHDOG=1"
)

// Status tells people in a line how things are.
func Status(line string) Notification { return Notification("STATUS=" + line) }

// Watchdog is how long the manager waits for the next sign of life before it kills
// the process; 0 means that it does not.
func (m *Manager) Watchdog() time.Duration {
	if m == nil {
		return 0
	}
	return m.watchdog
}

// Room is how many sockets the manager keeps for the next process; 0 means none. It
// does not tell when it refuses one.
func (m *Manager) Room() int {
	if m == nil {
		return 0
	}
	return m.room
}

// Sockets are those that were handed over. They are the caller's, so it is called
// once.
func (m *Manager) Sockets() []Socket {
	if m == nil {
		return nil
	}
	s := m.sockets
	m.sockets = nil
	return s
}

// NameOf makes the name to keep a socket under from its network and its address:
// such names have no colon.
func NameOf(addr net.Addr) string {
	name := []byte(addr.Network() + "-" + addr.String())
	for i, c := range name {
		if c == ':' || c < ' ' || c > '~' {
			name[i] = '_'
		}
	}
	return string(name)
}

// Keep has the manager keep a socket for the next process. It does so until it is
// told to Drop the name, or nothing waits for a next process.
func (m *Manager) Keep(name string, socket syscall.Conn) error {
	if m.Room() == 0 {
		return nil
	}
	return m.keep(name, socket)
}

// Drop has the manager keep no socket of that name any more. It does not wait for
// that.
func (m *Manager) Drop(name string) error {
	if m.Room() == 0 {
		return nil
	}
	return m.Notify("FDSTOREREMOVE=1", Notification("FDNAME="+name))
}
