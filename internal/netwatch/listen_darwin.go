package netwatch

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// listen hears of all interfaces, addresses and routes.
func listen(ctx context.Context, event func()) error {
	fd, err := unix.Socket(unix.AF_ROUTE, unix.SOCK_RAW, unix.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("route socket: %w", err)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return fmt.Errorf("route socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "route")
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	event() // what has changed until now
	for message := make([]byte, 4096); ; {
		_, err := socket.Read(message)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // that is too many at once
			return fmt.Errorf("route socket: %w", err)
		}
		event()
	}
}
