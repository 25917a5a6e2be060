package netwatch

import (
	"context"
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
	return hear(ctx, socket, event)
}
