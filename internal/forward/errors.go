package forward

import (
	"errors"

	"github.com/tunneld/tunneld/internal/status"
)

// The kinds of errors that cross from Backends to whoever carries bytes.
var (
	// ErrRefused: the pod's port said no. The client is answered with RST, as
	// it would be by the port itself.
	ErrRefused = errors.New("refused by the pod")
	// ErrNotDelivered: nothing reached the app, so it is safe to pick again
	// and send the same bytes.
	ErrNotDelivered = errors.New("not delivered")
	// ErrInterrupted: the stream ended early, and what the app has seen of it is
	// not known.
	ErrInterrupted = errors.New("interrupted")
	// ErrUnavailable: there was nothing to carry the connection to, and the
	// hold ran out or waiting would not help.
	ErrUnavailable = errors.New("unavailable")
	// ErrPortUnknown: a Pick was for port 0, as that of a workload whose ports
	// nobody knew, and by now they are known. It is ErrUnavailable, too.
	ErrPortUnknown = errors.New("the port was not known")
)

// An Error says which of the kinds above it is, and what a person needs to
// know: the state of the target, the cause, and what to do about it.
type Error struct {
	Kind error
	status.Condition
	Err error // what went wrong underneath; may be nil
}

func (e *Error) Error() string {
	switch {
	case e.Cause != "":
		return e.Cause
	case e.Err != nil:
		return e.Err.Error()
	}
	return e.Kind.Error()
}

// Unwrap makes errors.Is find both the kind and what is underneath.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}
