// Package notify tells systemd that a service has started, so that whoever
// starts it need not guess.
package notify

import (
	"net"
	"os"
)

// Ready says that the service is ready. Without a service manager it does
// nothing.
func Ready() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("READY=1"))
	return err
}
