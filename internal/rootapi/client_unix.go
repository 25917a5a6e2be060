//go:build unix

package rootapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// DefaultSocket is where the helper of a user listens.
func DefaultSocket(uid int) string {
	return socketPrefix + strconv.Itoa(uid) + ".sock"
}

// exchange sends a request and reads the answer.
func (c *Client) exchange(ctx context.Context, r *request) (response, *os.File, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return response{}, nil, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return response{}, nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	// A helper that does not want to read all of it may have answered even so.
	_, writeErr := conn.Write(data)
	if writeErr == nil {
		writeErr = conn.CloseWrite()
	}
	resp, passed, err := receive(conn)
	if err != nil {
		return resp, nil, fmt.Errorf("tunneld-helper has not answered: %w", errors.Join(writeErr, err))
	}
	return resp, passed, nil
}

// dial connects to the helper.
func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	if c.Socket != "" {
		return dialHelper(ctx, c.Socket, false) // whoever names one knows whose it is
	}
	return dialHelper(ctx, DefaultSocket(os.Geteuid()), true)
}

func dialHelper(ctx context.Context, path string, onlyRoot bool) (*net.UnixConn, error) {
	var d net.Dialer
	dialled, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nobody answers on %s", ErrNotInstalled, path)
	case err != nil:
		return nil, fmt.Errorf("tunneld-helper: %w", err)
	}
	conn := dialled.(*net.UnixConn)
	if !onlyRoot {
		return conn, nil
	}
	uid, err := peerUID(conn)
	if err == nil && uid != 0 {
		err = fmt.Errorf("user %d listens there, not root", uid)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s is not to be trusted: %w", path, err)
	}
	return conn, nil
}
