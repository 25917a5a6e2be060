// Package sockdiag asks the kernel who is at the other end of a TCP connection that
// stays within this machine.
package sockdiag

import "errors"

// A Peer is the socket at the other end.
type Peer struct {
	// UID is the user who opened it. It means something only if it is Owned: of a socket
	// that no process has, Linux may say 0.
	UID uint32
	// Owned is false if no process has it any more: its end is only TCP's last exchange,
	// or its TIME_WAIT.
	Owned bool
}

// ErrUnknown says that the peer was not found. It says nothing about whether there
// is one: it may be behind NAT, bound to an interface (SO_BINDTODEVICE), or on another
// machine, the system may be one that cannot be asked.
var ErrUnknown = errors.New("the system does not know the socket at the other end")
