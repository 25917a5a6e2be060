package environ

import (
	"net/url"
	"path/filepath"
	"strings"
)

// A Socket is a unix socket that a variable leads to.
type Socket struct {
	Variable, Path string
}

// Sockets are those of the session that captured it: with the session they go, and
// the next one has others.
func (c Capture) Sockets() []Socket {
	var all []Socket
	if path := c.Variables["SSH_AUTH_SOCK"]; filepath.IsAbs(path) {
		all = append(all, Socket{"SSH_AUTH_SOCK", path})
	}
	// The first of several addresses is the one that is tried first, and the others
	// are there in case that it is of a kind that the client does not know.
	first, _, _ := strings.Cut(c.Variables["DBUS_SESSION_BUS_ADDRESS"], ";")
	if parts, ok := strings.CutPrefix(first, "unix:"); ok {
		for part := range strings.SplitSeq(parts, ",") {
			key, value, _ := strings.Cut(part, "=")
			if path, err := url.PathUnescape(value); err == nil && key == "path" && filepath.IsAbs(path) {
				all = append(all, Socket{"DBUS_SESSION_BUS_ADDRESS", path})
			}
		}
	}
	return all
}
