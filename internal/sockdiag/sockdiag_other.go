//go:build !linux

package sockdiag

import "net"

// Of is ErrUnknown: this system cannot be asked.
func Of(*net.TCPConn) (Peer, error) { return Peer{}, ErrUnknown }
