//go:build !linux

package forward

import "net"

// isGone is not known here.
func isGone(*net.TCPConn) bool { return false }

// isReset is not known here.
func isReset(*net.TCPConn) bool { return false }
