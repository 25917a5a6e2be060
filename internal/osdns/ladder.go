package osdns

import (
	"context"
	"log/slog"
)

// A Ladder knows the ways to make this system ask us. Its methods may not be
// called concurrently: one process at a time changes the system.
type Ladder struct {
	System System
	// Receipts is the directory, root's own, where what is in force is noted
	// before it is done: it survives a crash and a reboot.
	Receipts string
	Log      *slog.Logger // nil: none
}

// Claim makes the system ask us for exactly the claim's names, by the first rung
// that fits and is not among skip, and undoes what other rungs of the same owner
// have in force. It is idempotent, and mends what somebody else has broken. An
// error means that no rung could do it, and that nothing is in force.
func (l *Ladder) Claim(ctx context.Context, c Claim, skip []string) (Outcome, error) {
	panic("to be written")
}

// Release undoes what is in force for the owner, whatever state a crash has left
// it in. It is idempotent.
func (l *Ladder) Release(ctx context.Context, owner string) error {
	panic("to be written")
}

// A rung is one way to make the system ask us.
type rung interface {
	// name is what the rung is called in receipts, and to people.
	name() string
	// wildcards reports whether it can carry names below a name.
	wildcards() bool
	// fits reports whether the system has what the rung needs and is set up
	// such that it can work, and says what was found.
	fits(ctx context.Context) (why string, ok bool)
	// apply makes exactly the claim so. It is idempotent.
	apply(ctx context.Context, c Claim) error
	// remove undoes all that is marked as the owner's. It is idempotent, and
	// does not go by receipts alone: what is there counts.
	remove(ctx context.Context, owner string) error
}
