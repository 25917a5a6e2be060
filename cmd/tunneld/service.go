package main

import (
	"context"
	"errors"
	"os"
	"runtime"

	"github.com/kardianos/service"
)

// runService does what run does as the service that the system's manager has started,
// until ctx is done, the manager stops it, or run ends by itself.
//
// That takes the library on Windows, where a service is started and stopped by calls.
// Elsewhere the manager sends signals, which run hears itself: there the library only
// starts run and waits. Units, which it makes as well, are our own.
func runService(ctx context.Context, run func(context.Context) error) error {
	if runtime.GOOS == "windows" && service.Interactive() {
		return run(ctx) // a logon task; the library would wait for ctrl-C whatever run does
	}
	p := newRunner(ctx, run)
	if runtime.GOOS == "windows" {
		// The library would wait for the order to stop, and Windows starts a service
		// again only if it goes without a word.
		p.gone = func() { os.Exit(1) }
	}
	s, err := service.New(p, &service.Config{
		Name:   "tunneld",
		Option: service.KeyValue{"RunWait": p.wait}, // not for signals, and also for a daemon that fails
	})
	if errors.Is(err, service.ErrNoServiceSystemDetected) {
		return run(ctx)
	}
	if err != nil {
		return err
	}
	if err := s.Run(); err != nil {
		return err
	}
	return p.err
}

// A runner is run between Start and Stop.
type runner struct {
	run   func(context.Context) error
	ctx   context.Context
	stop  context.CancelFunc
	gone  func() // called if run ends by itself; nil: nobody has to know
	ended chan struct{}
	err   error // once ended is closed
}

func newRunner(ctx context.Context, run func(context.Context) error) *runner {
	p := &runner{run: run, ended: make(chan struct{})}
	p.ctx, p.stop = context.WithCancel(ctx)
	return p
}

// Start implements service.Interface. It does not wait: until it returns, Windows takes
// the service for one that hangs.
func (p *runner) Start(service.Service) error {
	go func() {
		defer close(p.ended)
		p.err = p.run(p.ctx)
		if p.ctx.Err() == nil && p.gone != nil {
			p.gone()
		}
	}()
	return nil
}

// Stop implements service.Interface. It waits, and so gives run its time to drain.
func (p *runner) Stop(service.Service) error {
	p.stop()
	p.wait()
	return nil
}

func (p *runner) wait() { <-p.ended }
