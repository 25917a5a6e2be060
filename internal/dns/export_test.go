package dns

import (
	"os"
	"strings"
	"testing"
)

// Reply is the packet path, without a socket.
var Reply = (*Server).reply

// UDPSize is what a UDP socket carries.
const UDPSize = ednsSize

// Find looks a name up as the packet path does, and returns whether it exists
// and the apex that it is under, empty if none.
func (z *Zone) Find(name string) (exists bool, apex string) {
	n, at := z.find(strings.ToLower(name))
	if at < 0 {
		return false, ""
	}
	return n != nil, name[at:]
}

// Files are duplicates of both sockets.
func Files(t *testing.T, l *Listeners) (udp, tcp *os.File) {
	t.Helper()
	udp, err := l.udp.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	if tcp, err = l.tcp.File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	return udp, tcp
}
