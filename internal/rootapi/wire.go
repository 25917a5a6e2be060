// Package rootapi is how the daemon, which has no privileges, has the few things
// done that take them: the protocol of tunneld-helper, its client, and its server
// with the rules of what may be asked.
//
// A connection carries one request and one response, both JSON; the end of the
// request is the end of what the client sends. With a response to "listen" comes
// the listening socket (SCM_RIGHTS).
package rootapi

import (
	"net/netip"

	"github.com/tunneld/tunneld/internal/osdns"
)

// The verbs.
const (
	verbClaim   = "claim"   // make the system ask Server for exactly Names
	verbRelease = "release" // ... for none
	verbListen  = "listen"  // listen on Listen, TCP, and pass the socket
	verbAddress = "address" // make Address one of this machine's (macOS)
)

const (
	// maxRequest has room for as many names as may be claimed, of any length.
	maxRequest = 2 << 20
	// maxResponse has room for all of them, if they are refused.
	maxResponse = 4 << 20
)

type request struct {
	Verb    string         `json:"verb"`
	Server  netip.AddrPort `json:"server,omitzero"`
	Names   []osdns.Name   `json:"names,omitempty"`
	Skip    []string       `json:"skip,omitempty"`
	Listen  netip.AddrPort `json:"listen,omitzero"`
	Address netip.Addr     `json:"address,omitzero"`
}

type response struct {
	// Error is why it was not done; empty if it was. Refused says that it will
	// not be done however often it is asked for: the rules do not allow it.
	Error   string `json:"error,omitempty"`
	Refused bool   `json:"refused,omitempty"`
	// RefusedNames are those of the claim's that the rules do not allow.
	RefusedNames []string `json:"refusedNames,omitempty"`
	// Errno is the system's number for the error, if it has one.
	Errno   int           `json:"errno,omitempty"`
	Outcome osdns.Outcome `json:"outcome,omitzero"`
}
