// Package inflight waits for goroutines that others begin: requests,
// connections, watches.
package inflight

import "sync"

// A Group counts work that comes from outside, such as requests, and lets it
// end: unlike a sync.WaitGroup it may be entered while somebody waits, and is
// then refused. The zero value is open.
type Group struct {
	mu     sync.Mutex
	inside int
	idle   chan struct{} // made by Shut
}

// Enter reports whether the work may begin; if so, it must Leave.
func (g *Group) Enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.idle != nil {
		return false
	}
	g.inside++
	return true
}

// Leave ends what Enter began.
func (g *Group) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.idle != nil {
		close(g.idle)
	}
}

// Go does f on a goroutine of the group, and reports whether it may.
func (g *Group) Go(f func()) bool {
	if !g.Enter() {
		return false
	}
	go func() {
		defer g.Leave()
		f()
	}()
	return true
}

// Shut lets nobody in any more, and returns a channel that is closed when all
// have left. It may be called again.
func (g *Group) Shut() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.idle == nil {
		g.idle = make(chan struct{})
		if g.inside == 0 {
			close(g.idle)
		}
	}
	return g.idle
}

// A Signal wakes all who wait for it, again and again. The zero value is
// ready.
type Signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// Wait returns a channel that the next Fire closes.
func (s *Signal) Wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// Fire wakes those who wait.
func (s *Signal) Fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
