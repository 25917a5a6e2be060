//go:build linux || darwin

package netwatch

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// hear calls event now, and for each message that a socket of the kernel's brings,
// until ctx is done.
func hear(ctx context.Context, socket *os.File, event func()) error {
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	event() // what has changed until now
	for message := make([]byte, 4096); ; {
		_, err := socket.Read(message)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // that is too many at once
			return fmt.Errorf("%s socket: %w", socket.Name(), err)
		}
		event()
	}
}
