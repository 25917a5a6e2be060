package portforward

import (
	"errors"
	"strings"
)

var (
	// ErrRefused: the port of the pod refused the connection.
	ErrRefused = errors.New("connection refused by the pod")
	// ErrPodGone: there is no such pod any more, so the app was not reached.
	ErrPodGone = errors.New("the pod is gone")
	// ErrLinkDead: the upgraded connection stopped answering, or ended under a
	// live stream. What the app has seen is not known.
	ErrLinkDead = errors.New("the connection to the pod was lost")
	// ErrUnsent: no frame of the lease was written, and none will be. It comes
	// with ErrLinkDead.
	ErrUnsent = errors.New("nothing was sent")
	// ErrBusy: the pod has as many connections as it may have, and no place became
	// free in time. It was not reached.
	ErrBusy = errors.New("too many connections")
	// ErrTooSlow: what came for a lease that shares an upgraded connection was not
	// read in time, so that lease was cut.
	ErrTooSlow = errors.New("read too slowly for a shared connection")
	// ErrClosed: the pool or the lease was closed by its owner.
	ErrClosed = errors.New("closed")
)

// A StreamError is what the node's container runtime said on the error stream
// of one connection. It Is ErrRefused or ErrPodGone where its text is known to
// mean that.
type StreamError struct {
	Text string
}

func (e *StreamError) Error() string { return e.Text }

func (e *StreamError) Is(target error) bool { return target == classify(e.Text) }

// classify is the one place that reads an error's text: the error stream
// carries nothing else, and its wording is the runtime's own
// (kubernetes/kubernetes#113568). The phrases are those of containerd and
// CRI-O.
func classify(text string) error {
	for _, phrase := range []string{
		"network namespace for sandbox",   // containerd: "... is closed"
		"failed to find sandbox",          // containerd
		"failed to get network namespace", // CRI-O
		"sandbox is not running",          // containerd
		"is not running",                  // CRI-O: "sandbox ID is not running"
		"could not find sandbox",          // CRI-O
		"no such file or directory",       // CRI-O: the namespace's file is gone
	} {
		if strings.Contains(text, phrase) && !strings.Contains(text, "connection refused") {
			return ErrPodGone
		}
	}
	if strings.Contains(text, "connection refused") {
		return ErrRefused
	}
	return nil
}
