package netwatch

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// tick is how often the clocks are read.
	tick = 2 * time.Second
	// leap is how far the clocks must be apart for the machine to have slept.
	// A clock that is set looks the same, and does no harm.
	leap = 2 * time.Second
	// standstill is how late a tick must be for the process to have been
	// stopped. A busy machine is late, too, but not by that much.
	standstill = 5 * time.Second
	// settle is for how long changes are gathered, which come in bursts.
	settle = 250 * time.Millisecond
	// pause is the least time between two changes of the network that are told.
	pause = 3 * time.Second
	// pollEvery is how often the network is looked at where the system does not
	// say when it changes.
	pollEvery = 5 * time.Second
)

// A Watcher watches the machine that it runs on. Its fields may not change
// after Run.
type Watcher struct {
	// Changed is called from Run each time, with what has happened, for logs. It
	// should not block.
	Changed func(what string)
	Log     *slog.Logger // nil: none

	system system // of tests; the real one where it is zero
}

// A system is what the operating system tells. In tests some of it is made up.
type system struct {
	clocks func() clocks
	// network describes what a connection to another machine depends on. Two
	// descriptions are equal if nothing of that has changed.
	network func() (string, error)
	// listen calls event whenever the network may have changed, until ctx is
	// done or it cannot.
	listen func(ctx context.Context, event func()) error
}

// Run watches until ctx is done, which is no error.
func (w *Watcher) Run(ctx context.Context) error {
	sys := w.system
	if sys.clocks == nil {
		sys = system{readClocks, describe, listen}
	}
	ctx, cancel := context.WithCancel(ctx)
	var listening sync.WaitGroup
	defer listening.Wait()
	defer cancel()
	events := make(chan struct{}, 1)
	event := func() {
		select {
		case events <- struct{}{}:
		default:
		}
	}

	network, err := sys.network()
	if err != nil {
		w.log().Warn("changes of the network are not noticed", "err", err)
	} else {
		listening.Go(func() { w.listen(ctx, sys.listen, event) })
	}
	last := sys.clocks()
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	var look, tell <-chan time.Time // nil: nothing is due
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
			now := sys.clocks()
			if d, was := now.missed(last); was {
				w.log().Info("the machine was asleep, or this process stopped, or the clock was set", "for", d.Round(time.Second))
				w.Changed("wake")
				told, tell = time.Now(), nil
			}
			last = now
		case <-events:
			if look == nil {
				look = time.After(settle)
			}
		case <-look:
			look = nil
			now, err := sys.network()
			if err != nil {
				w.log().Debug("the network cannot be looked at", "err", err)
				continue
			}
			if now != network && tell == nil {
				tell = time.After(pause - min(time.Since(told), pause))
			}
			network = now
		case <-tell:
			w.log().Info("the network has changed")
			w.Changed("network")
			told, tell = time.Now(), nil
		}
	}
}

// listen calls event whenever the network may have changed, until ctx is done.
func (w *Watcher) listen(ctx context.Context, listen func(context.Context, func()) error, event func()) {
	err := listen(ctx, event)
	if ctx.Err() != nil {
		return
	}
	w.log().Warn("the system does not say when the network changes, so it is looked at from time to time", "every", pollEvery, "err", err)
	poll(ctx, event)
}

// poll calls event from time to time, until ctx is done.
func poll(ctx context.Context, event func()) error {
	every := time.NewTicker(pollEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			event()
		}
	}
}

func (w *Watcher) log() *slog.Logger {
	if w.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return w.Log
}

// A clocks is what clocks say at one time.
type clocks struct {
	now    time.Time     // by the monotonic clock
	day    time.Time     // the time of day, without it
	asleep time.Duration // in which the monotonic clock stood, where the kernel counts that
}

// missed reports whether time has passed since before that this process could
// not see pass, a tick or so later.
func (c clocks) missed(before clocks) (time.Duration, bool) {
	ran := c.now.Sub(before.now)
	set := c.day.Sub(before.day) - ran
	switch slept, late := max(c.asleep-before.asleep, set), ran-tick; {
	case slept >= leap:
		return slept, true
	case late >= standstill:
		return late, true
	}
	return 0, false
}
