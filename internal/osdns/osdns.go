// Package osdns makes the operating system ask us for our names, and for no
// other, and takes that back without a trace.
//
// There are several ways, the rungs of a Ladder, from the one that a system was
// made for down to the hosts file, which works everywhere. Each claims exactly
// the names that it is given: never a domain above them, which may be somebody
// else's. What a rung changes is marked as ours, so that it can be found and
// undone after a crash, and what others have changed meanwhile stays.
//
// Whether a rung works is not decided here: whoever claims names looks one up
// as all programs do (package lookup), and asks for the next rung if it is not
// found.
package osdns

import "net/netip"

// A Name is one name that the operating system shall resolve through us.
type Name struct {
	// Name is fully qualified, in lower case, without the final dot.
	Name string `json:"name"`
	// Addrs are what it leads to: the hosts file needs them.
	Addrs []netip.Addr `json:"addrs"`
	// Wildcard asks for what is below the name, too, where the rung can carry
	// it.
	Wildcard bool `json:"wildcard,omitempty"`
}

// A Claim is what one owner wants of the operating system. It replaces what the
// same owner had claimed before.
type Claim struct {
	// Owner is a user's id as decimal digits. Two owners do not meet.
	Owner string
	// Server is where our names are answered, on UDP and TCP.
	Server netip.AddrPort
	Names  []Name
}

// An Outcome tells how a claim was brought into force.
type Outcome struct {
	// Rung is the name of the rung that carries the claim.
	Rung string `json:"rung"`
	// Why says what was found that made it the one, for people.
	Why string `json:"why"`
	// Wildcards says that it carries wildcards.
	Wildcards bool `json:"wildcards"`
	// Passed are the rungs before it, and why none of them is it.
	Passed []Passed `json:"passed,omitempty"`
}

// Passed is a rung that was not taken.
type Passed struct {
	Rung string `json:"rung"`
	Why  string `json:"why"`
}
