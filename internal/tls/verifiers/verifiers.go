// Package verifiers asks the TLS clients that are installed on this machine whether
// they trust a CA, by a real handshake of each, started as its user would start
// it.
package verifiers

import (
	"context"
	"crypto/tls"
	"errors"
)

// A Verdict is what a client makes of the CA.
type Verdict string

const (
	Trusts  Verdict = "trusts"
	Refuses Verdict = "refuses"
	// Careless is a client that accepts certificates of anybody, so that nothing is
	// known of ours.
	Careless Verdict = "accepts any certificate"
	// Absent is a client that is not installed.
	Absent Verdict = "not installed"
	// Unknown is a client that could not be asked.
	Unknown Verdict = "could not be asked"
)

// A Result is what was found about one client.
type Result struct {
	// Family is what kind of client it is: see Families.
	Family string `json:"family"`
	// Client is the very one, where a family has several: "Firefox (snap)".
	Client string `json:"client"`
	// Program is the path of what was started; empty if nothing was.
	Program string  `json:"program,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Evidence is what it said, in one line, whatever the verdict.
	Evidence string `json:"evidence,omitempty"`
	// Fix says what to do if it does not trust the CA, as a command where one helps.
	Fix string `json:"fix,omitempty"`
}

// Families are the kinds of clients, in the order in which they are reported.
var Families = []string{"curl", "OpenSSL", "Go", "Python", "Node", "Java", "Firefox", "Chromium"}

// A Checker asks clients. The zero value asks all of them, in this process's
// environment.
type Checker struct {
	// Only are the families to ask; none means all.
	Only []string
}

// Check asks each client with a server of its own on 127.0.0.1 that has this
// certificate, which must be for that address, and for comparison with one whose
// certificate is nobody's. Clients are asked side by side where that changes
// nothing. The error is for what keeps everything from being asked.
func (c *Checker) Check(ctx context.Context, cert tls.Certificate) ([]Result, error) {
	return nil, errors.New("not written yet")
}
