// Package setup puts tunneld into a machine, and takes it out again: a plan of
// changes, each of which is noted before it is made, so that it can be undone
// however far the installation came, and by another version of this program.
package setup

import "context"

// A Kind says what a Change is made to.
type Kind string

// The kinds of changes. What they have in common: to make one again changes
// nothing, and it is undone only while it is still what was made.
const (
	Directory Kind = "directory" // made if it is missing, removed if it is empty
	File      Kind = "file"
	Link      Kind = "link" // symbolic
	Service   Kind = "service"
	Home      Kind = "home"  // what the daemon keeps for its user
	Trust     Kind = "trust" // the local CA in the trust stores
)

// A Change is one change to the machine. It is plain data, and is what a receipt
// holds.
type Change struct {
	// Step is the part of the plan that it belongs to, by which it may be left out.
	Step string `json:"step"`
	Kind Kind   `json:"kind"`
	// Path is of a directory, file or link, and absolute; of a service it is the
	// name that its manager knows it by.
	Path string `json:"path,omitempty"`
	// Mode is of a file or directory: permission bits.
	Mode uint32 `json:"mode,omitempty"`
	// SHA256 of a file's content, in hexadecimal.
	SHA256 string `json:"sha256,omitempty"`
	// Target is where a link leads.
	Target string `json:"target,omitempty"`
	// Why says in a few words what it is for, and Undo how it is undone.
	Why  string `json:"why,omitempty"`
	Undo string `json:"undo,omitempty"`
}

// Services is a machine's manager of services: systemd, launchd, or Windows' task
// scheduler.
type Services interface {
	// State tells what is known of a service. One that is not there is no error.
	State(ctx context.Context, name string) (ServiceState, error)
	// Enable has it started now, and from now on with the machine (or at the
	// user's login, where that is what the manager does). Its definition is in
	// place already.
	Enable(ctx context.Context, name string) error
	// Disable stops it and undoes Enable, while its definition is still there. To
	// disable what is not there is no error.
	Disable(ctx context.Context, name string) error
	// Restart has it run what is installed now.
	Restart(ctx context.Context, name string) error
}

// ServiceState is what a manager knows of a service.
type ServiceState struct {
	Enabled bool // it starts by itself
	Active  bool // it runs, or is listened for
}
