package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/handover"
	"github.com/tunneld/tunneld/internal/rootapi"
)

const (
	// bindTimeout bounds the helper's answer for a port.
	bindTimeout = 2 * time.Second
	// bindAgain is when the helper is asked again for what it could not do: what
	// cannot be bound is tried again every few seconds, and each time that would
	// start a process of root's.
	bindAgain = time.Minute
)

// A binder listens on TCP ports, with the helper's help where this user may not,
// or the machine does not have the address. It may be used concurrently.
type binder struct {
	helper Helper           // nil: none
	gate   *gate            // nil: everybody is let in
	keeper *handover.Keeper // nil: nothing is kept for a next process
	// listen is net.Listen where it is nil.
	listen func(at netip.AddrPort) (net.Listener, error)

	mu     sync.Mutex // guards the following
	failed map[netip.AddrPort]bindFailure
	silent time.Time // when the helper did not answer in time, last
}

type bindFailure struct {
	err error
	at  time.Time
}

// bind listens on a port. Its error is the system's, and says what the helper could
// not do about it.
func (b *binder) bind(at netip.AddrPort) (net.Listener, error) {
	l, err := b.open(at)
	if err != nil || b.gate == nil {
		return l, err
	}
	return b.gate.before(l), nil
}

// open takes what was handed over, or else binds it anew, and has that kept.
func (b *binder) open(at netip.AddrPort) (net.Listener, error) {
	if l := b.keeper.Take(at); l != nil {
		return l, nil
	}
	l, err := b.anew(at)
	if err != nil {
		return nil, err
	}
	return b.keeper.Keep(l), nil
}

func (b *binder) anew(at netip.AddrPort) (net.Listener, error) {
	l, err := b.tcp(at)
	if err == nil || b.helper == nil || !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, os.ErrPermission) {
		return l, err
	}
	failed := b.known(at)
	if failed == nil {
		if l, failed = b.ask(at, err); failed == nil {
			return l, nil
		}
		b.note(at, failed)
	}
	if !errors.Is(failed, rootapi.ErrNotInstalled) {
		err = fmt.Errorf("%w (%v)", err, failed)
	}
	return nil, err
}

// ask has the helper help with that error.
func (b *binder) ask(at netip.AddrPort, err error) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bindTimeout)
	defer cancel()
	if errors.Is(err, os.ErrPermission) {
		l, err := b.helper.Listen(ctx, at)
		return l, inTime(ctx, err)
	}
	if err := b.helper.AddAddress(ctx, at.Addr()); err != nil {
		return nil, inTime(ctx, err)
	}
	return b.tcp(at)
}

func (b *binder) tcp(at netip.AddrPort) (net.Listener, error) {
	if b.listen != nil {
		return b.listen(at)
	}
	// Without Multipath TCP, which nobody needs on loopback: not every Linux lets such a
	// socket stop listening.
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	return plain.Listen(context.Background(), "tcp", at.String())
}

// errSilent says that the helper takes too long.
var errSilent = fmt.Errorf("tunneld-helper has not answered for %v", bindTimeout)

func inTime(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errSilent
	}
	return err
}

// known is why the helper is not asked, if so: it has not helped there lately, or
// takes too long, as it would for the next port.
func (b *binder) known(at netip.AddrPort) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.silent) < bindAgain {
		return errSilent
	}
	if f, ok := b.failed[at]; ok && time.Since(f.at) < bindAgain {
		return f.err
	}
	return nil
}

func (b *binder) note(at netip.AddrPort, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(b.failed, func(_ netip.AddrPort, f bindFailure) bool { return now.Sub(f.at) >= bindAgain })
	switch {
	case errors.Is(err, rootapi.ErrNotInstalled): // to see that costs nothing
	case errors.Is(err, errSilent):
		b.silent = now
	default:
		if b.failed == nil {
			b.failed = make(map[netip.AddrPort]bindFailure)
		}
		b.failed[at] = bindFailure{err, now}
	}
}
