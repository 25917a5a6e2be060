package helper

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/tunneld/tunneld/internal/osdns"
)

var (
	// ErrNotInstalled: there is no helper on this machine for this user.
	ErrNotInstalled = errors.New("tunneld-helper is not installed")
	// ErrRefused: the helper's rules do not allow it.
	ErrRefused = errors.New("refused by tunneld-helper")
)

// A Client asks the helper. The zero value asks the one that is installed for
// this user. Its methods may be called concurrently. Their errors may be
// ErrNotInstalled or ErrRefused.
type Client struct {
	// Socket is where the helper listens; empty means the usual place.
	Socket string
}

// Claim makes the system ask server for exactly these names, and tells how; the
// rungs in skip are not taken.
func (c *Client) Claim(ctx context.Context, server netip.AddrPort, names []osdns.Name, skip []string) (osdns.Outcome, error) {
	panic("to be written")
}

// Release takes back what Claim did.
func (c *Client) Release(ctx context.Context) error {
	panic("to be written")
}

// Listen listens on a TCP port that this user may not have.
func (c *Client) Listen(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	panic("to be written")
}

// AddAddress makes a loopback address one of this machine's, where not all are.
func (c *Client) AddAddress(ctx context.Context, addr netip.Addr) error {
	panic("to be written")
}
