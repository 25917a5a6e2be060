package osdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/osdns/hostsfile"
	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// A Ladder knows the ways to make this system ask us. Its methods may not be
// called concurrently: one process at a time changes the system.
type Ladder struct {
	System machine.System
	// Receipts is the directory, root's own, where what is in force is noted
	// before it is done: it survives a crash and a reboot. All may read it.
	Receipts string
	Log      *slog.Logger // nil: none

	// rungs are the ways, the best first; nil: those of this system. For tests.
	rungs []rung
}

// A rung is one way to make the system ask us.
type rung interface {
	// name is what the rung is called in receipts, and to people.
	name() string
	// wildcards reports whether it can carry names below a name.
	wildcards() bool
	// fits reports whether the system has what the rung needs and is set up
	// such that it can work for the claim, and says what was found.
	fits(ctx context.Context, c Claim) (why string, ok bool)
	// apply makes exactly the claim so. It is idempotent.
	apply(ctx context.Context, c Claim) error
	// remove undoes all that is marked as the owner's. It is idempotent, and
	// does not go by receipts: what is there counts.
	remove(ctx context.Context, owner string) error
}

// How long one rung may take to look, and to make or undo a change: if a service of
// the system hangs, there must be time left for the rungs after it. undoTime is for
// undoing on all rungs what a context that is over has begun.
const (
	lookTime   = 3 * time.Second
	changeTime = 6 * time.Second
	undoTime   = 20 * time.Second
)

// Claim makes the system ask us for exactly the claim's names, by the first rung
// that fits and is not among skip, and undoes what other rungs of the same owner
// have in force. It is idempotent, and mends what somebody else has broken. An
// error means that no rung could do it, and that nothing is in force, unless it
// says that something could not be undone; Passed is complete then, too. But a claim
// that must not be made, such as one of names that are taken (*TakenError), changes
// nothing.
//
// A claim of no names is a Release.
func (l *Ladder) Claim(ctx context.Context, c Claim, skip []string) (Outcome, error) {
	if err := c.check(); err != nil {
		return Outcome{}, err
	}
	if len(c.Names) == 0 {
		return Outcome{}, l.Release(ctx, c.Owner)
	}
	if err := l.checkTaken(c); err != nil {
		return Outcome{}, err
	}
	noted := l.read(c.Owner)
	var o Outcome
	for _, r := range l.all() {
		why, ok := l.try(ctx, c, r, &noted, skip)
		if !ok {
			l.log().Debug("rung passed", "owner", c.Owner, "rung", r.name(), "why", why)
			o.Passed = append(o.Passed, Passed{r.name(), why})
			continue
		}
		o.Rung, o.Why, o.Wildcards = r.name(), why, r.wildcards()
		if err := l.leave(ctx, c.Owner, &noted, r.name()); err != nil {
			// It stays noted, and the next claim tries again.
			l.log().Warn("an earlier way could not be undone", "owner", c.Owner, "err", err)
		}
		return o, nil
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	err := errors.Join(ctx.Err(), o.none(), l.leave(after, c.Owner, &noted, ""))
	return o, err
}

// none is the error for a claim that no rung could carry.
func (o Outcome) none() error {
	why := make([]string, len(o.Passed))
	for i, p := range o.Passed {
		why[i] = p.Rung + ": " + p.Why
	}
	return fmt.Errorf("there is no way to make this system resolve the names: %s", strings.Join(why, "; "))
}

// try brings the claim into force by that rung, or says why not.
func (l *Ladder) try(ctx context.Context, c Claim, r rung, noted *receipt, skip []string) (why string, ok bool) {
	if err := ctx.Err(); err != nil {
		return err.Error(), false
	}
	if slices.Contains(skip, r.name()) {
		return "left out as asked for", false
	}
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if why, ok = r.fits(look, c); !ok {
		return why, false
	}
	if err := l.note(c, noted, r); err != nil {
		return err.Error(), false
	}
	change, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	err := r.apply(change, c)
	if err == nil {
		return why, true
	}
	// The next rung shall not meet half of this one. If ctx is over, there is none, and
	// Claim undoes all.
	return errors.Join(err, undo(ctx, r, c.Owner)).Error(), false
}

func undo(ctx context.Context, r rung, owner string) error {
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	return r.remove(ctx, owner)
}

// Release undoes what is in force for the owner, whatever state a crash has left
// it in. It is idempotent.
func (l *Ladder) Release(ctx context.Context, owner string) error {
	if !hostsfile.IsOwner(owner) {
		return fmt.Errorf("owner %q is not a user's id", owner)
	}
	noted := l.read(owner)
	return l.leave(ctx, owner, &noted, "")
}

// leave undoes what is noted, but for the rung that is kept (empty: none), and notes
// what is left then.
func (l *Ladder) leave(ctx context.Context, owner string, noted *receipt, kept string) error {
	var errs []error
	left := receipt{Names: noted.Names, Files: noted.Files}
	for _, r := range l.all() {
		if r.name() == kept {
			left.Rungs = append(left.Rungs, r.name())
			continue
		}
		if !noted.has(r) {
			continue
		}
		if err := undo(ctx, r, owner); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", r.name(), err))
			left.Rungs = append(left.Rungs, r.name())
		}
	}
	if len(left.Rungs) > 0 {
		return errors.Join(append(errs, l.write(owner, noted, left))...)
	}
	l.compare(noted.Files)
	return l.discard(owner)
}

func (l *Ladder) all() []rung {
	if l.rungs == nil {
		l.rungs = systemRungs(l.System, l.Receipts, l.log())
	}
	return l.rungs
}

func (l *Ladder) log() *slog.Logger {
	if l.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l.Log
}
