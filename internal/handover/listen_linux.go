package handover

import (
	"errors"
	"net"
	"syscall"
)

// accepts is nil if connections can wait in a socket.
func accepts(l net.Listener) error {
	var listens int
	err := control(l, func(fd int) (err error) {
		listens, err = syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		return err
	})
	if err == nil && listens == 0 {
		err = errors.New("it does not listen")
	}
	return err
}

// stopListening refuses whoever comes from now on, and resets who waits. It does so
// for all who have the socket, and its port may be had again at once.
func stopListening(l net.Listener) error {
	return control(l, func(fd int) error { return syscall.Shutdown(fd, syscall.SHUT_RDWR) })
}

func control(l net.Listener, do func(fd int) error) error {
	socket, ok := l.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	err = raw.Control(func(fd uintptr) { done = do(int(fd)) })
	return errors.Join(err, done)
}
