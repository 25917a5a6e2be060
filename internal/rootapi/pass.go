//go:build unix

package rootapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// send writes the response, and passes the socket of the listener along if there
// is one.
func send(c *net.UnixConn, resp response, listener net.Listener) error {
	data, err := json.Marshal(resp)
	if err != nil {
		return err
	}
	if listener == nil {
		_, err := c.Write(data)
		return err
	}
	// The descriptor is used as it is. File would make a copy, and what is made
	// blocking there is so here and for the client, too.
	socket, ok := listener.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a %T cannot be passed", listener)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, _, sent = c.WriteMsgUnix(data, syscall.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sent)
}

// receive reads a response to its end, and the descriptor that came along, if
// one did, which is then the caller's to close.
func receive(c *net.UnixConn) (resp response, passed *os.File, err error) {
	defer func() {
		if err != nil && passed != nil {
			passed.Close()
			passed = nil
		}
	}()
	var data []byte
	buf := make([]byte, 64<<10)
	oob := make([]byte, syscall.CmsgSpace(4)) // one descriptor: the kernel closes what does not fit
	for {
		n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		n, oobn = max(n, 0), max(oobn, 0) // -1 with some errors
		files, fdErr := descriptors(oob[:oobn])
		for _, f := range files {
			if passed != nil {
				passed.Close()
			}
			passed = f
		}
		data = append(data, buf[:n]...)
		switch {
		case fdErr != nil:
			return resp, passed, fdErr
		case len(data) > maxResponse:
			return resp, passed, errors.New("the answer is too long")
		case err == nil && n > 0:
			continue
		}
		// Whatever ended it: if the answer is whole, it counts. A server that
		// has not read all of the request ends with a reset.
		if decodeErr := json.Unmarshal(data, &resp); decodeErr == nil {
			return resp, passed, nil
		} else if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("no whole answer: %w", decodeErr)
		}
		return resp, passed, err
	}
}

// descriptors are those in a control message. They are close-on-exec already,
// which net sees to.
func descriptors(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			continue // something else
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}
