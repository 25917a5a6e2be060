package rootapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/osdns"
)

// patience is longer than the server takes for any request, undoing included.
const patience = 60 * time.Second

var (
	// ErrNotInstalled: there is no helper on this machine for this user.
	ErrNotInstalled = errors.New("tunneld-helper is not installed")
	// ErrRefused: the helper's rules do not allow it.
	ErrRefused = errors.New("refused by tunneld-helper")
)

// A Client asks the helper. The zero value asks the one that is installed for
// this user. Its methods may be called concurrently. Their errors may be
// ErrNotInstalled, or a *Refusal, which Is ErrRefused.
type Client struct {
	// Socket is where the helper listens; empty means the usual place, where
	// only one of root's is trusted.
	Socket string
}

// Claim makes the system ask server for exactly these names, and tells how; the
// rungs in skip are not taken. With an error, the outcome may tell why each rung
// was passed.
func (c *Client) Claim(ctx context.Context, server netip.AddrPort, names []osdns.Name, skip []string) (osdns.Outcome, error) {
	resp, err := c.do(ctx, &request{Verb: verbClaim, Server: server, Names: names, Skip: skip})
	return resp.Outcome, err
}

// Release takes back what Claim did.
func (c *Client) Release(ctx context.Context) error {
	_, err := c.do(ctx, &request{Verb: verbRelease})
	return err
}

// Listen listens on a TCP port that this user may not have. Its error may be the
// system's, such as syscall.EADDRINUSE.
func (c *Client) Listen(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	_, passed, err := c.call(ctx, &request{Verb: verbListen, Listen: at})
	if err != nil {
		return nil, err
	}
	if passed == nil {
		return nil, errors.New("tunneld-helper has passed no socket")
	}
	defer passed.Close()
	l, err := net.FileListener(passed)
	if err != nil {
		return nil, fmt.Errorf("what tunneld-helper has passed: %w", err)
	}
	if l.Addr().String() != at.String() {
		l.Close()
		return nil, fmt.Errorf("tunneld-helper has passed a socket of %v, not of %v", l.Addr(), at)
	}
	return l, nil
}

// AddAddress makes a loopback address one of this machine's, where not all are.
func (c *Client) AddAddress(ctx context.Context, addr netip.Addr) error {
	_, err := c.do(ctx, &request{Verb: verbAddress, Address: addr})
	return err
}

// do is call for what comes without a descriptor.
func (c *Client) do(ctx context.Context, r *request) (response, error) {
	resp, passed, err := c.call(ctx, r)
	if passed != nil {
		passed.Close()
	}
	return resp, err
}

// call asks, and makes what the helper says an error. A descriptor is the
// caller's to close, and there is none with an error.
func (c *Client) call(ctx context.Context, r *request) (response, *os.File, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, passed, err := c.exchange(limited, r)
	switch {
	case err != nil && ctx.Err() != nil:
		err = ctx.Err()
	case err != nil && limited.Err() != nil:
		err = fmt.Errorf("tunneld-helper has not answered for %v", patience)
	case err != nil:
	case resp.Refused:
		err = &Refusal{Reason: resp.Error, Names: resp.RefusedNames}
	case resp.Error != "":
		err = &failure{resp.Error, syscall.Errno(resp.Errno)}
	}
	if err != nil && passed != nil {
		passed.Close()
		passed = nil
	}
	return resp, passed, err
}

// A failure is what the helper could not do.
type failure struct {
	text  string
	errno syscall.Errno // 0: none
}

func (f *failure) Error() string { return "tunneld-helper: " + f.text }

func (f *failure) Unwrap() error {
	if f.errno == 0 {
		return nil
	}
	return f.errno
}
